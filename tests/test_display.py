"""Objects show themselves: a line of text that says what matters, and a table in notebooks."""

import dataclasses
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet.reporting import Report
from theory import Drift, Network
from theory.display import ShortRepr

NETWORKS = [
    Network.rnn(64),
    Network.dnn(64, activation="tanh", noise=0.5),
    Network.rnn(8, shared={"recurrent": 0.7}, leak=0.5, layers=2, recurrent_gain=[1.0, 2.0]),
    Network(8, shared={"recurrent"}, scaling="standard"),
    Network.rnn(8, shared={"recurrent": Drift(3.0)}, bias_gain=0.1),
    Network.rnn(8, shared={"input": np.eye(3)}, delay=2, residual=0.5, process_noise=0.2),
]


@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_a_network_is_written_as_it_can_be_made_again(network):
    assert eval(repr(network), {"Network": Network}) == network
    assert (", noise=" in repr(network)) == (network.noise != 0.1)  # only what is not the default


def test_listed_connections_are_named():
    network = Network(8, connections=[theory.Connection("kick", "input", source=[0, None])])
    assert repr(network) == "Network(width=8, connections=['kick' reads 'input'])"
    assert "kick" in network._repr_html_()


def test_what_a_user_names_is_escaped_in_html():
    network = Network(8, activation=lambda x: x)
    assert "&lt;lambda&gt;" in network._repr_html_()
    assert "<lambda>" not in network._repr_html_()


def test_a_task_shows_its_sizes_and_what_is_asked_for_at_each_step():
    task = theory.Task(np.ones((2, 3, 4)), [[np.nan, 1.0, np.nan], [np.nan, -2.0, 5.0]])
    assert repr(task) == "Task(2 patterns, 3 steps, 4 inputs, 1 output, 3 of 6 entries supervised)"
    rows = re.findall(r"<tr><td>(\d)</td><td>1</td><td>(\d) of 2</td><td>(.*?)</td></tr>", task._repr_html_())
    assert rows == [("1", "0", "none"), ("2", "2", "-2 to 1"), ("3", "1", "5 to 5")]


def test_a_solution_shows_its_verdicts_and_every_branch():
    solution = theory.solve(Network.rnn(64), bn.tasks.chain(steps=3, signal=4.3))
    assert f"F = {solution.free_energy:.6g}, stable, converged, {len(solution.branches)} branches" in repr(solution)
    shown = solution._repr_html_()
    overlap = solution.kernel[1, 0, 2, 0] ** 2 / (solution.kernel[1, 0, 1, 0] * solution.kernel[2, 0, 2, 0])
    for branch in solution.branches:
        assert f"<td>{branch.free_energy:.6g}</td><td>{'yes' if branch.stable else 'NO'}</td>" in shown
    assert f"<td>{overlap:.4f}</td>" in shown
    doubtful = repr(theory.solution.replace(solution, stable=False, converged=False, branches=()))
    assert "NOT STABLE, NOT CONVERGED)" in doubtful


def test_a_phase_diagram_shows_its_axes_and_its_figure():
    diagram = bn.phase_diagram(
        Network.rnn(64), bn.tasks.chain(3, 1.0), x=("factor", [2.0, 4.0]), y=("noise", [0.1, 0.2])
    )
    assert repr(diagram).startswith("PhaseDiagram(noise (2) x factor (2) of Network.rnn(width=64); theory: 4 of 4")
    assert "data:image/png;base64," in diagram._repr_html_()


def test_a_report_shows_its_verdict_and_where_it_is():
    report = Report(Path("a.html"), Path("summary.json"), "PASS", "all <well>")
    assert repr(report) == "Report(PASS: all <well>; a.html)"
    assert "all &lt;well&gt;" in report._repr_html_()


def test_the_version_is_that_of_the_installation():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*|not installed", bn.__version__)


def all_settings(kind=ShortRepr):
    """Every dataclass that shows itself so; those of the package are imported with it."""
    return [kind, *(each for one in kind.__subclasses__() for each in all_settings(one))][kind is ShortRepr :]


@pytest.mark.parametrize("kind", all_settings(), ids=lambda kind: kind.__name__)
def test_settings_show_what_differs_from_the_defaults(kind):
    """As the call that makes them again; nothing else."""
    names = {one.__name__: one for one in all_settings()}
    assert repr(kind()) == f"{kind.__name__}()"
    field = dataclasses.fields(kind)[0]
    first = getattr(kind(), field.name)
    other = changed(first)
    one = kind(**{field.name: other})
    assert repr(one) == f"{kind.__name__}({field.name}={other!r})"
    assert eval(repr(one), names) == one


def changed(value):
    """Another value of the same type."""
    if isinstance(value, ShortRepr):
        name = dataclasses.fields(value)[0].name
        return dataclasses.replace(value, **{name: changed(getattr(value, name))})
    return value[:-1] if isinstance(value, tuple) else 2 * value


def test_signatures_are_short():
    """`help` prints them: no function lists default settings in full."""
    for function in (theory.solve, theory.continuation, bn.sample):
        assert len(str(inspect.signature(function))) < 1000

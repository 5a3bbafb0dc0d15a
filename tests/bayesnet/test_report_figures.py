"""The figures of a report: all inputs and outputs of a task, and files for a paper."""

import re

import numpy as np
import pytest

import bayesnet as bn
from bayesnet import figures

RNG = np.random.default_rng(0)


def images(task):
    """The arrays drawn by the overview of a task, by the title of their axes."""
    axes = figures.task_overview(task).axes
    return {ax.get_title(): np.ma.filled(ax.images[0].get_array(), np.nan) for ax in axes if ax.images}


def test_targets_of_all_outputs_and_inputs_at_all_steps_are_shown():
    inputs, targets = RNG.normal(size=(3, 4, 2)), RNG.normal(size=(3, 4, 5))
    targets[:, 0] = np.nan
    shown = images(bn.Task(inputs, targets))
    for output in range(5):
        np.testing.assert_array_equal(
            shown["Targets; dots: supervised"][3 * output : 3 * output + 3], targets[..., output]
        )
    for pattern in range(3):
        np.testing.assert_array_equal(shown["Inputs"][2 * pattern : 2 * pattern + 2], inputs[pattern].T)


def test_every_figure_is_written_as_svg_and_pdf(tmp_path):
    network, task = bn.Network.rnn(8), bn.tasks.chain(2, 1.0)
    shapes = {"recurrent": (8, 8), "input": (8, 1), "readout": (1, 8)}
    given = [{name: RNG.normal(size=shape) for name, shape in shapes.items()} for _ in range(8)]
    report = bn.report(bn.from_weights(network, task, given), None, tmp_path / "a.html", figures=tmp_path / "figures")
    titles = re.findall(r"<figure>\s*<h3>(.*?)</h3>", report.path.read_text())
    assert len(titles) >= 4
    expected = [f"{n:02d}-{title.lower().replace(' ', '-')}" for n, title in enumerate(titles, 1)]
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == sorted(f"{name}.{form}" for name in expected for form in ("pdf", "svg"))
    for path in (tmp_path / "figures").iterdir():
        start = path.read_bytes()[:200]
        assert start.startswith(b"%PDF-") if path.suffix == ".pdf" else b"<?xml" in start


def test_a_place_for_figures_that_is_none_is_refused_before_anything_is_drawn(tmp_path):
    network, task = bn.Network.rnn(4), bn.tasks.chain(2, 1.0)
    shapes = {"recurrent": (4, 4), "input": (4, 1), "readout": (1, 4)}
    tree = bn.from_weights(network, task, {name: np.ones(shape) for name, shape in shapes.items()})
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="figures"):
        bn.report(tree, None, tmp_path / "a.html", figures=tmp_path / "file")
    assert not (tmp_path / "a.html").exists()

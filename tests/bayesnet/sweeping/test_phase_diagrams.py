"""phase_diagram: the order parameter, its critical line, posterior points, the figure, refusals."""

import re

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection, QuadMesh

import bayesnet as bn
from bayesnet.sweeping.phase_diagrams import phase_diagram
from theory.closed_form import closed_form_instability

RNN = bn.Network.rnn(16)
CHAIN = bn.tasks.chain(3, 1.0)
QUICK = {"solving": {"starts": 0}, "progress": False}
SHORT = {"num_warmup": 30, "num_samples": 30, "num_chains": 2}  # with the width above: the program of test_sweeps
X, Y = ("factor", [2.0, 3.0, 4.0]), ("noise", [0.1, 2.0])


@pytest.fixture(scope="module")
def diagram(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return phase_diagram(RNN, CHAIN, X, Y, (2, 1), sampling=SHORT, store=store, **QUICK)


def test_the_order_parameter_rises_at_the_closed_form(diagram):
    """Linear chain of three steps: the transition is continuous, so the colour changes at the line."""
    data = diagram.dataset
    assert data["order_parameter"].dims == ("noise", "factor")
    assert data["instability"].dims == ("noise",)
    for noise in Y[1]:
        critical = closed_form_instability(RNN.replace(noise=noise), CHAIN)
        assert float(data["instability"].sel(noise=noise)) == critical
        above = data["factor"].values > critical
        np.testing.assert_array_equal(data["order_parameter"].sel(noise=noise) > 1e-6, above)
    assert data["closed_form"].all()
    assert data["order"].values.tolist() == ["continuous", "continuous"]
    assert data["converged"].all()
    assert diagram.message == ""
    assert diagram.failed == 0


def test_posterior_points_are_an_evenly_spread_part_of_the_grid(diagram):
    sampled = np.isfinite(diagram.dataset["order_parameter_mean"])
    assert sampled.sum() == 2
    assert (sampled == (diagram.dataset["status"] != "")).all()
    assert sampled.sum("noise").values.tolist() == [1, 0, 1]
    assert not diagram.trusted  # sixty draws
    assert diagram.summary.count("\n") == 2


def test_the_figure_shows_theory_line_and_points(diagram):
    axes = diagram.draw().axes[0]
    mesh = next(child for child in axes.get_children() if isinstance(child, QuadMesh))
    np.testing.assert_array_equal(mesh.get_array().ravel(), diagram.dataset["order_parameter"].values.ravel())
    points = next(child for child in axes.get_children() if isinstance(child, PathCollection))
    assert len(points.get_offsets()) == 2
    line = next(line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    np.testing.assert_array_equal(line.get_xdata(), diagram.dataset["instability"])
    np.testing.assert_array_equal(line.get_ydata(), [0.1, 2.0])
    assert "factor" in axes.get_xlabel()
    assert "kappa" in axes.get_ylabel()


def test_it_is_saved_whole(diagram, tmp_path):
    paths = diagram.save(tmp_path / "new")
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    back = xr.load_dataset(paths[1], engine="h5netcdf")
    xr.testing.assert_equal(back, diagram.dataset)


def test_without_an_axis_of_factors_the_line_is_a_contour():
    plane = phase_diagram(RNN, CHAIN.scaled(3.0), ("recurrent_gain", [0.5, 1.0, 2.0]), ("noise", [0.1, 1.0]), **QUICK)
    critical = plane.dataset["instability"]
    assert critical.dims == ("noise", "recurrent_gain")
    np.testing.assert_array_equal(plane.dataset["order_parameter"] > 1e-6, critical < 1)
    figure = plane.draw()
    assert "unstable" in figure.legends[0].get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("network", "task", "word"),
    [
        (RNN, bn.Task([[[1.0], [0.5], [0.0]]], [[np.nan, np.nan, 1.0]]), "no critical line: ValueError: .*parity"),
        (bn.Network.dnn(16), CHAIN, "no transition"),
    ],
)
def test_a_diagram_without_a_transition_says_so(network, task, word):
    plane = phase_diagram(network, task, ("factor", [0.5, 1.0]), ("noise", [0.1, 1.0]), **QUICK)
    assert re.match(word, plane.message)
    assert re.match(word, plane.summary.splitlines()[-1])
    assert plane.failed == 0
    assert not plane.draw().axes[0].get_lines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": ("noise", [0.1, 1.0])}, "x and y are both 'noise'"),
        ({"x": "factor"}, "x is 'factor'"),
        ({"x": ("factor", [])}, "'factor' is empty"),
        ({"x": ("factor", [1.0])}, "two or more numbers"),
        ({"x": ("factor", [2.0, 1.0])}, "increasing"),
        ({"x": ("activation", ["tanh", "relu"])}, "two or more numbers"),
        ({"y": ("noise", [-1.0, 1.0])}, "'noise' has the value -1.0"),
        ({"x": ("color", [0.0, 1.0])}, "'color' is unknown"),
        ({"posterior": 3}, "posterior is 3"),
        ({"posterior": (4, 1)}, "posterior is 4"),
        ({"posterior": True, "sampling": {"num_chains": 0}}, "num_chains is 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        phase_diagram(RNN, CHAIN, **{"x": X, "y": Y, **arguments}, **QUICK)

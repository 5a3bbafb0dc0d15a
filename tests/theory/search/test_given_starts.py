"""Searches that start from what the user gives, and from images of what they have found."""

import jax
import numpy as np
import pytest
import xarray as xr

import theory
from theory import Network, Task
from theory.jax_settings import own_settings
from theory.model import build_model
from theory.search.branch import Branch, Options
from theory.search.given_starts import start_kernels
from theory.search.nearly_images import nearly_images, nearly_opposite_patterns
from theory.search.posed import pose
from theory.search.solutions import _other_starts
from theory.search.stationarity import Root


def chain(steps, target, patterns=1):
    """Inputs at the first step, orthogonal; a target at the last for each pattern."""
    inputs, targets = np.zeros((patterns, steps, patterns)), np.full((patterns, steps), np.nan)
    inputs[:, 0], targets[:, -1] = np.sqrt(patterns) * np.eye(patterns), target
    return Task(inputs, targets)


BIASED = Network(100, bias_gain=0.02)


def test_a_phase_that_the_search_misses_is_found_from_a_start():
    """Opposite signs of the weights, with a bias that favours one of them a little: no random starts."""
    task = chain(4, 5.0)
    missed = theory.solve(BIASED, task, starts=0)
    whole = theory.solve(Network(100), task)
    turned = whole.kernel * np.array([1, -1, 1, -1])[:, None, None, None] * np.array([1, -1, 1, -1])[:, None]
    led = theory.solve(BIASED, task, starts=0, start=turned)
    assert len(led.branches) > len(missed.branches)
    assert any(branch.stable and branch.kernel[0, 0, 1, 0] < -0.5 for branch in led.branches)
    for given in (whole, [whole, turned], led.to_xarray().kernel.to_numpy()):
        assert theory.solve(BIASED, task, start=given).free_energy == pytest.approx(led.free_energy, rel=1e-9)


def test_chains_of_one_phase_are_one_start():
    """Of a posterior the mean of each chain counts, and chains whose means are alike count once."""
    network, task, rng = Network(100), chain(2, 1.0), np.random.default_rng(0)
    phases = np.array([[[1.0, 0.5], [0.5, 2.0]], [[1.0, -0.5], [-0.5, 2.0]], [[1.01, 0.5], [0.5, 2.0]]])
    noise = rng.normal(size=(3, 50, 2, 2)) * 0.1
    noise -= noise.mean(axis=1, keepdims=True)
    draws = (phases[:, None] + noise + noise.swapaxes(2, 3)).reshape(3, 50, 2, 1, 2, 1)
    dims = ("chain", "draw", "step", "pattern", "step_bis", "pattern_bis")
    dataset = xr.Dataset({"kernel": (dims, draws)})
    for posterior in (dataset, xr.DataTree.from_dict({"posterior": dataset})):
        found = start_kernels(posterior, network, task)
        np.testing.assert_allclose(found, phases[:2], atol=1e-12)
    moments = xr.Dataset({"kernel_mean": (("chain", *dims[2:]), draws.mean(axis=1))})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"f": ("chain", [0.0] * 3)}), "kernel_moments": moments})
    np.testing.assert_allclose(start_kernels(tree, network, task), phases[:2], atol=1e-12)
    assert start_kernels(None, network, task) == ()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            np.ones((3, 1, 3, 1)),
            r"kernel of shape \(3, 1, 3, 1\); network and task .* shape \(2, 1, 2, 1\)",
        ),
        (np.full((2, 1, 2, 1), np.nan), "start"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]).reshape(2, 1, 2, 1), "no covariance"),
        (np.array([[1.0, 0.2], [0.5, 1.0]]).reshape(2, 1, 2, 1), "no covariance"),
        (xr.Dataset({"overlap": ("draw", [1.0])}), "without the kernels of its draws"),
        ("lazy", "start"),
    ],
)
def test_what_is_no_kernel_is_refused(start, message):
    with pytest.raises(ValueError, match=message):
        theory.solve(Network(100), chain(2, 1.0), start=start)


def test_a_lazy_limit_needs_no_start():
    network, kernel = Network(100, scaling="standard"), np.eye(2).reshape(2, 1, 2, 1)
    with pytest.raises(ValueError, match="start"):
        theory.solve(network, chain(2, 1.0), start=kernel)


def test_patterns_whose_targets_are_nearly_opposite():
    def of(*targets):
        return nearly_opposite_patterns(build_model(Network(100), chain(3, targets, len(targets)))).tolist()

    assert of(1.5, -1.5, 1.5) == [1, 0, 2]
    assert of(1.0, 2.0, -2.1, -0.9) == [3, 2, 1, 0]
    assert of(1.0, 2.0) == [0, 1]
    assert of(1.0, -0.2) == [0, 1]


def test_images_under_what_is_nearly_a_symmetry():
    """Of two steps that correlate, one is turned; by a relabelling where the activation is not odd."""
    network, task = Network(100, leak=0.8), chain(3, [1.0, -1.0], 2)
    model, rng = build_model(network, task), np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    kernel = root @ root.T
    turned, relabelled = nearly_images(kernel, model, network.phi, signs=True, relabelled=True)
    signs = np.repeat([1, -1, 1], 2)
    np.testing.assert_allclose(turned * np.outer(signs, signs), kernel)
    order = [0, 1, 3, 2, 4, 5]
    np.testing.assert_allclose(relabelled[np.ix_(order, order)], kernel)
    relu = Network(100, activation="relu").phi
    (only,) = nearly_images(kernel, model, relu, signs=True, relabelled=True)
    np.testing.assert_array_equal(only, relabelled)
    assert nearly_images(kernel, model, network.phi, signs=False, relabelled=False) == []


@pytest.mark.parametrize(("bias", "number"), [(0.02, 1), (0.0, 0)], ids=["nearly", "exactly"])
def test_a_search_goes_on_from_the_image_under_what_is_nearly_a_symmetry(bias, number):
    """Under W -> -W, where a bias breaks it; where nothing does the image is the same saddle point."""
    network = Network(100, activation="tanh", bias_gain=bias)
    kernel = np.array([[1.0, 0.3, 0.2], [0.3, 1.0, 0.4], [0.2, 0.4, 1.0]])
    with own_settings():
        posed = pose(network, chain(3, 1.0), Options(), 0.01)
        root = Root(kernel, kernel, 0.0, 0.0)
        starts = _other_starts(posed, [Branch(posed.part, network.phi, [root], np.zeros(1), True, None)])
    assert len(starts) == number
    for start in starts:
        np.testing.assert_allclose(start, kernel * np.outer([1, -1, 1], [1, -1, 1]))


@pytest.mark.slow
def test_a_partner_of_a_broken_symmetry_is_found():
    """Three patterns, two of opposite targets: relabelling them is a symmetry no more, and both phases exist.

    Chains of 128 neurons have mean overlaps of .49 or -.32 along the targets at steps 1 and 2.
    """
    network = Network.rnn(128, activation=jax.nn.leaky_relu, noise=0.3)
    task = chain(3, [1.5, -1.5, 1.5], 3)
    solution = theory.solve(network, task, points=4096)
    along = np.array([1.5, -1.5, 1.5])
    overlaps = []
    for branch in solution.branches:
        blocks = np.einsum("p,sptq,q->st", along, branch.kernel, along)
        overlaps.append(blocks[0, 1] / np.sqrt(blocks[0, 0] * blocks[1, 1]))
    assert [branch.stable for branch in solution.branches] == [True, True]
    np.testing.assert_allclose(sorted(overlaps), [-0.32, 0.49], atol=0.02)
    without = theory.solve(network, task, points=4096, start=solution.branches[1])
    assert len(without.branches) == 2

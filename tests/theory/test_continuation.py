"""continuation: hysteresis of a first-order transition, agreement with solve, and its labels."""

import numpy as np
import pytest

import theory
from bayesnet import tasks

RNN = theory.Network.rnn(8)


def identity(x):
    """Linear, but for all the code knows any odd function."""
    return x


@pytest.fixture(scope="module")
def around():
    """The linear chain of six steps: below its spinodal, then below its crossing, its instability, and above all."""
    task = tasks.chain(6, theory.critical_signal(RNN, tasks.chain(6, 1.0)).instability)
    return task, theory.continuation(RNN, task, [1.01, 0.94, 0.967, 0.985])


def overlap(dataset):
    """Squared overlap of the last two steps."""
    kernel = dataset.kernel.isel(pattern=0, pattern_bis=0)
    variance = kernel.isel(step=-1, step_bis=-1) * kernel.isel(step=-2, step_bis=-2)
    return (kernel.isel(step=-1, step_bis=-2) ** 2 / variance).transpose("direction", "factor").values


def test_both_phases_of_a_first_order_transition_are_followed(around):
    """At T = 6 the broken branch lives down to .963 and wins from .971 of the instability on."""
    _, found = around
    np.testing.assert_array_equal(found.factor, [0.94, 0.967, 0.985, 1.01])
    assert found.converged.all()
    assert found.stable.all()
    np.testing.assert_array_equal(overlap(found) > 0.1, [[False, False, False, True], [False, True, True, True]])
    up, down = (found.free_energy.sel(direction=direction).values for direction in ("up", "down"))
    np.testing.assert_allclose(up[[0, 3]], down[[0, 3]], rtol=1e-9)
    assert up[1] < down[1]
    assert up[2] > down[2]


def test_every_point_is_a_solution_that_solve_knows(around):
    task, found = around
    branches = theory.solve(RNN, task.scaled(0.985)).branches
    for direction in ("up", "down"):
        point = found.sel(direction=direction, factor=0.985)
        (same,) = [b for b in branches if abs(b.free_energy - float(point.free_energy)) < 1e-9]
        np.testing.assert_allclose(np.abs(point.kernel), np.abs(same.kernel), atol=1e-7)
        np.testing.assert_allclose(np.abs(point.prediction), np.abs(same.prediction), atol=1e-7)


def test_a_deep_network_has_no_hysteresis_and_starts_at_the_prior():
    found = theory.continuation(theory.Network.dnn(8), tasks.endpoint(2, 1.0), np.array([0.0, 1.0]))
    np.testing.assert_allclose(found.kernel.sel(direction="up"), found.kernel.sel(direction="down"), atol=1e-9)
    lazy = theory.nngp(theory.Network.dnn(8), tasks.endpoint(2, 1.0))
    np.testing.assert_allclose(found.kernel.sel(direction="up", factor=0.0), lazy.kernel, atol=1e-9)
    assert found.kernel.dims == ("direction", "factor", "step", "pattern", "step_bis", "pattern_bis")


def test_where_a_search_at_the_largest_factor_fails_the_way_up_takes_its_place(monkeypatch):
    task, search = tasks.endpoint(2, 1.0), theory.search.solutions.Follower.best

    def fails_at_strong_signals(self, factor):
        if factor > 1.5:
            raise RuntimeError("no saddle point was found")
        return search(self, factor)

    whole = theory.continuation(RNN, task, [1.0, 2.0])
    monkeypatch.setattr(theory.search.solutions.Follower, "best", fails_at_strong_signals)
    found = theory.continuation(RNN, task, [1.0, 2.0])
    assert found.converged.all()
    np.testing.assert_allclose(found.kernel, whole.kernel, atol=1e-7)
    with pytest.raises(RuntimeError, match="no saddle point"):
        theory.continuation(RNN, task, [2.0, 3.0])


def test_in_standard_scaling_kernels_stay():
    found = theory.continuation(RNN.replace(scaling="standard"), tasks.chain(2, 1.0), [1.0, 3.0])
    np.testing.assert_array_equal(found.kernel.sel(factor=1.0), found.kernel.sel(factor=3.0))


@pytest.mark.parametrize(("activation", "steps"), [("tanh", 1), pytest.param("relu", 2, marks=pytest.mark.slow)])
def test_other_activations_are_followed_as_solve_finds_them(activation, steps):
    network, task = RNN.replace(activation=activation), tasks.chain(steps, 1.0)
    found = theory.continuation(network, task, [1.0, 2.0])
    assert found.converged.all()
    for factor in (1.0, 2.0):
        solution = theory.solve(network, task.scaled(factor))
        for direction in ("up", "down"):
            point = found.sel(direction=direction, factor=factor)
            np.testing.assert_allclose(point.kernel, solution.kernel, atol=1e-4)


@pytest.mark.slow
def test_other_activations_are_followed_through_the_transition():
    """The identity as an unknown function against the linear solver, on either side of 2.86."""
    task, factors = tasks.chain(3, 1.0), [2.5, 3.5, 4.3]
    exact = theory.continuation(RNN, task, factors)
    found = theory.continuation(RNN.replace(activation=identity), task, factors)
    assert found.converged.all()
    np.testing.assert_allclose(found.kernel, exact.kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.free_energy, exact.free_energy, atol=1e-6)
    np.testing.assert_array_equal(overlap(found) > 1e-3, [[False, True, True]] * 2)


@pytest.mark.parametrize("values", [[], 1.0, [1.0, 1.0], [-1.0], [np.nan], ["a"], [[1.0]]])
def test_values_out_of_range_are_named(values):
    with pytest.raises(ValueError, match="values"):
        theory.continuation(RNN, tasks.chain(3, 1.0), values)


def test_along_a_degree_of_sharing():
    """Below the critical degree, .730255, the kernels are those of a network that shares nothing; then they are not."""
    task = tasks.chain(3, 4.3)
    found = theory.continuation(RNN.replace(noise=0.1), task, [0.5, 0.7, 0.9], along="shared.recurrent")
    assert found["kernel"].dims[:2] == ("direction", "shared.recurrent")
    assert found["converged"].all()
    deep = theory.solve(RNN.replace(noise=0.1, shared=()), task)
    for degree in (0.5, 0.7):
        kernel = found["kernel"].sel({"direction": "up", "shared.recurrent": degree}).to_numpy()
        np.testing.assert_allclose(kernel, deep.kernel, atol=1e-7)
    kernel = found["kernel"].sel({"shared.recurrent": 0.9}).to_numpy()
    np.testing.assert_allclose(np.einsum("dimim->di", kernel), [[2.29975, 5.67928, 14.02511]] * 2, atol=6e-6)


@pytest.mark.slow
def test_along_numbers_of_the_network():
    """Each solution is that of the network with that number."""
    task = tasks.chain(3, 2.0)
    for along, values in (("noise", [0.2, 0.4]), ("leak", [0.5, 1.0]), ("recurrent_gain", [0.8, 1.2])):
        found = theory.continuation(RNN, task, values, along=along)
        for value in values:
            alone = theory.solve(RNN.replace(**{along: value}), task)
            kernel = found["kernel"].sel({"direction": "up", along: value}).to_numpy()
            np.testing.assert_allclose(kernel, alone.kernel, atol=1e-6)


@pytest.mark.parametrize(
    ("along", "values", "message"),
    [
        ("rho", [1.0], "along is 'rho'; allowed are 'signal'"),
        ("shared.W", [1.0], "along is 'shared.W'"),
        ("bias_gain", [1.0], "along is 'bias_gain'"),  # there are none
        ("leak", [0.5, 1.5], "leak is 1.5"),
        ("shared.recurrent", [0.5, 1.5], "1.5.*from 0 to 1"),
    ],
)
def test_parameters_that_there_are_not_are_named(along, values, message):
    with pytest.raises(ValueError, match=message):
        theory.continuation(RNN, tasks.chain(3, 1.0), values, along=along)

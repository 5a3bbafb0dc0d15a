"""Fluctuations at finite width: reference numbers, another coordinate system, and weighted draws of whole networks."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from noise_energy import hessian, kernel_of_coordinates, pack
from small_problems import as_general, chain, repeated, sequence, weighted_networks

from theory import Network, Task, fluctuations, nngp, solve
from theory.model import build_model
from theory.response import factorise, inverse_factor

RNN, DNN = Network.rnn(500), Network.dnn(500)


def in_noise_coordinates(solution):
    """N Cov(Phi) = J (d^2 F)^{-1} J^T in the coordinates of `noise_energy`, (n^2, n^2)."""
    n = solution.task.entries
    with jax.enable_x64(True):
        model = build_model(solution.network, solution.task).on_device()
        noise_of = inverse_factor(factorise(solution.preactivation_cov.reshape(n, n)))
        gram = noise_of @ solution.kernel.reshape(n, n) @ noise_of.T
        unused = np.diag(np.where(np.diagonal(noise_of) > 0, 0.0, 1.0))
        coordinates = pack(np.linalg.cholesky(gram + unused))
        curvature = np.asarray(hessian(coordinates, model))
        jacobian = jax.jacrev(lambda c: kernel_of_coordinates(model, c).ravel())(coordinates)
    jacobian = np.asarray(jacobian)
    return jacobian @ np.linalg.solve(curvature, jacobian.T)


def flat(array, n):
    return array.reshape(n * n, n * n)


def test_reference_numbers():
    """N Var of the kernel entries at T = 3, N = 500, y = 2, found by another program."""
    found = fluctuations(solve(RNN, chain(3, 2.0), starts=0))
    variance = 500 * np.diag(flat(found.kernel_cov, 3))[[0, 1, 2, 4, 5, 8]]
    for value, printed in zip(variance, ["2.83", "11.4", "9.09", "13.3", "120", "42.6"], strict=True):
        assert value == pytest.approx(float(printed), rel=5e-3)
    assert not found.standard_error.any()


@pytest.mark.parametrize(
    "task",
    [chain(3, 4.3), *(pytest.param(task, marks=pytest.mark.slow) for task in (sequence(), repeated()))],
    ids=["broken", "sequence", "repeated"],
)
@pytest.mark.parametrize("shared", [("recurrent", "input", "readout"), ("input",)], ids=["RNN", "input shared"])
def test_two_coordinate_systems_agree(task, shared):
    """The kernel action and the noise coordinates share nothing but the free energy."""
    solution = solve(Network(500, shared=shared), task, starts=0)
    n = task.entries
    expected = in_noise_coordinates(solution)
    np.testing.assert_allclose(
        500 * flat(fluctuations(solution).kernel_cov, n), expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", [chain(3, 4.3), repeated()], ids=["broken", "repeated"])
def test_neurons_give_what_the_closed_form_gives(task):
    """A linear network treated as any other; t of 3 degrees of freedom is below 12 with probability .999."""
    solution = solve(RNN, task, starts=0)
    n = task.entries
    exact, sampled = fluctuations(solution), fluctuations(as_general(solution), neurons=4096)
    scale = np.sqrt(np.diag(flat(exact.kernel_cov, n)))
    error = flat(sampled.standard_error, n) + 1e-6 * np.outer(scale, scale)
    assert (np.abs(flat(sampled.kernel_cov - exact.kernel_cov, n)) < 12 * error).all()
    assert (error < 0.2 * np.outer(scale, scale)).all()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nonlinear_networks_fluctuate_as_predicted(activation):
    """N Cov(Phi) of weighted draws of whole networks at width 100, within their scatter and 1/N."""
    solution = solve(Network.rnn(100, activation=activation, recurrent_gain=1.4), chain(2, 1.2))
    predicted = 100 * flat(fluctuations(solution).kernel_cov, 2)
    kernels, logs = weighted_networks(solution, 100, 1000)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    size = 1 / np.sum(weights**2)
    assert size > 200
    moved = kernels.reshape(len(kernels), 4) - weights @ kernels.reshape(len(kernels), 4)
    found = 100 * (moved * weights[:, None]).T @ moved
    scale = np.sqrt(np.diag(predicted))
    # The covariance of Gaussians scatters by sqrt(2/size) of the scale.
    assert (np.abs(found - predicted) < (4 * np.sqrt(2 / size) + 0.1) * np.outer(scale, scale)).all()


def test_draws_have_the_covariance():
    solution = solve(RNN, chain(3, 2.0), starts=0)
    wide = fluctuations(replace(solution, network=RNN.replace(width=10**6)))
    draws = wide.draw_kernels(4000, seed=1)
    assert np.array_equal(draws, wide.draw_kernels(4000, seed=1))
    spread = draws.reshape(4000, 9).var(0, ddof=1) / np.diag(flat(wide.kernel_cov, 3))
    assert np.abs(spread - 1).max() < 4 * np.sqrt(2 / 4000)
    narrow = fluctuations(replace(solution, network=RNN.replace(width=8)))
    assert np.linalg.eigvalsh(narrow.draw_kernels(100).reshape(100, 3, 3)).min() > 0


@pytest.mark.parametrize(
    "solution",
    [lambda: solve(RNN, chain(3, 4.3), starts=0).branches[1], lambda: nngp(RNN, chain(3, 4.3))],
    ids=["unstable", "lazy"],
)
def test_only_stable_saddle_points(solution):
    """There is no Gaussian law around an unstable point or without a saddle point."""
    with pytest.raises(ValueError, match="stable saddle point"):
        fluctuations(solution())


def test_arguments_are_checked():
    solution = solve(RNN, chain(3, 2.0), starts=0)
    with pytest.raises(ValueError, match="neurons"):
        fluctuations(solution, neurons=10)
    with pytest.raises(ValueError, match="num"):
        fluctuations(solution).draw_kernels(0)


@pytest.mark.slow
def test_forty_entries():
    """n = 40: eight patterns of five steps."""
    rng = np.random.default_rng(1)
    inputs = np.zeros((8, 5, 8))
    inputs[:, 0] = rng.normal(size=(8, 8))
    targets = np.full((8, 5), np.nan)
    targets[:, -1] = np.where(rng.random(8) > 0.5, 1.0, -1.0)
    solution = solve(RNN, Task(inputs, targets), starts=0)
    expected = in_noise_coordinates(solution)
    found = 500 * flat(fluctuations(solution).kernel_cov, 40)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("patterns", [1, 2])
def test_kernels_are_drawn_where_patterns_are_one(patterns):
    """Of one step: all entries of a drawn kernel are equal, and vary about that of the saddle point."""
    solution = solve(Network.rnn(100), Task(np.ones((patterns, 1, 1)), np.ones((patterns, 1, 1))))
    drawn = fluctuations(solution).draw_kernels(200).reshape(200, -1)
    np.testing.assert_allclose(drawn, np.broadcast_to(drawn[:, :1], drawn.shape), rtol=1e-6)
    np.testing.assert_allclose(drawn.mean(), solution.kernel.ravel()[0], rtol=0.1)
    assert 0.05 < drawn[:, 0].std() / drawn.mean() < 0.3  # about sqrt(2 / N)

"""The single-neuron law: Stein forms of the response, kinks, draws and their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from theory.laws.gaussian import GaussianLaw
from theory.laws.grid import FINEST, ROUGHER, fitted_grid, grid_law
from theory.laws.law import SilentLaw, live_entries
from theory.laws.neurons import draw_neurons
from theory.laws.sequential import draw
from theory.laws.smoothness import has_kinks
from theory.laws.stein import stein_tilt
from theory.model import build_model
from theory.response import covariance_response, factorise

COV = np.array([[1.0, 0.3], [0.3, 0.8]])
CONJUGATE = np.array([[-0.5, 0.2], [0.2, 0.4]])
LIVE = (0, 1)


def on_grid(phi, cov=COV, live=LIVE):
    law = grid_law(np.eye(len(live)), cov, phi, live, has_kinks(phi), 160, 8.0)
    points = law.weighted(cov, CONJUGATE)
    weights, h = np.exp(np.asarray(points.log_weights)), np.asarray(points.preactivation)
    return law.moments(jnp.asarray(cov), jnp.asarray(CONJUGATE)), weights, h


@pytest.mark.parametrize("phi", [jnp.tanh, jax.nn.relu])
def test_the_response_by_stein_equals_that_by_second_moments(phi):
    with jax.enable_x64(True):
        average, weights, h = on_grid(phi)
        second = (h * weights[:, None]).T @ h
        np.testing.assert_allclose(average.response, covariance_response(factorise(COV), second), atol=1e-6)
        activity = np.asarray(phi(h))
        np.testing.assert_allclose(average.kernel, (activity * weights[:, None]).T @ activity, atol=1e-10)
        np.testing.assert_allclose(average.second, second, atol=1e-10)
        np.testing.assert_allclose(average.mixed, (h * weights[:, None]).T @ activity, atol=1e-10)


@pytest.mark.parametrize("phi", [jnp.tanh, jax.nn.relu])
def test_repeated_entries_are_one(phi):
    with jax.enable_x64(True):
        cov = np.full((2, 2), 0.9)
        live = live_entries(factorise(cov))
        assert live == (0,)
        average, weights, h = on_grid(phi, cov, live)
        np.testing.assert_allclose(h[:, 0], h[:, 1])
        second = (h * weights[:, None]).T @ h
        np.testing.assert_allclose(average.response, covariance_response(factorise(cov), second), atol=1e-6)


@pytest.mark.parametrize("coupled", [False, True])
def test_three_entries_that_correlate_strongly_are_integrated_in_spite_of_kinks(coupled):
    """Two grids of different fineness agree; without Phihat they have the arc-cosine kernel and no response.

    Panels that keep to the axes, however neurons correlate, are off by 3e-3 here.
    """
    root = np.array([[1.0, 0.99, 0.5], [0.99, 1.5, 0.99], [0.5, 0.99, 1.2]])
    cov = root @ root.T / 2
    conjugate = np.array([[-0.3, 0.2, 0.1], [0.2, 0.5, -0.6], [0.1, -0.6, 0.4]]) * coupled
    with jax.enable_x64(True):
        grids = [fitted_grid(cov, conjugate, jax.nn.relu, (0, 1, 2), True, choice) for choice in (FINEST, ROUGHER)]
        fine, rough = (grid.moments(jnp.asarray(cov), jnp.asarray(conjugate)) for grid in grids)
        divergences = [grid.divergence(cov, conjugate) for grid in grids]
        second = np.asarray(fine.second)
    np.testing.assert_allclose(fine.kernel, rough.kernel, rtol=1e-6)
    np.testing.assert_allclose(fine.response, rough.response, atol=1e-5)
    np.testing.assert_allclose(fine.response, covariance_response(factorise(cov), second), atol=1e-4)
    assert divergences[0] == pytest.approx(divergences[1], abs=1e-7)
    if not coupled:
        variance = np.diag(cov)
        exact = theory.Network(1, activation="relu").phi.second_moment(variance[:, None], variance, cov)
        np.testing.assert_allclose(fine.kernel, exact, rtol=1e-6)
        assert divergences[0] == pytest.approx(0, abs=1e-10)


def test_kinks_are_seen():
    smooth = [jnp.tanh, jax.lax.erf, jax.nn.gelu, jnp.sin, jax.nn.softplus]
    assert [has_kinks(phi) for phi in smooth] == [False] * 5
    assert [has_kinks(phi) for phi in (jax.nn.relu, jax.nn.leaky_relu, jax.nn.hard_tanh)] == [True] * 3


def identity(x):
    return x


@pytest.mark.parametrize("singular", [False, True])
def test_the_gaussian_law_is_that_of_an_identity_on_a_grid(singular):
    """Also where an entry repeats another; and its draws have its moments."""
    cov = np.full((2, 2), 0.9) if singular else COV
    live = (0,) if singular else LIVE
    law = GaussianLaw(live)
    with jax.enable_x64(True):
        grid = grid_law(np.eye(len(live)), cov, identity, live, False, 240, 10.0)
        for one, other in zip(law.moments(cov, CONJUGATE), grid.moments(jnp.asarray(cov), CONJUGATE), strict=True):
            if np.ndim(one):
                np.testing.assert_allclose(one, other, atol=1e-9)
        assert law.divergence(cov, CONJUGATE) == pytest.approx(grid.divergence(cov, CONJUGATE), abs=1e-9)
        drawn = law.neurons(cov, CONJUGATE, 20_000, np.random.default_rng(0))
        kernel = np.asarray(law.moments(cov, CONJUGATE).kernel)
    products = drawn[:, :, None] * drawn[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(products.mean(axis=0) - kernel) < 4 * error)


def test_silent_entries_hold_phi_of_zero():
    with jax.enable_x64(True):
        law, nothing = SilentLaw(jnp.cos), np.zeros((2, 2))
        average = law.moments(jnp.asarray(nothing), jnp.asarray(CONJUGATE))
        np.testing.assert_array_equal(average.kernel, np.ones((2, 2)))
        np.testing.assert_array_equal(average.mean, np.ones(2))
        assert not np.any(average.response)
    assert law.divergence(nothing, CONJUGATE, 0) == 0
    assert not law.neurons(nothing, CONJUGATE, 3, np.random.default_rng(0)).any()


def test_draws_follow_the_law_and_their_weights_help():
    with jax.enable_x64(True):
        exact = np.asarray(on_grid(jnp.tanh)[0].kernel)
        noise = draw(4096, 0, COV, CONJUGATE, jnp.tanh, LIVE)
        activity = np.tanh(np.asarray(noise) @ factorise(COV).T)
        weights = np.exp(np.asarray(stein_tilt(noise, COV, CONJUGATE, jnp.tanh, LIVE, False)))
    weights /= weights.sum()
    products = activity[:, :, None] * activity[:, None, :]
    plain, error = products.mean(axis=0), products.std(axis=0) / np.sqrt(len(products))
    assert np.all(np.abs(plain - exact) < 4 * error)
    tilted = np.einsum("m,mij->ij", weights, products)
    assert np.all(np.abs(tilted - exact) < 2 * error)


def test_neurons_of_a_linear_solution_have_its_kernel():
    task = theory.Task(np.ones((1, 2, 1)), np.array([[np.nan, 2.0]]))
    solution = theory.solve(theory.Network.rnn(1), task)
    neurons = solution.sample_neurons(4096).reshape(4096, 2)
    products = neurons[:, :, None] * neurons[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(products))
    assert np.all(np.abs(products.mean(axis=0) - solution.kernel.reshape(2, 2)) < 4 * error)
    with pytest.raises(ValueError, match="num"):
        solution.sample_neurons(0)


def test_weights_of_independent_groups_multiply():
    """Two steps of a deep network, each with a tilt of its own: averages meet quadrature far inside the scatter that
    equal weights have."""
    task = theory.Task(np.ones((1, 2, 1)), np.array([[1.0, 2.0]]))
    cov, conjugate = np.diag([1.0, 0.8]), np.diag([-3.0, 0.4])
    z = np.linspace(-8, 8, 4001)
    h = np.sqrt(np.diagonal(cov))[:, None] * z
    density = np.exp(-(z**2) / 2 - np.diagonal(conjugate)[:, None] * np.tanh(h) ** 2 / 2)
    exact = np.sum(density * np.tanh(h) ** 2, axis=1) / np.sum(density, axis=1)
    tilted, plain = [], []
    with jax.enable_x64(True):
        model = build_model(theory.Network.dnn(1), task)
        for seed in range(8):
            h, weights = draw_neurons(model, cov, conjugate, jnp.tanh, 8192, seed, tilted=True)
            assert weights.sum() == pytest.approx(1)
            squares = np.tanh(h) ** 2
            error = squares.std(axis=0) / np.sqrt(len(h))
            tilted.append((weights @ squares - exact) / error)
            plain.append((squares.mean(axis=0) - exact) / error)
    for found, least, most in ((tilted, 0.0, 0.3), (plain, 0.6, 1.6)):
        assert np.all(np.abs(np.sqrt(np.mean(np.square(found), axis=0)) - (least + most) / 2) < (most - least) / 2)

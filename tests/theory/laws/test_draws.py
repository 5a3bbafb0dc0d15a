"""Draws of neurons and their tilt: averages without bias, also between wells and with few identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from theory.laws.drawn import frozen
from theory.laws.grid import grid_law
from theory.laws.sequential import PopulationSettings, draw
from theory.laws.stein import gram_factor, stein_tilt

BLOCKS, DRAWS, SEEDS = 6, 1024, 16
COV = np.array([[1.3, 0.4], [0.4, 0.9]])
FORCE = np.array([[0.8, -0.5], [-0.5, 1.1]])


def test_tilted_averages_of_many_alike_entries_meet_quadrature():
    """Twelve directions of two variances only, of which the tilt of 1024 draws takes five.

    Chosen by how much the draws happen to spread along them, they would bias the average.
    """
    cov, force = np.kron(np.eye(BLOCKS), COV), np.kron(np.eye(BLOCKS), FORCE)
    live = tuple(range(2 * BLOCKS))
    with jax.enable_x64(True):
        exact = grid_law(np.eye(2), COV, jnp.tanh, (0, 1), False, 120, 7.0).moments(COV, FORCE).kernel
        found = []
        for seed in range(SEEDS):
            noise = draw(DRAWS, seed, cov, force, jnp.tanh, live)
            law = cov, force, jnp.tanh, live, False
            kernel = np.asarray(frozen(noise, *law, stein_tilt(noise, *law)).moments(cov, force).kernel)
            found.append(np.trace(kernel) / BLOCKS)
    error = np.std(found, ddof=1) / np.sqrt(SEEDS)
    # 4.1: once in a thousand for t with fifteen degrees of freedom.
    assert abs(np.mean(found) - np.trace(exact)) < 4.1 * error, (np.mean(found), np.trace(exact), error)


def test_wells_that_no_chain_crosses_between_hold_what_they_weigh():
    """phi = sin: wells at odd multiples of pi/2, twenty deep; where neurons of the prior fall is not their weight."""
    cov, force, live = np.array([[4.0]]), np.array([[-40.0]]), (0,)
    h = np.linspace(-15, 15, 20001)
    weights = np.exp(-(h**2) / (2 * cov[0, 0]) - force[0, 0] * np.sin(h) ** 2 / 2)
    weights /= weights.sum()
    outside = np.abs(h) > np.pi
    exact = np.array([weights @ h**2, weights @ outside])
    with jax.enable_x64(True):
        draws = [2 * np.asarray(draw(DRAWS, seed, cov, force, jnp.sin, live)).ravel() for seed in range(SEEDS)]
    found = np.array([[np.mean(z**2), np.mean(np.abs(z) > np.pi)] for z in draws])
    error = found.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    assert np.all(np.abs(found.mean(axis=0) - exact) < 4.1 * error)
    prior = 2 * (1 - scipy.stats.norm.cdf(np.pi / 2))
    assert abs(prior - exact[1]) > 10 * error[1]


def test_fewer_neurons_than_a_population_are_drawn_from_one():
    with jax.enable_x64(True):
        drawn = np.asarray(draw(3, 0, COV, FORCE, jnp.tanh, (0, 1)))
        again = np.asarray(draw(3, 0, COV, FORCE, jnp.tanh, (0, 1)))
    assert drawn.shape == (3, 2)
    np.testing.assert_array_equal(drawn, again)
    assert len(np.unique(drawn)) == 6


def test_a_law_that_cannot_be_normalised_is_refused():
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"no neurons can be drawn|not finite"):
        draw(DRAWS, 0, COV, -9 * np.eye(2), lambda x: x, (0, 1), PopulationSettings(most_rises=20))


def test_a_ridge_stands_for_what_single_precision_cannot_tell_from_zero():
    """Features that are multiples of one another, of which rounding makes a matrix with negative eigenvalues."""
    features = np.outer(np.random.default_rng(0).normal(size=4096), np.linspace(100, 300, 40)).astype(np.float32)
    gram = features.astype(float).T @ features / 4096
    factor = np.triu(gram_factor(features)[0])
    np.testing.assert_allclose(factor.T @ factor, gram, rtol=0, atol=1e-5 * gram.max())
    with pytest.raises(ValueError, match="infs or NaNs"):
        gram_factor(np.full((10, 2), np.nan, np.float32))

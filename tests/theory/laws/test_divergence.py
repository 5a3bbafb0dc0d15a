"""KL( q || N(0, C) ) from draws against closed forms and quadrature: no bias, however many entries to a draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.laws.drawn import frozen
from theory.laws.gaussian import GaussianLaw
from theory.laws.grid import grid_law
from theory.laws.sequential import draw
from theory.laws.stein import stein_tilt

BLOCKS, SEEDS = 6, 8
COV = np.array([[1.3, 0.4], [0.4, 0.9]])
FORCE = np.array([[0.8, -0.5], [-0.5, 1.1]])


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def identity(x):
    return x


def closed_form():
    """Of one block with a linear phi: q is Gaussian."""
    covariance = np.linalg.inv(np.linalg.inv(COV) + FORCE)
    log_det = np.linalg.slogdet(COV)[1] - np.linalg.slogdet(covariance)[1]
    return (np.trace(np.linalg.solve(COV, covariance)) - 2 + log_det) / 2


def quadrature(phi):
    """Of one block, on a grid."""
    return grid_law(np.eye(2), COV, phi, (0, 1), False, 120, 7.0).divergence(COV, FORCE)


def estimates(phi, draws, tilted=False, seeds=SEEDS):
    """Of `BLOCKS` independent blocks, n = 12, from several sets of draws."""
    cov, force = np.kron(np.eye(BLOCKS), COV), np.kron(np.eye(BLOCKS), FORCE)
    live = tuple(range(2 * BLOCKS))
    found = []
    for seed in range(seeds):
        noise = draw(draws, seed, cov, force, phi, live)
        law = cov, force, phi, live, False
        drawn = frozen(noise, *law, stein_tilt(noise, *law) if tilted else None)
        found.append(drawn.divergence(cov, force, seed))
    return np.array(found)


def test_quadrature_meets_the_closed_form():
    assert quadrature(identity) == pytest.approx(closed_form(), abs=1e-9)
    assert GaussianLaw((0, 1)).divergence(COV, FORCE) == pytest.approx(closed_form(), abs=1e-12)


def test_draws_meet_quadrature_without_bias():
    """Neither from a Gaussian fitted to the draws it is compared with, r (r + 1) / (4 M) = .02, nor from their tilt."""
    found = estimates(jnp.tanh, 2048, tilted=True)
    error = found.std(ddof=1) / np.sqrt(SEEDS)
    assert error < 0.01
    # 5.4: once in a thousand for t with seven degrees of freedom.
    assert abs(found.mean() - BLOCKS * quadrature(jnp.tanh)) < 5.4 * error


def test_control_variates_take_out_most_of_the_error():
    """With enough draws for all directions they span V of a linear phi: without them the error is some .003."""
    found = estimates(identity, 6000, seeds=4)
    error = found.std(ddof=1) / 2
    assert error < 0.0003  # .0007 if the overlap alone goes without them
    # 12.9: once in a thousand for t with three degrees of freedom.
    assert abs(found.mean() - BLOCKS * closed_form()) < 12.9 * error

"""Draws of neurons and their tilt: averages without bias, also where there are more directions than identities."""

import jax
import jax.numpy as jnp
import numpy as np

from theory.nonlinear.neuron import frozen, grid, moments
from theory.nonlinear.neuron_chain import draw, stein_tilt

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
        exact = moments(grid(np.eye(2), COV, (0, 1), False, 120, 7.0), COV, FORCE, jnp.tanh, (0, 1), False).kernel
        found = []
        for seed in range(SEEDS):
            keys = jax.random.split(jax.random.key(seed))
            start = jax.random.normal(keys[0], (DRAWS, len(live)))
            noise = draw(start, keys[1], cov, force, jnp.tanh, live, 30)
            points = frozen(noise, cov, force, jnp.tanh, live, False)
            points = points._replace(tilt=stein_tilt(noise, cov, force, jnp.tanh, live, False))
            kernel = np.asarray(moments(points, cov, force, jnp.tanh, live, False).kernel)
            found.append(np.trace(kernel) / BLOCKS)
    error = np.std(found, ddof=1) / np.sqrt(SEEDS)
    # 4.1: once in a thousand for t with fifteen degrees of freedom.
    assert abs(np.mean(found) - np.trace(exact)) < 4.1 * error, (np.mean(found), np.trace(exact), error)

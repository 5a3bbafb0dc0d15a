"""descend: every start comes to rest at a minimum, whichever lane it runs in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.gaussian.descent import descend
from theory.gaussian.settings import DescentSettings


def valley(point):
    """Rosenbrock's function of neighbouring components: one minimum at (1, ..., 1), at the end of a bent valley."""
    return jnp.sum(100 * (point[1:] - point[:-1] ** 2) ** 2 + (1 - point[:-1]) ** 2)


def test_more_starts_than_lanes():
    starts = np.random.default_rng(0).normal(size=(8, 3))
    starts[2] = 1.0  # already at rest
    with jax.enable_x64(True):
        ends, alone = (
            np.asarray(
                descend(
                    jax.value_and_grad(valley),
                    jnp.asarray(starts),
                    7,
                    1e-9,
                    DescentSettings(evaluations=500, lanes=lanes),
                )
            )
            for lanes in (4, 1)
        )
    np.testing.assert_allclose(ends[:7], 1.0, atol=1e-7)
    np.testing.assert_allclose(alone, ends, atol=1e-7)
    np.testing.assert_array_equal(ends[7], 0.0)


@pytest.mark.parametrize("most", [1, 5])
def test_a_search_ends_after_so_many_evaluations(most):
    counted = []

    def evaluate(point):
        jax.debug.callback(lambda _: counted.append(1), point[0])
        return jax.value_and_grad(valley)(point)

    with jax.enable_x64(True):
        starts = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))
        ends = np.asarray(descend(evaluate, starts, 2, 1e-9, DescentSettings(evaluations=most, lanes=1)))
        jax.effects_barrier()
    assert len(counted) == 2 * most
    if most == 1:
        np.testing.assert_array_equal(ends, starts)

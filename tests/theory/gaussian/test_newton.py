"""find_stationary: stationary points of any kind, with the curvatures there, on few second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.gaussian.newton import find_stationary
from theory.gaussian.settings import NewtonSettings


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def hills(point):
    """Stationary at all multiples of pi; second derivatives cos(x_i), but one of them twice as large."""
    return -jnp.cos(point[0]) * 2 - jnp.sum(jnp.cos(point[1:]))


def find(function, start):
    return find_stationary(jax.value_and_grad(function), jax.hessian(function), jnp.asarray(start))


@pytest.mark.parametrize("offset", [0.0, 1e-3])
def test_unstable_points_are_found_too(offset):
    """A minimum along the first two axes and a maximum along the third; also where the search starts on it."""
    found = find(hills, np.array([0.0, 2 * np.pi, np.pi]) + offset)
    np.testing.assert_allclose(found.point, [0, 2 * np.pi, np.pi], atol=1e-12)
    np.testing.assert_allclose(found.curvatures, [-1, 1, 2], atol=offset**2)
    np.testing.assert_allclose(np.abs(found.directions), np.eye(3)[[2, 1, 0]].T, atol=1e-12)
    assert np.linalg.norm(found.gradient) <= NewtonSettings.stationary * 3**0.5
    np.testing.assert_allclose(found.value, -2, atol=1e-12)


def test_second_derivatives_are_kept_while_they_serve():
    taken = []

    def hessian(point):
        jax.debug.callback(lambda _: taken.append(1), point[0])
        return jax.hessian(hills)(point)

    find_stationary(jax.value_and_grad(hills), hessian, jnp.asarray([1e-3, 1e-3, 1e-3]))
    jax.effects_barrier()
    assert len(taken) == 1


def test_flat_directions_are_left_alone():
    found = find(lambda point: jnp.sum((point[:2] - 1) ** 2) + 0 * point[2], [0.0, 0.0, 5.0])
    np.testing.assert_allclose(found.point, [1, 1, 5], atol=1e-12)
    np.testing.assert_allclose(found.curvatures, [0, 2, 2], atol=1e-12)


def test_the_best_point_seen_is_kept_where_no_step_helps():
    """The second derivative of |x|^(3/2) sends Newton's method from x to -x."""
    found = find(lambda point: jnp.sum(jnp.abs(point) ** 1.5), [1.0])
    np.testing.assert_array_equal(found.point, [1.0])
    assert float(found.gradient[0]) == 1.5

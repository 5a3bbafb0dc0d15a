"""Newton's method on the gradient, in one compiled loop: to stationary points of any kind, unstable ones included."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from theory.gaussian.settings import NewtonSettings
from theory.model import Array


class Stationary(NamedTuple):
    """Where the search ended.

    Attributes:
        point: (d,).
        value: of the function.
        gradient: (d,).
        curvatures: eigenvalues of the second derivatives where they were taken last, ascending, (d,).
        directions: the eigenvectors, in columns, (d, d).
    """

    point: Array
    value: Array
    gradient: Array
    curvatures: Array
    directions: Array


def find_stationary(
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    hessian: Callable[[Array], Array],
    start: Array,
    settings: NewtonSettings = NewtonSettings(),
) -> Stationary:
    """The stationary point that Newton's method finds from a start nearby, or the best one seen.

    The second derivatives are kept as long as the steps they give converge; they cost as much as d gradients.

    Args:
        value_and_gradient: point (d,) -> value, gradient (d,).
        hessian: point (d,) -> second derivatives (d, d).
        start: (d,).
        settings: of the steps.
    """

    def one_step(carry):
        (point, value, gradient, *eigensystem), stale, _, steps = carry
        curvatures, directions = lax.cond(
            stale, lambda: tuple(jnp.linalg.eigh(hessian(point))), lambda: tuple(eigensystem)
        )
        curved = jnp.abs(curvatures) > settings.flat * jnp.max(jnp.abs(curvatures))
        trial = point - directions @ jnp.where(curved, gradient @ directions / jnp.where(curved, curvatures, 1), 0)
        trial_value, trial_gradient = value_and_gradient(trial)
        left = jnp.linalg.norm(trial_gradient) / jnp.linalg.norm(gradient)
        better = left < 1  # not where it is not a number
        point, value, gradient = (
            jnp.where(better, new, old)
            for new, old in ((trial, point), (trial_value, value), (trial_gradient, gradient))
        )
        ended = (jnp.linalg.norm(gradient) <= settings.stationary * gradient.size**0.5) | (stale & ~better)
        return Stationary(point, value, gradient, curvatures, directions), ~(left <= settings.stale), ended, steps + 1

    def unfinished(carry):
        _, _, ended, steps = carry
        return ~ended & (steps < settings.steps)

    nothing = jnp.zeros_like(start)
    first = Stationary(start, *value_and_gradient(start), nothing, jnp.zeros((start.size, start.size), start.dtype))
    # At least one step: the curvatures are asked for in any case.
    carry = (first, jnp.asarray(True), jnp.asarray(False), jnp.asarray(0))
    return lax.while_loop(unfinished, one_step, carry)[0]

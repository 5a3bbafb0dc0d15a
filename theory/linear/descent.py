"""L-BFGS from many starts at once, in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from theory.covariance import Array

MEMORY = 24
SUFFICIENT = 1e-4  # decrease of a step, relative to what the slope promises
ROUNDING = 1e-14
LEAST_LENGTH = 1e-10


class _Descent(NamedTuple):
    point: Array
    value: Array
    gradient: Array
    length: Array  # of the next trial step, in units of the direction
    steps: Array  # the last MEMORY of them, newest at (stored - 1) % MEMORY
    changes: Array  # of the gradient along them
    inverse_overlaps: Array  # 1 / (step . change), 0 where nothing is stored
    stored: Array
    trials: Array


def descend(
    value_and_gradient: Callable[[Array], tuple[Array, Array]], starts: Array, most: int, tolerance: float
) -> Array:
    """Where L-BFGS with backtracking comes to rest from each of ``starts`` (S, d), (S, d).

    Args:
        value_and_gradient: point (d,) -> value, gradient (d,); traced once.
        starts: the first points.
        most: evaluations at most, for each.
        tolerance: on the largest component of the gradient.
    """

    def going(state):
        unfinished = jnp.max(jnp.abs(state.gradient)) > tolerance
        return unfinished & (state.trials < most) & (state.length > LEAST_LENGTH)

    def one_trial(state):
        direction = -_apply_inverse(state)
        promised = state.gradient @ direction
        point = state.point + state.length * direction
        value, gradient = value_and_gradient(point)
        slack = ROUNDING * (1 + jnp.abs(state.value))
        accepted = value <= state.value + SUFFICIENT * state.length * promised + slack
        moved = _remember(state, point, value, gradient)
        # The minimum of the parabola through what is known, within reason.
        curved = value - state.value - state.length * promised
        best = -promised * state.length**2 / (2 * curved)
        shorter = jnp.where(
            jnp.isfinite(best), jnp.clip(best, 0.1 * state.length, 0.5 * state.length), state.length / 10
        )
        stayed = state._replace(length=shorter)
        state = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, stayed)
        return state._replace(trials=state.trials + 1)

    def one_start(start):
        value, gradient = value_and_gradient(start)
        square = jnp.zeros((MEMORY, start.shape[0]), start.dtype)
        length = jnp.minimum(1.0, 1 / (jnp.linalg.norm(gradient) + ROUNDING))
        zero = jnp.zeros((), jnp.int32)
        state = _Descent(start, value, gradient, length, square, square, square[:, 0], zero, zero)
        return lax.while_loop(going, one_trial, state).point

    return jax.vmap(one_start)(starts)


def _remember(state: _Descent, point: Array, value: Array, gradient: Array) -> _Descent:
    step, change = point - state.point, gradient - state.gradient
    overlap = step @ change
    useful = overlap > ROUNDING * (step @ step)
    slot = state.stored % MEMORY

    def put(memory, new):
        return jnp.where(useful, memory.at[slot].set(new), memory)

    return state._replace(
        point=point,
        value=value,
        gradient=gradient,
        length=jnp.ones_like(state.length),
        steps=put(state.steps, step),
        changes=put(state.changes, change),
        inverse_overlaps=put(state.inverse_overlaps, 1 / jnp.where(useful, overlap, 1)),
        stored=state.stored + useful,
    )


def _apply_inverse(state: _Descent) -> Array:
    """The inverse Hessian that the memory implies, on the gradient (Nocedal 1980)."""
    slots = (state.stored - 1 - jnp.arange(MEMORY)) % MEMORY

    def backward(vector, slot):
        weight = state.inverse_overlaps[slot] * (state.steps[slot] @ vector)
        return vector - weight * state.changes[slot], weight

    def forward(vector, slot_and_weight):
        slot, weight = slot_and_weight
        back = state.inverse_overlaps[slot] * (state.changes[slot] @ vector)
        return vector + (weight - back) * state.steps[slot], None

    vector, weights = lax.scan(backward, state.gradient, slots)
    newest = slots[0]
    change = state.changes[newest]
    scale = jnp.where(state.stored > 0, 1 / (state.inverse_overlaps[newest] * (change @ change) + 1e-300), 1.0)
    vector, _ = lax.scan(forward, scale * vector, (slots, weights), reverse=True)
    return vector

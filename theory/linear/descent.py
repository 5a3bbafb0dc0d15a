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
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    starts: Array,
    count: Array,
    most: int,
    tolerance: float,
    lanes: int = 4,
) -> Array:
    """Where L-BFGS with backtracking comes to rest from each of the first ``count`` of ``starts`` (S, d), (S, d).

    Several searches run side by side; one that ends makes room for the next start, so that none waits for another.

    Args:
        value_and_gradient: point (d,) -> value, gradient (d,); traced once.
        starts: the first points, and any numbers behind them.
        count: how many there are; zeros are returned for the others.
        most: evaluations at most, for each.
        tolerance: on the largest component of the gradient.
        lanes: how many run side by side.
    """

    def restart(state, start, ended=True):
        # Nothing is known of the start: the first trial is at the start itself, and anything is below infinity. Numbers
        # in the memory whose inverse overlap is zero do not count.
        fresh = state._replace(
            point=start,
            value=jnp.full_like(state.value, jnp.inf),
            gradient=jnp.zeros_like(start),
            length=jnp.ones_like(state.length),
            inverse_overlaps=jnp.zeros_like(state.inverse_overlaps),
            stored=jnp.zeros_like(state.stored),
            trials=jnp.zeros_like(state.trials),
        )
        return jax.tree.map(lambda new, old: old if new is old else jnp.where(ended, new, old), fresh, state)

    def one_trial(state):
        direction = -_apply_inverse(state)
        promised = state.gradient @ direction
        point = state.point + state.length * direction
        value, gradient = value_and_gradient(point)
        slack = ROUNDING * (1 + jnp.abs(state.value))
        accepted = value <= state.value + SUFFICIENT * state.length * promised + slack
        # The minimum of the parabola through what is known, within reason.
        curved = value - state.value - state.length * promised
        best = -promised * state.length**2 / (2 * curved)
        shorter = jnp.where(
            jnp.isfinite(best), jnp.clip(best, 0.1 * state.length, 0.5 * state.length), state.length / 10
        )
        moved = (point, value, gradient, jnp.ones_like(shorter))
        stayed = (state.point, state.value, state.gradient, shorter)
        point, value, gradient, length = (jnp.where(accepted, a, b) for a, b in zip(moved, stayed, strict=True))
        state = _remember(state, point - state.point, gradient - state.gradient)
        return state._replace(point=point, value=value, gradient=gradient, length=length, trials=state.trials + 1)

    def unfinished(state):
        descends = jnp.max(jnp.abs(state.gradient)) > tolerance
        return descends & (state.trials < most) & (state.length > LEAST_LENGTH)

    def all_lanes(carry):
        states, owners, following, ends = carry
        states = jax.vmap(one_trial)(states)
        ended = (owners < count) & ~jax.vmap(unfinished)(states)
        ends = ends.at[jnp.where(ended, owners, len(starts))].set(states.point, mode="drop")
        taken = following + jnp.cumsum(ended) - 1
        owners = jnp.where(ended, taken, owners)
        states = jax.vmap(restart)(states, starts[jnp.minimum(owners, len(starts) - 1)], ended)
        return states, owners, following + jnp.sum(ended), ends

    first = jnp.arange(lanes)
    number, memory = jnp.zeros(lanes, starts.dtype), jnp.zeros((lanes, MEMORY, starts.shape[1]), starts.dtype)
    point, counter = jnp.zeros((lanes, starts.shape[1]), starts.dtype), jnp.zeros(lanes, jnp.int32)
    idle = _Descent(point, number, point, number, memory, memory, memory[..., 0], counter, counter)
    states = jax.vmap(restart)(idle, starts[jnp.minimum(first, len(starts) - 1)])
    carry = (states, first, jnp.asarray(lanes), jnp.zeros_like(starts))
    return lax.while_loop(lambda carry: jnp.any(carry[1] < count), all_lanes, carry)[-1]


def _remember(state: _Descent, step: Array, change: Array) -> _Descent:
    """With a step and the change of the gradient along it in the memory, in place of the oldest; a null step is not."""
    overlap = step @ change
    useful = overlap > ROUNDING * (step @ step)
    slot = state.stored % MEMORY

    def put(memory, new):
        return memory.at[slot].set(jnp.where(useful, new, memory[slot]))

    return state._replace(
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
    # With nothing stored, a step of length 1 at most.
    first = 1 / jnp.maximum(1.0, jnp.linalg.norm(vector))
    scale = jnp.where(state.stored > 0, 1 / (state.inverse_overlaps[newest] * (change @ change) + 1e-300), first)
    vector, _ = lax.scan(forward, scale * vector, (slots, weights), reverse=True)
    return vector

"""L-BFGS from many starts at once, in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from theory.gaussian.settings import DescentSettings
from theory.model import Array


class _Descent(NamedTuple):
    point: Array
    value: Array
    gradient: Array
    length: Array  # of the next trial step, in units of the direction
    steps: Array  # the last of them, newest last, zeros where there are none yet
    changes: Array  # of the gradient along them
    overlaps: Array  # of steps (rows) with the changes of the same and later steps; ones on the diagonal where none
    gram: Array  # of the changes
    trials: Array


def descend(
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    starts: Array,
    count: Array,
    tolerance: float,
    settings: DescentSettings = DescentSettings(),
) -> Array:
    """Where L-BFGS with backtracking comes to rest from each of the first ``count`` of ``starts`` (S, d), (S, d).

    Several searches run side by side; one that ends makes room for the next start, so that none waits for another.

    Args:
        value_and_gradient: point (d,) -> value, gradient (d,); traced once.
        starts: the first points, and any numbers behind them.
        count: how many there are; zeros are returned for the others.
        tolerance: on the largest component of the gradient.
        settings: of the descent.
    """

    lanes, most, size_of_memory = settings.lanes, settings.evaluations, settings.memory

    def restart(state, start, ended=True):
        # Nothing is known of the start: the first trial is at the start itself, and anything is below infinity.
        fresh = state._replace(
            point=start,
            value=jnp.full_like(state.value, jnp.inf),
            gradient=jnp.zeros_like(start),
            length=jnp.ones_like(state.length),
            steps=jnp.zeros_like(state.steps),
            changes=jnp.zeros_like(state.changes),
            overlaps=jnp.eye(size_of_memory, dtype=start.dtype),
            gram=jnp.zeros_like(state.gram),
            trials=jnp.zeros_like(state.trials),
        )
        return jax.tree.map(lambda new, old: old if new is old else jnp.where(ended, new, old), fresh, state)

    def one_trial(state):
        direction = -_apply_inverse(state)
        promised = state.gradient @ direction
        point = state.point + state.length * direction
        value, gradient = value_and_gradient(point)
        slack = settings.rounding * (1 + jnp.abs(state.value))
        accepted = value <= state.value + settings.sufficient * state.length * promised + slack
        # The minimum of the parabola through what is known, within reason.
        curved = value - state.value - state.length * promised
        best = -promised * state.length**2 / (2 * curved)
        shorter = jnp.where(
            jnp.isfinite(best), jnp.clip(best, 0.1 * state.length, 0.5 * state.length), state.length / 10
        )
        moved = (point, value, gradient, jnp.ones_like(shorter))
        stayed = (state.point, state.value, state.gradient, shorter)
        point, value, gradient, length = (jnp.where(accepted, a, b) for a, b in zip(moved, stayed, strict=True))
        state = _remember(state, point - state.point, gradient - state.gradient, settings.rounding)
        return state._replace(point=point, value=value, gradient=gradient, length=length, trials=state.trials + 1)

    def unfinished(state):
        descends = jnp.max(jnp.abs(state.gradient)) > tolerance
        return descends & (state.trials < most) & (state.length > settings.least_length)

    def all_lanes(carry):
        states, owners, following, ends = carry
        states = jax.vmap(one_trial)(states)
        ended = (owners < count) & ~jax.vmap(unfinished)(states)
        return lax.cond(jnp.any(ended), next_starts, lambda *same: same[1:], ended, states, owners, following, ends)

    def next_starts(ended, states, owners, following, ends):
        ends = ends.at[jnp.where(ended, owners, len(starts))].set(states.point, mode="drop")
        taken = following + jnp.cumsum(ended) - 1
        owners = jnp.where(ended, taken, owners)
        states = jax.vmap(restart)(states, starts[jnp.minimum(owners, len(starts) - 1)], ended)
        return states, owners, following + jnp.sum(ended), ends

    first = jnp.arange(lanes)
    size, kind = starts.shape[1], starts.dtype
    number, point, counter = jnp.zeros(lanes, kind), jnp.zeros((lanes, size), kind), jnp.zeros(lanes, jnp.int32)
    memory, square = (
        jnp.zeros((lanes, size_of_memory, size), kind),
        jnp.zeros((lanes, size_of_memory, size_of_memory), kind),
    )
    idle = _Descent(point, number, point, number, memory, memory, square, square, counter)
    states = jax.vmap(restart)(idle, starts[jnp.minimum(first, len(starts) - 1)])
    carry = (states, first, jnp.asarray(lanes), jnp.zeros_like(starts))
    return lax.while_loop(lambda carry: jnp.any(carry[1] < count), all_lanes, carry)[-1]


def _remember(state: _Descent, step: Array, change: Array, rounding: float) -> _Descent:
    """With a step and the change of the gradient along it in the memory, in place of the oldest; a null step is not."""
    useful = step @ change > rounding * (step @ step)
    steps = jnp.concatenate([state.steps[1:], step[None]])
    changes = jnp.concatenate([state.changes[1:], change[None]])
    overlaps = jnp.pad(state.overlaps[1:, 1:], ((0, 1), (0, 1))).at[:, -1].set(steps @ change)
    with_change = changes @ change
    gram = jnp.pad(state.gram[1:, 1:], ((0, 1), (0, 1))).at[:, -1].set(with_change).at[-1].set(with_change)
    new = {"steps": steps, "changes": changes, "overlaps": overlaps, "gram": gram}
    return state._replace(**{name: jnp.where(useful, array, getattr(state, name)) for name, array in new.items()})


def _apply_inverse(state: _Descent) -> Array:
    """The inverse Hessian that the memory implies, on the gradient, in compact form (Byrd, Nocedal, Schnabel 1994)."""
    newest = state.gram[-1, -1]
    # With nothing stored, a step of length 1 at most.
    first = 1 / jnp.maximum(1.0, jnp.linalg.norm(state.gradient))
    scale = jnp.where(newest > 0, state.overlaps[-1, -1] / jnp.where(newest > 0, newest, 1), first)
    along = solve_triangular(state.overlaps, state.steps @ state.gradient)
    inner = jnp.diagonal(state.overlaps) * along + scale * (state.gram @ along - state.changes @ state.gradient)
    back = solve_triangular(state.overlaps, inner, trans="T")
    return scale * (state.gradient - along @ state.changes) + back @ state.steps

"""Dense derivatives of compiled functions, a few directions at a time so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from theory.model import Array


def dense_jacobian(function: Callable[[Array], Array], at: Array, directions_at_once: int = 16) -> Array:
    """d function / d at, (outputs, inputs), for vectors in and out, by forward derivatives."""

    def column(direction):
        return jax.jvp(function, (at,), (direction,))[1]

    size = at.shape[0]
    batch = min(size, directions_at_once)
    # Whole batches only: a smaller last one would be compiled apart.
    directions = jnp.eye(-(-size // batch) * batch, size, dtype=at.dtype)
    return jax.lax.map(column, directions, batch_size=batch)[:size].T

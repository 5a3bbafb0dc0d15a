"""Dense derivatives of compiled functions, a few directions at a time so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from theory.covariance import Array


def dense_jacobian(function: Callable[[Array], Array], at: Array, directions_at_once: int = 16) -> Array:
    """d function / d at, (outputs, inputs), for vectors in and out, by forward derivatives."""

    def column(direction):
        return jax.jvp(function, (at,), (direction,))[1]

    identity = jnp.eye(at.shape[0], dtype=at.dtype)
    return jax.lax.map(column, identity, batch_size=directions_at_once).T

"""Derivatives of an activation, and whether they tell all of it: a phi with kinks has no second one on points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from theory.jax_settings import own_settings
from theory.model import Array

# Relative violation of Stein's identity that counts as a kink: the rule below is exact to 1e-9 for smooth activations,
# and off by 0.1 and more for ReLU-like ones.
KINK_TOLERANCE = 1e-3


def derivatives(phi: Callable, preactivation: Array, kinks: bool) -> tuple[Array, Array, Array | None]:
    """phi, phi' and (smooth phi only) phi'' elementwise."""
    ones = jnp.ones_like(preactivation)

    def slope(x):
        return jax.jvp(phi, (x,), (ones,))[1]

    if kinks:
        return phi(preactivation), slope(preactivation), None
    first, second = jax.jvp(slope, (preactivation,), (ones,))
    return phi(preactivation), first, second


def has_kinks(phi: Callable) -> bool:
    """Whether phi'' misses part of phi: <x phi'(x)> = v <phi''(x)> is tested on shifted Gaussians."""
    with own_settings():
        first, second = map(np.asarray, _two_sides(phi))
    return not bool(np.all(np.abs(first - second) < KINK_TOLERANCE * (1 + np.abs(first))))


@partial(jax.jit, static_argnums=0)
def _two_sides(phi):
    nodes = jnp.linspace(-9.0, 9.0, 4001)
    weights = jnp.exp(-(nodes**2) / 2)
    weights = weights / jnp.sum(weights)
    centres, deviations = jnp.meshgrid(jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0]), jnp.array([0.5, 1.5]))
    x = centres[..., None] + deviations[..., None] * nodes
    curvature: Array
    _, slope, curvature = derivatives(phi, x, kinks=False)
    return (nodes * slope) @ weights, deviations * jnp.dot(curvature, weights)

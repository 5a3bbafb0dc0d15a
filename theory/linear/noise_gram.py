r"""The free energy in the coordinates that the sampler uses: the Gram factor of the white noise.

With h = L z (`theory.causal`) and linear phi, q(h) is Gaussian exactly when z is, z ~ N(0, R R^T), and

    F(R) = KL( N(0, R R^T) || N(0, I) ) + 1/2 sum_o y_o^T A[Phi]^{-1} y_o,       Phi = L R R^T L^T
         = 1/2 ( |R|^2 - n ) - sum_i ln R_ii + data term

for lower triangular R: the log density of the kernel coordinates at N -> infinity, divided by -N. A singular C needs no
special care: noise that nothing uses stays at its prior.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.activations import BUILT_IN
from theory.causal import Trajectory, kernel_of_noise, propagate
from theory.covariance import Array, Terms, preactivation_cov
from theory.jacobians import dense_jacobian
from theory.prediction import Predictive, data_term, predict_given_kernel

DIRECTIONS_AT_ONCE = 80  # of the second derivatives: n = 12 takes one round


def pack(factor: np.ndarray) -> np.ndarray:
    """Lower triangular R (n, n), positive diagonal -> coordinates: strict lower triangle, then ln R_ii."""
    n = factor.shape[0]
    return np.concatenate([factor[np.tril_indices(n, -1)], np.log(np.diagonal(factor))])


def unpack(coordinates: Array, n: int) -> Array:
    """The inverse of `pack`."""
    lower = jnp.zeros((n, n), coordinates.dtype).at[np.tril_indices(n, -1)].set(coordinates[:-n])
    return lower + jnp.diag(jnp.exp(coordinates[-n:]))


def kernel_of_coordinates(terms: Terms, coordinates: Array, patterns: int) -> Array:
    """Phi (n, n) = L R R^T L^T."""
    factor = unpack(coordinates, terms.drive.shape[0])
    return kernel_of_noise(terms, factor, BUILT_IN["linear"].function, patterns, 1)


class Description(NamedTuple):
    """What a saddle point consists of: the causal construction, C[Phi] (n, n), and the law of f."""

    trajectory: Trajectory
    cov: Array
    predictive: Predictive


@partial(jax.jit, static_argnums=2)
def describe(coordinates: Array, terms: Terms, patterns: int) -> Description:
    """The `Description` of a point."""
    noise = unpack(coordinates, terms.drive.shape[0])
    trajectory = propagate(terms, noise, BUILT_IN["linear"].function, patterns, 1)
    cov = preactivation_cov(terms, trajectory.kernel, patterns)
    return Description(trajectory, cov, predict_given_kernel(terms, trajectory.kernel))


def free_energy(coordinates: Array, terms: Terms, patterns: int) -> Array:
    """F(R)."""
    n = terms.drive.shape[0]
    log_pivots = coordinates[-n:]
    divergence = (jnp.sum(coordinates[:-n] ** 2) + jnp.sum(jnp.expm1(2 * log_pivots) - 2 * log_pivots)) / 2
    return divergence + data_term(terms, kernel_of_coordinates(terms, coordinates, patterns))


free_energy_and_gradient = jax.jit(jax.value_and_grad(free_energy), static_argnums=2)


@partial(jax.jit, static_argnums=2)
def hessian(coordinates: Array, terms: Terms, patterns: int) -> Array:
    """Second derivatives of F, forward over reverse."""
    return dense_jacobian(lambda c: jax.grad(free_energy)(c, terms, patterns), coordinates, DIRECTIONS_AT_ONCE)

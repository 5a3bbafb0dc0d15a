r"""The free energy of a linear network in the coordinates that the sampler uses: the Gram factor of the white noise.

With h = L z (`theory.causal`) and linear phi, q(h) is Gaussian exactly when z is, z ~ N(0, R R^T), and

    F(R) = KL( N(0, R R^T) || N(0, I) ) + 1/2 sum_o y_o^T A[Phi]^{-1} y_o,       Phi = L R R^T L^T
         = 1/2 ( |R|^2 - n ) - sum_i ln R_ii + data term

for lower triangular R: the log density of the kernel coordinates at N -> infinity, divided by -N. A singular C needs no
special care: noise that nothing uses stays at its prior.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from theory.activations import BUILT_IN
from theory.causal import kernel_of_noise
from theory.jacobians import dense_jacobian
from theory.model import Array, Model, data_term


def pack(factor: np.ndarray) -> np.ndarray:
    """Lower triangular R (n, n), positive diagonal -> coordinates: strict lower triangle, then ln R_ii."""
    n = factor.shape[0]
    return np.concatenate([factor[np.tril_indices(n, -1)], np.log(np.diagonal(factor))])


def unpack(coordinates: Array, n: int) -> Array:
    """The inverse of `pack`."""
    lower = jnp.zeros((n, n), coordinates.dtype).at[np.tril_indices(n, -1)].set(coordinates[:-n])
    return lower + jnp.diag(jnp.exp(coordinates[-n:]))


def kernel_of_coordinates(model: Model, coordinates: Array) -> Array:
    """Phi (n, n) = L R R^T L^T."""
    factor = unpack(coordinates, model.drive.shape[0])
    return kernel_of_noise(model, factor, BUILT_IN["linear"].function, 1)


def free_energy(coordinates: Array, model: Model) -> Array:
    """F(R)."""
    n = model.drive.shape[0]
    log_pivots = coordinates[-n:]
    divergence = (jnp.sum(coordinates[:-n] ** 2) + jnp.sum(jnp.expm1(2 * log_pivots) - 2 * log_pivots)) / 2
    return divergence + data_term(model, kernel_of_coordinates(model, coordinates))


gradient = jax.jit(jax.grad(free_energy))


@partial(jax.jit, static_argnums=2)
def hessian(coordinates: Array, model: Model, directions: int = 80) -> Array:
    """Second derivatives of F, forward over reverse, some directions at once."""
    return dense_jacobian(lambda c: jax.grad(free_energy)(c, model), coordinates, directions)

r"""How the free energy responds to the covariance of the pre-activations, and the conjugate kernel it makes.

    Q = C^{-1} - C^{-1} <h h^T> C^{-1}  =  2 dKL/dC,    Phihat = `theory.model.conjugate_kernel` of Q

Everything is restricted to the range of C, given by its factor L (`theory.causal`), whose zero columns mark entries
that follow from earlier ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from theory.causal import PIVOT_FLOOR, semidefinite_cholesky

# Strong signals drive deep networks to a fixed point, where a step adds nothing to those before: conditional variances
# fall geometrically. Below this fraction a step counts as following from the earlier ones; kernels move by as much.
NEGLIGIBLE = 1e-4


def factorise(cov: np.ndarray, floor: float = PIVOT_FLOOR["float64"]) -> np.ndarray:
    """The lower factor L of a covariance (n, n), zero columns where earlier entries leave a variance below the floor.

    Args:
        cov: the covariance, positive semi-definite.
        floor: relative to the entry's own variance. By default rounding error; `NEGLIGIBLE` where what is divided by
            the pivots is known from draws only.
    """
    return np.asarray(_factorise(cov, floor))


@jax.jit
def _factorise(cov, floor):
    return semidefinite_cholesky(cov, jnp.diagonal(cov), floor)


def inverse_factor(factor: np.ndarray) -> np.ndarray:
    """L^{-1} on the entries that L has, zero on the others; (n, n)."""
    live = np.diagonal(factor) > 0
    window = np.ix_(live, live)
    inverse = np.zeros_like(factor)
    if live.any():  # LAPACK refuses empty matrices
        # Not `scipy.linalg.solve_triangular`: its threads and XLA's wait for each other, milliseconds for n = 12.
        inverse[window] = scipy.linalg.lapack.dtrtri(factor[window], lower=1)[0]
    return inverse


def covariance_inverse(factor: np.ndarray) -> np.ndarray:
    """C^{-1} (n, n) on the range of C = L L^T."""
    inverse = inverse_factor(factor)
    return inverse.T @ inverse


def covariance_response(factor: np.ndarray, second_moment: np.ndarray) -> np.ndarray:
    """Q (n, n) for <h h^T> = ``second_moment``."""
    inverse = inverse_factor(factor)
    live = np.diag((np.diagonal(factor) > 0).astype(float))
    return inverse.T @ (live - inverse @ second_moment @ inverse.T) @ inverse

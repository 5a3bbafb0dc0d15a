r"""The symmetric branch of an odd activation: steps that W alone could correlate stay uncorrelated. Does that last?

Inputs and read-outs tie steps at certain offsets, multiples of some g (g = 0: none, as in endpoint tasks). With phi
odd, a law q in which only such steps are correlated is stationary: what is left of W is its tie between steps at
multiples of g, and q factorises into independent groups of entries. Around it a perturbation (dL, dPh) of the natural
parameters (C^{-1}, Phihat) between groups follows, to first order, a linear map of its own. With m = <h h^T>,
k = <h phi^T>, p = <phi phi^T> (all zero between groups) and L = C^{-1},

    d<h h^T> = -(m dL m + k dPh k^T)          dPhi = -(k^T dL k + p dPh p)
    dL'  = - L (gw^2 Mw o shift[dPhi]) L
    dPh' = gw^2 Mw o shift^T[ dL' - dL' m L - L m dL' - L d<h h^T> L ]

The Hessian of the free energy is G (1 - map), G positive, so the eigenvalues are real and the branch is unstable where
one exceeds 1. The targets do not enter: supervised steps that a shared read-out ties are in one group.

Source: SOLVER.md, "Stability of the symmetric branch", written for all patterns and offsets at once.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from theory.covariance import Array, Terms, shift_earlier, shift_later
from theory.jacobians import dense_jacobian

Pairs = tuple[tuple[int, ...], tuple[int, ...]]  # rows and columns of entries
DENSE_UP_TO = 100  # unknowns; beyond, all eigenvalues take longer than the rest of the solution
ARNOLDI_TOLERANCE = 1e-12


class SecondMoments(NamedTuple):
    """Of the law q on a decoupled branch, each (n, n): <h h^T>, <h phi^T>, <phi phi^T>, and C^{-1} on its pivots."""

    hh: Array
    h_phi: Array
    phi_phi: Array
    precision: Array


class Softest(NamedTuple):
    """The perturbation between groups that grows fastest: its eigenvalue, and dPhi and dPhihat (n, n)."""

    eigenvalue: float
    kernel: np.ndarray
    conjugate: np.ndarray


def decoupled_terms(terms: Terms, patterns: int) -> Terms:
    """The terms with W cut between steps that neither inputs nor read-outs tie."""
    steps = np.arange(len(terms.drive)) // patterns
    offsets = np.abs(steps[:, None] - steps[None, :])
    supervised = np.zeros(len(steps), dtype=bool)
    supervised[np.asarray(terms.supervised)] = True
    tied = (np.asarray(terms.drive) != 0) | ((np.asarray(terms.readout) != 0) & np.outer(supervised, supervised))
    period = int(np.gcd.reduce(offsets[tied], initial=0))
    kept = offsets % period == 0 if period else offsets == 0
    return terms._replace(recurrent=terms.recurrent * kept)


def softest_perturbation(
    moments: SecondMoments, terms: Terms, patterns: int, between: np.ndarray, odd_only: bool = False
) -> Softest:
    """The `Softest` perturbation of a decoupled branch; eigenvalue 0 where W ties no two groups.

    Args:
        moments: of its law.
        terms: the network on the task, W whole.
        patterns: P.
        between: whether two entries lie in different groups, (n, n).
        odd_only: between steps at odd offsets only.
    """
    steps = np.arange(len(terms.drive)) // patterns
    odd = np.abs(steps[:, None] - steps[None, :]) % 2 == 1
    free = between & (np.asarray(terms.recurrent) != 0) & (odd | (not odd_only))
    rows, columns = np.nonzero(np.tril(free))
    if not rows.size:
        return Softest(0.0, np.zeros(free.shape), np.zeros(free.shape))
    pairs = tuple(rows.tolist()), tuple(columns.tolist())
    value, vector = _leading(moments, terms, patterns, pairs)
    return Softest(value, *map(np.asarray, _kernel_and_conjugate(vector, moments, pairs)))


def _leading(moments: SecondMoments, terms: Terms, patterns: int, pairs: Pairs) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of the map, and its vector: by Arnoldi's method where the matrix is large."""
    size = 2 * len(pairs[0])
    if size > DENSE_UP_TO:

        def apply(vector: np.ndarray) -> np.ndarray:
            return np.asarray(_image(jnp.asarray(vector.ravel()), moments, terms, patterns, pairs))

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=apply, dtype=float)
        start = np.random.default_rng(0).normal(size=size)
        try:
            values, vectors = scipy.sparse.linalg.eigs(operator, k=1, which="LR", v0=start, tol=ARNOLDI_TOLERANCE)
        except scipy.sparse.linalg.ArpackError:
            pass  # then all of them
        else:
            return float(values[0].real), vectors[:, 0].real
    values, vectors = np.linalg.eig(np.asarray(_map(moments, terms, patterns, pairs)))
    top = int(np.argmax(values.real))
    return float(values[top].real), vectors[:, top].real


@partial(jax.jit, static_argnums=(3, 4))
def _image(perturbation, moments, terms, patterns, pairs):
    """The map of the module's docstring on the pairs of entries that are free."""
    rows, columns = map(np.array, pairs)
    precision, conjugate = _embedded(perturbation, rows, columns, moments.hh.shape[0])
    second, kernel = _responses(moments, precision, conjugate)
    own = moments.precision
    new_precision = -own @ (terms.recurrent * shift_later(kernel, patterns)) @ own
    mixed = new_precision @ moments.hh @ own
    response = new_precision - mixed - mixed.T - own @ second @ own
    new_conjugate = shift_earlier(terms.recurrent * response, patterns)
    return jnp.concatenate([new_precision[rows, columns], new_conjugate[rows, columns]])


@partial(jax.jit, static_argnums=2)
def _kernel_and_conjugate(perturbation, moments, pairs):
    """dPhi and dPhihat, (n, n)."""
    rows, columns = map(np.array, pairs)
    precision, conjugate = _embedded(perturbation, rows, columns, moments.hh.shape[0])
    return _responses(moments, precision, conjugate)[1], conjugate


@partial(jax.jit, static_argnums=(2, 3))
def _map(moments, terms, patterns, pairs):
    start = jnp.zeros(2 * len(pairs[0]), moments.hh.dtype)
    return dense_jacobian(lambda perturbation: _image(perturbation, moments, terms, patterns, pairs), start)


def _responses(moments, precision, conjugate):
    """d<h h^T> and dPhi."""
    hh, h_phi, phi_phi, _ = moments
    second = -(hh @ precision @ hh + h_phi @ conjugate @ h_phi.T)
    kernel = -(h_phi.T @ precision @ h_phi + phi_phi @ conjugate @ phi_phi)
    return second, kernel


def _embedded(perturbation, rows, columns, n):
    """The two symmetric matrices (n, n) whose entries on the given pairs are the perturbation's halves."""

    def symmetric(values):
        lower = jnp.zeros((n, n), values.dtype).at[rows, columns].set(values)
        return lower + lower.T

    first, second = jnp.split(perturbation, 2)
    return symmetric(first), symmetric(second)

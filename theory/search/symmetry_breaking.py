r"""The symmetric branch of an odd activation: sites that only weights could correlate stay uncorrelated; is it stable?

Inputs, biases and readouts tie some sites. With phi odd, a law q in which only those are correlated that must be then
(`theory.ties.unbroken_entries`) is stationary: the weights are cut between all others, and q factorises into
independent groups of entries. Around it a perturbation (dL, dPh) of the natural parameters (C^{-1}, Phihat) between
groups follows, to first order, a linear map of its own. With m = <h h^T>, k = <h phi^T>, p = <phi phi^T> (all zero
between groups), L = C^{-1}, and dC[.] the linear part of C with its adjoint dC^T,

    d<h h^T> = -(m dL m + k dPh k^T)          dPhi = -(k^T dL k + p dPh p)
    dL'  = - L dC[dPhi] L
    dPh' = dC^T[ dL' - dL' m L - L m dL' - L d<h h^T> L ]

The Hessian of the free energy is G (1 - map), G positive, so the eigenvalues are real and the branch is unstable where
one exceeds 1. The targets do not enter: supervised steps that a shared read-out ties are in one group.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from theory.jacobians import dense_jacobian
from theory.model import Array, Model, covariance_adjoint, covariance_change
from theory.search.settings import BranchSettings
from theory.ties import cut_between, unbroken_entries

Pairs = tuple[tuple[int, ...], tuple[int, ...]]  # rows and columns of entries


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


def decoupled_model(model: Model) -> Model:
    """The model with its weights cut between sites that need not be correlated."""
    return cut_between(model, unbroken_entries(model))


def softest_perturbation(
    moments: SecondMoments, model: Model, free: np.ndarray, settings: BranchSettings = BranchSettings()
) -> Softest:
    """The `Softest` perturbation of a decoupled branch; eigenvalue 0 where nothing is free to move.

    Args:
        moments: of its law.
        model: the network on the task, its weights whole.
        free: which pairs of entries of different groups may be perturbed, boolean (n, n).
        settings: of the search for it.
    """
    rows, columns = np.nonzero(np.tril(free))
    if not rows.size:
        return Softest(0.0, np.zeros(free.shape), np.zeros(free.shape))
    pairs = tuple(rows.tolist()), tuple(columns.tolist())
    value, vector = _leading(moments, model, pairs, settings)
    return Softest(value, *map(np.asarray, _kernel_and_conjugate(vector, moments, pairs)))


def _leading(moments: SecondMoments, model: Model, pairs: Pairs, settings: BranchSettings) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of the map, and its vector: by Arnoldi's method where the matrix is large."""
    size = 2 * len(pairs[0])
    if size > settings.dense_unknowns:

        def apply(vector: np.ndarray) -> np.ndarray:
            return np.asarray(_image(jnp.asarray(vector.ravel()), moments, model, pairs))

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=apply, dtype=float)
        start = np.random.default_rng(0).normal(size=size)
        try:
            values, vectors = scipy.sparse.linalg.eigs(operator, k=1, which="LR", v0=start, tol=settings.arnoldi)
        except scipy.sparse.linalg.ArpackError:
            pass  # then all of them
        else:
            return float(values[0].real), vectors[:, 0].real
    values, vectors = np.linalg.eig(np.asarray(_map(moments, model, pairs)))
    top = int(np.argmax(values.real))
    return float(values[top].real), vectors[:, top].real


@partial(jax.jit, static_argnums=3)
def _image(perturbation, moments, model, pairs):
    """The map of the module's docstring on the pairs of entries that are free."""
    rows, columns = map(np.array, pairs)
    precision, conjugate = _embedded(perturbation, rows, columns, moments.hh.shape[0])
    second, kernel = _responses(moments, precision, conjugate)
    own = moments.precision
    new_precision = -own @ covariance_change(model, kernel) @ own
    mixed = new_precision @ moments.hh @ own
    response = new_precision - mixed - mixed.T - own @ second @ own
    new_conjugate = covariance_adjoint(model, response)
    return jnp.concatenate([new_precision[rows, columns], new_conjugate[rows, columns]])


@partial(jax.jit, static_argnums=2)
def _kernel_and_conjugate(perturbation, moments, pairs):
    """dPhi and dPhihat, (n, n)."""
    rows, columns = map(np.array, pairs)
    precision, conjugate = _embedded(perturbation, rows, columns, moments.hh.shape[0])
    return _responses(moments, precision, conjugate)[1], conjugate


@partial(jax.jit, static_argnums=2)
def _map(moments, model, pairs):
    start = jnp.zeros(2 * len(pairs[0]), moments.hh.dtype)
    return dense_jacobian(lambda perturbation: _image(perturbation, moments, model, pairs), start)


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

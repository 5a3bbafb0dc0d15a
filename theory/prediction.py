r"""Predictions given a kernel: V integrated out, Gaussian process regression with K = gv^2 (Mv o Phi).

    f | Phi, y  ~  N( K_{*s} A^{-1} y,  scale (K_** - K_{*s} A^{-1} K_{s*}) ),     A = kappa I + K_ss

independently for each output; ``scale`` is 1/N in muP. With an unshared readout Mv cuts the steps apart, so the mean
is zero at unsupervised steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from theory.covariance import Array, Terms, target_cov


class Predictive(NamedTuple):
    """Gaussian law of f given the kernel, at every entry (n = T P, time-major).

    Attributes:
        mean: (n, O).
        cov: (n, n), the same for each output.
        dual: r = A^{-1} y on the supervised entries, zero elsewhere, (n, O).
    """

    mean: Array
    cov: Array
    dual: Array


@jax.jit
def predict_given_kernel(terms: Terms, kernel: Array) -> Predictive:
    """The law of f given the kernel (n, n) and the targets."""
    factor = cho_factor(target_cov(terms, kernel), lower=True)
    cross = (terms.readout * kernel)[:, terms.supervised]
    dual = cho_solve(factor, jnp.asarray(terms.targets, kernel.dtype))
    cov = terms.scale * (terms.readout * kernel - cross @ cho_solve(factor, cross.T))
    everywhere = jnp.zeros((kernel.shape[0], dual.shape[1]), kernel.dtype).at[terms.supervised].set(dual)
    return Predictive(cross @ dual, cov, everywhere)


@jax.jit
def data_term(terms: Terms, kernel: Array) -> Array:
    """1/2 sum_o y_o^T A^{-1} y_o, the cost of the targets in the free energy."""
    dual = jnp.linalg.solve(target_cov(terms, kernel), terms.targets)
    return jnp.sum(terms.targets * dual) / 2

r"""The Gaussian law: exact for linear phi.

    q(h) = N(0, Phi),    Phi = (C^{-1} + Phihat)^{-1} = F (1 + F^T Phihat F)^{-1} F^T,

which needs no inverse of C. With E the spread of the live entries, the response is Q = E^T (Phihat - Phihat Phi Phihat)
E, and

    KL( q || N(0, C) ) = 1/2 [ tr M - r - ln det M ],        M = (1 + F^T Phihat F)^{-1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from theory.laws.law import Law, Moments, embedded, range_of
from theory.model import Array


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["live"])
@dataclass(frozen=True)
class GaussianLaw(Law):
    """The law of a linear neuron.

    Attributes:
        live: the pivots of C.
    """

    live: tuple[int, ...]
    exact: ClassVar[bool] = True

    def moments(self, cov: Array, conjugate: Array) -> Moments:
        space = range_of(cov, self.live)
        factor = space.spread @ space.pivot
        kernel = factor @ self._noise(factor, conjugate) @ factor.T
        kernel = (kernel + kernel.T) / 2
        response = space.spread.T @ (conjugate - conjugate @ kernel @ conjugate) @ space.spread
        nothing = jnp.zeros(len(cov), cov.dtype)
        whole = embedded(response, self.live, len(cov))
        return Moments(kernel, whole, nothing, kernel, kernel, jnp.ones((), cov.dtype))

    def divergence(self, cov: Array, conjugate: Array, seed: int = 0) -> float:
        space = range_of(jnp.asarray(cov), self.live)
        factor = np.asarray(space.spread @ space.pivot)
        noise = np.asarray(self._noise(factor, conjugate))
        return float(np.trace(noise) - len(noise) - np.linalg.slogdet(noise)[1]) / 2

    def neurons(self, cov: Array, conjugate: Array, count: int, rng: np.random.Generator) -> np.ndarray:
        space = range_of(jnp.asarray(cov), self.live)
        factor = np.asarray(space.spread @ space.pivot)
        white = np.linalg.cholesky(np.asarray(self._noise(factor, conjugate)))
        return rng.normal(size=(count, len(white))) @ (factor @ white).T

    @staticmethod
    def _noise(factor: Array, conjugate: Array) -> Array:
        """M = <z z^T>, (r, r)."""
        inner = jnp.eye(factor.shape[1], dtype=factor.dtype) + factor.T @ conjugate @ factor
        return jnp.linalg.inv((inner + inner.T) / 2)

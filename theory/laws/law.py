r"""The interface of a neuron's law, and what all laws share.

    q(h) ~ exp( -1/2 h^T C^{-1} h - 1/2 phi(h)^T Phihat phi(h) ),        h = F z  on the range of C

z has as many components as C has rank r; F (n, r) holds the columns of the factor of C that are not zero. The entries
are those of one group that weights tie to one another (`theory.ties.tied_entries`); q factorises between groups. The
saddle point asks four things of a law: averages (`Law.moments`), the divergence from the prior (`Law.divergence`),
neurons (`Law.neurons`), and whether the averages are exact (`Law.exact`). There are four kinds of law: that of silent
entries, the Gaussian (exact for linear phi), the grid (at most three independent entries), and draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from theory.model import Array


class Moments(NamedTuple):
    """Averages over one law.

    Attributes:
        kernel: <phi phi^T>, (n, n).
        response: Q = C^{-1} - C^{-1} <h h^T> C^{-1}, (n, n), zero off the pivots of C.
        mean: <phi>, (n,).
        second: <h h^T>, (n, n).
        mixed: <h phi^T>, (n, n).
        effective_sample_size: (sum w)^2 / (M sum w^2) of M weighted points, between 0 and 1; 1 in closed form.
    """

    kernel: Array
    response: Array
    mean: Array
    second: Array
    mixed: Array
    effective_sample_size: Array


class Law(ABC):
    """A neuron's law over one group of tied entries, as a function of C and Phihat, (n, n) each; a pytree.

    What a law was made at (a C and a Phihat) does not limit where it is asked; draws and grids lose precision away from
    there, which the effective sample size shows.
    """

    exact: ClassVar[bool]

    @abstractmethod
    def moments(self, cov: Array, conjugate: Array) -> Moments:
        """The `Moments`; differentiable, and may be compiled and batched."""

    @abstractmethod
    def divergence(self, cov: Array, conjugate: Array, seed: int) -> float:
        """KL( q || N(0, C) ); the seed is for what a law may have to draw."""

    @abstractmethod
    def neurons(self, cov: Array, conjugate: Array, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws h of equal weight, (count, n)."""

    def fewer(self, count: int) -> Law:
        """A rougher law that costs as much as ``count`` draws; the law itself where it is exact."""
        return self


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["phi"])
@dataclass(frozen=True)
class SilentLaw(Law):
    """Entries that no input has reached: h = 0.

    Attributes:
        phi: the activation.
    """

    phi: Callable
    exact: ClassVar[bool] = True

    def moments(self, cov: Array, conjugate: Array) -> Moments:
        nothing = jnp.zeros_like(cov)
        mean = self.phi(nothing[0])
        return Moments(jnp.outer(mean, mean), nothing, mean, nothing, nothing, jnp.ones((), cov.dtype))

    def divergence(self, cov: Array, conjugate: Array, seed: int) -> float:
        return 0.0

    def neurons(self, cov: Array, conjugate: Array, count: int, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((count, len(cov)))


class Range(NamedTuple):
    """The range of C: h = spread h_live, h_live = pivot z, so F = spread pivot.

    Attributes:
        spread: E, (n, r), the identity on the live entries.
        pivot: lower factor of C on the live entries, (r, r).
    """

    spread: Array
    pivot: Array


def live_entries(factor: np.ndarray) -> tuple[int, ...]:
    """The entries that add something new, from the factor of C (`theory.response.factorise`)."""
    return tuple(int(i) for i in np.flatnonzero(np.diagonal(factor) > 0))


@partial(jax.jit, static_argnums=1)
def range_of(cov: Array, live: tuple[int, ...]) -> Range:
    """The `Range` of C (n, n), ``live`` being its pivots; differentiable."""
    index = np.asarray(live, dtype=int)
    pivot = jnp.linalg.cholesky(cov[index][:, index])
    half = solve_triangular(pivot, cov[index], lower=True)
    spread = solve_triangular(pivot, half, lower=True, trans="T").T
    return Range(spread.at[index].set(jnp.eye(len(live), dtype=cov.dtype)), pivot)


def embedded(response: Array, live: tuple[int, ...], n: int) -> Array:
    """A matrix on the live entries (r, r) as one on all, (n, n), zero on the others."""
    index = np.asarray(live, dtype=int)
    return jnp.zeros((n, n), response.dtype).at[np.ix_(index, index)].set(response)

r"""Averages over a law on points that stay put, with importance weights: what grids and draws share.

With psi = phi'(h) o (Phihat phi(h)), Stein's identities turn the response of the free energy to C,

    Q = C^{-1} - C^{-1} <h h^T> C^{-1}  =  < d psi / d h > - < psi psi^T >  =  < psi (C^{-1} h)^T >,

into averages that no inverse of C amplifies. The last form asks nothing of phi'' and serves where phi has kinks.

Points are kept in z for a smooth phi, so that they move along with C and the weights answer for Phihat alone, or in h
for a phi with kinks, whose jumps in phi' would otherwise make averages jump with C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from theory.laws.law import Law, Moments, Range, embedded, range_of
from theory.laws.smoothness import derivatives
from theory.model import Array

TOUCHING = 1e-8  # share of one live entry in another below which two entries have nothing in common: rounding error
DATA, META = ["coordinates", "log_base", "tilt"], ["phi", "live", "kinks"]


class Weighted(NamedTuple):
    """Points of a law in full: z (M, r), h (M, n), normalised log weights (M,) and V (M,)."""

    noise: Array
    preactivation: Array
    log_weights: Array
    energy: Array


@dataclass(frozen=True, eq=False)
class PointLaw(Law):
    """A law on weighted points.

    Attributes:
        coordinates: z if phi is smooth, else h on the live entries; (M, r).
        log_base: what makes log w = log_base + tilt - 1/2 |z|^2 - 1/2 phi^T Phihat phi the log weights, (M,).
        tilt: what makes averages of draws precise (`theory.laws.stein.stein_tilt`), (M,); zero on grids.
        phi: the activation.
        live: the pivots of C.
        kinks: whether phi has kinks.
    """

    coordinates: Array
    log_base: Array
    tilt: Array
    phi: Callable
    live: tuple[int, ...]
    kinks: bool

    def moments(self, cov: Array, conjugate: Array) -> Moments:
        space = range_of(cov, self.live)
        noise, h = self._preactivations(space)
        activity, slope, curvature = derivatives(self.phi, h, self.kinks)
        weights = jnp.exp(self._log_weights(noise, activity, conjugate))
        field = activity @ conjugate
        psi = (slope * field) @ space.spread
        weighted = psi * weights[:, None]
        diagonal = 0 if curvature is None else jnp.diag(weights @ (curvature * field))
        stiffness = conjugate * ((slope * weights[:, None]).T @ slope) + diagonal
        response = space.spread.T @ stiffness @ space.spread - weighted.T @ psi
        if curvature is None:
            # The delta functions in phi'' act between live entries that share an entry: one derivative fewer there.
            precise = solve_triangular(space.pivot, noise.T, lower=True, trans="T").T
            first_order = weighted.T @ precise
            touching = jnp.abs(space.spread).T @ jnp.abs(space.spread) > TOUCHING
            response = jnp.where(touching, (first_order + first_order.T) / 2, response)
        heavy = (activity * weights[:, None]).T
        return Moments(
            kernel=heavy @ activity,
            response=embedded(response, self.live, cov.shape[0]),
            mean=weights @ activity,
            second=(h * weights[:, None]).T @ h,
            mixed=(heavy @ h).T,
            effective_sample_size=1 / (jnp.sum(weights**2) * weights.shape[0]),
        )

    def weighted(self, cov: Array, conjugate: Array) -> Weighted:
        """The points and their weights."""
        return _weighted(self, cov, conjugate)

    def neurons(self, cov: Array, conjugate: Array, count: int, rng: np.random.Generator) -> np.ndarray:
        law = self.weighted(cov, conjugate)
        weights = np.exp(np.asarray(law.log_weights))
        return np.asarray(law.preactivation)[rng.choice(len(weights), count, p=weights / weights.sum())]

    def _preactivations(self, space: Range) -> tuple[Array, Array]:
        """z (M, r) and h (M, n)."""
        if not self.kinks:
            return self.coordinates, self.coordinates @ (space.spread @ space.pivot).T
        noise = solve_triangular(space.pivot, self.coordinates.T, lower=True).T
        return noise, self.coordinates @ space.spread.T

    def _log_weights(self, noise: Array, activity: Array, conjugate: Array) -> Array:
        """Normalised log weights (M,) for noise z (M, r) and activity (M, n)."""
        raw = self.log_base + self.tilt - jnp.sum(noise**2, axis=1) / 2 - energy(activity, conjugate)
        return raw - jax.nn.logsumexp(raw)


@jax.jit
def _weighted(law: PointLaw, cov: Array, conjugate: Array) -> Weighted:
    noise, h = law._preactivations(range_of(cov, law.live))
    activity = law.phi(h)
    return Weighted(noise, h, law._log_weights(noise, activity, conjugate), energy(activity, conjugate))


def energy(activity: Array, conjugate: Array) -> Array:
    """V = 1/2 phi^T Phihat phi of each point, (M,); ``activity`` is phi(h), (M, n)."""
    return jnp.sum((activity @ conjugate) * activity, axis=1) / 2

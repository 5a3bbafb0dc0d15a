r"""Averages over the single-neuron law q on points that stay put, with importance weights.

    q(h) ~ exp( -1/2 h^T C^{-1} h - 1/2 phi(h)^T Phihat phi(h) ),        h = F z  on the range of C

z has as many components as C has rank r; F (n, r) holds the columns of the factor of C that are not zero. With
psi = phi'(h) o (Phihat phi(h)), Stein's identities turn the response of the free energy to C,

    Q = C^{-1} - C^{-1} <h h^T> C^{-1}  =  < d psi / d h > - < psi psi^T >  =  < psi (C^{-1} h)^T >,

into averages that no inverse of C amplifies. The last form asks nothing of phi'' and serves where phi has kinks.

Points are kept in z for a smooth phi, so that they move along with C and the weights answer for Phihat alone, or in h
for a phi with kinks, whose jumps in phi' would otherwise make averages jump with C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from theory.jax_settings import own_settings
from theory.model import Array

KINK_TOLERANCE = 1e-3
TOUCHING = 1e-8


class Points(NamedTuple):
    """Points of a neuron's law.

    Attributes:
        coordinates: z if phi is smooth, else h on the live entries; (M, r).
        log_base: what makes log w = log_base + tilt - 1/2 |z|^2 - 1/2 phi^T Phihat phi the log weights, (M,).
        tilt: what makes averages of draws precise (`theory.nonlinear.neuron_chain.stein_tilt`), (M,); zero on grids.
    """

    coordinates: Array
    log_base: Array
    tilt: Array


class Moments(NamedTuple):
    """Weighted averages of one law.

    Attributes:
        kernel: <phi phi^T>, (n, n).
        response: Q, (n, n), zero off the live entries.
        mean: <phi>, (n,).
        effective_sample_size: (sum w)^2 / (M sum w^2), between 0 and 1.
    """

    kernel: Array
    response: Array
    mean: Array
    effective_sample_size: Array


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


def energy(activity: Array, conjugate: Array) -> Array:
    """V = 1/2 phi^T Phihat phi of each point, (M,); ``activity`` is phi(h), (M, n)."""
    return jnp.sum((activity @ conjugate) * activity, axis=1) / 2


def preactivations(coordinates: Array, space: Range, kinks: bool) -> tuple[Array, Array]:
    """z (M, r) and h (M, n) of points with these coordinates."""
    if not kinks:
        return coordinates, coordinates @ (space.spread @ space.pivot).T
    noise = solve_triangular(space.pivot, coordinates.T, lower=True).T
    return noise, coordinates @ space.spread.T


def log_weights(points: Points, noise: Array, activity: Array, conjugate: Array) -> Array:
    """Normalised log weights (M,) for noise z (M, r) and activity (M, n)."""
    raw = points.log_base + points.tilt - jnp.sum(noise**2, axis=1) / 2 - energy(activity, conjugate)
    return raw - jax.nn.logsumexp(raw)


def derivatives(phi: Callable, preactivation: Array, kinks: bool) -> tuple[Array, Array, Array | None]:
    """phi, phi' and (smooth phi only) phi'' elementwise."""
    ones = jnp.ones_like(preactivation)

    def slope(x):
        return jax.jvp(phi, (x,), (ones,))[1]

    if kinks:
        return phi(preactivation), slope(preactivation), None
    first, second = jax.jvp(slope, (preactivation,), (ones,))
    return phi(preactivation), first, second


def moments(points: Points, cov: Array, conjugate: Array, phi: Callable, live: tuple[int, ...], kinks: bool) -> Moments:
    """The averages over q given C and Phihat (n, n), at the points."""
    space = range_of(cov, live)
    noise, h = preactivations(points.coordinates, space, kinks)
    activity, slope, curvature = derivatives(phi, h, kinks)
    weights = jnp.exp(log_weights(points, noise, activity, conjugate))
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
    index = np.asarray(live, dtype=int)
    embedded = jnp.zeros_like(cov).at[np.ix_(index, index)].set(response)
    return Moments(
        kernel=(activity * weights[:, None]).T @ activity,
        response=embedded,
        mean=weights @ activity,
        effective_sample_size=1 / (jnp.sum(weights**2) * weights.shape[0]),
    )


class Weighted(NamedTuple):
    """Points of a law in full: z (M, r), h (M, n), normalised log weights (M,) and V (M,)."""

    noise: Array
    preactivation: Array
    log_weights: Array
    energy: Array


@partial(jax.jit, static_argnums=(3, 4, 5))
def weighted(
    points: Points, cov: Array, conjugate: Array, phi: Callable, live: tuple[int, ...], kinks: bool
) -> Weighted:
    """The points and their weights; arguments as for `moments`."""
    noise, h = preactivations(points.coordinates, range_of(cov, live), kinks)
    activity = phi(h)
    return Weighted(noise, h, log_weights(points, noise, activity, conjugate), energy(activity, conjugate))


@partial(jax.jit, static_argnums=(3, 4, 5))
def frozen(noise: Array, cov: Array, conjugate: Array, phi: Callable, live: tuple[int, ...], kinks: bool) -> Points:
    """`Points` out of draws z (M, r) from the law of C and Phihat: all weights equal there."""
    space = range_of(cov, live)
    h = noise @ (space.spread @ space.pivot).T
    base = jnp.sum(noise**2, axis=1) / 2 + energy(phi(h), conjugate)
    coordinates = h[:, np.asarray(live, dtype=int)] if kinks else noise
    return Points(coordinates, base, jnp.zeros_like(base))


def grid(spread: np.ndarray, cov: np.ndarray, live: tuple[int, ...], kinks: bool, nodes: int, reach: float):
    """`Points` of a tensor quadrature, for rank 3 at most.

    Smooth phi: the trapezoidal rule in z whitened by ``spread``, a factor of <z z^T>. Kinks: Gauss-Legendre panels in h
    on either side of zero. Both out to ``reach`` standard deviations.

    Args:
        spread: lower factor of <z z^T>, (r, r).
        cov: C, (n, n).
        live: its pivots.
        kinks: whether phi has kinks.
        nodes: per dimension, even.
        reach: in standard deviations.
    """
    rank = len(live)
    if kinks:
        index = np.asarray(live, dtype=int)
        half, half_weights = np.polynomial.legendre.leggauss(nodes // 2)
        line = np.concatenate([(half - 1) / 2, (half + 1) / 2]) * reach
        log_line = np.log(np.concatenate([half_weights, half_weights]))
        transform = np.diag(np.linalg.norm(np.linalg.cholesky(cov[np.ix_(index, index)]) @ spread, axis=1))
    else:
        line, log_line, transform = np.linspace(-reach, reach, nodes), np.zeros(nodes), spread
    mesh = np.stack(np.meshgrid(*[line] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    log_mesh = np.sum(np.meshgrid(*[log_line] * rank, indexing="ij"), axis=0).ravel()
    return Points(jnp.asarray(mesh @ transform.T), jnp.asarray(log_mesh), jnp.asarray(np.zeros(len(mesh))))

"""A law on a tensor grid, for at most three independent entries: without statistical error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from theory.display import ShortRepr
from theory.laws.points import DATA, META, PointLaw
from theory.model import Array


@dataclass(frozen=True, repr=False)
class GridSettings(ShortRepr):
    """How laws are put on grids.

    Attributes:
        rank: the most independent entries that are put on one; a fourth would take ten million nodes.
        reach: of the nodes, in standard deviations: beyond six a Gaussian holds 2e-9 of its weight.
        nodes: by rank, per dimension: of the grid for the answer, and of the rougher one that serves on the way and
            whose difference from the first is the error. Smooth activations then have errors of 1e-10; those with kinks
            as well, but 1e-7 where three entries correlate by .99.
        fits: rough grids, each as wide as the law on the one before; the third is as wide as the law to a few percent.
    """

    rank: int = 3
    reach: float = 6.0
    nodes: tuple[tuple[int, int], ...] = ((240, 160), (120, 80), (64, 46))
    fits: int = 3

    @property
    def choices(self) -> int:
        """How many grids of different fineness there are."""
        return len(self.nodes[0])


FINEST, ROUGHER = 0, 1  # places in `GridSettings.nodes`


@partial(jax.tree_util.register_dataclass, data_fields=DATA, meta_fields=META)
@dataclass(frozen=True, eq=False)
class GridLaw(PointLaw):
    """A law on a grid: ``log_base`` holds its quadrature weights."""

    exact: ClassVar[bool] = True

    def divergence(self, cov: Array, conjugate: Array, seed: int = 0) -> float:
        noise, _, logs, potential = map(np.asarray, self.weighted(cov, conjugate))
        # The same grid under the prior alone normalises it.
        raw = np.asarray(self.log_base) - np.sum(noise**2, axis=1) / 2
        log_z = np.logaddexp.reduce(raw - potential) - np.logaddexp.reduce(raw)
        return float(-log_z - np.exp(logs) @ potential)


def grid_law(
    spread: np.ndarray,
    cov: np.ndarray,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    nodes: int,
    reach: float,
) -> GridLaw:
    """A tensor quadrature in w, with h = pivot spread w on the live entries, so that <w w^T> is about 1.

    Smooth phi: the trapezoidal rule. Kinks: panels of Gauss and Legendre on either side of h_i = 0, which lies
    elsewhere on the axis of w_i for each of w_1 .. w_{i-1} (`_panels`). Both out to ``reach`` standard deviations.

    Args:
        spread: lower factor of <z z^T>, z being white under the prior, (r, r).
        cov: C, (n, n).
        phi: the activation.
        live: the pivots of C.
        kinks: whether phi has kinks.
        nodes: per dimension, even.
        reach: in standard deviations.
    """
    rank = len(live)
    if kinks:
        index = np.asarray(live, dtype=int)
        factor = np.linalg.cholesky(cov[np.ix_(index, index)]) @ spread
        mesh, log_mesh = _panels(factor, nodes, reach)
        coordinates = mesh @ factor.T
    else:
        line = np.linspace(-reach, reach, nodes)
        mesh = np.stack(np.meshgrid(*[line] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
        coordinates, log_mesh = mesh @ spread.T, np.zeros(len(mesh))
    return GridLaw(jnp.asarray(coordinates), jnp.asarray(log_mesh), jnp.zeros(len(mesh)), phi, live, kinks)


def _panels(factor: np.ndarray, nodes: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes w (nodes^r, r) and their log weights, in panels between which h = factor w changes a sign.

    The integral over w_i for given w_1 .. w_{i-1} has a smooth integrand on either side of its kink, and a smooth
    value, as the kink moves smoothly: Gauss's rule converges as for a smooth phi, however entries correlate.
    """
    unit, weights = np.polynomial.legendre.leggauss(nodes // 2)
    share, log_share = (unit + 1) / 2, np.log(weights / 2)
    mesh, log_mesh = np.zeros((1, 0)), np.zeros(1)
    for row in factor:
        known = mesh.shape[1]
        kink = np.clip(-(mesh @ row[:known]) / row[known], -reach, reach)[:, None]
        below, above = kink + reach, reach - kink
        line = np.concatenate([below * share - reach, kink + above * share], axis=1)
        widths = np.maximum(np.concatenate([below, above], axis=1), np.finfo(float).tiny)
        log_line = np.log(widths).repeat(len(share), axis=1) + np.tile(log_share, 2)
        mesh = np.concatenate([np.repeat(mesh, nodes, axis=0), line.reshape(-1, 1)], axis=1)
        log_mesh = np.repeat(log_mesh, nodes) + log_line.ravel()
    return mesh, log_mesh


def fitted_grid(
    cov: np.ndarray,
    conjugate: np.ndarray,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    choice: int = FINEST,
    settings: GridSettings = GridSettings(),
) -> GridLaw:
    """A grid as wide as the law, which rough grids measure, the first of them as wide as the prior.

    Args:
        cov, conjugate: C and Phihat, (n, n).
        phi, live, kinks: as for `grid_law`.
        choice: which of the grids of ``settings``.
        settings: of grids.

    Raises:
        numpy.linalg.LinAlgError: if the law is too narrow for the grids.
    """
    nodes = settings.nodes[len(live) - 1]
    second = np.eye(len(live))
    for number in (*settings.fits * (nodes[ROUGHER],), nodes[choice]):
        law = grid_law(np.linalg.cholesky(second), cov, phi, live, kinks, number, settings.reach)
        points = law.weighted(cov, conjugate)
        z, weights = np.asarray(points.noise), np.exp(np.asarray(points.log_weights))
        second = (z * weights[:, None]).T @ z
    return law

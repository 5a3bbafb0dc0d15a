"""A saddle point of a linear network by entry of the task, from the reduced problem that was solved."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import numpy as np

from theory import residuals
from theory.causal import PIVOT_FLOOR
from theory.gaussian.kernel_energy import Points
from theory.gaussian.reduced import Reduced
from theory.gaussian.settings import TrustRegionSettings
from theory.gaussian.site_maps import SiteMaps
from theory.gaussian.trust_region import newton_step
from theory.gaussian.white_numbers import causal_factor
from theory.kernels import scale_of
from theory.model import Model


class SaddlePoint(NamedTuple):
    """A solution of the saddle point equations.

    Attributes:
        kernel, conjugate, cov: Phi, Phihat and C, (n, n).
        free_energy: F.
        residual: the largest violation of the equations.
        distance: how far the kernel is from a solution to first order, where the search came to no rest, (n, n).
        stable: whether no second derivative of F is negative.
    """

    kernel: np.ndarray
    conjugate: np.ndarray
    cov: np.ndarray
    free_energy: float
    residual: float
    stable: bool
    distance: np.ndarray | None


def by_entry(
    point: Points, model: Model, stable: bool, settings: TrustRegionSettings = TrustRegionSettings()
) -> SaddlePoint:
    """A single point of the reduced problem of a model."""
    reduced = point.problem
    kernel = rotated(reduced.expand(point.kernel), reduced.patterns)
    maps = SiteMaps.of(model, model.patterns)
    cov = maps.change(kernel) + maps.mix(np.asarray(model.drive))
    readout, rows = np.asarray(model.readout), np.asarray(model.supervised)
    targets = readout[np.ix_(rows, rows)] * kernel[np.ix_(rows, rows)] + float(model.noise) * np.eye(len(rows))
    dual = np.zeros((len(kernel), np.asarray(model.targets).shape[1]))
    dual[rows] = np.linalg.solve(targets, np.asarray(model.targets))
    conjugate = maps.adjoint(_response(point, kernel, cov)) - readout * (dual @ dual.T)
    residual = math.nan
    with contextlib.suppress(np.linalg.LinAlgError):  # where the search has come to no rest at all
        residual = float(point.violation)
    residual = residual if math.isfinite(residual) else math.inf
    distance = None
    if residual > residuals.EXACT:
        scale = scale_of(kernel)
        distance = np.outer(scale, scale)
        if residual <= residuals.ANYWHERE:
            distance = np.minimum(distance, _distance(point, settings))
    return SaddlePoint(kernel, conjugate, cov, float(point.value), residual, stable, distance)


def _distance(point: Points, settings: TrustRegionSettings) -> np.ndarray:
    """What Newton's step would change of the kernel, (n, n); infinite beyond double precision."""
    reduced = point.problem
    try:
        step = newton_step(Points(reduced, point.kernel[None]), settings)[0]
    except np.linalg.LinAlgError:
        return np.array(np.inf)
    change = np.abs(rotated(reduced.expand(step), reduced.patterns))
    return np.where(np.isfinite(change), change, np.inf)


def reduced_kernel(kernel: np.ndarray, reduced: Reduced) -> np.ndarray:
    """That of a kernel by entry of the task (n, n), (m, m)."""
    directions = reduced.patterns
    return reduced.contract(kernel if directions is None else rotated(kernel, np.ascontiguousarray(directions.T)))


def _response(point: Points, kernel: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Q = C^{-1} - C^{-1} Phi C^{-1} on the range of C (`theory.response`), by entry of the task (n, n)."""
    reduced = point.problem
    if reduced.basis is not None and reduced.powers:
        inverse = reduced.determined_inverse
        return rotated(inverse.T @ point.response @ inverse, reduced.patterns)
    live, factor = causal_factor(cov, PIVOT_FLOOR["float64"])
    inverse = np.linalg.inv(factor[live])
    inner = np.eye(len(live)) - inverse @ kernel[np.ix_(live, live)] @ inverse.T
    response = np.zeros_like(cov)
    response[np.ix_(live, live)] = inverse.T @ inner @ inverse
    return response


def rotated(kernel: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    """From directions to patterns: (sites r, sites r) -> (sites P, sites P)."""
    if directions is None:
        return kernel
    sites = len(kernel) // directions.shape[1]
    blocks = kernel.reshape((sites, directions.shape[1]) * 2)
    half = np.einsum("siuj,qj->siuq", blocks, directions)
    patterns = directions.shape[0]
    full = np.empty((sites, patterns, sites, patterns))
    for site in range(sites):
        full[site] = np.tensordot(directions, half[site], 1)
    return full.reshape((sites * patterns,) * 2)

r"""The stationarity equations as a root problem on frozen points, and Broyden's method on it.

    Phi = < phi phi^T >_q,    Phihat = - gv^2 Mv o sum_o r_o r_o^T + gw^2 Mw o shift[ Q ]

The unknowns are the entries of Phi and Phihat on either side of which the same neuron law stands: where weights are not
shared, q factorises over steps and each group of entries has points of its own. Phi is scaled by sqrt(Phi_ii Phi_jj)
and Phihat by its inverse. The slope is evaluated once, on a few of the points, and serves all sets of points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from theory.covariance import Array, Terms, preactivation_cov, shift_earlier
from theory.neuron import Points, moments
from theory.prediction import predict_given_kernel

ROOT_STEPS = 60
LEAST_OVERLAP = 0.05
LEAST_STEP = 1 / 32
LEAST_EFFECTIVE_SAMPLE_SIZE = 0.3
SLOPE_POINTS = {False: 2048, True: 16384}  # smooth, with kinks: points that stay put blur the slope far more
DIRECTIONS_AT_ONCE = 16


class Group(NamedTuple):
    """Entries whose pre-activations and activities are tied to one another by shared weights.

    Attributes:
        entries: flat entries, ascending.
        live: positions within ``entries`` where C has a pivot.
        sampled: whether its points are draws, else a grid.
    """

    entries: tuple[int, ...]
    live: tuple[int, ...]
    sampled: bool


class Layout(NamedTuple):
    """What a compiled function needs to know beforehand; hashable.

    Attributes:
        phi: the activation.
        kinks: whether phi'' misses part of it.
        patterns: P.
        needed: for each entry, whether a supervised one depends on it; Phihat vanishes on the others.
        groups: the `Group` of every entry.
    """

    phi: Callable
    kinks: bool
    patterns: int
    needed: tuple[bool, ...]
    groups: tuple[Group, ...]

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the unknown entries: the lower triangles of the groups."""
        parts = [np.array(group.entries)[np.stack(np.tril_indices(len(group.entries)))] for group in self.groups]
        rows, columns = np.concatenate(parts, axis=1)
        return rows, columns


@dataclass(frozen=True)
class Root:
    """Where the search for a root ended.

    Attributes:
        kernel, conjugate: Phi and Phihat, (n, n), zero between groups.
        residual: largest violation of the equations, in the scaled unknowns.
        effective_sample_size: smallest of the groups.
    """

    kernel: np.ndarray
    conjugate: np.ndarray
    residual: float
    effective_sample_size: float


def pack(kernel: np.ndarray, conjugate: np.ndarray, scale: np.ndarray, layout: Layout) -> np.ndarray:
    """Phi and Phihat (n, n) -> scaled unknowns; ``scale`` is sqrt(Phi_ii)."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    return np.concatenate([kernel[rows, columns] / pair_scale, conjugate[rows, columns] * pair_scale])


def unpack(unknowns: Array, scale: Array, layout: Layout) -> tuple[Array, Array]:
    """The inverse of `pack`."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    n = len(layout.needed)

    def symmetric(values):
        lower = jnp.zeros((n, n), values.dtype).at[rows, columns].set(values)
        return lower + lower.T - jnp.diag(jnp.diagonal(lower))

    first, second = jnp.split(unknowns, 2)
    return symmetric(first * pair_scale), symmetric(second / pair_scale)


def averages(
    kernel: Array, conjugate: Array, terms: Terms, points: tuple[Points, ...], layout: Layout
) -> tuple[Array, Array, Array]:
    """<phi phi^T> and Q (n, n), zero between groups, and the smallest effective sample size among draws."""
    cov = preactivation_cov(terms, kernel, layout.patterns)
    new_kernel, response = jnp.zeros_like(cov), jnp.zeros_like(cov)
    sizes = [jnp.ones((), cov.dtype)]
    for group, group_points in zip(layout.groups, points, strict=True):
        index = np.ix_(group.entries, group.entries)
        if not group.live:
            # No input so far: h = 0.
            silent = layout.phi(jnp.zeros(len(group.entries), cov.dtype))
            new_kernel = new_kernel.at[index].set(jnp.outer(silent, silent))
            continue
        average = moments(group_points, cov[index], conjugate[index], layout.phi, group.live, layout.kinks)
        new_kernel = new_kernel.at[index].set(average.kernel)
        response = response.at[index].set(average.response)
        if group.sampled:
            sizes.append(average.effective_sample_size)
    return new_kernel, response, jnp.min(jnp.stack(sizes))


def conjugate_of(kernel: Array, response: Array, terms: Terms, layout: Layout) -> Array:
    """Phihat (n, n) for Phi and Q; zero where no supervised entry depends on it."""
    needed = np.array(layout.needed, dtype=float)
    dual = predict_given_kernel(terms, kernel).dual
    carried = shift_earlier(terms.recurrent * response, layout.patterns)
    return (carried - terms.readout * (dual @ dual.T)) * np.outer(needed, needed)


@partial(jax.jit, static_argnums=4)
def image(
    kernel: Array, conjugate: Array, terms: Terms, points: tuple[Points, ...], layout: Layout
) -> tuple[Array, Array, Array]:
    """The right-hand sides (n, n) of both equations, and the smallest effective sample size among draws."""
    new_kernel, response, size = averages(kernel, conjugate, terms, points, layout)
    return new_kernel, conjugate_of(kernel, response, terms, layout), size


def _violation(unknowns, scale, terms, points, layout):
    kernel, conjugate = unpack(unknowns, scale, layout)
    new_kernel, new_conjugate, size = image(kernel, conjugate, terms, points, layout)
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    first = (kernel - new_kernel)[rows, columns] / pair_scale
    second = (conjugate - new_conjugate)[rows, columns] * pair_scale
    return jnp.concatenate([first, second]), size


violation = partial(jax.jit, static_argnums=4)(_violation)


@partial(jax.jit, static_argnums=4)
def _jacobian(unknowns, scale, terms, points, layout):
    def column(direction):
        return jax.jvp(lambda u: _violation(u, scale, terms, points, layout)[0], (unknowns,), (direction,))[1]

    identity = jnp.eye(unknowns.shape[0], dtype=unknowns.dtype)
    return jax.lax.map(column, identity, batch_size=DIRECTIONS_AT_ONCE).T


def jacobian(
    kernel: np.ndarray,
    conjugate: np.ndarray,
    scale: np.ndarray,
    terms: Terms,
    points: tuple[Points, ...],
    layout: Layout,
) -> np.ndarray:
    """Derivative of the violation, on a few of the draws and on whole grids."""
    return _slope_at(pack(kernel, conjugate, scale, layout), scale, terms, points, layout)


def _slope_at(unknowns, scale, terms, points, layout) -> np.ndarray:
    return np.asarray(_jacobian(unknowns, scale, terms, _few(points, layout), layout))


def _few(points: tuple[Points, ...], layout: Layout) -> tuple[Points, ...]:
    return tuple(
        Points(*(part[: SLOPE_POINTS[layout.kinks]] for part in group_points)) if group.sampled else group_points
        for group, group_points in zip(layout.groups, points, strict=True)
    )


def find_root(
    kernel: np.ndarray,
    conjugate: np.ndarray,
    scale: np.ndarray,
    terms: Terms,
    points: tuple[Points, ...],
    layout: Layout,
    slope: np.ndarray,
    tolerance: float,
) -> Root:
    """Broyden's method from Phi and Phihat (n, n), the points held fixed.

    A step is halved while it raises the violation or lets the effective sample size fall under its floor; where halving
    does not help, the slope is taken afresh, and then the best point seen is returned.

    Args:
        kernel, conjugate: where to start.
        scale: sqrt(Phi_ii), ones where that vanishes, (n,).
        terms: the network on the task.
        points: of each group.
        layout: what they are points of.
        slope: a `jacobian` nearby.
        tolerance: on the residual.
    """

    def evaluate(at):
        value, effective = violation(at, scale, terms, points, layout)
        return np.asarray(value), float(effective)

    unknowns = pack(kernel, conjugate, scale, layout)
    value, effective = evaluate(unknowns)
    inverse = BroydenInverse(slope)
    fresh = False
    for _ in range(ROOT_STEPS):
        if not np.max(np.abs(value)) > tolerance:
            break
        step = -inverse.apply(value)
        if not np.isfinite(step).all():
            break
        length = 1.0
        while length >= LEAST_STEP:
            trial, trial_effective = evaluate(unknowns + length * step)
            with np.errstate(over="ignore", invalid="ignore"):
                smaller = np.linalg.norm(trial) < np.linalg.norm(value)
            if smaller and trial_effective > min(LEAST_EFFECTIVE_SAMPLE_SIZE, effective / 2):
                break
            length /= 2
        else:
            if fresh:
                break
            inverse = BroydenInverse(_slope_at(unknowns, scale, terms, points, layout))
            fresh = True
            continue
        inverse.update(length * step, trial - value)
        unknowns, value, effective, fresh = unknowns + length * step, trial, trial_effective, False
    kernel, conjugate = map(np.asarray, unpack(jnp.asarray(unknowns), scale, layout))
    return Root(kernel, conjugate, float(np.max(np.abs(value))), effective)


class BroydenInverse:
    """The inverse of a slope, brought up to date by what the steps taken show of it (Broyden's good method)."""

    def __init__(self, slope: np.ndarray) -> None:
        self._factors = scipy.linalg.lu_factor(slope)
        self._updates: list[tuple[np.ndarray, np.ndarray]] = []

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """Slope^{-1} vector."""
        result = scipy.linalg.lu_solve(self._factors, vector)
        for left, step in self._updates:
            result = result + left * (step @ result)
        return result

    def update(self, step: np.ndarray, change: np.ndarray) -> None:
        """Learn that ``step`` changed the violation by ``change``."""
        predicted = self.apply(change)
        overlap = step @ predicted
        if abs(overlap) > LEAST_OVERLAP * (step @ step):
            self._updates.append(((step - predicted) / overlap, step))

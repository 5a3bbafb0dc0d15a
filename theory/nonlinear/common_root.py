r"""One root for several sets of points together, where some of them have none of their own.

Along a soft mode the scatter of a set can turn the curvature, and then its equations have no root. Joined, the sets are
one larger set. What each would have found alone is taken to first order at the common root u,

    u_r = u - S^{-1} v_r(u),        v(u) = 0 on all points,        S = dv/du there,

so that the scatter of the u_r gives the error as that of separate roots does (the sandwich covariance of an estimating
equation). The points are drawn anew at the common root until they stay good.

Source: van der Vaart 1998, "Asymptotic Statistics", chapter 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from theory.kernels import scale_of
from theory.nonlinear.broyden import BroydenInverse, solve_linear
from theory.nonlinear.fixed_point import Root, pack, root_of, violation, violation_derivative
from theory.nonlinear.frozen_problem import (
    GOOD_EFFECTIVE_SAMPLE_SIZE,
    IMPROVEMENT,
    REFRESHES,
    RESIDUAL_TOLERANCE,
    Problem,
    State,
    draw_points,
    solve_on_points,
)
from theory.nonlinear.neuron import Points, weighted
from theory.seeds import part

# What may be left of the equation for a set's own root, relative: what is aimed at, and what an error bar can bear.
FIRST_ORDER, BEARABLE = 1e-6, 1e-2


def solve_together(
    problem: Problem, state: State, slope: np.ndarray, count: int, seed: int
) -> tuple[Root, list[Root], list[tuple[Points, ...]]]:
    """The common root of ``count`` sets of points, each set's own to first order, and the sets.

    Args:
        problem: what to solve.
        state: where to start and to draw points.
        slope: `theory.nonlinear.fixed_point.violation_slope` nearby.
        count: how many sets.
        seed: of the points.

    Raises:
        LostError: if no points can be drawn.
    """
    last_size = -np.inf
    for refresh in range(REFRESHES):
        sets = [draw_points(problem, state, part(seed, refresh, number)) for number in range(count)]
        joined = _joined(problem, state, sets)
        common = solve_on_points(problem, state, joined, slope)
        size = common.effective_sample_size
        solved = common.residual <= RESIDUAL_TOLERANCE
        if not solved or size > GOOD_EFFECTIVE_SAMPLE_SIZE or size < last_size + IMPROVEMENT:
            break
        last_size, state = size, State(common.kernel, common.conjugate)
    return common, _own_roots(problem, common, joined, sets, slope), sets


def _joined(problem: Problem, state: State, sets: Sequence[tuple[Points, ...]]) -> tuple[Points, ...]:
    """All sets as one; each has the same part in the averages at the state where it was drawn."""
    cov, layout = problem.cov(state.kernel), problem.layout
    joined = []
    for number, group in enumerate(layout.groups):
        parts = [points[number] for points in sets]
        if not group.sampled:
            joined.append(parts[0])
            continue
        index = np.ix_(group.entries, group.entries)
        bases = []
        for points in parts:
            law = weighted(points, cov[index], state.conjugate[index], layout.phi, group.live, layout.kinks)
            bases.append(law.log_weights + jnp.sum(law.noise**2, axis=1) / 2 + law.energy - points.tilt)
        joined.append(
            Points(
                jnp.concatenate([points.coordinates for points in parts]),
                jnp.concatenate(bases),
                jnp.concatenate([points.tilt for points in parts]),
            )
        )
    return tuple(joined)


def _own_roots(
    problem: Problem, common: Root, joined: tuple[Points, ...], sets: Sequence[tuple[Points, ...]], slope: np.ndarray
) -> list[Root]:
    """What each set would have found by itself, to first order; their mean is the common root.

    Of infinite residual where the first order cannot be had: the answer would go without its error.
    """
    scale, model, layout = scale_of(common.kernel), problem.model, problem.layout
    at = pack(common.kernel, common.conjugate, scale, layout)
    values = np.array([violation(at, scale, model, points, layout)[0] for points in sets])
    lost = [replace(common, residual=np.inf)] * len(sets)
    if not np.isfinite(values).all():
        return lost
    derivative = partial(_along, problem, at, scale, joined)
    precondition = BroydenInverse(slope).apply
    values = values - values.mean(axis=0)
    shifts = [solve_linear(derivative, value, precondition, FIRST_ORDER) for value in values]
    for shift, value in zip(shifts, values, strict=True):
        if not np.linalg.norm(derivative(shift) - value) <= BEARABLE * np.linalg.norm(value):
            return lost
    residual = np.full(at.size, common.residual)
    roots = [root_of(at - shift, residual, common.effective_sample_size, scale, layout) for shift in shifts]
    return [replace(root, kernel=_covariance(root.kernel, scale)) for root in roots]


def _along(problem: Problem, at: np.ndarray, scale: np.ndarray, points: tuple[Points, ...], direction: np.ndarray):
    return violation_derivative(at, direction, scale, problem.model, points, problem.layout)


def _covariance(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest matrix without negative eigenvalues, which the first order may bring about."""
    values, vectors = np.linalg.eigh(kernel / np.outer(scale, scale))
    if values[0] >= 0:
        return kernel
    return (vectors * np.maximum(values, 0)) @ vectors.T * np.outer(scale, scale)

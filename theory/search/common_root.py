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

from theory.clock import report, time_is_up
from theory.kernels import scale_of
from theory.laws.drawn import DrawnLaw
from theory.search.problem import Problem, State, each_law, make_laws, solve_on_laws
from theory.search.roots import BroydenInverse, solve_linear
from theory.search.stationarity import Laws, Root, pack, root_of, violation, violation_derivative
from theory.seeds import part


def solve_together(
    problem: Problem, state: State, slope: np.ndarray, count: int, seed: int
) -> tuple[Root, list[Root], list[Laws]]:
    """The common root of ``count`` sets of points, each set's own to first order, and the sets.

    Args:
        problem: what to solve.
        state: where to start and to make laws.
        slope: `theory.search.stationarity.violation_slope` nearby.
        count: how many sets.
        seed: of the laws.

    Raises:
        LostError: if no laws can be made.
    """
    settings, last_size = problem.settings.refreshes, -np.inf
    for refresh in range(settings.rounds):
        report(f"all sets together, round {refresh + 1}")
        sets = [make_laws(problem, state, part(seed, refresh, number)) for number in range(count)]
        joined = _joined(problem, state, sets)
        common = solve_on_laws(problem, state, joined, slope)
        size = common.effective_sample_size
        solved = common.residual <= problem.tolerance
        if not solved or size > settings.good or size < last_size + settings.improvement or time_is_up():
            break
        last_size, state = size, State(common.kernel, common.conjugate)
    return common, _own_roots(problem, common, joined, sets, slope), sets


def _joined(problem: Problem, state: State, sets: Sequence[Laws]) -> Laws:
    """All sets as one; each has the same part in the averages at the state where it was drawn."""
    root, joined = Root(state.kernel, state.conjugate, 0.0, 1.0), []
    for number, (_, first, cov, conjugate) in enumerate(each_law(problem, root, sets[0])):
        parts = [law for laws in sets if isinstance(law := laws[number], DrawnLaw)]
        if not parts:
            joined.append(first)
            continue
        bases = []
        for law in parts:
            points = law.weighted(cov, conjugate)
            bases.append(points.log_weights + jnp.sum(points.noise**2, axis=1) / 2 + points.energy - law.tilt)
        joined.append(
            replace(
                parts[0],
                coordinates=jnp.concatenate([law.coordinates for law in parts]),
                log_base=jnp.concatenate(bases),
                tilt=jnp.concatenate([law.tilt for law in parts]),
            )
        )
    return tuple(joined)


def _own_roots(problem: Problem, common: Root, joined: Laws, sets: Sequence[Laws], slope: np.ndarray) -> list[Root]:
    """What each set would have found by itself, to first order; their mean is the common root.

    Of infinite residual where the first order cannot be had: the answer would go without its error.
    """
    scale, model, layout = scale_of(common.kernel), problem.model, problem.layout
    at = pack(common.kernel, common.conjugate, scale, layout)
    values = np.array([violation(at, scale, model, laws, layout)[0] for laws in sets])
    lost = [replace(common, residual=np.inf)] * len(sets)
    if not np.isfinite(values).all():
        return lost
    derivative = partial(_along, problem, at, scale, joined)
    settings = problem.settings.roots
    precondition = BroydenInverse(slope, settings.least_overlap).apply
    values = values - values.mean(axis=0)
    shifts = [solve_linear(derivative, value, precondition, settings.first_order, settings.krylov) for value in values]
    for shift, value in zip(shifts, values, strict=True):
        if not np.linalg.norm(derivative(shift) - value) <= settings.bearable * np.linalg.norm(value):
            return lost
    residual = np.full(at.size, common.residual)
    roots = [root_of(at - shift, residual, common.effective_sample_size, scale, layout) for shift in shifts]
    return [replace(root, kernel=_covariance(root.kernel, scale), distance=common.distance) for root in roots]


def _along(problem: Problem, at: np.ndarray, scale: np.ndarray, laws: Laws, direction: np.ndarray):
    return violation_derivative(at, direction, scale, problem.model, laws, problem.layout)


def _covariance(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest matrix without negative eigenvalues, which the first order may bring about."""
    values, vectors = np.linalg.eigh(kernel / np.outer(scale, scale))
    if values[0] >= 0:
        return kernel
    return (vectors * np.maximum(values, 0)) @ vectors.T * np.outer(scale, scale)

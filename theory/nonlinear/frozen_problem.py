r"""A saddle-point problem put on frozen points: grids where at most three entries are tied, else draws.

Neurons are drawn at a guess of C and Phihat (`theory.nonlinear.neuron_chain`) and frozen; the stationarity equations on
them are solved to rounding error (`theory.nonlinear.fixed_point`), and neurons drawn anew where that led, until the
points stay good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.causal import PIVOT_FLOOR
from theory.kernels import scale_of
from theory.model import Model, preactivation_cov
from theory.nonlinear.fixed_point import Group, Layout, Root, averages, find_root, pack, violation_slope
from theory.nonlinear.neuron import Points, frozen, grid, has_kinks, live_entries, weighted
from theory.nonlinear.neuron_chain import draw, stein_tilt
from theory.response import NEGLIGIBLE, factorise
from theory.seeds import part
from theory.ties import needed_entries, tied_entries

RESIDUAL_TOLERANCE = 1e-9
HOPELESS = 1e-3  # a residual above it is no saddle point at all
# The least conditional variance of an entry that counts as new where a search with `NEGLIGIBLE` gets nowhere: the
# equations are ill-conditioned by the inverse of it, and neurons that are draws make steps that C does not survive.
COARSER = 1e-3
GRID_RANK = 3
GRID_REACH = 6.0
GRID_NODES = {1: (240, 160), 2: (120, 80), 3: (64, 46)}  # for the answer; on the way and for its error
FINEST, ON_THE_WAY = 0, 1
FITS = 3  # rough grids, each as wide as the law on the one before
REFRESHES = 8
RETREATS = 5  # halfway back to where points were drawn before
GOOD_EFFECTIVE_SAMPLE_SIZE = 0.8
CROWD = 4  # times as many points where a search on the way stays stuck
IMPROVEMENT = 0.05  # of the effective sample size, short of which points drawn anew are not worth another search


class LostError(RuntimeError):
    """A search has come where nothing is finite any more."""


class State(NamedTuple):
    """A guess: Phi and Phihat, (n, n)."""

    kernel: np.ndarray
    conjugate: np.ndarray


@dataclass(frozen=True)
class Problem:
    """A model, all of whose patterns and last sites matter, put on points.

    Attributes:
        model: the network on the task; of its symmetric branch, `theory.nonlinear.decoupling.decoupled_model`.
        phi: the activation.
        layout: which entries are tied to one another, and how their laws are averaged over.
        points: how many draws make a set.
        floor: conditional variance, relative to its own, below which an entry follows from earlier ones.
    """

    model: Model
    phi: Activation
    layout: Layout
    points: int
    floor: float = NEGLIGIBLE

    def cov(self, kernel: np.ndarray) -> np.ndarray:
        """C[Phi], (n, n)."""
        return np.asarray(preactivation_cov(self.model, jnp.asarray(kernel)))

    def with_model(self, model: Model) -> Problem:
        """The same for a model that differs in its numbers only."""
        return replace(self, model=model)

    def scaled(self, factor: float) -> Problem:
        """The same with its targets multiplied."""
        return self.with_model(self.model.replace(targets=factor * self.model.targets))

    def left_out(self, kernel: np.ndarray) -> int:
        """How many entries count as following from earlier ones though rounding errors would tell them apart."""
        layout = make_layout(self.model, self.phi, kernel, PIVOT_FLOOR["float64"])
        return sum(len(group.live) for group in layout.groups) - sum(len(group.live) for group in self.layout.groups)

    def coarsened(self, kernel: np.ndarray) -> Problem | None:
        """The same at the `COARSER` floor; None where that makes no difference at that kernel (n, n)."""
        layout = make_layout(self.model, self.phi, kernel, COARSER)
        same = layout == make_layout(self.model, self.phi, kernel, self.floor)
        return None if same else replace(self, floor=COARSER)

    @property
    def exact(self) -> bool:
        """Whether all laws are averaged over on grids."""
        return not any(group.sampled for group in self.layout.groups)


def make_problem(model: Model, phi: Activation, kernel: np.ndarray, points: int) -> Problem:
    """The `Problem` whose C has its zero pivots where that of ``kernel`` (n, n) has them."""
    return Problem(model, phi, make_layout(model, phi, kernel), points)


def make_layout(model: Model, phi: Activation, kernel: np.ndarray, floor: float = NEGLIGIBLE) -> Layout:
    """The `Layout` of the problem with the pivots of that kernel (n, n) above a floor."""
    cov = np.asarray(preactivation_cov(model, jnp.asarray(kernel)))
    groups = []
    for entries in tied_entries(model):
        live = live_entries(factorise(cov[np.ix_(entries, entries)], floor))
        groups.append(Group(tuple(map(int, entries)), live, sampled=len(live) > GRID_RANK))
    needed = tuple(map(bool, needed_entries(model)))
    return Layout(phi.function, has_kinks(phi.function), needed, tuple(groups))


def draw_points(problem: Problem, state: State, seed: int, grid_choice: int = FINEST) -> tuple[Points, ...]:
    """Points of every group frozen at a state.

    Raises:
        LostError: if there are none.
    """
    layout, cov, found = problem.layout, problem.cov(state.kernel), []
    for number, group in enumerate(layout.groups):
        index = np.ix_(group.entries, group.entries)
        law = cov[index], state.conjugate[index], layout.phi, group.live
        try:
            if not group.live:
                found.append(Points(*map(jnp.asarray, (np.zeros((1, 0)), np.zeros(1), np.zeros(1)))))
            elif group.sampled:
                noise = draw(problem.points, part(seed, number), *law)
                tilt = stein_tilt(noise, *law, layout.kinks)
                found.append(frozen(noise, *law, layout.kinks)._replace(tilt=tilt))
            else:
                found.append(_fitted_grid(*law, layout.kinks, grid_choice))
        except (np.linalg.LinAlgError, ValueError) as error:
            raise LostError(f"no points can be drawn: {error}") from error
    return tuple(found)


def _fitted_grid(cov, conjugate, phi, live, kinks, choice: int) -> Points:
    """A grid as wide as the law, which rough grids measure, the first of them as wide as the prior."""
    nodes = GRID_NODES[len(live)]
    second = np.eye(len(live))
    for number in (*FITS * (nodes[ON_THE_WAY],), nodes[choice]):
        points = grid(np.linalg.cholesky(second), cov, live, kinks, number, GRID_REACH)
        law = weighted(points, cov, conjugate, phi, live, kinks)
        z, weights = np.asarray(law.noise), np.exp(np.asarray(law.log_weights))
        second = (z * weights[:, None]).T @ z
    return points


def solve_on_points(problem: Problem, state: State, points: tuple[Points, ...], slope: np.ndarray) -> Root:
    """The root on these points that Broyden's method finds from a state."""
    scale = scale_of(state.kernel)
    layout = problem.layout
    return find_root(state.kernel, state.conjugate, scale, problem.model, points, layout, slope, RESIDUAL_TOLERANCE)


def slope_on_points(problem: Problem, state: State, points: tuple[Points, ...]) -> np.ndarray:
    """The `theory.nonlinear.fixed_point.violation_slope` at a state."""
    scale = scale_of(state.kernel)
    unknowns = pack(state.kernel, state.conjugate, scale, problem.layout)
    slope = violation_slope(unknowns, scale, problem.model, points, problem.layout)
    if not np.isfinite(slope).all():
        raise LostError("the slope of the stationarity equations is not finite")
    return slope


def response_on_points(problem: Problem, root: Root, points: tuple[Points, ...]) -> np.ndarray:
    """Q (n, n) of a root, zero between groups and off the live entries."""
    return np.asarray(averages(root.kernel, root.conjugate, problem.model, points, problem.layout)[1])


def settle(problem: Problem, state: State, seed: int) -> tuple[Problem, State, np.ndarray]:
    """Solve and draw anew until the points stay good from the start of a solve to its end, or get no better; with the
    last slope.

    The problem comes back too: which entries add something new is decided afresh where a solve ends. Where that led to
    what is no law (phi unbounded, too strong a Phihat), the next points are drawn halfway back, at first to the prior.
    A search that stays stuck is repeated on `CROWD` times as many points.

    Raises:
        LostError: if the search for a root is stuck or leads out of what is finite.
    """
    last_size, crowd, before = -np.inf, 1, State(state.kernel, 0 * state.conjugate)
    for refresh in range(REFRESHES):
        layout = make_layout(problem.model, problem.phi, state.kernel, problem.floor)
        problem = replace(problem, layout=layout)
        crowded = replace(problem, points=crowd * problem.points)
        state, points = draw_halfway(crowded, before, state, part(seed, refresh))
        before = state
        slope = slope_on_points(problem, state, points)
        root = solve_on_points(problem, state, points, slope)
        state = State(root.kernel, root.conjugate)
        solved, size = root.residual <= RESIDUAL_TOLERANCE, root.effective_sample_size
        if solved and (size > GOOD_EFFECTIVE_SAMPLE_SIZE or size < last_size + IMPROVEMENT):
            break
        last_size = size if solved else -np.inf
        if not root.residual <= HOPELESS:
            coarsened = problem.coarsened(state.kernel)
            if coarsened is not None:
                problem = coarsened
            elif refresh and (crowd > 1 or problem.exact):
                raise LostError(f"the search for a root stays at a residual of {root.residual:.1e}")
            elif refresh:
                crowd = CROWD
    return problem, state, slope


def draw_halfway(problem: Problem, before: State, state: State, seed: int) -> tuple[State, tuple[Points, ...]]:
    """Points at a state, or as near to it as there are any on the way from one before."""
    for retreat in range(RETREATS):
        try:
            return state, draw_points(problem, state, part(seed, retreat), ON_THE_WAY)
        except LostError as error:
            lost = error
            state = State((before.kernel + state.kernel) / 2, (before.conjugate + state.conjugate) / 2)
    raise lost


def laws(
    problem: Problem, root: Root, points: tuple[Points, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Entries, normalised weights (M,) and h (M, entries) of each group that is not silent."""
    cov, layout = problem.cov(root.kernel), problem.layout
    for group, group_points in zip(layout.groups, points, strict=True):
        if group.live:
            index = np.ix_(group.entries, group.entries)
            law = weighted(group_points, cov[index], root.conjugate[index], layout.phi, group.live, layout.kinks)
            weights = np.exp(np.asarray(law.log_weights))
            yield np.array(group.entries), weights / weights.sum(), np.asarray(law.preactivation)

r"""A saddle-point problem, and the laws of its neurons: in closed form, on grids, or by draws.

Laws are made at a guess of C and Phihat (`theory.laws`) and stay put; the stationarity equations on them are solved to
rounding error (`theory.search.stationarity`), and laws made anew where that led, until they stay good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.causal import PIVOT_FLOOR
from theory.clock import report, time_is_up
from theory.kernels import scale_of
from theory.laws.drawn import drawn_law
from theory.laws.gaussian import GaussianLaw
from theory.laws.grid import FINEST, ROUGHER, fitted_grid
from theory.laws.law import Law, Moments, SilentLaw, live_entries
from theory.laws.smoothness import has_kinks
from theory.model import Model, preactivation_cov
from theory.response import factorise
from theory.search.settings import DEFAULT, BranchSettings, Settings
from theory.search.stationarity import Group, Laws, Layout, Root, averages, find_root, pack, violation_slope
from theory.seeds import part
from theory.ties import needed_entries, tied_entries


class LostError(RuntimeError):
    """A search has come where nothing is finite any more."""


class State(NamedTuple):
    """A guess: Phi and Phihat, (n, n)."""

    kernel: np.ndarray
    conjugate: np.ndarray


@dataclass(frozen=True)
class Problem:
    """A model, all of whose patterns and last sites matter, with the laws of its neurons.

    Attributes:
        model: the network on the task; of its symmetric branch, `theory.search.symmetry_breaking.decoupled_model`.
        phi: the activation.
        layout: which entries are tied to one another, and of what kind their laws are.
        points: how many draws make a set.
        floor: conditional variance, relative to its own, below which an entry follows from earlier ones.
        settings: of the search.
    """

    model: Model
    phi: Activation
    layout: Layout
    points: int
    floor: float
    settings: Settings = DEFAULT

    def cov(self, kernel: np.ndarray) -> np.ndarray:
        """C[Phi], (n, n)."""
        return np.asarray(preactivation_cov(self.model, jnp.asarray(kernel)))

    def with_model(self, model: Model) -> Problem:
        """The same for a model that differs in its numbers only."""
        return replace(self, model=model)

    def scaled(self, factor: float) -> Problem:
        """The same with its targets multiplied."""
        return self.with_model(self.model.replace(targets=factor * self.model.targets))

    def at(self, kernel: np.ndarray) -> Problem:
        """The same with the pivots of C where that of ``kernel`` (n, n) has them."""
        return replace(self, layout=make_layout(self.model, self.phi, kernel, self.floor, self.settings))

    def left_out(self, kernel: np.ndarray) -> int:
        """How many entries count as following from earlier ones though rounding errors would tell them apart."""
        layout = make_layout(self.model, self.phi, kernel, PIVOT_FLOOR["float64"], self.settings)
        return sum(len(group.live) for group in layout.groups) - sum(len(group.live) for group in self.layout.groups)

    def coarsened(self, kernel: np.ndarray) -> Problem | None:
        """With the next of `RefreshSettings.coarser` that leaves fewer entries at a kernel (n, n), if one does."""
        layout = self.at(kernel).layout
        for floor in self.settings.refreshes.coarser:
            coarser = replace(self, floor=floor).at(kernel)
            if floor > self.floor and coarser.layout != layout:
                return coarser
        return None

    @property
    def exact(self) -> bool:
        """Whether no law has a statistical error."""
        return self.layout.exact

    @property
    def tolerance(self) -> float:
        """The residual below which the stationarity equations count as solved."""
        return self.settings.roots.tolerance


def unknowns_of(model: Model) -> int:
    """Of the stationarity equations: n (n + 1) for each group of n tied entries."""
    return sum(len(entries) * (len(entries) + 1) for entries in tied_entries(model))


def needs_flows(model: Model, settings: BranchSettings) -> bool:
    """Whether the slope of the stationarity equations is too large, so that long flows take the place of roots."""
    return unknowns_of(model) > settings.most_unknowns


def require_roots(model: Model, settings: BranchSettings) -> None:
    """Raise ValueError where `needs_flows`, for what flows cannot find."""
    if needs_flows(model, settings):
        raise ValueError(
            f"network and task have {unknowns_of(model)} unknowns, n (n + 1) for each group of n entries that weights "
            f"tie together; a transition and its branches are followed with at most {settings.most_unknowns} of them "
            "unless the activation is linear"
        )


def make_problem(
    model: Model, phi: Activation, kernel: np.ndarray, points: int, settings: Settings = DEFAULT
) -> Problem:
    """The `Problem` whose C has its zero pivots where that of ``kernel`` (n, n) has them."""
    floor = PIVOT_FLOOR["float64"] if phi.linear else settings.refreshes.floor
    return Problem(model, phi, make_layout(model, phi, kernel, floor, settings), points, floor, settings)


def make_layout(model: Model, phi: Activation, kernel: np.ndarray, floor: float, settings: Settings) -> Layout:
    """The `Layout` of the problem with the pivots of that kernel (n, n) above a floor."""
    cov = np.asarray(preactivation_cov(model, jnp.asarray(kernel)))
    groups = []
    for entries in tied_entries(model):
        live = live_entries(factorise(cov[np.ix_(entries, entries)], floor))
        if not live:
            kind = "silent"
        elif phi.linear:
            kind = "gaussian"
        else:
            kind = "grid" if len(live) <= settings.grids.rank else "draws"
        groups.append(Group(tuple(map(int, entries)), live, kind))
    needed = tuple(map(bool, needed_entries(model)))
    return Layout(phi.function, has_kinks(phi.function), needed, tuple(groups))


def make_laws(problem: Problem, state: State, seed: int, grid_choice: int = FINEST) -> Laws:
    """The law of every group, made at a state.

    Raises:
        LostError: if there is none.
    """
    layout, cov = problem.layout, problem.cov(state.kernel)
    settings, found = problem.settings, []
    for number, group in enumerate(layout.groups):
        at = cov[group.window], state.conjugate[group.window], layout.phi, group.live, layout.kinks
        law: Law
        try:
            if group.kind == "silent":
                law = SilentLaw(layout.phi)
            elif group.kind == "gaussian":
                law = GaussianLaw(group.live)
            elif group.kind == "grid":
                law = fitted_grid(*at, grid_choice, settings.grids)
            else:
                law = drawn_law(problem.points, part(seed, number), *at, settings.draws)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise LostError(f"no points can be drawn: {error}") from error
        found.append(law)
    return tuple(found)


def solve_on_laws(problem: Problem, state: State, laws: Laws, slope: np.ndarray) -> Root:
    """The root on these laws that Broyden's method finds from a state."""
    scale = scale_of(state.kernel)
    at = state.kernel, state.conjugate, scale, problem.model, laws, problem.layout
    return find_root(*at, slope, problem.settings.roots)


def slope_on_laws(problem: Problem, state: State, laws: Laws) -> np.ndarray:
    """The `theory.search.stationarity.violation_slope` at a state."""
    scale = scale_of(state.kernel)
    unknowns = pack(state.kernel, state.conjugate, scale, problem.layout)
    require_roots(problem.model, problem.settings.branches)
    slope = violation_slope(unknowns, scale, problem.model, laws, problem.layout, problem.settings.roots)
    if not np.isfinite(slope).all():
        raise LostError("the slope of the stationarity equations is not finite")
    return slope


def response_on_laws(problem: Problem, root: Root, laws: Laws) -> np.ndarray:
    """Q (n, n) of a root, zero between groups and off the live entries."""
    return np.asarray(averages(root.kernel, root.conjugate, problem.model, laws, problem.layout)[1])


def settle(problem: Problem, state: State, seed: int) -> tuple[Problem, State, np.ndarray]:
    """Solve and make laws anew until they stay good from the start of a solve to its end, or get no better; with the
    last slope.

    The problem comes back too: which entries add something new is decided afresh where a solve ends. Where that led to
    what is no law (phi unbounded, too strong a Phihat), the next laws are made halfway back, at first to the prior. A
    search that stays stuck is repeated on more draws.

    Raises:
        LostError: if the search for a root is stuck or leads out of what is finite.
    """
    settings = problem.settings.refreshes
    last_size, crowd, before = -np.inf, 1, State(state.kernel, 0 * state.conjugate)
    for refresh in range(settings.rounds):
        problem = problem.at(state.kernel)
        crowded = replace(problem, points=crowd * problem.points)
        report(f"laws, round {refresh + 1}: {_described(crowded)}")
        state, laws = make_laws_halfway(crowded, before, state, part(seed, refresh))
        before = state
        slope = slope_on_laws(problem, state, laws)
        root = solve_on_laws(problem, state, laws, slope)
        state = State(root.kernel, root.conjugate)
        solved, size = root.residual <= problem.tolerance, root.effective_sample_size
        if time_is_up() or (solved and (size > settings.good or size < last_size + settings.improvement)):
            break
        last_size = size if solved else -np.inf
        if not root.residual <= problem.settings.roots.hopeless:
            coarsened = problem.coarsened(state.kernel)
            if coarsened is not None:
                problem = coarsened
            elif refresh and (crowd > 1 or problem.exact):
                raise LostError(f"the search for a root stays at a residual of {root.residual:.1e}")
            elif refresh:
                crowd = settings.crowd
    return problem, state, slope


def _described(problem: Problem) -> str:
    sizes = [str(len(group.live)) for group in problem.layout.groups if group.live]
    size = " + ".join(sizes) if len(sizes) <= 4 else f"{len(sizes)} groups of up to {max(map(int, sizes))}"
    return f"{size} independent entries" + ("" if problem.exact else f" on {problem.points} points")


def make_laws_halfway(problem: Problem, before: State, state: State, seed: int) -> tuple[State, Laws]:
    """Laws at a state, or as near to it as there are any on the way from one before."""
    for retreat in range(problem.settings.refreshes.retreats):
        try:
            return state, make_laws(problem, state, part(seed, retreat), ROUGHER)
        except LostError as error:
            lost = error
            state = State((before.kernel + state.kernel) / 2, (before.conjugate + state.conjugate) / 2)
    raise lost


def each_law(problem: Problem, root: Root, laws: Laws) -> Iterator[tuple[Group, Law, np.ndarray, np.ndarray]]:
    """Each group and its law, with C and Phihat of the group at a root."""
    cov = problem.cov(root.kernel)
    for group, law in zip(problem.layout.groups, laws, strict=True):
        yield group, law, cov[group.window], root.conjugate[group.window]


def each_average(problem: Problem, root: Root, laws: Laws) -> Iterator[tuple[Group, Moments]]:
    """Each group and its averages at a root."""
    for group, law, cov, conjugate in each_law(problem, root, laws):
        yield group, jax.tree.map(np.asarray, _moments(law, cov, conjugate))


@jax.jit
def _moments(law, cov, conjugate):
    return law.moments(cov, conjugate)

r"""The saddle points of a task, with error bars where they have any.

Linear networks, whose law is Gaussian, are minimised over Gaussian laws (`theory.gaussian.search`). Others:

1. Find starts: M neurons descend the free energy together (`theory.search.flow`).
2. Settle on laws and solve on them (`theory.search.problem`).
3. Repeat on independent draws: their mean is the answer, their scatter its statistical error. The residual is not: it
   says how well the problem of one set of draws was solved. Where some set has no root, all of them are solved
   together (`theory.search.common_root`).

Groups of at most three independent entries are integrated on a tensor grid instead, without statistical error; then
two grids take the place of the repetitions and their difference that of the error. Unshared weights make one group
of each step, and so does the symmetric branch where neither inputs nor readouts tie sites
(`theory.search.symmetry_breaking`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.gaussian.many_entries import Flat
from theory.gaussian.search import LinearProblem, SaddlePoint
from theory.gaussian.settings import GaussianSettings
from theory.kernels import scale_of
from theory.laws.grid import FINEST, ROUGHER
from theory.laws.law import range_of
from theory.model import Model, conjugate_kernel, data_term, signal_of
from theory.response import covariance_response
from theory.search.broken_branch import walk
from theory.search.common_root import solve_together
from theory.search.flow import flow
from theory.search.problem import (
    LostError,
    Problem,
    State,
    each_average,
    each_law,
    make_laws,
    make_problem,
    settle,
    slope_on_laws,
    solve_on_laws,
)
from theory.search.settings import DEFAULT, BranchSettings, Settings
from theory.search.stability import is_stable
from theory.search.stationarity import Laws, Root, conjugate_of
from theory.search.symmetric_branch import softest_of
from theory.search.symmetry_breaking import decoupled_model
from theory.seeds import key_of, part
from theory.symmetry import flipped_pairs, sign_changes
from theory.ties import by_entry, tied_entries

# Places of `theory.seeds.part`: in the search, and in solving a branch.
FLOWING, SOLVING, SYMMETRIC, LEAVING = range(4)
SETTLING, DRAWING, INTEGRATING, PICKING, AGAIN, TOGETHER = range(6)


class Options(NamedTuple):
    """What the user asks of a search; see `theory.solve`."""

    points: int = 16384
    randomisations: int = 4
    seed: int = 0
    starts: int = GaussianSettings.starts
    settings: Settings = DEFAULT


@dataclass(frozen=True)
class Branch:
    """A saddle point of a model, once per randomisation (on grids: once per grid, the finest first).

    Attributes:
        model: whose saddle point it is, with its weights whole.
        phi: the activation.
        roots: Phi and Phihat, one of each per randomisation.
        energies: F of each.
        stable: by `theory.search.stability`, and on the symmetric branch by `theory.search.symmetry_breaking` besides;
            of linear networks by the curvature of the free energy.
        found: how it was found; None in closed form, where everything is exact.
    """

    model: Model
    phi: Activation
    roots: tuple[Root, ...]
    energies: tuple[float, ...]
    stable: bool
    found: Found | None = None

    @property
    def exact(self) -> bool:
        """Whether there is no statistical error."""
        return self.found is None or self.found.problem.exact


class Found(NamedTuple):
    """How a branch was found on laws.

    Attributes:
        problem: what was solved: with weights cut on a symmetric branch.
        state: what the laws were made at.
        neurons: draws h of equal weight from each root (exact: several from the finest grid),
            (`BranchSettings.kept_neurons`, n).
        means: <phi(h)> of each, (n,).
        together: whether the sets of draws were solved together, and each one's root is known to first order.
    """

    problem: Problem
    state: State
    neurons: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    together: bool


def find_branches(model: Model, phi: Activation, options: Options, images: np.ndarray | None = None) -> list[Branch]:
    """Every saddle point of a model that the starts lead to.

    Args:
        model: all of whose patterns and last sites matter, if phi is not linear.
        phi: the activation.
        options: of the search.
        images: the `mirror_images` of the model, where they are known.

    Raises:
        ValueError: if more entries are tied to one another than fit, or if the kernels are not finite.
    """
    images = mirror_images(model, phi) if images is None else images
    if phi.linear:
        points = LinearProblem(model, images, options.settings.gaussian).find_saddle_points(
            options.starts, options.seed
        )
        return [_gaussian_branch(point, model, phi) for point in points]
    _check_size(model, options.settings.branches)
    flows, seed = options.settings.flow, options.seed
    independent, coherent = (0.0, 0.0), (flows.coherence, flows.first_targets)

    def come_to_rest(
        on: Model, seed: int, attempt: int, start: tuple[float, float] = independent
    ) -> tuple[Problem, State]:
        return _come_to_rest(on, phi, options, seed, attempt, start)

    def solved(problem: Problem, state: State, seed: int) -> list[Branch]:
        try:
            return [_solve_branch(problem, model, state, options.randomisations, seed)]
        except LostError:
            return []

    def from_independent_noise(on: Model, seed: int) -> list[Branch]:
        attempts = (
            solved(*come_to_rest(on, part(seed, FLOWING, attempt), attempt), part(seed, SOLVING, attempt))
            for attempt in range(flows.attempts)
        )
        return next(filter(None, attempts), [])

    if not len(images):
        return from_independent_noise(model, seed)
    symmetric = from_independent_noise(decoupled_model(model), part(seed, SYMMETRIC))
    unstable = not any(branch.stable for branch in symmetric)
    for attempt in range(flows.attempts):
        lost = False
        # What is stable is left by nothing but a start far away.
        for number, start in enumerate((coherent, independent)[: 1 + unstable]):
            problem, state = come_to_rest(model, part(seed, FLOWING, attempt, number), attempt, start)
            if oddness(state.kernel, model, phi) > options.settings.branches.broken:
                found = solved(problem, state, part(seed, SOLVING, attempt, number))
                if found and not (symmetric and _same_branch(found[0], symmetric[0], options.settings.branches)):
                    return symmetric + found
                lost = lost or not found
        if not lost:
            break
    if symmetric and unstable:
        nearby = _leave_symmetric(symmetric[0], problem, model, part(seed, LEAVING, FLOWING))
        if nearby is not None:
            return symmetric + solved(problem, nearby, part(seed, LEAVING, SOLVING))
    return symmetric


def mirror_images(model: Model, phi: Activation) -> np.ndarray:
    """The `theory.symmetry.sign_changes` where the activation is odd, else none."""
    return sign_changes(model) if phi.odd else np.ones((0, model.sites))


def _check_size(model: Model, settings: BranchSettings) -> None:
    """The slope of the stationarity equations is a dense matrix of the pairs of tied entries."""
    sizes = [len(entries) for entries in tied_entries(model)]
    if sum(size * (size + 1) for size in sizes) > settings.most_unknowns:
        raise ValueError(
            f"task has {sum(sizes)} (step, pattern) entries, {max(sizes)} of which shared weights tie together; if the "
            "activation is not linear the theory takes at most 108 that are tied together, fewer if there are several "
            "such groups"
        )


def _leave_symmetric(symmetric: Branch, problem: Problem, model: Model, seed: int) -> State | None:
    """A broken state near an unstable symmetric branch, too slightly broken for the flow; None if there is none."""
    found = symmetric.found
    assert found is not None
    try:
        laws = make_laws(found.problem, found.state, seed, ROUGHER)
        root = solve_on_laws(found.problem, found.state, laws, slope_on_laws(found.problem, found.state, laws))
    except LostError:
        return None
    softest = softest_of(found.problem, root, laws, model, odd_only=True)
    for step in walk(problem, signal_of(model), root, softest, 1.0, part(seed, 0)):
        if step.factor >= 1:
            return State(step.root.kernel, step.root.conjugate)
    return None


def follow_branch(branch: Branch, model: Model, options: Options, points: int | None = None) -> Branch | None:
    """The branch on a model that differs at most in its numbers; None where it has turned unstable or ended.

    Of a linear network, where that happens, what lies below it. ``points`` in a set may be others than before.
    """
    found = branch.found
    if found is None:
        root = branch.roots[0]
        below = LinearProblem(model, mirror_images(model, branch.phi), options.settings.gaussian).follow(
            root.kernel, root.conjugate
        )
        return _gaussian_branch(below, model, branch.phi)
    broken = options.settings.branches.broken
    cut = decoupled_model(model) if found.problem.model is not branch.model else model
    problem = replace(found.problem.with_model(cut), points=points or found.problem.points)
    try:
        followed = _solve_branch(problem, model, found.state, options.randomisations, options.seed)
    except LostError:
        return None
    still_broken = any(oddness(root.kernel, model, branch.phi) > broken for root in followed.roots)
    was_broken = any(oddness(root.kernel, model, branch.phi) > broken for root in branch.roots)
    lost = max(root.residual for root in followed.roots) > problem.tolerance or still_broken != was_broken
    return None if lost or not followed.stable else followed


def _gaussian_branch(point: SaddlePoint, model: Model, phi: Activation) -> Branch:
    """The `Branch` of a linear network in closed form."""
    if isinstance(point.described, Flat):
        flat = point.described
        root = Root(flat.kernel, flat.conjugate, flat.residual, 1.0)
        return Branch(model, phi, (root,), (float(point.at.value),), point.stable)
    _, _, kernel, factor, _, _ = point.described.trajectory
    conjugate = np.asarray(conjugate_kernel(model, kernel, covariance_response(factor, kernel)))
    scale, residual = scale_of(kernel), math.inf
    with contextlib.suppress(np.linalg.LinAlgError):  # where the search has come to no rest at all
        # Phi = (C^{-1} + Phihat)^{-1} without an inverse of C, which may be singular.
        implied = factor @ np.linalg.solve(np.eye(len(kernel)) + factor.T @ conjugate @ factor, factor.T)
        residual = float(np.max(np.abs(kernel - implied) / np.outer(scale, scale)))
    root = Root(kernel, conjugate, residual, 1.0)
    return Branch(model, phi, (root,), (float(point.at.value),), point.stable)


def _same_branch(one: Branch, other: Branch, settings: BranchSettings) -> bool:
    """Equal kernels within a share of their scale, up to the sign symmetry."""
    first, second = (np.mean([root.kernel for root in branch.roots], axis=0) for branch in (one, other))
    scale = scale_of(first)
    if len(mirror_images(one.model, one.phi)):
        first, second = np.abs(first), np.abs(second)
    return bool(np.max(np.abs(first - second) / np.outer(scale, scale)) < settings.same)


def _come_to_rest(
    model: Model, phi: Activation, options: Options, seed: int, attempt: int, start: tuple[float, float]
) -> tuple[Problem, State]:
    """Where the flow comes to rest from a start, its step halved at each attempt."""
    (coherence, first_targets), settings = start, options.settings.flow
    rng = np.random.default_rng(part(seed, 0))
    independent = rng.normal(size=(model.entries, settings.neurons))
    common = np.tile(rng.normal(size=(model.patterns, settings.neurons)), (model.sites, 1))
    noise = np.sqrt(1 - coherence) * independent + np.sqrt(coherence) * common
    steps, step, key = settings.steps * 2**attempt, settings.step / 2**attempt, key_of(part(seed, 1))
    settled = flow(model, noise, key, phi.function, steps, step, first_targets, settings.friction)
    kernel, response = map(np.asarray, settled)
    if not np.isfinite(kernel).all():
        raise ValueError(
            "network and task lead to kernels that are not finite; lower the gains or the targets, "
            "or use an activation that grows more slowly"
        )
    problem = make_problem(model, phi, kernel, options.points, options.settings)
    return problem, _first_state(problem, kernel, response)


def oddness(kernel: np.ndarray, model: Model, phi: Activation) -> float:
    """Largest overlap between sites whose correlation changes sign in a mirror image."""
    scale = scale_of(kernel)
    odd = by_entry(model, flipped_pairs(mirror_images(model, phi), model.sites))
    return float(np.max(np.abs(kernel) * odd / np.outer(scale, scale), initial=0.0))


def _first_state(problem: Problem, kernel: np.ndarray, response: np.ndarray) -> State:
    """The `State` where the flow came to rest."""
    layout = problem.layout
    kernel = np.where(layout.between, 0, kernel)
    cov = problem.cov(kernel)
    on_live = np.zeros_like(cov)
    for group in layout.groups:
        entries, live = np.array(group.entries), np.array(group.entries)[list(group.live)]
        if group.live:
            spread = np.asarray(range_of(cov[np.ix_(entries, entries)], group.live).spread)
            on_live[np.ix_(live, live)] = spread.T @ response[np.ix_(entries, entries)] @ spread
    return State(kernel, np.asarray(conjugate_of(jnp.asarray(kernel), jnp.asarray(on_live), problem.model, layout)))


def _solve_branch(problem: Problem, model: Model, state: State, randomisations: int, seed: int) -> Branch:
    """Settle, then repeat on independent laws; ``model`` has W whole, which decides the stability.

    Where some set has no root, all are solved together; where that fails too, entries that add little are taken to
    follow from earlier ones.
    """
    problem, state, slope = settle(problem, state, part(seed, SETTLING))
    exact, settings = problem.exact, problem.settings
    sets, roots = [], []
    for number in range(settings.grids.choices if exact else randomisations):
        laws = make_laws(problem, state, part(seed, DRAWING, number), number if exact else FINEST)
        sets.append(laws)
        roots.append(solve_on_laws(problem, state, laws, slope))
    solved_on = roots
    together = not exact and not _all_solved(problem, roots)
    if together:
        common, roots, sets = solve_together(problem, state, slope, randomisations, part(seed, TOGETHER))
        solved_on = [common] * len(sets)
    if not _all_solved(problem, roots):
        coarsened = problem.coarsened(state.kernel)
        if coarsened is not None:
            return _solve_branch(coarsened, model, state, randomisations, part(seed, AGAIN))
    energies, neurons, means = [], [], []
    for number, (root, laws) in enumerate(zip(solved_on, sets, strict=True)):
        energies.append(_free_energy(problem, root, laws, part(seed, INTEGRATING, number)))
        means.append(_mean_activity(problem, root, laws))
        # A grid has no independent repetitions, but what is drawn from it has.
        for repetition in range(settings.branches.grid_draws if exact and number == 0 else 1 - exact):
            neurons.append(_neurons(problem, root, laws, part(seed, PICKING, number, repetition)))
    between = softest_of(problem, solved_on[-1], sets[-1], model).eigenvalue
    stable = between < 1 and is_stable(solved_on, sets, problem.model, problem.layout, slope, settings.roots)
    found = Found(problem, state, tuple(neurons), tuple(means), together)
    return Branch(model, problem.phi, tuple(roots), tuple(energies), stable, found)


def _all_solved(problem: Problem, roots: Sequence[Root]) -> bool:
    return all(root.residual <= problem.tolerance for root in roots)


def _neurons(problem: Problem, root: Root, laws: Laws, seed: int) -> np.ndarray:
    """Draws of h of equal weight, independent between groups, (`BranchSettings.kept_neurons`, n)."""
    rng, count = np.random.default_rng(seed), problem.settings.branches.kept_neurons
    draws = np.zeros((count, len(root.kernel)))
    for group, law, cov, conjugate in each_law(problem, root, laws):
        if group.live:
            draws[:, group.entries] = law.neurons(cov, conjugate, count, rng)
    if problem.phi.odd:
        draws[count // 2 :] *= -1
    return draws


def _mean_activity(problem: Problem, root: Root, laws: Laws) -> np.ndarray:
    """<phi(h)>, (n,); it joins the groups."""
    mean = np.zeros(len(root.kernel))
    if not problem.phi.odd:
        for group, average in each_average(problem, root, laws):
            mean[list(group.entries)] = average.mean
    return mean


def _free_energy(problem: Problem, root: Root, laws: Laws, seed: int) -> float:
    total = float(data_term(problem.model, jnp.asarray(root.kernel)))
    for _, law, cov, conjugate in each_law(problem, root, laws):
        total += law.divergence(cov, conjugate, seed)
    return total

r"""The saddle points of a task for any activation, by frozen points, with error bars.

1. Find starts: M neurons descend the free energy together (`theory.nonlinear.mean_field_flow`).
2. Settle on points and solve on them (`theory.nonlinear.frozen_problem`).
3. Repeat on independent draws: their mean is the answer, their scatter its statistical error. The residual is not: it
   says how well the problem of one set of points was solved. Where some set has no root, all of them are solved
   together (`theory.nonlinear.common_root`).

Groups of at most three independent entries are integrated on a tensor grid instead, without statistical error; then
two grids take the place of the repetitions and their difference that of the error. Unshared weights make one group
of each step, and so does the symmetric branch where neither inputs nor readouts tie sites
(`theory.nonlinear.decoupling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.kernels import scale_of
from theory.model import Model, data_term, signal_of
from theory.nonlinear.broken_branch import walk
from theory.nonlinear.common_root import solve_together
from theory.nonlinear.decoupling import decoupled_model
from theory.nonlinear.fixed_point import Root, conjugate_of
from theory.nonlinear.frozen_problem import (
    FINEST,
    GRID_NODES,
    ON_THE_WAY,
    RESIDUAL_TOLERANCE,
    LostError,
    Problem,
    State,
    draw_points,
    laws,
    make_problem,
    settle,
    slope_on_points,
    solve_on_points,
)
from theory.nonlinear.mean_field_flow import flow
from theory.nonlinear.neuron import Points, range_of
from theory.nonlinear.partition_function import divergence
from theory.nonlinear.stability import is_stable
from theory.nonlinear.symmetric_branch import softest_of
from theory.seeds import key_of, part
from theory.symmetry import flipped_pairs, sign_changes
from theory.ties import by_entry, tied_entries

FLOW_NEURONS = 2048
FLOW_STEPS = 800
FLOW_STEP = 0.2
KEPT_NEURONS = 16384
GRID_DRAWS = 4
# Correlation between any two steps of the noise that a flow starts from, and its first targets, relative to the task's:
# under stronger ones broken branches have no rival.
INDEPENDENT, COHERENT = (0.0, 0.0), (0.64, 2.0)
# Flows from other noise, at half the step, where the end of one does not lead to a saddle point: small observation
# noise makes the forces stiff.
ATTEMPTS = 3
BROKEN = 0.1  # overlap between odd offsets above which a start counts as broken: far above the flow's own scatter
SAME_BRANCH = 0.1
# Places of `theory.seeds.part`: in the search, and in solving a branch.
FLOWING, SOLVING, SYMMETRIC, LEAVING = range(4)
SETTLING, DRAWING, INTEGRATING, PICKING, AGAIN, TOGETHER = range(6)
MOST_UNKNOWNS = 12_000  # their square takes 1.2 GB


@dataclass(frozen=True)
class Branch:
    """A saddle point of a problem, once per randomisation (exact: once per grid, the finest first).

    Attributes:
        problem: what was solved.
        state: what the points were drawn at.
        roots: Phi and Phihat, one of each per randomisation.
        energies: F of each.
        neurons: draws h of equal weight from each (exact: several from the finest grid), (`KEPT_NEURONS`, n).
        means: <phi(h)> of each, (n,).
        decoupled: whether it was found with weights cut (`theory.nonlinear.decoupling`).
        stable: by `theory.nonlinear.stability`, and on the symmetric branch by `theory.nonlinear.decoupling` besides.
        exact: whether grids were used throughout.
        together: whether the sets of points were solved together, and each one's root is known to first order.
    """

    problem: Problem
    state: State
    roots: tuple[Root, ...]
    energies: tuple[float, ...]
    neurons: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    decoupled: bool
    stable: bool
    exact: bool
    together: bool


def find_branches(model: Model, phi: Activation, points: int, randomisations: int, seed: int) -> list[Branch]:
    """Every saddle point of a model, all of whose patterns and last sites matter, that the starts lead to.

    Raises:
        ValueError: if more entries are tied to one another than fit, or if the kernels are not finite.
    """
    _check_size(model)

    def come_to_rest(
        on: Model, seed: int, attempt: int, start: tuple[float, float] = INDEPENDENT
    ) -> tuple[Problem, State]:
        return _come_to_rest(on, phi, points, seed, attempt, start)

    def solved(problem: Problem, state: State, seed: int) -> list[Branch]:
        try:
            return [_solve_branch(problem, model, state, randomisations, seed)]
        except LostError:
            return []

    def from_independent_noise(on: Model, seed: int) -> list[Branch]:
        attempts = (
            solved(*come_to_rest(on, part(seed, FLOWING, attempt), attempt), part(seed, SOLVING, attempt))
            for attempt in range(ATTEMPTS)
        )
        return next(filter(None, attempts), [])

    if not len(mirror_images(model, phi)):
        return from_independent_noise(model, seed)
    symmetric = from_independent_noise(decoupled_model(model), part(seed, SYMMETRIC))
    unstable = not any(branch.stable for branch in symmetric)
    for attempt in range(ATTEMPTS):
        lost = False
        # What is stable is left by nothing but a start far away.
        for number, start in enumerate((COHERENT, INDEPENDENT)[: 1 + unstable]):
            problem, state = come_to_rest(model, part(seed, FLOWING, attempt, number), attempt, start)
            if oddness(state.kernel, model, phi) > BROKEN:
                found = solved(problem, state, part(seed, SOLVING, attempt, number))
                if found and not (symmetric and _same_branch(found[0], symmetric[0])):
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


def _check_size(model: Model) -> None:
    """The slope of the stationarity equations is a dense matrix of the pairs of tied entries."""
    sizes = [len(entries) for entries in tied_entries(model)]
    if sum(size * (size + 1) for size in sizes) > MOST_UNKNOWNS:
        raise ValueError(
            f"task has {sum(sizes)} (step, pattern) entries, {max(sizes)} of which shared weights tie together; if the "
            "activation is not linear the theory takes at most 108 that are tied together, fewer if there are several "
            "such groups"
        )


def _leave_symmetric(symmetric: Branch, problem: Problem, model: Model, seed: int) -> State | None:
    """A broken state near an unstable symmetric branch, too slightly broken for the flow; None if there is none."""
    try:
        state = symmetric.state
        points = draw_points(symmetric.problem, state, seed, ON_THE_WAY)
        root = solve_on_points(symmetric.problem, state, points, slope_on_points(symmetric.problem, state, points))
    except LostError:
        return None
    softest = softest_of(symmetric.problem, root, points, model, odd_only=True)
    for step in walk(problem, signal_of(model), root, softest, 1.0, part(seed, 0)):
        if step.factor >= 1:
            return State(step.root.kernel, step.root.conjugate)
    return None


def follow_branch(
    branch: Branch, model: Model, randomisations: int, seed: int, points: int | None = None
) -> Branch | None:
    """The branch on a model that differs at most in its numbers; None where it has turned unstable or ended.

    ``points`` in a set may be others than before.
    """
    phi = branch.problem.phi
    cut = decoupled_model(model) if branch.decoupled else model
    problem = replace(branch.problem.with_model(cut), points=points or branch.problem.points)
    try:
        followed = _solve_branch(problem, model, branch.state, randomisations, seed)
    except LostError:
        return None
    still_broken = any(oddness(root.kernel, model, phi) > BROKEN for root in followed.roots)
    was_broken = any(oddness(root.kernel, model, phi) > BROKEN for root in branch.roots)
    lost = max(root.residual for root in followed.roots) > RESIDUAL_TOLERANCE or still_broken != was_broken
    return None if lost or not followed.stable else followed


def _same_branch(one: Branch, other: Branch) -> bool:
    """Equal kernels within a tenth of their scale, up to the sign symmetry."""
    first, second = (np.mean([root.kernel for root in branch.roots], axis=0) for branch in (one, other))
    scale = scale_of(first)
    if len(mirror_images(one.problem.model, one.problem.phi)):
        first, second = np.abs(first), np.abs(second)
    return bool(np.max(np.abs(first - second) / np.outer(scale, scale)) < SAME_BRANCH)


def _come_to_rest(
    model: Model, phi: Activation, points: int, seed: int, attempt: int, start: tuple[float, float]
) -> tuple[Problem, State]:
    """Where the flow comes to rest from a start, its step halved at each attempt."""
    coherence, first_targets = start
    rng = np.random.default_rng(part(seed, 0))
    independent = rng.normal(size=(model.entries, FLOW_NEURONS))
    common = np.tile(rng.normal(size=(model.patterns, FLOW_NEURONS)), (model.sites, 1))
    noise = np.sqrt(1 - coherence) * independent + np.sqrt(coherence) * common
    steps, step, key = FLOW_STEPS * 2**attempt, FLOW_STEP / 2**attempt, key_of(part(seed, 1))
    settled = flow(model, noise, key, phi.function, steps, step, first_targets)
    kernel, response = map(np.asarray, settled)
    if not np.isfinite(kernel).all():
        raise ValueError(
            "network and task lead to kernels that are not finite; lower the gains or the targets, "
            "or use an activation that grows more slowly"
        )
    problem = make_problem(model, phi, kernel, points)
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
    """Settle, then repeat on independent points; ``model`` has W whole, which decides the stability.

    Where some set has no root, all are solved together; where that fails too, entries that add little are taken to
    follow from earlier ones.
    """
    problem, state, slope = settle(problem, state, part(seed, SETTLING))
    exact = problem.exact
    sets, roots = [], []
    for number in range(len(GRID_NODES[1]) if exact else randomisations):
        points = draw_points(problem, state, part(seed, DRAWING, number), number if exact else FINEST)
        sets.append(points)
        roots.append(solve_on_points(problem, state, points, slope))
    solved_on = roots
    together = not exact and not _all_solved(roots)
    if together:
        common, roots, sets = solve_together(problem, state, slope, randomisations, part(seed, TOGETHER))
        solved_on = [common] * len(sets)
    if not _all_solved(roots):
        coarsened = problem.coarsened(state.kernel)
        if coarsened is not None:
            return _solve_branch(coarsened, model, state, randomisations, part(seed, AGAIN))
    energies, neurons, means = [], [], []
    for number, (root, points) in enumerate(zip(solved_on, sets, strict=True)):
        energies.append(_free_energy(problem, root, points, part(seed, INTEGRATING, number)))
        means.append(_mean_activity(problem, root, points))
        # A grid has no independent repetitions, but what is drawn from it has.
        for repetition in range(GRID_DRAWS if exact and number == 0 else 1 - exact):
            neurons.append(_neurons(problem, root, points, part(seed, PICKING, number, repetition)))
    between = softest_of(problem, solved_on[-1], sets[-1], model).eigenvalue
    stable = between < 1 and is_stable(solved_on, sets, problem.model, problem.layout, slope)
    decoupled = problem.model is not model
    averaged = tuple(energies), tuple(neurons), tuple(means)
    return Branch(problem, state, tuple(roots), *averaged, decoupled, stable, exact, together)


def _all_solved(roots: Sequence[Root]) -> bool:
    return all(root.residual <= RESIDUAL_TOLERANCE for root in roots)


def _neurons(problem: Problem, root: Root, points: tuple[Points, ...], seed: int) -> np.ndarray:
    """Draws of h of equal weight, independent between groups, (`KEPT_NEURONS`, n)."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((KEPT_NEURONS, len(root.kernel)))
    for entries, weights, h in laws(problem, root, points):
        draws[:, entries] = h[rng.choice(len(h), KEPT_NEURONS, p=weights)]
    if problem.phi.odd:
        draws[KEPT_NEURONS // 2 :] *= -1
    return draws


def _mean_activity(problem: Problem, root: Root, points: tuple[Points, ...]) -> np.ndarray:
    """<phi(h)>, (n,); it joins the groups."""
    phi = problem.layout.phi
    mean = np.array(phi(jnp.zeros(len(root.kernel))))
    if problem.phi.odd:
        return 0 * mean
    for entries, weights, h in laws(problem, root, points):
        mean[entries] = weights @ np.asarray(phi(jnp.asarray(h)))
    return mean


def _free_energy(problem: Problem, root: Root, points: tuple[Points, ...], seed: int) -> float:
    cov, layout = problem.cov(root.kernel), problem.layout
    total = float(data_term(problem.model, jnp.asarray(root.kernel)))
    for group, group_points in zip(layout.groups, points, strict=True):
        if group.live:
            index = np.ix_(group.entries, group.entries)
            total += divergence(
                group_points,
                cov[index],
                root.conjugate[index],
                layout.phi,
                group.live,
                layout.kinks,
                group.sampled,
                seed,
            )
    return total

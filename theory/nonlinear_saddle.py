r"""The saddle point for any activation, by frozen points, with error bars.

1. Reduce to the steps and patterns that a supervised entry depends on.
2. Find starts: M neurons descend the free energy together (`theory.mean_field_flow`).
3. Draw independent neurons at the C and Phihat so found (`theory.neuron_chain`), freeze them, solve the stationarity
   equations on them to rounding error (`theory.fixed_point`), draw anew where that led, until the points stay good.
4. Repeat on independent draws: their mean is the answer, their scatter its statistical error. The residual is not: it
   says how well the problem of one set of points was solved.

Groups of at most three independent entries are integrated on a tensor grid instead, without statistical error; then
two grids take the place of the repetitions and their difference that of the error. Unshared weights make one group
of each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.causal_reach import connected_entries
from theory.covariance import Terms, covariance_terms, preactivation_cov
from theory.fixed_point import Group, Layout, Root, find_root, image, jacobian
from theory.mean_field_flow import flow
from theory.network import Network
from theory.neuron import Points, frozen, grid, has_kinks, live_entries, weighted
from theory.neuron_chain import draw, stein_tilt
from theory.nonlinear_stability import is_stable
from theory.partition_function import divergence
from theory.prediction import data_term
from theory.response import factorise
from theory.symmetry import has_sign_symmetry
from theory.task import Task

RESIDUAL_TOLERANCE = 1e-9
GRID_RANK = 3
GRID_REACH = 6.0
GRID_NODES = {1: (240, 160), 2: (120, 80), 3: (64, 46)}  # for the answer; on the way and for its error
ON_THE_WAY = 1
FLOW_NEURONS = 2048
FLOW_STEPS = 800
FLOW_STEP = 0.2
REFRESHES = 8
GOOD_EFFECTIVE_SAMPLE_SIZE = 0.8
MOVES = 10
KEPT_NEURONS = 16384
GRID_DRAWS = 4
BROKEN = 0.1  # overlap between odd offsets above which a start counts as broken: far above the flow's own scatter
SAME_BRANCH = 0.1


@dataclass(frozen=True)
class State:
    """A guess: Phi and Phihat (n, n), and neurons z (M, r) of each group that follow about their law."""

    kernel: np.ndarray
    conjugate: np.ndarray
    noise: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Branch:
    """A saddle point of a problem, once per randomisation (exact: once per grid, the finest first).

    Attributes:
        problem: what was solved.
        roots: Phi and Phihat, one of each per randomisation.
        energies: F of each.
        neurons: draws h of equal weight from each (exact: several from the finest grid), (`KEPT_NEURONS`, n).
        means: <phi(h)> of each, (n,).
        stable: by `theory.nonlinear_stability`.
        exact: whether grids were used throughout.
    """

    problem: Problem
    roots: tuple[Root, ...]
    energies: tuple[float, ...]
    neurons: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    stable: bool
    exact: bool


@dataclass(frozen=True)
class Problem:
    """A reduced task on a network, ready to be solved."""

    network: Network
    task: Task
    terms: Terms
    layout: Layout
    points: int
    symmetric: bool = False
    left_by_flow: bool = False  # a flow free to break the symmetry did so: the symmetric branch is unstable

    def cov(self, kernel: np.ndarray) -> np.ndarray:
        """C[Phi], (n, n)."""
        return np.asarray(preactivation_cov(self.terms, jnp.asarray(kernel), self.task.patterns))


def find_branches(network: Network, task: Task, points: int, randomisations: int, seed: int) -> list[Branch]:
    """Every saddle point of a task, all of whose steps and patterns matter, that the starts lead to."""
    terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
    found: list[Branch] = []
    for number, (problem, state, broken) in enumerate(_starts(network, task, terms, points, seed)):
        if found and found[0].stable and not broken:
            continue
        branch = _solve_branch(problem, state, randomisations, seed + 1000 * number)
        if not any(_same_branch(branch, other) for other in found):
            found.append(branch)
    return found


def _same_branch(one: Branch, other: Branch) -> bool:
    """Equal kernels within a tenth of their scale, up to the sign symmetry."""
    first, second = (np.mean([root.kernel for root in branch.roots], axis=0) for branch in (one, other))
    scale = _scale(first)
    if has_sign_symmetry(one.problem.network, one.problem.task):
        first, second = np.abs(first), np.abs(second)
    return bool(np.max(np.abs(first - second) / np.outer(scale, scale)) < SAME_BRANCH)


def _needed(task: Task) -> tuple[bool, ...]:
    """Whether each entry is followed, at its step or later, by a supervised one of its pattern."""
    later = np.cumsum(task.supervised[:, ::-1], axis=1)[:, ::-1] > 0
    return tuple(bool(value) for value in later.T.ravel())


def _starts(network: Network, task: Task, terms: Terms, points: int, seed: int) -> list[tuple[Problem, State, bool]]:
    """Where the flow comes to rest from uncorrelated and from fully correlated steps; the symmetric branch besides."""
    phi, patterns, n = network.phi, task.patterns, task.entries
    keys = jax.random.split(jax.random.PRNGKey(seed), 3)
    independent = jax.random.normal(keys[0], (n, FLOW_NEURONS))
    common = jnp.tile(jax.random.normal(keys[1], (patterns, FLOW_NEURONS)), (task.steps, 1))
    can_break = has_sign_symmetry(network, task)
    first_noises = [independent]
    if "recurrent" in network.shared and task.steps > 2 and can_break:
        first_noises.append(0.6 * independent + 0.8 * common)
    ends = [flow(terms, z, keys[2], phi.function, patterns, FLOW_STEPS, FLOW_STEP) for z in first_noises]
    ends = [(np.asarray(z), np.asarray(kernel)) for z, kernel in ends]
    if not all(np.isfinite(kernel).all() for _, kernel in ends):
        raise ValueError(
            "network and task lead to kernels that are not finite; lower the gains or the targets, "
            "or use an activation that grows more slowly"
        )
    layout = _layout(network, task, terms, ends[0][1])
    problem = Problem(network, task, terms, layout, points)
    starts = []
    if can_break:
        even, signs = _even_offsets(task), (-1.0) ** np.repeat(np.arange(task.steps), patterns)[:, None]
        half = independent[:, : FLOW_NEURONS // 2]
        noise, kernel = flow(terms, half, keys[2], phi.function, patterns, FLOW_STEPS, FLOW_STEP, jnp.asarray(signs))
        noise, kernel = np.concatenate([noise, signs * noise], axis=1), np.asarray(kernel) * even
        left = _oddness(ends[0][1], task) > BROKEN
        symmetric = replace(problem, symmetric=True, left_by_flow=left)
        starts.append((symmetric, _first_state(problem, noise, kernel, even), False))
        ends = [max(ends, key=lambda end: _oddness(end[1], task))]
    for noise, kernel in ends:
        broken = not can_break or _oddness(kernel, task) > BROKEN
        starts.append((problem, _first_state(problem, noise, kernel, 1.0), broken))
    return starts


def _layout(network: Network, task: Task, terms: Terms, kernel: np.ndarray) -> Layout:
    cov = np.asarray(preactivation_cov(terms, jnp.asarray(kernel), task.patterns))
    groups = []
    for entries in connected_entries(terms):
        live = live_entries(factorise(cov[np.ix_(entries, entries)]))
        groups.append(Group(tuple(map(int, entries)), live, sampled=len(live) > GRID_RANK))
    phi = network.phi.function
    return Layout(phi, has_kinks(phi), task.patterns, _needed(task), tuple(groups))


def _even_offsets(task: Task) -> np.ndarray:
    steps = np.repeat(np.arange(task.steps), task.patterns)
    return ((steps[:, None] - steps[None, :]) % 2 == 0).astype(float)


def _oddness(kernel: np.ndarray, task: Task) -> float:
    """Largest overlap between steps of odd offset."""
    scale = _scale(kernel)
    return float(np.max(np.abs(kernel) * (1 - _even_offsets(task)) / np.outer(scale, scale), initial=0.0))


def _scale(kernel: np.ndarray) -> np.ndarray:
    deviations = np.sqrt(np.diagonal(kernel))
    return np.where(deviations > 0, deviations, 1.0)


def _first_state(problem: Problem, noise: np.ndarray, kernel: np.ndarray, mask: Any) -> State:
    """Phihat for the neurons of the flow: exact after one backward sweep over the steps."""
    layout, terms = problem.layout, problem.terms
    cov = problem.cov(kernel)
    draws = tuple(noise[np.array(g.entries)[list(g.live)]].T for g in layout.groups)
    if layout.phi is not None and problem.network.phi.odd:
        draws = tuple(np.concatenate([z, -z]) for z in draws)
    conjugate = np.zeros_like(cov)
    for _ in range(problem.task.steps):
        points = tuple(
            _freeze(problem, group, z, cov, conjugate) for group, z in zip(layout.groups, draws, strict=True)
        )
        conjugate = np.asarray(image(kernel, conjugate, terms, points, layout)[1]) * mask
    return State(kernel, conjugate, draws)


def _freeze(problem: Problem, group: Group, noise: np.ndarray, cov: np.ndarray, conjugate: np.ndarray) -> Points:
    if not group.live:
        return Points(jnp.zeros((1, 0)), jnp.zeros(1))
    index = np.ix_(group.entries, group.entries)
    layout = problem.layout
    return frozen(jnp.asarray(noise), cov[index], conjugate[index], layout.phi, group.live, layout.kinks)


def _draw_points(problem: Problem, state: State, seed: int, grid_choice: int) -> tuple[State, tuple[Points, ...]]:
    """Frozen points of every group at a state, and the state with the neurons that they came from."""
    layout, cov = problem.layout, problem.cov(state.kernel)
    rng = np.random.default_rng(seed)
    noises, points = [], []
    for group, noise in zip(layout.groups, state.noise, strict=True):
        index = np.ix_(group.entries, group.entries)
        rank = len(group.live)
        if rank == 0:
            points.append(_freeze(problem, group, noise, cov, state.conjugate))
        elif not group.sampled:
            points.append(_grid(problem, group, noise, cov[index], state.conjugate[index], grid_choice))
        else:
            noise = noise[rng.integers(0, len(noise), problem.points)]
            key = jax.random.PRNGKey(rng.integers(2**31))
            noise = draw(noise, key, cov[index], state.conjugate[index], layout.phi, group.live, MOVES)
            if problem.symmetric:
                noise = _mirrored(noise, group, problem.task)
            base = stein_tilt(noise, cov[index], state.conjugate[index], layout.phi, group.live)
            plain = _freeze(problem, group, noise, cov, state.conjugate)
            points.append(Points(plain.coordinates, plain.log_base + base))
        noises.append(np.asarray(noise))
    return replace(state, noise=tuple(noises)), tuple(points)


def _grid(
    problem: Problem, group: Group, noise: np.ndarray, cov: np.ndarray, conjugate: np.ndarray, choice: int
) -> Points:
    """A grid as wide as the law: a rough one fitted to the flow's neurons measures it."""
    layout, nodes = problem.layout, GRID_NODES[len(group.live)]
    second = noise.T @ noise / len(noise)
    for number in (nodes[ON_THE_WAY], nodes[choice]):
        if problem.symmetric:
            live = np.array(group.entries)[list(group.live)]
            second = second * _even_offsets(problem.task)[np.ix_(live, live)]
        points = grid(np.linalg.cholesky(second), cov, group.live, layout.kinks, number, GRID_REACH)
        law = weighted(points, cov, conjugate, layout.phi, group.live, layout.kinks)
        z, weights = np.asarray(law.noise), np.exp(np.asarray(law.log_weights))
        second = (z * weights[:, None]).T @ z
    return points


def _mirrored(noise: Any, group: Group, task: Task) -> Any:
    """Half of the neurons and their images under the sign symmetry: odd offsets average to zero exactly."""
    steps = np.array(group.entries)[list(group.live)] // task.patterns
    half = noise[: len(noise) // 2]
    return jnp.concatenate([half, half * (-1.0) ** steps])


def _solve_on_points(problem: Problem, state: State, points: tuple[Points, ...], slope: np.ndarray) -> Root:
    scale = _scale(state.kernel)
    return find_root(
        state.kernel,
        state.conjugate,
        scale,
        problem.terms,
        points,
        problem.layout,
        slope,
        RESIDUAL_TOLERANCE,
    )


def _slope(problem: Problem, state: State, points: tuple[Points, ...]) -> np.ndarray:
    scale = _scale(state.kernel)
    return jacobian(state.kernel, state.conjugate, scale, problem.terms, points, problem.layout)


def _settle(problem: Problem, state: State, seed: int) -> tuple[State, np.ndarray]:
    """Solve and draw anew until the points stay good from the start of a solve to its end."""
    for refresh in range(REFRESHES):
        state, points = _draw_points(problem, state, seed + refresh, ON_THE_WAY)
        slope = _slope(problem, state, points)
        root = _solve_on_points(problem, state, points, slope)
        state = replace(state, kernel=root.kernel, conjugate=root.conjugate)
        if root.residual <= RESIDUAL_TOLERANCE and root.effective_sample_size > GOOD_EFFECTIVE_SAMPLE_SIZE:
            break
    return state, slope


def _solve_branch(problem: Problem, state: State, randomisations: int, seed: int) -> Branch:
    """Settle, then repeat on independent points."""
    state, slope = _settle(problem, state, seed)
    exact = not any(group.sampled for group in problem.layout.groups)
    roots, energies, neurons, means = [], [], [], []
    for number in range(len(GRID_NODES[1]) if exact else randomisations):
        drawn, points = _draw_points(problem, state, seed + 100 + number, number if exact else 0)
        root = _solve_on_points(problem, drawn, points, slope)
        roots.append(root)
        energies.append(_free_energy(problem, root, points, seed + 200 + number))
        means.append(_mean_activity(problem, root, points))
        # A grid has no independent repetitions, but what is drawn from it has.
        for repetition in range(GRID_DRAWS if exact and number == 0 else 1 - exact):
            neurons.append(_neurons(problem, root, points, seed + 300 + number + repetition))
    scale = _scale(root.kernel)
    arguments = (root.kernel, root.conjugate, scale, problem.terms, points, problem.layout)
    stable = is_stable(*arguments, slope=slope) and (exact or not problem.left_by_flow)
    return Branch(problem, tuple(roots), tuple(energies), tuple(neurons), tuple(means), stable, exact)


def _neurons(problem: Problem, root: Root, points: tuple[Points, ...], seed: int) -> np.ndarray:
    """Draws of h of equal weight, independent between groups, (`KEPT_NEURONS`, n)."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((KEPT_NEURONS, len(root.kernel)))
    for entries, weights, h in _laws(problem, root, points):
        draws[:, entries] = h[rng.choice(len(h), KEPT_NEURONS, p=weights)]
    if problem.network.phi.odd:
        draws[KEPT_NEURONS // 2 :] *= -1
    return draws


def _mean_activity(problem: Problem, root: Root, points: tuple[Points, ...]) -> np.ndarray:
    """<phi(h)>, (n,); it joins the groups."""
    phi = problem.layout.phi
    mean = np.array(phi(jnp.zeros(len(root.kernel))))
    if problem.network.phi.odd:
        return 0 * mean
    for entries, weights, h in _laws(problem, root, points):
        mean[entries] = weights @ np.asarray(phi(jnp.asarray(h)))
    return mean


def _laws(problem: Problem, root: Root, points: tuple[Points, ...]):
    """Entries, normalised weights (M,) and h (M, entries) of each group that is not silent."""
    cov, layout = problem.cov(root.kernel), problem.layout
    for group, group_points in zip(layout.groups, points, strict=True):
        if group.live:
            index = np.ix_(group.entries, group.entries)
            law = weighted(group_points, cov[index], root.conjugate[index], layout.phi, group.live, layout.kinks)
            weights = np.exp(np.asarray(law.log_weights))
            yield np.array(group.entries), weights / weights.sum(), np.asarray(law.preactivation)


def _free_energy(problem: Problem, root: Root, points: tuple[Points, ...], seed: int) -> float:
    cov, layout = problem.cov(root.kernel), problem.layout
    total = float(data_term(problem.terms, jnp.asarray(root.kernel)))
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

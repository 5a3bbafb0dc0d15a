"""A branch solved: settled, then repeated on independent laws, so that it has an error bar."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from theory.clock import report, time_is_up
from theory.laws.grid import FINEST
from theory.model import Model, data_term
from theory.search.branch import Branch, Found
from theory.search.common_root import solve_together
from theory.search.problem import Problem, State, each_average, each_law, make_laws, settle, solve_on_laws
from theory.search.stability import is_stable
from theory.search.stationarity import Laws, Root
from theory.search.symmetric_branch import softest_of
from theory.seeds import part

SETTLING, DRAWING, INTEGRATING, PICKING, AGAIN, TOGETHER = range(6)  # places of `theory.seeds.part`


def solve_branch(problem: Problem, model: Model, state: State, randomisations: int, seed: int) -> Branch:
    """Settle, then repeat on independent laws; ``model`` has W whole, which decides the stability.

    Where some set has no root, all are solved together; where that fails too, entries that add little are taken to
    follow from earlier ones. Where the time is up (`theory.clock`), two sets show what has been reached.
    """
    problem, state, slope = settle(problem, state, part(seed, SETTLING))
    exact, settings = problem.exact, problem.settings
    sets, roots = [], []
    for number in range(settings.grids.choices if exact else randomisations):
        if number > 1 and time_is_up():
            break
        report(f"set {number + 1}")
        laws = make_laws(problem, state, part(seed, DRAWING, number), number if exact else FINEST)
        sets.append(laws)
        roots.append(solve_on_laws(problem, state, laws, slope))
    solved_on = roots
    together = not exact and not _all_solved(problem, roots) and not time_is_up()
    if together:
        common, roots, sets = solve_together(problem, state, slope, randomisations, part(seed, TOGETHER))
        solved_on = [common] * len(sets)
    if not _all_solved(problem, roots) and not time_is_up():
        coarsened = problem.coarsened(state.kernel)
        if coarsened is not None:
            return solve_branch(coarsened, model, state, randomisations, part(seed, AGAIN))
    energies, neurons, means = [], [], []
    for number, (root, laws) in enumerate(zip(solved_on, sets, strict=True)):
        energies.append(free_energy_on_laws(problem, root, laws, part(seed, INTEGRATING, number)))
        means.append(mean_activity(problem, root, laws))
        # A grid has no independent repetitions, but what is drawn from it has.
        for repetition in range(settings.branches.grid_draws if exact and number == 0 else 1 - exact):
            neurons.append(neurons_of(problem, root, laws, part(seed, PICKING, number, repetition)))
    between = softest_of(problem, solved_on[-1], sets[-1], model).eigenvalue
    judged = 1 if time_is_up() else len(sets)  # each takes as long as many steps of a search
    stable = between < 1 and is_stable(
        solved_on[:judged], sets[:judged], problem.model, problem.layout, slope, settings.roots
    )
    found = Found(problem, state, tuple(neurons), tuple(means), together)
    return Branch(model, problem.phi, tuple(roots), tuple(energies), stable, found)


def _all_solved(problem: Problem, roots: Sequence[Root]) -> bool:
    return all(root.residual <= problem.tolerance for root in roots)


def neurons_of(problem: Problem, root: Root, laws: Laws, seed: int) -> np.ndarray:
    """Draws of h of equal weight, independent between groups, (`BranchSettings.kept_neurons`, n)."""
    rng, count = np.random.default_rng(seed), problem.settings.branches.kept_neurons
    draws = np.zeros((count, len(root.kernel)))
    for group, law, cov, conjugate in each_law(problem, root, laws):
        if group.live:
            draws[:, group.entries] = law.neurons(cov, conjugate, count, rng)
    if problem.phi.odd:
        draws[count // 2 :] *= -1
    return draws


def mean_activity(problem: Problem, root: Root, laws: Laws) -> np.ndarray:
    """<phi(h)>, (n,); it joins the groups."""
    mean = np.zeros(len(root.kernel))
    if not problem.phi.odd:
        for group, average in each_average(problem, root, laws):
            mean[list(group.entries)] = average.mean
    return mean


def free_energy_on_laws(problem: Problem, root: Root, laws: Laws, seed: int) -> float:
    """F of a root: the divergence of its laws from the prior, and the data term."""
    total = float(data_term(problem.model, jnp.asarray(root.kernel)))
    for _, law, cov, conjugate in each_law(problem, root, laws):
        total += law.divergence(cov, conjugate, seed)
    return total

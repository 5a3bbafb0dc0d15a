"""From a network on a task to its `Solution`: branches are searched on what matters, then carried over to all of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from theory.clock import ran_out, report, time_is_up
from theory.family import Family
from theory.jax_settings import own_settings
from theory.laws.stein import FIELDS
from theory.network import Network
from theory.relabelling import find_relabelling
from theory.search.branch import Branch, Options, is_near
from theory.search.branch_solution import branch_solution, relabelled_images, same_saddle_point
from theory.search.branches import branches_from, find_branches, follow_branch
from theory.search.nearly_images import nearly_images
from theory.search.posed import Posed, pose
from theory.search.problem import needs_flows
from theory.seeds import part
from theory.solution import Solution, only_stable
from theory.task import Task
from theory.ties import tied_entries
from theory.units import Units


def search(network: Network, task: Task, points: int | None, options: Options, tolerance: float) -> Solution:
    """The stable saddle point of smallest free energy, with every one that was found; arguments as for `theory.solve`.

    Without ``points``, sets of draws grow until the solution converges.
    """
    # float64 within this call only: residuals of 1e-9 are not reachable in float32.
    with own_settings():
        size = points or options.settings.sets.first
        posed = pose(network, task, options._replace(points=size), tolerance)
        found = find(posed)
        solution = gather(posed, found)
        larger = None if points else _larger_sets(solution, found, size, posed)
        while larger is not None and not time_is_up():
            report(f"sets of {larger} points")
            again = options._replace(seed=part(options.seed, larger))
            found = [_refined(branch, posed, again, larger) for branch in found]
            solution = gather(posed, found)
            larger = _larger_sets(solution, found, larger, posed)
    return solution


def _refined(branch: Branch, posed: Posed, options: Options, points: int) -> Branch:
    """A branch on larger sets; as it was where it cannot be followed, or the time is up."""
    if time_is_up():
        return branch
    return follow_branch(branch, posed.part, options, points) or branch


def find(posed: Posed) -> list[Branch]:
    """Every branch that the search leads to.

    Raises:
        RuntimeError: if there is none.
    """
    found = find_branches(
        posed.part, posed.network.phi, posed.options, posed.images if posed.part is posed.model else None
    )
    if not posed.network.phi.linear:
        found += branches_from(_other_starts(posed, found), posed.part, posed.network.phi, posed.options, found)
    if not found and ran_out() is not None:
        raise RuntimeError(
            f"no saddle point of the network on this task was found within the time limit of {ran_out():g} s; allow "
            "more time"
        )
    if not found:
        raise RuntimeError(
            "no saddle point of the network on this task was found: use more points, another seed or a weaker "
            "signal, or follow it from a weaker signal with theory.continuation"
        )
    return found


def _other_starts(posed: Posed, found: list[Branch]) -> list[np.ndarray]:
    """Kernels (n, n) to start from besides: those given, and images of the best stable branch that are near others."""
    starts, phi = list(posed.options.kernels), posed.network.phi
    stable = [branch for branch in found if branch.stable]
    if stable and not needs_flows(posed.part, posed.options.settings.branches):  # a flow more takes minutes
        best = min(stable, key=lambda branch: branch.energies[0])
        kernel = np.mean([root.kernel for root in best.roots], axis=0)
        relabelled = find_relabelling(posed.network, posed.task) is not None
        starts += [
            image
            for image in nearly_images(kernel, posed.part, phi, signs=not len(posed.images), relabelled=not relabelled)
            if not any(is_near(image, branch, posed.options.settings.branches) for branch in found)
        ]
    return starts


def best_of(posed: Posed, found: list[Branch]) -> tuple[Solution, Branch]:
    """The best of the branches."""
    finished = [(branch_solution(branch, posed), branch) for branch in found]
    solution, branch = min(finished, key=lambda pair: _rank(pair[0]))
    return only_stable(solution), branch


def gather(posed: Posed, found: list[Branch]) -> Solution:
    """The best of the branches, with all of them and their images."""
    solutions = [branch_solution(branch, posed) for branch in found]
    for image in [image for solution in solutions for image in relabelled_images(solution)]:
        # The search may have found it by itself.
        if not any(same_saddle_point(solution, image.kernel) for solution in solutions):
            solutions.append(image)
    branches = tuple(sorted(solutions, key=_rank))
    message = f"{branches[0].message}; {len(branches)} saddle point(s) found"
    limit = ran_out()
    if limit is not None:
        message += f"; stopped by the time limit of {limit:g} s"
    return only_stable(replace(branches[0], branches=branches, message=message))


def _larger_sets(solution: Solution, found: list[Branch], points: int, posed: Posed) -> int | None:
    """How many points may bring a solution to its tolerance; None if it has, or no number within reach would."""
    if solution.converged or all(branch.exact for branch in found):
        return None
    sets, draws = posed.options.settings.sets, posed.options.settings.draws
    if solution.relative_error >= 1:  # nothing is known: larger sets cost more and change nothing
        return None
    solved = solution.solved and solution.stable
    wanted = (solution.relative_error / (sets.safety * posed.tolerance)) ** 2 if solved else sets.growth
    larger = (2 if wanted <= 2 else sets.growth) * points
    entries = max(len(entries) for entries in tied_entries(posed.part))
    fits = larger * min(FIELDS * entries**2, larger / draws.tilt.points_per_field) <= sets.most_numbers
    return larger if larger <= sets.enough or (solved and fits and larger <= sets.most) else None


class Follower:
    """Solutions at several values of a parameter, each started from another."""

    def __init__(self, family: Family, options: Options, tolerance: float) -> None:
        self._family, self._options, self._tolerance = family, options, tolerance
        self._units: Units | None = None

    def _posed(self, value: float) -> Posed:
        posed = pose(*self._family.at(value), self._options, self._tolerance, self._units)
        self._units = posed.units  # branches go from one value to the next
        return posed

    def best(self, value: float) -> tuple[Solution, Branch]:
        """What `theory.solve` finds."""
        posed = self._posed(value)
        return best_of(posed, find(posed))

    def follow(self, value: float, branch: Branch) -> tuple[Solution, Branch]:
        """The branch continued; what lies below it, or the best one, where it has turned unstable or ended."""
        posed = self._posed(value)
        followed = follow_branch(branch, posed.part, self._options)
        if followed is None:
            return best_of(posed, find(posed))
        return branch_solution(followed, posed), followed


def _rank(solution: Solution) -> tuple[bool, bool, float, float]:
    """Stable and solved ones first; a statistical error above its tolerance is no reason to prefer another branch."""
    unsolved = not solution.solved
    energy = float(f"{solution.free_energy:.12g}")  # images differ by rounding errors
    return not solution.stable, unsolved, energy, -_neighbours(solution.kernel)


def _neighbours(kernel: np.ndarray) -> float:
    return float(sum(np.trace(kernel[t, :, t + 1]) for t in range(len(kernel) - 1)))

"""From a network on a task to its `Solution`: branches are searched on what matters, then carried over to all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from theory.extension import extend_kernel
from theory.family import Family
from theory.jax_settings import own_settings
from theory.kernels import flat_of, kernel_of, largest_relative, outputs_of, scale_of
from theory.laws.stein import FIELDS
from theory.model import Model, build_model, output_law, preactivation_cov
from theory.network import Network
from theory.search.branches import Branch, Options, find_branches, follow_branch, mirror_images
from theory.search.problem import Problem
from theory.seeds import part
from theory.solution import STATED_RESIDUAL, Solution, error_of_repetitions, only_stable
from theory.symmetry import alternating_relabelling, preferred_signs, relabel, sign_changes
from theory.task import Task
from theory.ties import needed_part, tied_entries
from theory.units import Units, natural_units, times

# Difference of kernels, relative to their scale, beyond which an image counts as another saddle point.
SAME_IMAGE = 0.1
EXACT_RESIDUAL = 1e-9  # of linear networks, at most: rounding errors of long chains reach a tenth of it


@dataclass(frozen=True, eq=False)
class Posed:
    """A network on a task, as it is searched; call everything in float64.

    Attributes:
        network, task: what is asked.
        options: of the search.
        tolerance: on the standard error of the kernel entries, relative to sqrt(Phi_ii Phi_jj).
        units: natural ones (`theory.units`) of a linear network; its relative numbers may be anything.
        model: the two in arrays, in these units.
        part: what is searched: of a linear network all, else what a supervised entry depends on.
        kept: its flat entries.
        images: the sign changes that turn saddle points into others (`theory.symmetry`).
    """

    network: Network
    task: Task
    options: Options
    tolerance: float
    units: Units
    model: Model
    part: Model
    kept: np.ndarray
    images: np.ndarray

    def find(self) -> list[Branch]:
        """Every branch that the search leads to.

        Raises:
            RuntimeError: if there is none.
        """
        found = find_branches(
            self.part, self.network.phi, self.options, self.images if self.part is self.model else None
        )
        if not found:
            raise RuntimeError(
                "no saddle point of the network on this task was found: use more points, another seed or a weaker "
                "signal, or follow it from a weaker signal with theory.continuation"
            )
        return found

    def best(self, found: list[Branch]) -> tuple[Solution, Branch]:
        """The best of the branches."""
        finished = [(self.solution(branch), branch) for branch in found]
        solution, branch = min(finished, key=lambda pair: _rank(pair[0]))
        return only_stable(solution), branch

    def gather(self, found: list[Branch]) -> Solution:
        """The best of the branches, with all of them and their images."""
        solutions = [self.solution(branch) for branch in found]
        solutions += [image for image in map(relabelled_image, solutions) if image is not None]
        branches = tuple(sorted(solutions, key=_rank))
        message = f"{branches[0].message}; {len(branches)} saddle point(s) found"
        return only_stable(replace(branches[0], branches=branches, message=message))

    def solution(self, branch: Branch) -> Solution:
        """The `Solution` of a branch; of two mirror images the one whose neighbouring steps correlate positively."""
        return _solution(branch, self)


def pose(network: Network, task: Task, options: Options, tolerance: float, units: Units | None = None) -> Posed:
    """The `Posed` problem of a network on a task, in natural units or in given ones."""
    model, phi = build_model(network, task), network.phi
    if units is None:
        units = natural_units(model, phi, model.drive, model.drive) if phi.linear else Units(0, 0, 0)
    model = units.model(model).on_device()
    searched, kept = (model, np.arange(model.entries)) if phi.linear else needed_part(model)
    return Posed(network, task, options, tolerance, units, model, searched, kept, mirror_images(model, phi))


def search(network: Network, task: Task, points: int | None, options: Options, tolerance: float) -> Solution:
    """The stable saddle point of smallest free energy, with every one that was found; arguments as for `theory.solve`.

    Without ``points``, sets of draws grow until the solution converges.
    """
    # float64 within this call only: residuals of 1e-9 are not reachable in float32.
    with own_settings():
        size = points or options.settings.sets.first
        posed = pose(network, task, options._replace(points=size), tolerance)
        found = posed.find()
        solution = posed.gather(found)
        larger = None if points else _larger_sets(solution, found, size, posed)
        while larger is not None:
            again = options._replace(seed=part(options.seed, larger))
            found = [follow_branch(branch, posed.part, again, larger) or branch for branch in found]
            solution = posed.gather(found)
            larger = _larger_sets(solution, found, larger, posed)
    return solution


def _larger_sets(solution: Solution, found: list[Branch], points: int, posed: Posed) -> int | None:
    """How many points may bring a solution to its tolerance; None if it has, or no number within reach would."""
    if solution.converged or all(branch.exact for branch in found):
        return None
    sets, draws = posed.options.settings.sets, posed.options.settings.draws
    solved = solution.residual <= STATED_RESIDUAL and solution.stable
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
        return posed.best(posed.find())

    def follow(self, value: float, branch: Branch) -> tuple[Solution, Branch]:
        """The branch continued; what lies below it, or the best one, where it has turned unstable or ended."""
        posed = self._posed(value)
        followed = follow_branch(branch, posed.part, self._options)
        if followed is None:
            return posed.best(posed.find())
        return posed.solution(followed), followed


def _rank(solution: Solution) -> tuple[bool, bool, float, float]:
    """Stable and solved ones first; a statistical error above its tolerance is no reason to prefer another branch."""
    unsolved = solution.residual > STATED_RESIDUAL
    return not solution.stable, unsolved, solution.free_energy, -_neighbours(solution.kernel)


def relabelled_image(solution: Solution) -> Solution | None:
    """The image under `theory.symmetry.alternating_relabelling`; None where it is the same saddle point, or none."""
    network, task = solution.network, solution.task
    if network.phi.odd:
        return None  # W -> -W has the same images, and observables that know of it
    permutation = alternating_relabelling(network, task)
    if permutation is None:
        return None
    signs = sign_changes(solution.model)[0]
    everywhere = solution.kernel[:, permutation][:, :, :, permutation]
    if not _differ(solution, relabel(solution.kernel, permutation, signs)) or _differ(solution, everywhere):
        return None
    names = ("kernel", "conjugate", "preactivation_cov", "standard_error", "repetitions")
    images = {name: relabel(np.asarray(getattr(solution, name)), permutation, signs) for name in names}
    with own_settings():
        law = output_law(solution.model, jnp.asarray(flat_of(images["kernel"])))
    return replace(
        solution,
        **images,
        prediction=outputs_of(solution.model.read_out(law.mean), task),
        dual=outputs_of(solution.model.read_out(law.dual), task),
        message=f"{solution.message}; patterns relabelled at every other site",
    )


def _differ(solution: Solution, kernel: np.ndarray) -> bool:
    """Whether a kernel is another one than the solution's, beyond its error."""
    scale = scale_of(flat_of(solution.kernel))
    error = flat_of(solution.standard_error)
    change = flat_of(np.abs(kernel - solution.kernel))
    return bool(np.any(change > SAME_IMAGE * np.outer(scale, scale) + 5 * error))


def _solution(branch: Branch, posed: Posed) -> Solution:
    model, task = posed.model, posed.task
    kernels = _whole_kernels(branch, posed)
    # What is extended to entries that carry no data has a statistical error of its own.
    exact = branch.exact and (len(posed.kept) == model.entries or branch.found is None)
    kernel = kernels[0] if exact else kernels.mean(axis=0)
    randomisations = 1 if exact else len(kernels)
    repetitions = kernels[:0] if branch.found is None else kernels
    error = error_of_repetitions(repetitions, randomisations)
    left_out = 0 if branch.found is None else branch.found.problem.left_out(branch.roots[0].kernel)
    if branch.found is not None and left_out > 0:
        deviations = np.sqrt(np.diagonal(kernel))
        error = np.hypot(error, branch.found.problem.floor * np.outer(deviations, deviations))
    conjugate = np.zeros_like(kernel)
    conjugates = [root.conjugate for root in branch.roots]
    conjugate[np.ix_(posed.kept, posed.kept)] = conjugates[0] if branch.exact else np.mean(conjugates, axis=0)
    signs = np.repeat(preferred_signs(kernel_of(kernel, task), posed.images), model.patterns)
    kernel, conjugate = (matrix * np.outer(signs, signs) for matrix in (kernel, conjugate))
    cov = preactivation_cov(model, jnp.asarray(kernel))
    law = jax.tree.map(np.asarray, output_law(model, jnp.asarray(kernel)))
    residual = _largest([root.residual for root in branch.roots])
    relative_error = largest_relative(error, kernel)
    solved = residual <= (EXACT_RESIDUAL if branch.found is None else STATED_RESIDUAL)
    energies = np.array(branch.energies)
    preactivation, activity, output = posed.units
    return Solution(
        network=posed.network,
        task=task,
        kernel=times(kernel_of(kernel, task), 2 * activity),
        conjugate=times(kernel_of(conjugate, task), -2 * activity),
        preactivation_cov=times(kernel_of(cov, task), 2 * preactivation),
        free_energy=float(energies[0] if branch.exact else energies.mean()),
        prediction=times(outputs_of(model.read_out(law.mean), task), output),
        dual=times(outputs_of(model.read_out(law.dual), task), -output),
        residual=residual,
        stable=branch.stable,
        converged=bool(solved and relative_error <= posed.tolerance),
        message=_message(branch, residual, solved, relative_error, posed.tolerance, left_out),
        standard_error=times(kernel_of(error, task), 2 * activity),
        repetitions=times(kernel_of(repetitions * np.outer(signs, signs), task), 2 * activity),
        randomisations=randomisations,
        free_energy_error=float(
            abs(energies[0] - energies[-1]) if branch.exact else energies.std(ddof=1) / np.sqrt(len(energies))
        ),
        effective_sample_size=float(min(root.effective_sample_size for root in branch.roots)),
    )


def _whole_kernels(branch: Branch, posed: Posed) -> np.ndarray:
    """The kernel of the whole task for each randomisation, (R, n, n)."""
    found = branch.found
    if found is None:
        return np.array([branch.roots[0].kernel])
    solved = [
        _between_groups(root.kernel, mean, found.problem) for root, mean in zip(branch.roots, found.means, strict=True)
    ]
    if len(posed.kept) == posed.model.entries:
        return np.array(solved)
    rng = np.random.default_rng(posed.options.seed)
    neurons = found.neurons
    if branch.exact:
        # The grids agree; what is left is the scatter of the extension.
        solved = [solved[0]] * len(neurons)
    return np.array(
        [
            extend_kernel(kernel, draws, posed.model, posed.kept, posed.network.phi.function, rng)
            for kernel, draws in zip(solved, neurons, strict=True)
        ]
    )


def _between_groups(kernel: np.ndarray, mean: np.ndarray, problem: Problem) -> np.ndarray:
    """Independent groups: <phi_i phi_j> = <phi_i> <phi_j>."""
    whole = np.outer(mean, mean)
    for entries in tied_entries(problem.model):
        index = np.ix_(entries, entries)
        whole[index] = kernel[index]
    return whole


def _neighbours(kernel: np.ndarray) -> float:
    return float(sum(np.trace(kernel[t, :, t + 1]) for t in range(len(kernel) - 1)))


def _largest(residuals: list[float]) -> float:
    """Their maximum; a residual that is not a number counts as infinite."""
    return float(np.max(np.where(np.isfinite(residuals), residuals, np.inf)))


def _message(
    branch: Branch, residual: float, solved: bool, relative_error: float, tolerance: float, left_out: int
) -> str:
    text = f"{'stable' if branch.stable else 'unstable'} saddle point"
    found = branch.found
    if found is not None:
        sets = f"on {len(branch.roots)} independent sets of {found.problem.points} points"
        text += " by quadrature" if branch.exact else f" {sets}"
        if found.together:
            text += " solved together, as some have no root of their own"
    text += f", stationarity residual {residual:.1e}"
    if found is not None:
        text += f", largest standard error {relative_error:.1e} of sqrt(Phi_ii Phi_jj)"
    if found is not None and left_out > 0:
        text += f"; {left_out} entries follow from earlier ones to within {found.problem.floor:g} of their variance"
    if not solved:
        text += f"; NOT CONVERGED: the residual exceeds {EXACT_RESIDUAL if found is None else STATED_RESIDUAL:g}"
    elif relative_error > tolerance:
        text += f"; NOT CONVERGED: the standard error exceeds the tolerance {tolerance:g}; use more points"
    return text

"""solve for any activation: branches found on the needed part of a task, carried over to all of it, with error bars."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from theory.extension import extend_kernel
from theory.family import Family
from theory.jax_settings import own_settings
from theory.kernels import flat_of, kernel_of, largest_relative, outputs_of, scale_of
from theory.model import Model, build_model, output_law, preactivation_cov
from theory.network import Network
from theory.nonlinear.neuron_chain import FIELDS, POINTS_PER_FIELD
from theory.nonlinear.saddle import SAME_BRANCH, Branch, find_branches, follow_branch, mirror_images
from theory.seeds import part
from theory.solution import STATED_RESIDUAL, Solution, error_of_repetitions, only_stable
from theory.symmetry import alternating_relabelling, apply_signs, preferred_signs, relabel, sign_changes
from theory.task import Task
from theory.ties import needed_part, tied_entries

# Where nothing is asked for: the size of the first sets of points, and how far it grows in factors of `GROWTH` at most.
# Beyond `ENOUGH` it grows for the sake of the statistical error alone, while the numbers that make one set precise
# (`theory.nonlinear.neuron_chain.stein_features`) fit into memory.
FIRST_POINTS, ENOUGH, MOST_POINTS = 16384, 65536, 262144
GROWTH = 4
MOST_NUMBERS = 4e8
SAFETY = 0.8  # of the tolerance is aimed at: four sets know their own error to some 40%


def solve_nonlinear(
    network: Network, task: Task, points: int | None, randomisations: int, seed: int, tolerance: float
) -> Solution:
    """The stable saddle point of smallest free energy, of two mirror images the one whose neighbouring steps overlap
    more; arguments as for `theory.solve`."""
    # float64 within this call only: residuals of 1e-9 are not reachable in float32.
    with own_settings():
        size = points or FIRST_POINTS
        model = build_model(network, task).on_device()
        needed, _ = needed_part(model)
        found = _search(needed, network, size, randomisations, seed)
        solution = _gather(found, model, network, task, seed, tolerance)
        larger = None if points else _larger_sets(solution, found, size, tolerance)
        while larger is not None:
            again = part(seed, larger)
            found = [follow_branch(branch, needed, randomisations, again, larger) or branch for branch in found]
            solution = _gather(found, model, network, task, seed, tolerance)
            larger = _larger_sets(solution, found, larger, tolerance)
    return solution


def _larger_sets(solution: Solution, found: list[Branch], points: int, tolerance: float) -> int | None:
    """How many points may bring a solution to its tolerance; None if it has, or no number within reach would."""
    if solution.converged or all(branch.exact for branch in found):
        return None
    solved = solution.residual <= STATED_RESIDUAL and solution.stable
    wanted = (solution.relative_error / (SAFETY * tolerance)) ** 2 if solved else GROWTH
    larger = (2 if wanted <= 2 else GROWTH) * points
    entries = max(len(group.entries) for branch in found for group in branch.problem.layout.groups)
    fits = larger * min(FIELDS * entries**2, larger / POINTS_PER_FIELD) <= MOST_NUMBERS
    return larger if larger <= ENOUGH or (solved and fits and larger <= MOST_POINTS) else None


def _gather(found: list[Branch], model: Model, network: Network, task: Task, seed: int, tolerance: float) -> Solution:
    """The best of the branches, with all of them and their images."""
    solutions = [_finish(branch, model, network, task, seed, tolerance) for branch in found]
    solutions += [image for image in map(relabelled_image, solutions) if image is not None]
    branches = tuple(sorted(solutions, key=_rank))
    message = f"{branches[0].message}; {len(branches)} saddle point(s) found"
    return only_stable(replace(branches[0], branches=branches, message=message))


class NonlinearFollower:
    """Solutions at several values of a parameter, each started from another; arguments as for `theory.solve`."""

    def __init__(self, family: Family, points: int, randomisations: int, seed: int, tolerance: float) -> None:
        self._family, self._points, self._randomisations = family, points, randomisations
        self._seed, self._tolerance = seed, tolerance

    def best(self, value: float) -> tuple[Solution, Branch]:
        """What `theory.solve` finds."""
        network, task = self._family.at(value)
        model = build_model(network, task).on_device()
        found = _search(needed_part(model)[0], network, self._points, self._randomisations, self._seed)
        rest = network, task, self._seed, self._tolerance
        finished = [(_finish(branch, model, *rest), branch) for branch in found]
        solution, branch = min(finished, key=lambda pair: _rank(pair[0]))
        return only_stable(solution), branch

    def follow(self, value: float, branch: Branch) -> tuple[Solution, Branch]:
        """The branch continued; the best one where it has turned unstable or ended."""
        network, task = self._family.at(value)
        model = build_model(network, task).on_device()
        followed = follow_branch(branch, needed_part(model)[0], self._randomisations, self._seed)
        if followed is None:
            return self.best(value)
        return _finish(followed, model, network, task, self._seed, self._tolerance), followed


def _search(needed: Model, network: Network, points: int, randomisations: int, seed: int) -> list[Branch]:
    """Every branch found."""
    found = find_branches(needed, network.phi, points, randomisations, seed)
    if not found:
        raise RuntimeError(
            "no saddle point of the network on this task was found: use more points, another seed or a weaker signal, "
            "or follow it from a weaker signal with theory.continuation"
        )
    return found


def _rank(solution: Solution) -> tuple[bool, bool, float, float]:
    """Stable and solved ones first; a statistical error above its tolerance is no reason to prefer another branch."""
    unsolved = solution.residual > STATED_RESIDUAL
    return not solution.stable, unsolved, solution.free_energy, -_neighbours(solution.kernel)


def relabelled_image(solution: Solution) -> Solution | None:
    """The image under `theory.symmetry.alternating_relabelling`; None where it is the same saddle point, or none."""
    network, task = solution.network, solution.task
    permutation = alternating_relabelling(network, task)
    if permutation is None or network.phi.odd:
        return None  # W -> -W has the same images, and observables that know of it
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
    return bool(np.any(change > SAME_BRANCH * np.outer(scale, scale) + 5 * error))


def _finish(branch: Branch, model: Model, network: Network, task: Task, seed: int, tolerance: float) -> Solution:
    _, kept = needed_part(model)
    kernels = _whole_kernels(branch, model, network, kept, seed)
    on_grids = branch.exact and len(kept) == model.entries
    kernel = kernels[0] if on_grids else kernels.mean(axis=0)
    randomisations = 1 if on_grids else len(kernels)
    error = error_of_repetitions(kernels, randomisations)
    left_out = branch.problem.left_out(branch.roots[0].kernel)
    if left_out > 0:
        deviations = np.sqrt(np.diagonal(kernel))
        error = np.hypot(error, branch.problem.floor * np.outer(deviations, deviations))
    conjugate = np.zeros_like(kernel)
    conjugates = [root.conjugate for root in branch.roots]
    conjugate[np.ix_(kept, kept)] = conjugates[0] if branch.exact else np.mean(conjugates, axis=0)
    cov = preactivation_cov(model, jnp.asarray(kernel))
    shaped = {
        name: kernel_of(value, task) for name, value in (("kernel", kernel), ("conjugate", conjugate), ("cov", cov))
    }
    signs = preferred_signs(shaped["kernel"], mirror_images(model, network.phi))
    shaped = {name: apply_signs(value, signs) for name, value in shaped.items()}
    kernels = apply_signs(kernel_of(kernels, task), signs)
    law = output_law(model, jnp.asarray(flat_of(shaped["kernel"])))
    residual = _largest([root.residual for root in branch.roots])
    relative_error = largest_relative(error, kernel)
    solved = residual <= STATED_RESIDUAL
    converged = bool(solved and relative_error <= tolerance)
    energies = np.array(branch.energies)
    return Solution(
        network=network,
        task=task,
        kernel=shaped["kernel"],
        conjugate=shaped["conjugate"],
        preactivation_cov=shaped["cov"],
        free_energy=float(energies[0] if branch.exact else energies.mean()),
        prediction=outputs_of(model.read_out(law.mean), task),
        dual=outputs_of(model.read_out(law.dual), task),
        residual=residual,
        stable=branch.stable,
        converged=converged,
        message=_message(branch, residual, solved, relative_error, tolerance, left_out),
        standard_error=kernel_of(error, task),
        repetitions=kernels,
        randomisations=randomisations,
        free_energy_error=float(
            abs(energies[0] - energies[-1]) if branch.exact else energies.std(ddof=1) / np.sqrt(len(energies))
        ),
        effective_sample_size=float(min(root.effective_sample_size for root in branch.roots)),
    )


def _whole_kernels(branch: Branch, model: Model, network: Network, kept: np.ndarray, seed: int) -> np.ndarray:
    """The kernel of the whole task for each randomisation, (R, n, n)."""
    solved = [_between_groups(root.kernel, mean, branch) for root, mean in zip(branch.roots, branch.means, strict=True)]
    if len(kept) == model.entries:
        return np.array(solved)
    rng = np.random.default_rng(seed)
    neurons = branch.neurons
    if branch.exact:
        # The grids agree; what is left is the scatter of the extension.
        solved = [solved[0]] * len(neurons)
    return np.array(
        [
            extend_kernel(kernel, draws, model, kept, network.phi.function, rng)
            for kernel, draws in zip(solved, neurons, strict=True)
        ]
    )


def _between_groups(kernel: np.ndarray, mean: np.ndarray, branch: Branch) -> np.ndarray:
    """Independent groups: <phi_i phi_j> = <phi_i> <phi_j>."""
    whole = np.outer(mean, mean)
    for entries in tied_entries(branch.problem.model):
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
    kind = "stable" if branch.stable else "unstable"
    how = (
        "by quadrature"
        if branch.exact
        else f"on {len(branch.roots)} independent sets of {branch.problem.points} points"
    )
    if branch.together:
        how += " solved together, as some have no root of their own"
    text = (
        f"{kind} saddle point {how}, stationarity residual {residual:.1e}, largest standard error {relative_error:.1e} "
        "of sqrt(Phi_ii Phi_jj)"
    )
    if left_out > 0:
        text += f"; {left_out} entries follow from earlier ones to within {branch.problem.floor:g} of their variance"
    if not solved:
        text += f"; NOT CONVERGED: the residual exceeds {STATED_RESIDUAL:g}"
    elif relative_error > tolerance:
        text += f"; NOT CONVERGED: the standard error exceeds the tolerance {tolerance:g}; use more points"
    return text

"""From a branch to a `Solution`: carried over to the whole task, with its error bar and its message."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from theory import residuals
from theory.extension import extend_kernel
from theory.jax_settings import own_settings
from theory.kernels import flat_of, kernel_of, largest_relative, outputs_of, scale_of
from theory.model import output_law, preactivation_cov
from theory.relabelling import find_relabelling, relabel
from theory.search.branch import Branch
from theory.search.posed import Posed
from theory.search.problem import Problem
from theory.solution import Solution, error_of_repetitions
from theory.symmetry import apply_signs, mirror_signs, preferred_signs
from theory.task_symmetries import symmetries_of_task
from theory.ties import tied_entries
from theory.units import times

RELABELLED = "; patterns relabelled"
# Difference of kernels, relative to their scale, beyond which an image counts as another saddle point.
SAME_IMAGE = 0.1
MOST_IMAGES = 63  # of one saddle point that are listed: all where one of 64 patterns is singled out, or four of seven


def branch_solution(branch: Branch, posed: Posed) -> Solution:
    """The `Solution` of a branch; of two mirror images the one whose neighbouring steps correlate positively."""
    model, task = posed.model, posed.task
    kernels = _whole_kernels(branch, posed)
    # What is extended to entries that carry no data has a statistical error of its own.
    exact = branch.exact and (len(posed.kept) == model.entries or branch.found is None)
    kernel = kernels[0] if exact else kernels.mean(axis=0)
    randomisations = 1 if exact else len(kernels)
    repetitions = kernels[:0] if branch.found is None else kernels
    error = error_of_repetitions(repetitions, randomisations)
    for root in branch.roots:
        if root.distance is not None:  # the scatter says nothing of what the search has not come to
            error = np.maximum(error, _by_entry(root.distance, kernel, posed))
    left_out = 0 if branch.found is None else branch.found.problem.left_out(branch.roots[0].kernel)
    if branch.found is not None and left_out > 0:
        deviations = np.sqrt(np.diagonal(kernel))
        largest = branch.found.problem.settings.refreshes.amplified * branch.found.problem.floor
        error = np.hypot(error, largest * np.outer(deviations, deviations))
    conjugate = np.zeros_like(kernel)
    conjugates = [root.conjugate for root in branch.roots]
    conjugate[np.ix_(posed.kept, posed.kept)] = conjugates[0] if branch.exact else np.mean(conjugates, axis=0)
    signs = np.repeat(preferred_signs(kernel_of(kernel, task), posed.images), model.patterns)
    kernel, conjugate = (matrix * np.outer(signs, signs) for matrix in (kernel, conjugate))
    cov = preactivation_cov(model, jnp.asarray(kernel))
    law = jax.tree.map(np.asarray, output_law(model, jnp.asarray(kernel)))
    residual = _largest([root.residual for root in branch.roots])
    relative_error = largest_relative(error, kernel)
    limit = _residual_limit(branch)
    solved = residual <= limit
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
        residual_limit=max(limit, residuals.STATED),
    )


def _by_entry(distance: np.ndarray, kernel: np.ndarray, posed: Posed) -> np.ndarray:
    """An error of the part that was searched as one of the whole kernel: as large, relative to its scale, elsewhere."""
    scale = scale_of(kernel)
    window = np.ix_(posed.kept, posed.kept)
    whole = largest_relative(distance, kernel[window]) * np.outer(scale, scale)
    whole[window] = distance
    return whole


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


def relabelled_images(solution: Solution) -> list[Solution]:
    """The images under all symmetries that relabel patterns, `MOST_IMAGES` at most.

    Only images that are other saddle points than the solution, its mirror images and each other. Products of the
    symmetries of the task (`theory.task_symmetries`) and of the saddle points (`theory.relabelling`) are among them.
    """
    everywhere = -np.ones(len(solution.kernel))
    turns = [(permutation, everywhere) for permutation in symmetries_of_task(solution.task)]
    found = find_relabelling(solution.network, solution.task)
    mirrors = mirror_signs(solution.network, solution.task)
    known, fresh = [solution], [solution]
    while fresh and len(known) <= MOST_IMAGES:
        last, own = fresh.pop(0), []
        if found is not None and not _differ(last, relabel(last.kernel, found.permutation, everywhere), mirrors):
            own = [(found.permutation, signs) for signs in found.signs]
        for permutation, signs in turns + own:
            kernel = relabel(last.kernel, permutation, signs)
            if all(_differ(other, kernel, mirrors) for other in known) and len(known) <= MOST_IMAGES:
                fresh.append(relabelled(last, permutation, signs))
                known.append(fresh[-1])
    return known[1:]


def relabelled(solution: Solution, permutation: np.ndarray, signs: np.ndarray) -> Solution:
    """The image of a solution whose patterns are permuted at the sites with a negative sign."""
    names = ("kernel", "conjugate", "preactivation_cov", "standard_error", "repetitions")
    images = {name: relabel(np.asarray(getattr(solution, name)), permutation, signs) for name in names}
    with own_settings():
        law = output_law(solution.model, jnp.asarray(flat_of(images["kernel"])))
    return replace(
        solution,
        **images,
        prediction=outputs_of(solution.model.read_out(law.mean), solution.task),
        dual=outputs_of(solution.model.read_out(law.dual), solution.task),
        message=solution.message.removesuffix(RELABELLED) + RELABELLED,
    )


def same_saddle_point(solution: Solution, kernel: np.ndarray) -> bool:
    """Whether a kernel is the solution's or that of a mirror image of it, within its error."""
    return not _differ(solution, kernel, mirror_signs(solution.network, solution.task))


def _differ(solution: Solution, kernel: np.ndarray, mirrors: np.ndarray) -> bool:
    """Whether a kernel is another one than the solution's and those of its mirror images, beyond its error."""
    scale = scale_of(flat_of(solution.kernel))
    bound = SAME_IMAGE * np.outer(scale, scale) + 5 * flat_of(solution.standard_error)
    turns = (np.ones(len(kernel)), *mirrors)
    return all(bool(np.any(flat_of(np.abs(apply_signs(kernel, e) - solution.kernel)) > bound)) for e in turns)


def _residual_limit(branch: Branch) -> float:
    """The residual up to which a branch counts as solved; that of long flows is a statistical one."""
    if branch.found is None:
        return residuals.EXACT
    return residuals.ANYWHERE if branch.found.flows else residuals.STATED


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
        if found.flows:
            number = len({id(root) for root in branch.roots})
            text += (
                f" from {number} long flow{'s' * (number > 1)} of {found.flows} neurons, which find no unstable ones"
            )
        else:
            text += " by quadrature" if branch.exact else f" {sets}"
        if found.together:
            text += " solved together, as some have no root of their own"
    text += f", stationarity residual {residual:.1e}"
    if found is not None:
        text += f", largest standard error {relative_error:.1e} of sqrt(Phi_ii Phi_jj)"
    if found is not None and left_out > 0:
        text += f"; {left_out} entries follow from earlier ones to within {found.problem.floor:g} of their variance"
    if not solved:
        text += f"; NOT CONVERGED: the residual exceeds {_residual_limit(branch):g}"
        text += f", kernel entries are known to {relative_error:.2g} of sqrt(Phi_ii Phi_jj) at best"
    elif relative_error > tolerance:
        text += f"; NOT CONVERGED: the standard error exceeds the tolerance {tolerance:g}; use more points"
    return text

"""solve for any activation: branches found on the needed part of a task, carried over to all of it, with error bars."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from theory.causal_reach import connected_entries, extend_kernel, needed_task
from theory.covariance import covariance_terms, preactivation_cov, scale_of
from theory.jax_settings import own_settings
from theory.network import Network
from theory.nonlinear.neuron_chain import FIELDS, POINTS_PER_FIELD
from theory.nonlinear.saddle import SAME_BRANCH, Branch, find_branches, follow_branch
from theory.prediction import predict_given_kernel
from theory.seeds import part
from theory.solution import Solution, error_of_repetitions, kernel_of, largest_relative, only_stable, outputs_of
from theory.symmetry import alternating_relabelling, flip_sign, has_sign_symmetry, relabel
from theory.task import Task

STATED_RESIDUAL = 1e-8
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
        found = _search(network, task, size, randomisations, seed)
        solution = _gather(found, network, task, seed, tolerance)
        kept = needed_task(task)[0]
        larger = None if points else _larger_sets(solution, found, size, tolerance)
        while larger is not None:
            again = part(seed, larger)
            found = [follow_branch(branch, kept, randomisations, again, larger) or branch for branch in found]
            solution = _gather(found, network, task, seed, tolerance)
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


def _gather(found: list[Branch], network: Network, task: Task, seed: int, tolerance: float) -> Solution:
    """The best of the branches, with all of them and their images."""
    solutions = [_finish(branch, network, task, seed, tolerance) for branch in found]
    solutions += [image for image in map(relabelled_image, solutions) if image is not None]
    branches = tuple(sorted(solutions, key=_rank))
    message = f"{branches[0].message}; {len(branches)} saddle point(s) found"
    return only_stable(replace(branches[0], branches=branches, message=message))


class NonlinearFollower:
    """Solutions at several sizes of the targets, each started from another; arguments as for `theory.solve`."""

    def __init__(
        self, network: Network, task: Task, points: int, randomisations: int, seed: int, tolerance: float
    ) -> None:
        self._network, self._task, self._points, self._randomisations = network, task, points, randomisations
        self._seed, self._tolerance = seed, tolerance

    def best(self, factor: float) -> tuple[Solution, Branch]:
        """What `theory.solve` finds."""
        task = self._task.scaled(factor)
        found = _search(self._network, task, self._points, self._randomisations, self._seed)
        finished = [(_finish(branch, self._network, task, self._seed, self._tolerance), branch) for branch in found]
        solution, branch = min(finished, key=lambda pair: _rank(pair[0]))
        return only_stable(solution), branch

    def follow(self, factor: float, branch: Branch) -> tuple[Solution, Branch]:
        """The branch continued; the best one where it has turned unstable or ended."""
        task = self._task.scaled(factor)
        followed = follow_branch(branch, needed_task(task)[0], self._randomisations, self._seed)
        if followed is None:
            return self.best(factor)
        return _finish(followed, self._network, task, self._seed, self._tolerance), followed


def _search(network: Network, task: Task, points: int, randomisations: int, seed: int) -> list[Branch]:
    """Every branch found."""
    found = find_branches(network, needed_task(task)[0], points, randomisations, seed)
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
    if permutation is None or has_sign_symmetry(network, task):
        return None  # W -> -W has the same images, and observables that know of it
    everywhere = solution.kernel[:, permutation][:, :, :, permutation]
    if not _differ(solution, relabel(solution.kernel, permutation)) or _differ(solution, everywhere):
        return None
    names = ("kernel", "conjugate", "preactivation_cov", "standard_error", "repetitions")
    images = {name: relabel(np.asarray(getattr(solution, name)), permutation) for name in names}
    terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
    predictive = predict_given_kernel(terms, jnp.asarray(images["kernel"].reshape(task.entries, task.entries)))
    return replace(
        solution,
        **images,
        prediction=outputs_of(predictive.mean, task),
        dual=outputs_of(predictive.dual, task),
        message=f"{solution.message}; patterns relabelled at every other step",
    )


def _differ(solution: Solution, kernel: np.ndarray) -> bool:
    """Whether a kernel is another one than the solution's, beyond its error."""
    n = solution.task.entries
    scale = scale_of(solution.kernel.reshape(n, n))
    error = np.asarray(solution.standard_error).reshape(n, n)
    change = np.abs(kernel - solution.kernel).reshape(n, n)
    return bool(np.any(change > SAME_BRANCH * np.outer(scale, scale) + 5 * error))


def _finish(branch: Branch, network: Network, task: Task, seed: int, tolerance: float) -> Solution:
    _, kept = needed_task(task)
    terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
    kernels = _whole_kernels(branch, network, task, kept, seed)
    on_grids = branch.exact and len(kept) == task.entries
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
    cov = preactivation_cov(terms, jnp.asarray(kernel), task.patterns)
    shaped = {
        name: kernel_of(value, task) for name, value in (("kernel", kernel), ("conjugate", conjugate), ("cov", cov))
    }
    if has_sign_symmetry(network, task) and _neighbours(shaped["kernel"]) < 0:
        shaped = {name: flip_sign(value) for name, value in shaped.items()}
        kernels = np.array([flip_sign(kernel_of(one, task)) for one in kernels])
    predictive = predict_given_kernel(terms, jnp.asarray(shaped["kernel"].reshape(kernel.shape)))
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
        prediction=outputs_of(predictive.mean, task),
        dual=outputs_of(predictive.dual, task),
        residual=residual,
        stable=branch.stable,
        converged=converged,
        message=_message(branch, residual, solved, relative_error, tolerance, left_out),
        standard_error=kernel_of(error, task),
        repetitions=kernels.reshape(len(kernels), *shaped["kernel"].shape),
        randomisations=randomisations,
        free_energy_error=float(
            abs(energies[0] - energies[-1]) if branch.exact else energies.std(ddof=1) / np.sqrt(len(energies))
        ),
        effective_sample_size=float(min(root.effective_sample_size for root in branch.roots)),
    )


def _whole_kernels(branch: Branch, network: Network, task: Task, kept: np.ndarray, seed: int) -> np.ndarray:
    """The kernel of the whole task for each randomisation, (R, n, n)."""
    terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
    solved = [_between_groups(root.kernel, mean, branch) for root, mean in zip(branch.roots, branch.means, strict=True)]
    if len(kept) == task.entries:
        return np.array(solved)
    rng = np.random.default_rng(seed)
    neurons = branch.neurons
    if branch.exact:
        # The grids agree; what is left is the scatter of the extension.
        solved = [solved[0]] * len(neurons)
    return np.array(
        [
            extend_kernel(kernel, draws, terms, task, kept, network.phi.function, rng)
            for kernel, draws in zip(solved, neurons, strict=True)
        ]
    )


def _between_groups(kernel: np.ndarray, mean: np.ndarray, branch: Branch) -> np.ndarray:
    """Independent groups: <phi_i phi_j> = <phi_i> <phi_j>."""
    whole = np.outer(mean, mean)
    for entries in connected_entries(branch.problem.terms):
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

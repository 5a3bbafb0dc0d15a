"""The saddle point of the kernel theory: solve(network, task) -> Solution, and how linear networks are solved.

Minimisation in the noise coordinates (`theory.noise_gram`): L-BFGS from the lazy limit, which keeps to the symmetric
branch, from there along every direction of negative curvature, and from random starts; each end point polished by
Newton's method on the gradient, which also converges to unstable saddle points. The residual is evaluated afresh from
the stationarity equations, not taken from the minimiser.
"""

from __future__ import annotations

import jax
import numpy as np
import scipy.linalg
import scipy.optimize

from theory import arguments
from theory.causal import propagate
from theory.covariance import Terms, covariance_terms, preactivation_cov
from theory.lazy import nngp
from theory.network import Network
from theory.noise_gram import free_energy_and_gradient, hessian, unpack
from theory.nonlinear_solution import solve_nonlinear
from theory.prediction import predict_given_kernel
from theory.response import conjugate_kernel
from theory.solution import Solution, kernel_of, outputs_of
from theory.symmetry import flip_sign, has_sign_symmetry
from theory.task import Task

TOLERANCE = 1e-9
SAME_BRANCH = 1e-6
ROUGHLY = 1e-4  # before polishing
NEWTON_STEPS = 30
STATIONARY = 1e-13  # root mean square gradient at which Newton's method stops: rounding error
UNSTABLE_DIRECTIONS = 4


def solve(
    network: Network,
    task: Task,
    starts: int = 4,
    seed: int = 0,
    *,
    points: int = 16384,
    randomisations: int = 4,
    tolerance: float = 1e-2,
) -> Solution:
    r"""Solve the saddle-point equations at infinite width.

        Phi = <phi(h) phi(h)^T>_q,    q(h) ~ exp( -1/2 h^T C[Phi]^{-1} h - 1/2 phi(h)^T Phihat phi(h) ),
        Phihat = -gv^2 Mv o sum_o r_o r_o^T + gw^2 Mw o shift[C^{-1} - C^{-1} <h h^T>_q C^{-1}]

    Linear networks are solved to rounding error, others on points (`theory.nonlinear_saddle`): by quadrature where at
    most three entries hang together, else with a standard error that falls as 1/sqrt(points x randomisations).

    Args:
        network: its width does not matter here. In standard scaling the answer is the lazy limit.
        task: any number of patterns and outputs, inputs at any steps.
        starts: number of random starts besides the lazy one and those along its unstable directions.
            Linear networks only.
        seed: of the random starts and of the points.
        points: size of each set of points.
        randomisations: how many independent sets; at least 2.
        tolerance: on the standard error of the kernel entries, relative to sqrt(Phi_ii Phi_jj); above it, the solution
            does not count as converged.

    Returns:
        The `Solution` of smallest free energy; ``branches`` lists every saddle point found. Where the sign symmetry
        holds, of two mirror images the one whose neighbouring steps correlate positively.

    Raises:
        ValueError: if an argument is out of its range, or if the kernels are not finite.

    Source: Bauer et al. 2026 (arXiv 2602.15593); DESIGN.md section 3.
    """
    starts, seed = arguments.integer("starts", starts, 0), arguments.integer("seed", seed, 0)
    points = arguments.integer("points", points, 1024)
    randomisations = arguments.integer("randomisations", randomisations, 2)
    tolerance = arguments.positive("tolerance", tolerance)
    if network.scaling == "standard":
        return nngp(network, task)
    if network.activation != "linear":
        return solve_nonlinear(network, task, points, randomisations, seed, tolerance)
    # float64 within this call only: residuals of 1e-9 are not reachable in float32.
    with jax.enable_x64(True):
        found = _search(network, task, starts, seed)
    branches = tuple(sorted(found, key=lambda solution: solution.free_energy))
    best = branches[0]
    unsolved = "" if best.converged else f"; NOT CONVERGED: its residual exceeds {TOLERANCE:g}"
    message = f"{best.message}; {len(branches)} saddle point(s) found from {starts} random starts and the lazy one"
    return Solution(**{**vars(best), "branches": branches, "message": message + unsolved})


def _search(network: Network, task: Task, starts: int, seed: int) -> list[Solution]:
    """Every distinct saddle point reached from the starts and from unstable directions of those found."""
    terms = jax.tree.map(jax.numpy.asarray, covariance_terms(network, task))
    rng = np.random.default_rng(seed)
    size = task.entries * (task.entries + 1) // 2
    amplitudes = np.linspace(0.1, 0.5, starts)
    queue = [np.zeros(size), *(amplitude * rng.normal(size=size) for amplitude in amplitudes)]
    solutions: list[Solution] = []
    while queue:
        rough = minimise(queue.pop(0), terms, task.patterns)
        if any(_same_branch(_finish(network, task, terms, rough, True), other, ROUGHLY) for other in solutions):
            continue
        coordinates, curvature = _polish(rough, terms, task.patterns)
        values, vectors = np.linalg.eigh(curvature)
        solution = _finish(network, task, terms, coordinates, stable=bool(values[0] > -SAME_BRANCH))
        if any(_same_branch(solution, other, SAME_BRANCH) for other in solutions):
            continue
        solutions.append(solution)
        if solution.converged:
            downhill = np.flatnonzero(values < -SAME_BRANCH)[:UNSTABLE_DIRECTIONS]
            queue += [coordinates + 0.1 * vectors[:, i] for i in downhill]
    return solutions


def _same_branch(one: Solution, other: Solution, tolerance: float) -> bool:
    """Equal kernels, up to the mirror image where the sign symmetry holds."""
    images = [other.kernel]
    if has_sign_symmetry(one.network, one.task):
        images.append(flip_sign(other.kernel))
    slack = tolerance * np.max(np.abs(one.kernel))
    return any(np.allclose(one.kernel, image, rtol=tolerance, atol=slack) for image in images)


def _value_and_gradient(coordinates: np.ndarray, terms: Terms, patterns: int) -> tuple[float, np.ndarray]:
    value, gradient = free_energy_and_gradient(coordinates, terms, patterns)
    return float(value), np.asarray(gradient)


def minimise(start: np.ndarray, terms: Terms, patterns: int) -> np.ndarray:
    """L-BFGS on F: to a minimum, or to a saddle point where a symmetry keeps the gradient in a subspace."""
    options = {"maxiter": 5000, "maxfun": 20000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-7}
    arguments = (terms, patterns)
    return scipy.optimize.minimize(
        _value_and_gradient, start, arguments, jac=True, method="L-BFGS-B", options=options
    ).x


def _polish(point: np.ndarray, terms: Terms, patterns: int) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method on the gradient; the Hessian is kept as long as it converges. End point and its Hessian."""
    gradient = _value_and_gradient(point, terms, patterns)[1]
    curvature, fresh = np.asarray(hessian(point, terms, patterns)), True
    for _ in range(NEWTON_STEPS):
        if np.linalg.norm(gradient) <= STATIONARY * np.sqrt(gradient.size):
            break
        trial = point - scipy.linalg.lstsq(curvature, gradient, cond=1e-12)[0]
        trial_gradient = _value_and_gradient(trial, terms, patterns)[1]
        gain = np.linalg.norm(trial_gradient) / np.linalg.norm(gradient)
        if gain < 1:
            point, gradient = trial, trial_gradient
        elif fresh:
            break
        fresh = bool(gain > 0.1)
        if fresh:
            curvature = np.asarray(hessian(point, terms, patterns))
    return point, curvature


def _finish(network: Network, task: Task, terms, coordinates: np.ndarray, stable: bool) -> Solution:
    noise = unpack(jax.numpy.asarray(coordinates), task.entries)
    trajectory = propagate(terms, noise, network.phi.function, task.patterns, 1)
    kernel, factor = np.asarray(trajectory.kernel), np.asarray(trajectory.factor)
    predictive = predict_given_kernel(terms, kernel)
    conjugate = conjugate_kernel(terms, factor, kernel, np.asarray(predictive.dual), task.patterns)
    # Phi = (C^{-1} + Phihat)^{-1} without an inverse of C, which may be singular.
    inner = np.eye(task.entries) + factor.T @ conjugate @ factor
    implied = factor @ np.linalg.solve(inner, factor.T)
    scale = np.sqrt(np.diagonal(kernel))
    scale = np.where(scale > 0, scale, 1)
    residual = float(np.max(np.abs(kernel - implied) / np.outer(scale, scale)))
    value = float(free_energy_and_gradient(coordinates, terms, task.patterns)[0])
    kernel = kernel_of(kernel, task)
    conjugate = kernel_of(conjugate, task)
    cov = kernel_of(preactivation_cov(terms, trajectory.kernel, task.patterns), task)
    if has_sign_symmetry(network, task) and sum(np.trace(kernel[t, :, t + 1]) for t in range(task.steps - 1)) < 0:
        kernel, conjugate, cov = flip_sign(kernel), flip_sign(conjugate), flip_sign(cov)
        predictive = predict_given_kernel(terms, kernel.reshape(task.entries, task.entries))
    return Solution(
        network=network,
        task=task,
        kernel=kernel,
        conjugate=conjugate,
        preactivation_cov=cov,
        free_energy=value,
        prediction=outputs_of(predictive.mean, task),
        dual=outputs_of(predictive.dual, task),
        residual=residual,
        stable=stable,
        converged=bool(residual <= TOLERANCE),
        message=f"{'stable' if stable else 'unstable'} saddle point, stationarity residual {residual:.1e}",
    )

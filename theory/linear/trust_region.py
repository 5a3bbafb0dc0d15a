r"""Newton's method without second derivatives: conjugate gradients within a trust region, and lowest curvatures.

Each step minimises the quadratic model of the free energy within a radius by preconditioned conjugate gradients, which
ask for second derivatives along single directions only. Where one of negative curvature is met the step follows it to
the edge, so that the search descends; near its end it converges quadratically. A search never leaves a subspace to which
a symmetry keeps both the gradient and the second derivatives along it: so it ends at unstable stationary points as well.

Sources: Steihaug 1983; Nocedal and Wright, Numerical Optimization, 2006, chapter 7; ARPACK for Lanczos's method.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg

from theory.linear.kernel_space import Point

NOTHING = 1e-5  # component of a direction, relative to its largest, that counts as zero
STEPS = 300
MOST_PRODUCTS = 300  # second derivatives along directions, in one step
FORCING = 0.1  # of the gradient that a step may leave, at most
ACCEPTED = 1e-4  # decrease of a step, relative to what the quadratic model promises
ROUNDING = 1e-12  # of the value
SHORTEST = 1e-12  # radius, relative to sqrt(m)
STATIONARY = 1e-13  # residual at which the search ends: rounding error
STALLED = 3  # steps in a row that gain no more than rounding error and do not halve the smallest residual


def descend(point: Point, residual: float = STATIONARY) -> Point:
    """Where the search comes to rest from a point of finite value, or the last point seen.

    Args:
        point: where it starts.
        residual: at which it ends.
    """
    size = float(len(point.kernel))
    radius, idle, best = 0.5 * size**0.5, 0, point
    for _ in range(STEPS):
        if point.residual <= residual or idle >= STALLED:
            break
        step, relative, promised, length = _step(point, radius, min(FORCING, (point.slope / size) ** 0.5))
        trial = point.moved(step, relative)
        slack = ROUNDING * (1 + abs(point.value))
        gained = point.value - trial.value
        if not gained >= ACCEPTED * promised - slack:
            radius = min(radius, length) / 4
            if radius < SHORTEST * size:
                break
            continue
        if length > 0.9 * radius and gained > 0.5 * promised:
            radius *= 3
        point = trial
        if gained > slack:
            best, idle = point, 0
        else:
            idle = 0 if point.residual < best.residual / 2 else idle + 1
            best = min(best, point, key=lambda each: each.residual)
    return best


def _step(point: Point, radius: float, forcing: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """A step E within the radius, E Phi^{-1}, the decrease that the quadratic model promises, and the length."""
    left = -point.gradient
    direction = point.precondition(left)
    step, relative = np.zeros_like(left), np.zeros_like(left)
    square = np.sum(left * direction)
    goal, promised, inner = forcing**2 * square, 0.0, 0.0
    for _ in range(MOST_PRODUCTS):
        curved, change = point.curve(direction)
        curvature = np.sum(direction * curved)
        # |S|^2 of step + length direction, a polynomial.
        own, mixed = np.sum(change * change.T), np.sum(relative * change.T)
        edge = (-mixed + np.sqrt(max(mixed**2 + own * (radius**2 - inner), 0.0))) / own
        length = square / curvature if curvature > 0 else np.inf
        ends = length >= edge
        length = min(length, edge)
        promised += length * square - length**2 * curvature / 2
        step, relative = step + length * direction, relative + length * change
        inner += 2 * length * mixed + length**2 * own
        if ends:
            break
        left = left - length * curved
        towards = point.precondition(left)
        before, square = square, np.sum(left * towards)
        if square <= goal:
            break
        direction = towards + square / before * direction
    return step, relative, promised, inner**0.5


def lowest_curvatures(point: Point, number: int, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest eigenvalues of the second derivatives, ascending, (k,), and steps E along their directions (k, m, m).

    In coordinates X of white noise (`theory.linear.kernel_space`), where the KL divergence curves by one half; the
    steps have |X| = 1. Components of X that are zero up to the precision are exact zeros, so that a search along the
    step keeps to the symmetries that it has.
    """
    m = len(point.kernel)
    rows, columns = np.tril_indices(m)
    weight = np.where(rows == columns, 1.0, 0.5**0.5)

    def step_of(vector: np.ndarray) -> np.ndarray:
        full = np.zeros((m, m))
        full[rows, columns] = vector.ravel() * weight
        full[columns, rows] = full[rows, columns]
        return point.step_of_noise(full)

    def product(vector: np.ndarray) -> np.ndarray:
        return point.noise_of_gradient(point.curve(step_of(vector))[0])[rows, columns] / weight

    operator = scipy.sparse.linalg.LinearOperator((len(rows),) * 2, matvec=product, dtype=float)
    first = np.random.default_rng(0).normal(size=len(rows))
    values, vectors = scipy.sparse.linalg.eigsh(operator, number, which="SA", tol=tolerance, v0=first)
    order = np.argsort(values)
    vectors = np.where(np.abs(vectors) > NOTHING * np.max(np.abs(vectors), axis=0), vectors, 0.0)
    return values[order], np.array([step_of(vectors[:, i]) for i in order])

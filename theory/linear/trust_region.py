r"""Newton's method without second derivatives: conjugate gradients within a trust region, and lowest curvatures.

Each step minimises the quadratic model of the free energy within a radius by preconditioned conjugate gradients, which
ask for second derivatives along single directions only. Where one of negative curvature is met the step follows it to
the edge, so that the search descends; near its end it converges quadratically. A search never leaves a subspace that a
symmetry keeps the gradient and the second derivatives along it in: so it ends at unstable stationary points as well.

Sources: Steihaug 1983; Nocedal and Wright, Numerical Optimization, 2006, chapter 7; Lanczos 1950.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theory.linear.kernel_space import Point

NOTHING = 1e-5  # component of a direction, relative to its largest, that counts as zero
LANCZOS = 300  # steps at most
CHECKED_EVERY = 8  # steps of Lanczos's method
EXHAUSTED = 1e-12  # what is left of a new direction, relative to the largest curvature, where no more are found
CLOSE = 1e-5  # residual from which the search may settle by Newton's method alone
SETTLING = 1e-3  # of the gradient that a step may leave there
NEWTON = 12  # steps at the end
MOST = 5000  # second derivatives along directions, in one search
MOST_PRODUCTS = 300  # second derivatives along directions, in one step
FORCING = 0.1  # of the gradient that a step may leave, at most
ACCEPTED = 1e-4  # decrease of a step, relative to what the quadratic model promises
ROUNDING = 1e-13  # of the value
SHORTEST = 1e-12  # radius, relative to sqrt(m)
STATIONARY = 1e-13  # residual at which the search ends: rounding error
STALLED = 3  # steps in a row that gain no more than rounding error and do not halve the smallest residual


def descend(point: Point, residual: float = STATIONARY, most: int = MOST) -> Point:
    """Where the search comes to rest from a point of finite value, or the last point seen.

    Args:
        point: where it starts.
        residual: at which it ends.
        most: second derivatives along directions, about, after which it is given up.
    """
    size = float(len(point.kernel))
    radius, idle, best = 0.5 * size**0.5, 0, point
    taken = 0
    while taken < most:
        if point.residual <= residual or idle >= STALLED:
            break
        forcing = min(FORCING, (point.slope / size) ** 0.5)
        step, relative, promised, length, products = _step(point, radius, forcing)
        taken += products
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
    return best if best.residual <= residual else _settled(best, residual)


def _settled(point: Point, residual: float) -> Point:
    """Steps of Newton's method judged by the residual alone, which sees differences that the value does not."""
    for _ in range(NEWTON):
        if point.residual <= residual or point.residual > CLOSE:
            break
        step, relative, *_ = _step(point, 1.0, SETTLING)
        trial = point.moved(step, relative)
        if not (np.isfinite(trial.value) and trial.residual < point.residual / 2):
            break
        point = trial
    return point


def _step(point: Point, radius: float, forcing: float) -> tuple[np.ndarray, np.ndarray, float, float, int]:
    """A step E within the radius, E Phi^{-1}, the decrease that the model promises, the length, and products taken."""
    left = -point.gradient
    direction = point.precondition(left)
    step, relative = np.zeros_like(left), np.zeros_like(left)
    square = np.sum(left * direction)
    goal, promised, inner = forcing**2 * square, 0.0, 0.0
    products = 0
    while products < MOST_PRODUCTS:
        products += 1
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
    return step, relative, promised, inner**0.5, products


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

    values, vectors = _lanczos(product, len(rows), number, tolerance)
    vectors = np.where(np.abs(vectors) > NOTHING * np.max(np.abs(vectors), axis=0), vectors, 0.0)
    return values, np.array([step_of(vector) for vector in vectors.T])


def _lanczos(
    product: Callable[[np.ndarray], np.ndarray], size: int, number: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest eigenvalues of a symmetric operator and their vectors, in columns; fewer where all are known before.

    With full orthogonalisation; in NumPy alone, since the threads of SciPy's linear algebra wait for NumPy's.
    """
    vector = np.random.default_rng(0).normal(size=size)
    basis = np.empty((min(LANCZOS, size), size))
    diagonal: list[float] = []
    beside: list[float] = []
    basis[0] = vector / np.linalg.norm(vector)
    for step in range(len(basis)):
        image = product(basis[step])
        diagonal.append(basis[step] @ image)
        for _ in range(2):
            image = image - (basis[: step + 1] @ image) @ basis[: step + 1]
        left = np.linalg.norm(image)
        last = step + 1 == len(basis) or left <= EXHAUSTED * max(map(abs, diagonal))
        if last or step % CHECKED_EVERY == CHECKED_EVERY - 1:
            matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
            values, axes = np.linalg.eigh(matrix)
            open_ = left * np.abs(axes[-1, :number])
            # Only the lowest, and those of negative curvature, are asked for precisely.
            wanted = (values[:number] < 0) | (np.arange(len(open_)) == 0)
            if last or np.all(open_[wanted] <= tolerance * np.abs(values[:number][wanted])):
                break
        beside.append(float(left))
        basis[step + 1] = image / left
    return values[:number], basis[: step + 1].T @ axes[:, :number]

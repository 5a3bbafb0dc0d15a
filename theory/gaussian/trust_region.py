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

from theory.gaussian.kernel_energy import Point
from theory.gaussian.settings import TrustRegionSettings


def descend(
    point: Point,
    settings: TrustRegionSettings = TrustRegionSettings(),
    residual: float | None = None,
    most: int | None = None,
) -> Point:
    """Where the search comes to rest from a point of finite value, or the last point seen.

    Args:
        point: where it starts.
        settings: of the search.
        residual: at which it ends; by default that of the settings.
        most: second derivatives along directions, about, after which it is given up; likewise.
    """
    residual = settings.stationary if residual is None else residual
    most = settings.products if most is None else most
    size = float(len(point.kernel))
    radius, idle, best = 0.5 * size**0.5, 0, point
    taken = 0
    while taken < most:
        if point.residual <= residual or idle >= settings.stalled:
            break
        forcing = min(settings.forcing, (point.slope / size) ** 0.5)
        step, relative, promised, length, products = _step(point, radius, forcing, settings)
        taken += products
        trial = point.moved(step, relative)
        slack = settings.rounding * (1 + abs(point.value))
        gained = point.value - trial.value
        if not gained >= settings.accepted * promised - slack:
            radius = min(radius, length) / 4
            if radius < settings.shortest * size:
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
    return best if best.residual <= residual else _settled(best, residual, settings)


def _settled(point: Point, residual: float, settings: TrustRegionSettings) -> Point:
    """Steps of Newton's method judged by the residual alone, which sees differences that the value does not."""
    for _ in range(settings.newton):
        if point.residual <= residual or point.residual > settings.close:
            break
        step, relative, *_ = _step(point, 1.0, settings.settling, settings)
        trial = point.moved(step, relative)
        if not (np.isfinite(trial.value) and trial.residual < point.residual / 2):
            break
        point = trial
    return point


def _step(
    point: Point, radius: float, forcing: float, settings: TrustRegionSettings
) -> tuple[np.ndarray, np.ndarray, float, float, int]:
    """A step E within the radius, E Phi^{-1}, the decrease that the model promises, the length, and products taken."""
    left = -point.gradient
    direction = point.precondition(left)
    step, relative = np.zeros_like(left), np.zeros_like(left)
    square = np.sum(left * direction)
    goal, promised, inner = forcing**2 * square, 0.0, 0.0
    products = 0
    while products < settings.in_step:
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


def lowest_curvatures(
    point: Point, number: int, tolerance: float, settings: TrustRegionSettings = TrustRegionSettings()
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest eigenvalues of the second derivatives, ascending, (k,), and steps E along their directions (k, m, m).

    In coordinates X of white noise (`theory.gaussian.kernel_energy`), where the KL divergence curves by one half; the
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

    values, vectors = _lanczos(product, len(rows), number, tolerance, settings)
    vectors = np.where(np.abs(vectors) > settings.nothing * np.max(np.abs(vectors), axis=0), vectors, 0.0)
    return values, np.array([step_of(vector) for vector in vectors.T])


def _lanczos(
    product: Callable[[np.ndarray], np.ndarray], size: int, number: int, tolerance: float, settings: TrustRegionSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest eigenvalues of a symmetric operator and their vectors, in columns; fewer where all are known before.

    With full orthogonalisation; in NumPy alone, since the threads of SciPy's linear algebra wait for NumPy's.
    """
    vector = np.random.default_rng(0).normal(size=size)
    basis = np.empty((min(settings.lanczos, size), size))
    diagonal: list[float] = []
    beside: list[float] = []
    basis[0] = vector / np.linalg.norm(vector)
    for step in range(len(basis)):
        image = product(basis[step])
        diagonal.append(basis[step] @ image)
        for _ in range(2):
            image = image - (basis[: step + 1] @ image) @ basis[: step + 1]
        left = np.linalg.norm(image)
        last = step + 1 == len(basis) or left <= settings.exhausted * max(map(abs, diagonal))
        if last or step % settings.checked == settings.checked - 1:
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

"""The lowest eigenvalues of the second derivatives of the free energy, by Lanczos's method.

Source: Lanczos 1950.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theory.gaussian.kernel_energy import Points
from theory.gaussian.settings import TrustRegionSettings


def lowest_curvatures(
    point: Points, number: int, tolerance: float, settings: TrustRegionSettings = TrustRegionSettings()
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest eigenvalues of the second derivatives, ascending, (k,), and steps E along their directions (k, m, m).

    In coordinates X of white noise (`theory.gaussian.kernel_energy`), where the KL divergence curves by one half; the
    steps have |X| = 1. Components of X that are zero up to the precision are exact zeros, so that a search along the
    step keeps to the symmetries that it has.
    """
    m = point.kernel.shape[-1]
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

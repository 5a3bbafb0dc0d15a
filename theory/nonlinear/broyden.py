"""Broyden's method with a safeguard: roots of functions whose slope is dear and whose reach is limited."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

STEPS = 60
LEAST_OVERLAP = 0.05
LEAST_STEP = 1 / 32
LEAST_TRUST = 0.3

Evaluation = tuple[np.ndarray, float]


def solve_root(
    evaluate: Callable[[np.ndarray], Evaluation],
    start: np.ndarray,
    slope: np.ndarray,
    slope_at: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Broyden's good method from ``start``.

    A step is halved while it raises the violation or lets the trust fall under its floor; where halving does not
    help, the slope is taken afresh, and then the best point seen is returned.

    Args:
        evaluate: point -> (violation, trust); trust is 1 where the violation means what it says and falls to 0 where
            it means nothing (effective sample size of frozen points).
        start: first point.
        slope: derivative of the violation nearby.
        slope_at: derivative anywhere; dear.
        tolerance: on the largest violation.

    Returns:
        The point, its violation and its trust.
    """
    point, (value, trust) = start, evaluate(start)
    inverse = BroydenInverse(slope)
    fresh = False
    for _ in range(STEPS):
        if not np.max(np.abs(value)) > tolerance:
            break
        step = -inverse.apply(value)
        if not np.isfinite(step).all():
            break
        length = 1.0
        while length >= LEAST_STEP:
            trial, trial_trust = evaluate(point + length * step)
            with np.errstate(over="ignore", invalid="ignore"):
                smaller = np.linalg.norm(trial) < np.linalg.norm(value)
            if smaller and trial_trust > min(LEAST_TRUST, trust / 2):
                break
            length /= 2
        else:
            if fresh:
                break
            inverse, fresh = BroydenInverse(slope_at(point)), True
            continue
        inverse.update(length * step, trial - value)
        point, value, trust, fresh = point + length * step, trial, trial_trust, False
    return point, value, trust


class BroydenInverse:
    """The inverse of a slope, brought up to date by what the steps taken show of it."""

    def __init__(self, slope: np.ndarray) -> None:
        self._factors = scipy.linalg.lu_factor(slope)
        self._updates: list[tuple[np.ndarray, np.ndarray]] = []

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """Slope^{-1} vector."""
        result = scipy.linalg.lu_solve(self._factors, vector)
        for left, step in self._updates:
            result = result + left * (step @ result)
        return result

    def update(self, step: np.ndarray, change: np.ndarray) -> None:
        """Learn that ``step`` changed the violation by ``change``."""
        predicted = self.apply(change)
        overlap = step @ predicted
        if abs(overlap) > LEAST_OVERLAP * (step @ step):
            self._updates.append(((step - predicted) / overlap, step))

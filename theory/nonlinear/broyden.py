"""Broyden's method, and Newton's where it fails: roots of functions whose slope is dear and whose reach is limited."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

STEPS = 60
LEAST_OVERLAP = 0.05
LEAST_STEP = 1 / 32
LEAST_TRUST = 0.3
KRYLOV = 80  # directions in which Newton's step is sought
INEXACT = 1e-3  # what may be left of the equation for Newton's step, relative

Evaluation = tuple[np.ndarray, float]


def solve_root(
    evaluate: Callable[[np.ndarray], Evaluation],
    start: np.ndarray,
    slope: np.ndarray,
    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Broyden's good method from ``start``, then Newton's.

    A step is halved while it raises the violation or lets the trust fall under its floor. Where halving does not help
    a step of Broyden's, Newton's take over, and where it does not help those, the best point seen is returned.

    Args:
        evaluate: point -> (violation, trust); trust is 1 where the violation means what it says and falls to 0 where
            it means nothing (effective sample size of frozen points).
        start: first point.
        slope: derivative of the violation nearby, rough.
        derivative: (point, direction) -> derivative of the violation along it, exact.
        tolerance: on the largest violation.

    Returns:
        The point, its violation and its trust.
    """
    point, (value, trust) = start, evaluate(start)
    inverse = BroydenInverse(slope)
    newton = False
    for _ in range(STEPS):
        if not np.max(np.abs(value)) > tolerance:
            break
        if newton:
            step = -solve_linear(partial(derivative, point), value, inverse.apply, INEXACT)
        else:
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
            if newton:
                break
            newton, inverse = True, BroydenInverse(slope)
            continue
        if not newton:
            inverse.update(length * step, trial - value)
        point, value, trust = point + length * step, trial, trial_trust
    return point, value, trust


def solve_linear(
    multiply: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> np.ndarray:
    """x with A x = right to a relative tolerance, by GMRES; as near as `KRYLOV` directions come.

    Args:
        multiply: x -> A x.
        right: right-hand side.
        precondition: x -> about A^{-1} x.
        tolerance: on |A x - right| / |right|.
    """
    preconditioned = scipy.sparse.linalg.LinearOperator(
        (right.size,) * 2, matvec=lambda x: np.array(multiply(precondition(x)))
    )
    return precondition(scipy.sparse.linalg.gmres(preconditioned, right, rtol=tolerance, restart=KRYLOV, maxiter=1)[0])


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

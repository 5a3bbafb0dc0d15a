"""Broyden's method, and Newton's where it fails: roots of functions whose slope is dear and whose reach is limited."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from theory.clock import report, time_is_up
from theory.search.settings import RootSettings

Evaluation = tuple[np.ndarray, float]


def solve_root(
    evaluate: Callable[[np.ndarray], Evaluation],
    start: np.ndarray,
    slope: np.ndarray,
    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tolerance: float,
    settings: RootSettings = RootSettings(),
) -> tuple[np.ndarray, np.ndarray, float]:
    """Broyden's good method from ``start``, then Newton's.

    A step is halved while it raises the violation or lets the trust fall under its floor. Where halving does not help
    a step of Broyden's, Newton's take over, and where it does not help those, the best point seen is returned. So it
    is where the time is up (`theory.clock`).

    Args:
        evaluate: point -> (violation, trust); trust is 1 where the violation means what it says and falls to 0 where
            it means nothing (effective sample size of frozen points).
        start: first point.
        slope: derivative of the violation nearby, rough.
        derivative: (point, direction) -> derivative of the violation along it, exact.
        tolerance: on the largest violation.
        settings: of the steps.

    Returns:
        The point, its violation and its trust.
    """
    point, (value, trust) = start, evaluate(start)
    inverse = BroydenInverse(slope, settings.least_overlap)
    newton = False
    for number in range(settings.steps):
        violation = np.max(np.abs(value))
        if not violation > tolerance or ((newton or number >= settings.least_steps) and time_is_up()):
            break
        report(f"root of the stationarity equations: step {number + 1}, violation {violation:.1e}")
        if newton:
            step = -solve_linear(partial(derivative, point), value, inverse.apply, settings.inexact, settings.krylov)
        else:
            step = -inverse.apply(value)
        if not np.isfinite(step).all():
            break
        length = 1.0
        while length >= settings.least_step:
            trial, trial_trust = evaluate(point + length * step)
            with np.errstate(over="ignore", invalid="ignore"):
                smaller = np.linalg.norm(trial) < np.linalg.norm(value)
            if smaller and trial_trust > min(settings.least_trust, trust / 2):
                break
            length /= 2
        else:
            if newton:
                break
            newton, inverse = True, BroydenInverse(slope, settings.least_overlap)
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
    directions: int,
) -> np.ndarray:
    """x with A x = right to a relative tolerance, by GMRES; as near as some directions come.

    Args:
        multiply: x -> A x.
        right: right-hand side.
        precondition: x -> about A^{-1} x.
        tolerance: on |A x - right| / |right|.
        directions: their number, at most.
    """
    preconditioned = scipy.sparse.linalg.LinearOperator(
        (right.size,) * 2, matvec=lambda x: np.array(multiply(precondition(x)))
    )
    return precondition(
        scipy.sparse.linalg.gmres(preconditioned, right, rtol=tolerance, restart=directions, maxiter=1)[0]
    )


class BroydenInverse:
    """The inverse of a slope, brought up to date by what the steps taken show of it."""

    def __init__(self, slope: np.ndarray, least_overlap: float) -> None:
        self._least_overlap = least_overlap
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
        if abs(overlap) > self._least_overlap * (step @ step):
            self._updates.append(((step - predicted) / overlap, step))

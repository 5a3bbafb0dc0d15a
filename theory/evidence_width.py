"""How well the largest evidence determines its parameters, and whether another phase is near."""

from __future__ import annotations

import numpy as np

from theory.evidence_curve import EvidenceCurve

SHARE = 0.05  # of a direction without curvature: a parameter with less of it, squared, is determined all the same


def spread_of(hessian: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The covariance -H^{-1} (k, k), which parameters are not determined (k,), and whether H is that of a maximum.

    A direction along which the standard error would exceed the range has no variance; what has a share in it gets
    infinite variance.
    """
    values, vectors = np.linalg.eigh(hessian * np.outer(width, width))  # in units of the ranges
    flat, rising = np.abs(values) < 1, values >= 1
    lost = (vectors[:, flat | rising] ** 2).sum(axis=1) > SHARE
    kept = vectors[:, ~(flat | rising)] * width[:, None]
    covariance = (kept / -values[~(flat | rising)]) @ kept.T
    covariance[lost] = 0.0
    covariance[:, lost] = 0.0
    covariance[lost, lost] = np.inf
    return covariance, lost, not rising.any()


def changes_phase(curve: EvidenceCurve, at: np.ndarray, errors: np.ndarray) -> bool:
    """Whether the symmetry changes, or another phase competes, within a standard error and a step of differences."""
    here = curve.at(at).phases
    if any(competing for _, competing in here):
        return True
    for k, error in enumerate(errors):
        reach = max(curve.step, error if np.isfinite(error) else 0.0)
        for sign in (-1, 1):
            moved = at + sign * reach * np.eye(len(at))[k]
            point = curve.at(moved)
            if not np.isfinite(point.value) or [m for m, _ in point.phases] != [m for m, _ in here]:
                return True
    return False

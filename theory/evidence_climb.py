"""The climb to the largest evidence: L-BFGS-B from the best of some starting points, then Newton steps."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from theory.evidence_curve import EvidenceCurve, in_unit_interval

SCANNED = 10.0  # the part of that range, up and down, in which starting points lie: values far off are rarely meant
POLISH = 5  # Newton steps after the search, at most
GAIN = 1e-2  # of the log evidence that a further step may still promise at a converged optimum: no conclusion changes
EDGE = 1e-6  # of the range of a parameter: as close as this is at its end


def best_start(curve: EvidenceCurve, start: np.ndarray, scan: int, seed: int) -> np.ndarray:
    """The best of the network's own values and of points spread over what is near them."""
    low, high = curve.bounds.T
    positive = np.array([not in_unit_interval(name) for name in curve.names])
    low = np.where(positive, np.maximum(low, start - np.log(SCANNED)), low)
    high = np.where(positive, np.minimum(high, start + np.log(SCANNED)), high)
    size = len(start)
    candidates = [start]
    if scan and size == 1:
        candidates += list(np.linspace(low, high, scan))
    elif scan:
        exponent = int(np.ceil(np.log2(scan * size)))  # Sobol sets are even at powers of two
        import scipy.stats  # not before it is needed: it takes a third of a second

        spread = scipy.stats.qmc.Sobol(size, rng=np.random.default_rng(seed)).random_base2(exponent)
        candidates += list(low + (high - low) * spread)
    values = [curve.at(candidate).value for candidate in candidates]
    if not np.isfinite(values).any():
        raise RuntimeError(f"no value of {', '.join(curve.names)} has a log evidence: {curve.at(start).trouble}")
    return candidates[int(np.argmax(values))]


def climb(curve: EvidenceCurve, start: np.ndarray) -> np.ndarray:
    """The maximum uphill of a point."""
    base = curve.at(start).value

    def cost(at: np.ndarray) -> tuple[float, np.ndarray]:
        value = curve.at(at).value
        if not np.isfinite(value):
            return abs(base) + 1e3, np.zeros_like(at)  # a wall that a line search turns back from
        return base - value, -curve.slope(at)

    found = scipy.optimize.minimize(cost, start, jac=True, method="L-BFGS-B", bounds=curve.bounds)
    at = np.clip(found.x, *curve.bounds.T)
    for _ in range(POLISH):
        free = free_parameters(curve, at)
        slope = curve.slope(at)[free]
        hessian = curve.curvature(at, free)
        if not free or not np.all(np.linalg.eigvalsh(hessian) < 0):
            break
        step = np.zeros_like(at)
        step[free] = -np.linalg.solve(hessian, slope)
        moved = np.clip(at + step, *curve.bounds.T)
        if slope @ step[free] / 2 < GAIN / 100 or curve.at(moved).value < curve.at(at).value:
            break
        at = moved
    return at


def free_parameters(curve: EvidenceCurve, at: np.ndarray) -> list[int]:
    """The places of the parameters that are not held by the end of their range."""
    low, high = curve.bounds.T
    slope, edge = curve.slope(at), EDGE * (high - low)
    held = ((at <= low + edge) & (slope < 0)) | ((at >= high - edge) & (slope > 0))
    return list(np.flatnonzero(~held))

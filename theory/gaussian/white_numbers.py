"""As many white numbers as the entries of a covariance depend on: factors of covariances that may be singular."""

from __future__ import annotations

import numpy as np
import scipy.sparse.csgraph

SMALLEST = 1e-8  # standard deviation of a white number, relative to the largest, that is left out: variances of 1e-16
NO_DIRECTION = 1e-13  # variance of a direction, relative to the largest, that is rounding error


def white_basis(
    drive: np.ndarray, shift: np.ndarray, sites: int, scale: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """L (n, m) with L L^T the prior covariance D + S D S^T + ..., and its pseudo-inverse (m, n), without forming it.

    Entries that the prior does not tie stay apart: singular vectors would mix them.
    """
    root, power, covered = root_of(drive), shift, 1
    while covered < sites:
        root = np.asarray(np.linalg.qr(np.hstack([root, power @ root]).T, mode="r")).T
        power, covered = power @ power, 2 * covered
    root = root / scale[:, None]
    columns, inverses = [], []
    for group in _groups(prior):
        left, values, _ = np.linalg.svd(root[group], full_matrices=False)
        kept = values > SMALLEST * max(1.0, values.max(initial=0.0))
        own = np.zeros((2, len(prior), np.count_nonzero(kept)))
        own[0, group] = scale[group, None] * left[:, kept] * values[kept]
        own[1, group] = left[:, kept] / values[kept] / scale[group, None]
        columns.append(own[0])
        inverses.append(own[1])
    return np.hstack(columns), np.hstack(inverses).T


def root_of(cov: np.ndarray) -> np.ndarray:
    """X (n, k) with X X^T = cov, on each group of entries apart."""
    parts = []
    for group in _groups(cov):
        values, vectors = np.linalg.eigh(cov[np.ix_(group, group)])
        kept = values > NO_DIRECTION * max(values[-1], 0)
        part = np.zeros((len(cov), np.count_nonzero(kept)))
        part[group] = vectors[:, kept] * np.sqrt(values[kept])
        parts.append(part)
    return np.hstack(parts)


def _groups(cov: np.ndarray) -> list[np.ndarray]:
    """Entries that a covariance ties, directly or through others."""
    count, labels = scipy.sparse.csgraph.connected_components(cov != 0, directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)]


def causal_factor(cov: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """The entries (m,) of a covariance (n, n) that do not follow from earlier ones, and L (n, m) with L L^T = cov.

    A variance that earlier entries leave counts as zero at ``floor`` times the entry's own.
    """
    variances = np.diagonal(cov)
    left = np.array(variances)
    live: list[int] = []
    factor = np.zeros_like(cov)
    for entry in range(len(cov)):
        number = len(live)
        if not left[entry] > floor * variances[entry]:
            continue
        row = factor[entry, :number]
        column = cov[entry:, entry] - factor[entry:, :number] @ row
        column /= np.sqrt(column[0])
        factor[entry:, number] = column
        left[entry:] -= column**2
        live.append(entry)
    return np.array(live, dtype=int), factor[:, : len(live)]

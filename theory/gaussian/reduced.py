r"""Linear networks in as few numbers as there are: an exact reduction of the model.

Pre-activations of a linear network are linear in its inputs, biases and noise. So

- patterns of rank r (all inputs, biases and noise together) are r independent directions at each site, h_s = Q k_s with
  orthonormal columns Q (P, r): everything that the weights do acts on sites only. 1500 images of 64 dimensions are 64
  directions;
- the range of C[Phi] does not depend on the kernel, since Phi and C[Phi] have the same range and C is linear. Where
  entries follow from others, or nearly so, k = L z with L L^T the prior covariance: as many numbers z as it has
  columns, white under the prior. Elsewhere z = k. Weights that are shared in full, C_k = S Phi_k S^T + D, become
  C_z = (L^+ S L) Phi_z (L^+ S L)^T + L^+ D L^+^T, which loses half of the digits that differences of covariances lose;
- the targets at a site enter through as many directions as are supervised there. With U_s T_s = Q on the supervised
  patterns of site s, U_s orthonormal,

      y^T A^{-1} y = | (1 - U U^T) y |^2 / kappa + (U^T y)^T [ kappa + Mv o (T Phi_k T^T) ]^{-1} U^T y,

  because the correlation Mv of the readout is the same for all patterns.

What is left is the covariance of z, m <= n entries, which is positive definite; it is called the kernel here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse.csgraph

from theory.causal import PIVOT_FLOOR
from theory.gaussian.site_maps import SiteMaps
from theory.kernels import scale_of
from theory.model import Model

FOLLOWS = 1e-13  # of its variance that earlier entries leave to an entry: rounding error
NEARLY_FOLLOWS = 1e-4  # lowest eigenvalue of the prior correlations below which white numbers are better
SMALLEST = 1e-8  # standard deviation of a white number, relative to the largest, that is left out: variances of 1e-16
NO_DIRECTION = 1e-13  # variance of a direction of the patterns, relative to the largest, that is rounding error


@dataclass(frozen=True, eq=False)
class Reduced:
    """A linear network on a task in the numbers that its kernel depends on.

    Attributes:
        maps: between kernels and covariances, sites x r.
        drive: F D F^T, (sites r, sites r); with ``powers`` that of z, (m, m).
        patterns: Q, (P, r), or None where r = P and nothing is rotated.
        live: the entries of k that do not follow from earlier ones, (m,).
        basis: L, (sites r, m), or None where z = k.
        inverse: that of L on the live entries, (m, m), or None.
        powers: (L^+ S L)^(1, 2, 4, ...) until that vanishes, each with its transpose, or none.
        read: the entries of z that targets depend on, (k,), or what they depend on, (k, m).
        readout: gv^2 Mv between those, (k, k).
        noise: kappa.
        targets: U^T y, (k, O).
        unexplained: |(1 - U U^T) y|^2 / (2 kappa).
    """

    maps: SiteMaps
    drive: np.ndarray
    patterns: np.ndarray | None
    live: np.ndarray
    basis: np.ndarray | None
    inverse: np.ndarray | None
    powers: tuple[tuple[np.ndarray, np.ndarray], ...]
    read: np.ndarray
    readout: np.ndarray
    noise: float
    targets: np.ndarray
    unexplained: float

    @classmethod
    def of(cls, model: Model) -> Reduced:
        """The reduction of a model."""
        rotation = pattern_directions(model)
        directions = model.patterns if rotation is None else rotation.shape[1]
        maps = SiteMaps.of(model, directions)
        drive = np.array(model.drive)
        if rotation is not None:
            blocks = drive.reshape((model.sites, model.patterns) * 2)
            drive = np.einsum("spuq,pi,qj->siuj", blocks, rotation, rotation, optimize=True)
            drive = drive.reshape((model.sites * directions,) * 2)
        drive = maps.mix(drive)
        prior = maps.accumulate(drive)
        scale = scale_of(prior)
        everything = np.arange(len(drive))
        if np.linalg.eigvalsh(prior / np.outer(scale, scale))[0] > NEARLY_FOLLOWS:
            return cls(maps, drive, rotation, everything, None, None, (), **_data(model, rotation, None))
        if maps.shift is not None:
            basis, inverse = white_basis(drive, maps.shift, maps.sites, scale, prior)
            power, powers = inverse @ maps.shift @ basis, []
            for _ in range(max(1, (maps.sites - 1).bit_length())):
                powers.append((power, np.ascontiguousarray(power.T)))
                power = power @ power
            root = inverse @ _root(drive)
            data = _data(model, rotation, basis)
            return cls(maps, root @ root.T, rotation, everything, basis, None, tuple(powers), **data)
        live, factor = causal_factor(prior, FOLLOWS)
        if np.min(np.diagonal(factor[live]) ** 2 / np.diagonal(prior)[live]) < PIVOT_FLOOR["float64"]:
            drive[live, live] += PIVOT_FLOOR["float64"] * np.diagonal(prior)[live]
            prior = maps.accumulate(drive)
        inverse = np.linalg.inv(np.linalg.cholesky(prior[np.ix_(live, live)]))
        basis = prior[:, live] @ inverse.T
        return cls(maps, drive, rotation, live, basis, inverse, (), **_data(model, rotation, basis))

    @property
    def entries(self) -> int:
        """m."""
        return len(self.live) if self.basis is None else self.basis.shape[1]

    def expand(self, kernel: np.ndarray) -> np.ndarray:
        """Of z (m, m) to all of k, (sites r, sites r)."""
        return kernel if self.basis is None else self.basis @ kernel @ self._basis_back

    def contract(self, kernel: np.ndarray) -> np.ndarray:
        """The inverse of `expand`."""
        if self.basis is not None and self.powers:
            inverse = np.linalg.pinv(self.basis)
            return inverse @ kernel @ inverse.T
        return self._restrict(kernel)

    @cached_property
    def _basis_back(self) -> np.ndarray:
        assert self.basis is not None
        return np.ascontiguousarray(self.basis.T)

    @cached_property
    def _read_back(self) -> np.ndarray:
        return np.ascontiguousarray(self.read.T)

    @cached_property
    def determined_inverse(self) -> np.ndarray:
        """L^+ (m, sites r), of the numbers z that kernels determine to more than rounding error."""
        assert self.basis is not None
        scale = scale_of(self.basis @ self.basis.T)
        return np.linalg.pinv(self.basis / scale[:, None], rcond=PIVOT_FLOOR["float64"] ** 0.5) / scale

    def with_targets(self, factor: float) -> Reduced:
        """The same with targets multiplied by a factor."""
        return replace(self, targets=factor * self.targets, unexplained=factor**2 * self.unexplained)

    def covariance(self, kernel: np.ndarray) -> np.ndarray:
        """C[Phi] of z, (m, m)."""
        if self.powers:
            return self.drive + self.change(kernel)
        return self._restrict(self.drive + self.maps.change(self.expand(kernel)))

    def change(self, kernel: np.ndarray) -> np.ndarray:
        """How C[Phi] changes with Phi, (m, m)."""
        if self.powers:
            return self.powers[0][0] @ kernel @ self.powers[0][1]
        return self._restrict(self.maps.change(self.expand(kernel)))

    def covariance_adjoint(self, response: np.ndarray) -> np.ndarray:
        """The derivative of sum(C[Phi] o Y) with respect to Phi, (m, m)."""
        if self.powers:
            return self.powers[0][1] @ response @ self.powers[0][0]
        return self._project(self.maps.adjoint(self._scatter(response)))

    def accumulate(self, change: np.ndarray) -> np.ndarray:
        """The change of Phi that makes Phi - C[Phi] change by ``change``, (m, m)."""
        for power, back in self.powers:
            change = change + power @ change @ back
        if self.powers:
            return change
        return self._restrict(self.maps.accumulate(self.expand(change)))

    def accumulate_adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """The adjoint of `accumulate`."""
        for power, back in self.powers:
            gradient = gradient + back @ gradient @ power
        if self.powers:
            return gradient
        return self._project(self.maps.accumulate_adjoint(self._scatter(gradient)))

    def read_out(self, kernel: np.ndarray) -> np.ndarray:
        """gv^2 Mv o Phi of what the targets depend on, (k, k): A less its noise."""
        if self.read.ndim == 1:
            return self.readout * kernel[np.ix_(self.read, self.read)]
        return self.readout * (self.read @ kernel @ self._read_back)

    def read_out_adjoint(self, matrix: np.ndarray) -> np.ndarray:
        """Its adjoint, (m, m)."""
        if self.read.ndim == 2:
            return self._read_back @ (self.readout * matrix) @ self.read
        total = np.zeros((self.entries,) * 2)
        total[np.ix_(self.read, self.read)] = self.readout * matrix
        return total

    def lazy_kernel(self) -> np.ndarray:
        """Phi = C[Phi], (m, m): the kernel of the prior."""
        return self.maps.accumulate(self.drive) if self.basis is None else np.eye(self.entries)

    def _restrict(self, matrix: np.ndarray) -> np.ndarray:
        return (
            matrix
            if self.inverse is None
            else self.inverse @ matrix[np.ix_(self.live, self.live)] @ np.ascontiguousarray(self.inverse.T)
        )

    def _scatter(self, matrix: np.ndarray) -> np.ndarray:
        if self.inverse is None:
            return matrix
        total = np.zeros_like(self.drive)
        total[np.ix_(self.live, self.live)] = self.inverse.T @ matrix @ self.inverse
        return total

    def _project(self, matrix: np.ndarray) -> np.ndarray:
        return matrix if self.basis is None else self._basis_back @ matrix @ self.basis


def pattern_directions(model: Model) -> np.ndarray | None:
    """Q (P, r): an orthonormal basis of what inputs, biases and noise make of the patterns; None where r = P."""
    sites, patterns = model.sites, model.patterns
    blocks = np.asarray(model.drive).reshape((sites, patterns) * 2)
    within = np.array([blocks[site, :, site] for site in range(sites)])
    sizes = np.array([np.trace(block) for block in within])
    present = sizes > 0
    if not present.any():
        return None
    total = np.sum(within[present] / sizes[present, None, None], axis=0)
    values, vectors = np.linalg.eigh(total)
    kept = values > NO_DIRECTION * values[-1]
    return None if kept.all() else vectors[:, kept]


def white_basis(
    drive: np.ndarray, shift: np.ndarray, sites: int, scale: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """L (n, m) with L L^T the prior covariance D + S D S^T + ..., and its pseudo-inverse (m, n), without forming it.

    Entries that the prior does not tie stay apart: singular vectors would mix them.
    """
    root, power, covered = _root(drive), shift, 1
    while covered < sites:
        root = np.asarray(np.linalg.qr(np.hstack([root, power @ root]).T, mode="r")).T
        power, covered = power @ power, 2 * covered
    root = root / scale[:, None]
    columns, inverses = [], []
    for group in _groups(prior):
        left, values, _ = np.linalg.svd(root[group], full_matrices=False)
        kept = values > SMALLEST * values[0] if values[0] > SMALLEST else np.zeros(len(values), bool)
        own = np.zeros((2, len(prior), np.count_nonzero(kept)))
        own[0, group] = scale[group, None] * left[:, kept] * values[kept]
        own[1, group] = left[:, kept] / values[kept] / scale[group, None]
        columns.append(own[0])
        inverses.append(own[1])
    return np.hstack(columns), np.hstack(inverses).T


def _root(cov: np.ndarray) -> np.ndarray:
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


def _data(model: Model, rotation: np.ndarray | None, basis: np.ndarray | None) -> dict[str, Any]:
    """What `Reduced` holds of the targets."""
    supervised, targets = np.asarray(model.supervised), np.asarray(model.targets)
    correlation = np.asarray(model.readout)[:: model.patterns, :: model.patterns]
    noise, unexplained = float(model.noise), 0.0
    if rotation is None:
        read, reduced, sites = supervised, targets, supervised // model.patterns
        if basis is not None:
            read = basis[supervised]
    else:
        rank = rotation.shape[1]
        rows, parts, at = [], [], []
        for site in np.unique(supervised // model.patterns):
            here = supervised // model.patterns == site
            own, values, axes = np.linalg.svd(rotation[supervised[here] % model.patterns], full_matrices=False)
            part = own.T @ targets[here]
            unexplained += np.sum((targets[here] - own @ part) ** 2) / (2 * noise)
            block = np.zeros((len(values), model.sites * rank))
            block[:, site * rank : (site + 1) * rank] = values[:, None] * axes
            rows.append(block)
            parts.append(part)
            at += [site] * len(values)
        read, reduced, sites = np.concatenate(rows), np.concatenate(parts), np.array(at)
        if basis is not None:
            read = read @ basis
    return {
        "read": read,
        "readout": correlation[np.ix_(sites, sites)],
        "noise": noise,
        "targets": reduced,
        "unexplained": unexplained,
    }

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

What is left is the covariance of z, m <= n entries, which is positive definite; it is called the kernel here. Matrices
may have leading axes, (..., m, m): several at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from theory.causal import PIVOT_FLOOR
from theory.gaussian.site_maps import SiteMaps
from theory.gaussian.white_numbers import NO_DIRECTION, causal_factor, root_of, white_basis
from theory.kernels import scale_of
from theory.model import Model

NEARLY_FOLLOWS = 1e-4  # lowest eigenvalue of the prior correlations below which white numbers are better


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
        powers: (L^+ S L)^(1, 2, 4, ...) until that vanishes, each with its transpose, or none; where z = k, those of S
            if sites are mixed.
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
    def of(cls, model: Model, directions: np.ndarray | None = None) -> Reduced:
        """The reduction of a model; with ``directions`` V (P, k), orthonormal, of its network in those alone."""
        rotation = pattern_directions(model) if directions is None else directions
        number = model.patterns if rotation is None else rotation.shape[1]
        maps = SiteMaps.of(model, number)
        drive = np.array(model.drive)
        if rotation is not None:
            blocks = drive.reshape((model.sites, model.patterns) * 2)
            drive = np.einsum("spuq,pi,qj->siuj", blocks, rotation, rotation, optimize=True)
            drive = drive.reshape((model.sites * number,) * 2)
        drive = maps.mix(drive)
        prior = maps.accumulate(drive)
        scale = scale_of(prior)
        everything = np.arange(len(drive))
        if np.linalg.eigvalsh(prior / np.outer(scale, scale))[0] > NEARLY_FOLLOWS:
            mixed = maps.shift if maps.mixing is not None else None
            powers = () if mixed is None else _powers(mixed, maps.sites)
            return cls(maps, drive, rotation, everything, None, None, powers, **data_of(model, rotation, None))
        if maps.shift is not None:
            basis, inverse = white_basis(drive, maps.shift, maps.sites, scale, prior)
            powers = _powers(inverse @ maps.shift @ basis, maps.sites)
            root = inverse @ root_of(drive)
            data = data_of(model, rotation, basis)
            return cls(maps, root @ root.T, rotation, everything, basis, None, powers, **data)
        live, _ = causal_factor(prior, PIVOT_FLOOR["float64"])
        inverse = np.linalg.inv(np.linalg.cholesky(prior[np.ix_(live, live)]))
        basis = prior[:, live] @ inverse.T
        return cls(maps, drive, rotation, live, basis, inverse, (), **data_of(model, rotation, basis))

    @property
    def entries(self) -> int:
        """m."""
        return len(self.live) if self.basis is None else self.basis.shape[1]

    def expand(self, kernel: np.ndarray) -> np.ndarray:
        """Of z (..., m, m) to all of k, (..., sites r, sites r)."""
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
        """C[Phi] of z, (..., m, m)."""
        if self.powers:
            return self.drive + self.change(kernel)
        return self._restrict(self.drive + self.maps.change(self.expand(kernel)))

    def change(self, kernel: np.ndarray) -> np.ndarray:
        """How C[Phi] changes with Phi, (..., m, m)."""
        if self.powers:
            return self.powers[0][0] @ kernel @ self.powers[0][1]
        return self._restrict(self.maps.change(self.expand(kernel)))

    def covariance_adjoint(self, response: np.ndarray) -> np.ndarray:
        """The derivative of sum(C[Phi] o Y) with respect to Phi, (..., m, m)."""
        if self.powers:
            return self.powers[0][1] @ response @ self.powers[0][0]
        return self._project(self.maps.adjoint(self._scatter(response)))

    def accumulate(self, change: np.ndarray) -> np.ndarray:
        """The change of Phi that makes Phi - C[Phi] change by ``change``, (..., m, m)."""
        for power, transposed in self.powers:
            change = change + power @ change @ transposed
        if self.powers:
            return change
        return self._restrict(self.maps.accumulate(self.expand(change)))

    def accumulate_adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """The adjoint of `accumulate`."""
        for power, transposed in self.powers:
            gradient = gradient + transposed @ gradient @ power
        if self.powers:
            return gradient
        return self._project(self.maps.accumulate_adjoint(self._scatter(gradient)))

    def read_out(self, kernel: np.ndarray) -> np.ndarray:
        """gv^2 Mv o Phi of what the targets depend on, (..., k, k): A less its noise."""
        if self.read.ndim == 1:
            return self.readout * kernel[..., self.read[:, None], self.read]
        return self.readout * (self.read @ kernel @ self._read_back)

    def read_out_adjoint(self, matrix: np.ndarray) -> np.ndarray:
        """Its adjoint, (..., m, m)."""
        if self.read.ndim == 2:
            return self._read_back @ (self.readout * matrix) @ self.read
        total = np.zeros((*matrix.shape[:-2], self.entries, self.entries))
        total[..., self.read[:, None], self.read] = self.readout * matrix
        return total

    def lazy_kernel(self) -> np.ndarray:
        """Phi = C[Phi], (m, m): the kernel of the prior."""
        return self.maps.accumulate(self.drive) if self.basis is None else np.eye(self.entries)

    def _restrict(self, matrix: np.ndarray) -> np.ndarray:
        return (
            matrix
            if self.inverse is None
            else self.inverse @ matrix[..., self.live[:, None], self.live] @ np.ascontiguousarray(self.inverse.T)
        )

    def _scatter(self, matrix: np.ndarray) -> np.ndarray:
        if self.inverse is None:
            return matrix
        total = np.zeros((*matrix.shape[:-2], *self.drive.shape))
        total[..., self.live[:, None], self.live] = self.inverse.T @ matrix @ self.inverse
        return total

    def _project(self, matrix: np.ndarray) -> np.ndarray:
        return matrix if self.basis is None else self._basis_back @ matrix @ self.basis


def _powers(shift: np.ndarray, sites: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Those of a nilpotent matrix that double its reach, each with its transpose."""
    powers = [shift]
    while 2 ** len(powers) < sites:
        powers.append(powers[-1] @ powers[-1])
    return tuple((power, np.ascontiguousarray(power.T)) for power in powers)


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


def data_of(model: Model, rotation: np.ndarray | None, basis: np.ndarray | None) -> dict[str, Any]:
    """What `Reduced` holds of the targets, given Q and L."""
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

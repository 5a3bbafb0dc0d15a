"""Saddle points of linear networks on tasks of many entries: no second derivative is ever stored.

The searches are those of `theory.gaussian.search`, in other coordinates: from the lazy limit, which keeps to the
symmetric branch, from coherent steps and from random starts, then from every saddle point found along its directions of
negative curvature. They run on the numbers that the kernel depends on (`theory.gaussian.reduced`), however many
patterns there are. A search that does not come to rest soon is given up, unless it has reached less than all stable
points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.causal import PIVOT_FLOOR
from theory.gaussian.kernel_energy import Point
from theory.gaussian.newton import Stationary
from theory.gaussian.reduced import Reduced, causal_factor
from theory.gaussian.settings import GaussianSettings
from theory.gaussian.site_maps import SiteMaps
from theory.gaussian.trust_region import descend, lowest_curvatures
from theory.model import Model
from theory.units import why_unresolved


class Found(NamedTuple):
    """A saddle point.

    Attributes:
        at: where it is, the kernel of the reduced problem in place of coordinates, and its lowest curvatures with
            steps of the kernel along them, (k, m, m).
        end: the same with the derivatives there.
    """

    at: Stationary
    end: Point
    stable: bool


class Flat(NamedTuple):
    """A saddle point by entry of the task: Phi, Phihat and C (n, n), and the largest violation of its equations."""

    kernel: np.ndarray
    conjugate: np.ndarray
    cov: np.ndarray
    residual: float


class ManyEntries:
    """A linear network on a task with many entries.

    Attributes:
        model: the two in arrays.
        images: the sign changes of its sites that turn saddle points into others (`theory.symmetry`), (images, sites).
        reduced: the numbers that the kernel depends on.
    """

    def __init__(self, model: Model, images: np.ndarray, settings: GaussianSettings = GaussianSettings()) -> None:
        self.model, self.images, self.settings = model, images, settings
        self.reduced = Reduced.of(model)
        self._signs = [np.ones(self.reduced.entries), *map(self._signs_of_numbers, images)]

    def find_saddle_points(self, starts: int, seed: int) -> list[Found]:
        """Every distinct one reached from the starts and from unstable directions of those found."""
        settings, region = self.settings, self.settings.trust_region
        first = (self._lazy(), *self._coherent_starts())
        queue = [(start, region.products) for start in first]
        queue += [(start, region.random) for start in self._random_starts(starts, np.random.default_rng(seed))]
        found: list[Found] = []
        unfinished: list[Point] = []
        while queue:
            start, most = queue.pop(0)
            if not np.isfinite(start.value):
                continue
            rough = descend(start, region, region.rough, most)
            if rough.residual > region.rough and most < region.products:
                unfinished.append(rough)
            elif not any(self._same(rough.kernel, other.end.kernel, settings.roughly) for other in found):
                point = self._polished(rough)
                if any(self._same(point.end.kernel, other.end.kernel, settings.same) for other in found):
                    continue
                found.append(point)
                downhill = np.flatnonzero(point.at.curvatures < -settings.same)
                queue += [
                    (self._kicked(point, region.kick * point.at.directions[i]), region.downhill) for i in downhill
                ]
            if not queue and unfinished:
                # A search that was given up goes on where what it has reached lies below all stable saddle points.
                lowest = min(unfinished, key=lambda each: each.value)
                if lowest.value < min((each.end.value for each in found if each.stable), default=np.inf):
                    queue.append((lowest, region.products))
                unfinished = [each for each in unfinished if each is not lowest]
        if not found:
            raise RuntimeError(why_unresolved(self.model))
        return found

    def follow(self, kernel: np.ndarray) -> Found:
        """The stable saddle point downhill from a kernel (n, n), over unstable ones if they are met."""
        directions = self.reduced.patterns
        if directions is not None:
            kernel = _rotated(kernel, np.ascontiguousarray(directions.T))
        start, region = Point(self.reduced, self.reduced.contract(kernel)), self.settings.trust_region
        point = self._polished(descend(start if np.isfinite(start.value) else self._lazy(), region))
        for _ in range(self.settings.unstable_directions):
            if point.stable:
                break
            kick = region.kick * point.at.directions[0]
            ends = [descend(self._kicked(point, sign * kick), region) for sign in (1, -1)]
            point = self._polished(min(ends, key=lambda end: end.value))
        return point

    def flat(self, point: Found) -> Flat:
        """Everything by entry of the task."""
        model, patterns = self.model, self.model.patterns
        kernel = _rotated(self.reduced.expand(point.end.kernel), self.reduced.patterns)
        maps = SiteMaps.of(model, patterns)
        cov = maps.change(kernel) + maps.mix(np.asarray(model.drive))
        readout, rows = np.asarray(model.readout), np.asarray(model.supervised)
        targets = readout[np.ix_(rows, rows)] * kernel[np.ix_(rows, rows)] + float(model.noise) * np.eye(len(rows))
        dual = np.zeros((len(kernel), np.asarray(model.targets).shape[1]))
        dual[rows] = np.linalg.solve(targets, np.asarray(model.targets))
        conjugate = maps.adjoint(self._response(point, kernel, cov)) - readout * (dual @ dual.T)
        return Flat(kernel, conjugate, cov, point.end.violation)

    def _response(self, point: Found, kernel: np.ndarray, cov: np.ndarray) -> np.ndarray:
        """Q = C^{-1} - C^{-1} Phi C^{-1} on the range of C (`theory.response`), by entry of the task (n, n)."""
        if self.reduced.powers:
            inverse = self.reduced.determined_inverse
            return _rotated(inverse.T @ point.end.response @ inverse, self.reduced.patterns)
        live, factor = causal_factor(cov, PIVOT_FLOOR["float64"])
        inverse = np.linalg.inv(factor[live])
        inner = np.eye(len(live)) - inverse @ kernel[np.ix_(live, live)] @ inverse.T
        response = np.zeros_like(cov)
        response[np.ix_(live, live)] = inverse.T @ inner @ inverse
        return response

    def _lazy(self) -> Point:
        return Point(self.reduced, self.reduced.lazy_kernel())

    def _coherent_starts(self) -> list[Point]:
        """Where a broken branch is likely that the symmetric one, being stable, does not lead to: steps that correlate.

        As they are, and as they come to rest under stronger targets, where broken branches have no rival.
        """
        if not len(self.images):
            return []
        reduced = self.reduced
        live, factor = causal_factor(reduced.expand(reduced.lazy_kernel()), PIVOT_FLOOR["float64"])
        site = live // reduced.maps.directions
        within = live % reduced.maps.directions
        coherent = np.where(site[:, None] == site, 1.0, self.settings.coherence) * (within[:, None] == within)
        point = Point(reduced, reduced.contract(factor @ coherent @ factor.T))
        if not np.isfinite(point.value):
            return []
        stronger = reduced.with_targets(self.settings.stronger)
        end = descend(Point(stronger, point.kernel), self.settings.trust_region, self.settings.trust_region.rough)
        return [point, Point(reduced, end.kernel)]

    def _random_starts(self, starts: int, rng: np.random.Generator) -> list[Point]:
        m = self.reduced.entries
        root = np.linalg.cholesky(self.reduced.lazy_kernel())
        found = []
        for amplitude in np.linspace(0.1, 0.5, starts):
            white = np.tril(rng.normal(size=(m, m))) * amplitude * (self.settings.trust_region.as_few / m) ** 0.5
            np.fill_diagonal(white, np.exp(np.diagonal(white)))
            factor = root @ white
            found.append(Point(self.reduced, factor @ factor.T))
        return found

    def _kicked(self, point: Found, step: np.ndarray) -> Point:
        return point.end.moved(step, step @ point.end.kernel_precision)

    def _polished(self, rough: Point) -> Found:
        settings, region = self.settings, self.settings.trust_region
        end = descend(rough, region)
        curvatures, directions = lowest_curvatures(end, 1, region.sign, region)
        if curvatures[0] < 0:
            curvatures, directions = lowest_curvatures(end, settings.unstable_directions, region.precise, region)
        at = Stationary(end.kernel, end.value, end.gradient, curvatures, directions)
        return Found(at, end, bool(curvatures[0] > -settings.same))

    def _same(self, one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
        """Equal kernels (m, m), relative to the largest entry, up to the mirror images that there are."""
        slack = tolerance * np.max(np.abs(one))
        return any(bool(np.max(np.abs(one - other * np.outer(signs, signs))) <= slack) for signs in self._signs)

    def _signs_of_numbers(self, signs: np.ndarray) -> np.ndarray:
        """What signs of the sites do to z, (m,)."""
        by_entry = np.repeat(signs, self.reduced.maps.directions)
        basis = self.reduced.basis
        # Each column of L lies at sites of one sign: the prior ties no others.
        return by_entry if basis is None else np.sign(by_entry @ basis**2)


def _rotated(kernel: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    """From directions to patterns: (sites r, sites r) -> (sites P, sites P)."""
    if directions is None:
        return kernel
    sites = len(kernel) // directions.shape[1]
    blocks = kernel.reshape((sites, directions.shape[1]) * 2)
    half = np.einsum("siuj,qj->siuq", blocks, directions)
    patterns = directions.shape[0]
    full = np.empty((sites, patterns, sites, patterns))
    for site in range(sites):
        full[site] = np.tensordot(directions, half[site], 1)
    return full.reshape((sites * patterns,) * 2)

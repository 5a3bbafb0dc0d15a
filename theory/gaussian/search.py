"""The saddle points of linear networks, to rounding error: minimisation in the noise coordinates.

L-BFGS (`theory.gaussian.descent`) from the lazy limit, which keeps to the symmetric branch, and from random starts,
then from every saddle point found along its directions of negative curvature; each end point polished by Newton's
method on the gradient, which also converges to unstable saddle points. Tasks of more entries than
`GaussianSettings.most_dense`, where second derivatives between all pairs of entries would be too many, are solved in
other coordinates (`theory.gaussian.many_entries`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from theory.gaussian.descent import descend
from theory.gaussian.many_entries import Flat, Found, ManyEntries
from theory.gaussian.newton import Stationary, find_stationary
from theory.gaussian.noise_energy import (
    Description,
    describe,
    free_energy,
    free_energy_and_gradient,
    hessian,
    kernel_of_coordinates,
    pack,
)
from theory.gaussian.settings import GaussianSettings
from theory.model import Model, preactivation_cov
from theory.response import factorise
from theory.units import why_unresolved


@partial(jax.jit, static_argnums=4)
def _minima(starts, count, model, tolerance, settings):
    def value_and_gradient(coordinates):
        return jax.value_and_grad(free_energy)(coordinates, model)

    ends = descend(value_and_gradient, starts, count, tolerance, settings)
    return ends, jax.lax.map(lambda end: kernel_of_coordinates(model, end), ends)


class SaddlePoint(NamedTuple):
    """Where a polished search ended, in noise coordinates (many entries: in kernels), and what lies there."""

    at: Stationary
    described: Description | Flat
    stable: bool


@partial(jax.jit, static_argnums=2)
def _polished(start, model, settings):
    def value_and_gradient(coordinates):
        return jax.value_and_grad(free_energy)(coordinates, model)

    found = find_stationary(
        value_and_gradient, lambda point: hessian(point, model, settings.directions), start, settings
    )
    return found, describe(found.point, model)


class LinearProblem:
    """A linear network on a task.

    Attributes:
        model: in arrays, on the device, in natural units (`theory.units`).
        images: the sign changes that turn saddle points into others (`theory.symmetry`).
        settings: of the search.
    """

    def __init__(self, model: Model, images: np.ndarray, settings: GaussianSettings = GaussianSettings()) -> None:
        self.model, self.images, self.settings = model, images, settings
        many = model.entries > settings.most_dense
        self._many = ManyEntries(model, images, settings) if many else None

    def find_saddle_points(self, starts: int, seed: int) -> list[SaddlePoint]:
        """Every distinct one reached from the starts and from unstable directions of those found.

        Besides ``starts`` random ones, the lazy limit and coherent steps.
        """
        if self._many is not None:
            return [self._described(found) for found in self._many.find_saddle_points(starts, seed)]
        settings, rng = self.settings, np.random.default_rng(seed)
        size = self.model.entries * (self.model.entries + 1) // 2
        amplitudes = np.linspace(0.1, 0.5, starts)
        queue = [np.zeros(size), *self._coherent_starts()]
        queue += [amplitude * rng.normal(size=size) for amplitude in amplitudes]
        found: list[SaddlePoint] = []
        kernels: list[np.ndarray] = []
        while queue:
            batch, queue = queue[: settings.at_once], queue[settings.at_once :]
            ends = self._minimise(np.array(batch), self.model, settings.before_polishing)
            for rough, kernel in zip(*ends, strict=True):
                if any(self._same(kernel, other, settings.roughly) for other in kernels):
                    continue
                point = self.polish(rough)
                if not np.isfinite(point.at.value):
                    continue
                assert isinstance(point.described, Description)
                kernel = point.described.trajectory.kernel
                if any(self._same(kernel, other, settings.same) for other in kernels):
                    continue
                found.append(point)
                kernels.append(kernel)
                if math.hypot(*point.at.gradient) < settings.gradient:
                    downhill = np.flatnonzero(point.at.curvatures < -settings.same)[: settings.unstable_directions]
                    queue += [point.at.point + settings.kick * point.at.directions[:, i] for i in downhill]
        if not found:
            raise RuntimeError(why_unresolved(self.model))
        return found

    def _coherent_starts(self) -> list[np.ndarray]:
        """Where a broken branch is likely that the symmetric one, being stable, does not lead to: steps that correlate.

        As they are, and as they come to rest under stronger targets, where broken branches have no rival.
        """
        if not len(self.images):
            return []
        settings = self.settings
        gram = (1 - settings.coherence) * np.eye(self.model.sites) + settings.coherence
        coherent = pack(np.kron(np.linalg.cholesky(gram), np.eye(self.model.patterns)))
        stronger = self.model.replace(targets=settings.stronger * self.model.targets)
        return [coherent, self._minimise(coherent[None], stronger, settings.before_polishing)[0][0]]

    def follow(self, kernel: np.ndarray, conjugate: np.ndarray) -> SaddlePoint:
        """The stable saddle point downhill from Phi and Phihat (n, n), over unstable ones if they are met."""
        if self._many is not None:
            return self._described(self._many.follow(kernel))
        factor = factorise(np.asarray(preactivation_cov(self.model, kernel)))
        noise = np.linalg.inv(np.eye(len(kernel)) + factor.T @ conjugate @ factor)
        coordinates = pack(np.linalg.cholesky((noise + noise.T) / 2))
        point = self.polish(self._minimise(coordinates[None], self.model, self.settings.gradient)[0][0])
        for _ in range(self.settings.unstable_directions):
            if point.stable:
                break
            kick = self.settings.kick * point.at.directions[:, 0]
            ends, _ = self._minimise(point.at.point + np.array([kick, -kick]), self.model, self.settings.gradient)
            point = self.polish(min(ends, key=self._free_energy))
        return point

    def _described(self, found: Found) -> SaddlePoint:
        assert self._many is not None
        return SaddlePoint(found.at, self._many.flat(found), found.stable)

    def _minimise(self, starts: np.ndarray, model: Model, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Where F comes to rest from each of some starts (S, d), one batch at most: minima, or saddle points that a
        symmetry keeps to. And the kernels there, (S, n, n)."""
        # One shape, one compilation.
        padded = np.zeros((self.settings.at_once, starts.shape[1]))
        padded[: len(starts)] = starts
        ends, kernels = _minima(padded, len(starts), model, tolerance, self.settings.descent)
        return np.asarray(ends)[: len(starts)], np.asarray(kernels)[: len(starts)]

    def _free_energy(self, coordinates: np.ndarray) -> float:
        return float(free_energy_and_gradient(coordinates, self.model)[0])

    def polish(self, point: np.ndarray) -> SaddlePoint:
        """The saddle point next to where a descent came to rest."""
        found, described = jax.tree.map(np.asarray, _polished(point, self.model, self.settings.newton))
        return SaddlePoint(found, described, bool(found.curvatures[0] > -self.settings.same))

    def _same(self, one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
        """Equal kernels (n, n), relative to the largest entry, up to the mirror images that there are."""
        slack = tolerance * np.max(np.abs(one))
        images = [np.ones(self.model.sites), *self.images]
        return any(bool(np.max(np.abs(one - self._image(other, signs))) <= slack) for signs in images)

    def _image(self, kernel: np.ndarray, signs: np.ndarray) -> np.ndarray:
        by_entry = np.repeat(signs, self.model.patterns)
        return kernel * np.outer(by_entry, by_entry)

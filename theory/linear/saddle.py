"""The saddle points of linear networks, to rounding error: minimisation in the noise coordinates.

L-BFGS (`theory.linear.descent`) from the lazy limit, which keeps to the symmetric branch, and from random starts, then
from every saddle point found along its directions of negative curvature; each end point polished by Newton's method on
the gradient, which also converges to unstable saddle points. The residual is evaluated afresh from the stationarity
equations, not taken from the minimiser.

Tasks of more than `MOST_DENSE` entries, where second derivatives between all pairs of entries would be too many, are
solved in other coordinates (`theory.linear.many_entries`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from theory.linear.descent import descend
from theory.linear.many_entries import Flat, Found, ManyEntries
from theory.linear.newton import Stationary, find_stationary
from theory.linear.noise_gram import (
    Description,
    describe,
    free_energy,
    free_energy_and_gradient,
    hessian,
    kernel_of_coordinates,
    pack,
)
from theory.model import Model, preactivation_cov
from theory.response import factorise
from theory.units import why_unresolved

MOST_DENSE = 30  # entries: 465 noise coordinates
SAME_BRANCH = 1e-6
ROUGHLY = 1e-4  # before polishing
MOST_EVALUATIONS = 5000
GRADIENT_TOLERANCE = 1e-7
BEFORE_POLISHING = 1e-5  # the same where Newton's method follows
UNSTABLE_DIRECTIONS = 4
KICK = 0.1
AT_ONCE = 8
RANDOM_STARTS = 4
COHERENCE = 0.6  # between any two steps, in the noise
STRONGER = 1.5


@jax.jit
def _minima(starts, count, model, tolerance):
    def value_and_gradient(coordinates):
        return jax.value_and_grad(free_energy)(coordinates, model)

    ends = descend(value_and_gradient, starts, count, MOST_EVALUATIONS, tolerance)
    return ends, jax.lax.map(lambda end: kernel_of_coordinates(model, end), ends)


def minimise(starts: np.ndarray, model: Model, tolerance: float = GRADIENT_TOLERANCE) -> tuple[np.ndarray, np.ndarray]:
    """Where F comes to rest from each of at most `AT_ONCE` starts (S, d): minima, or saddle points that a symmetry
    keeps to. And the kernels there, (S, n, n)."""
    # One shape, one compilation.
    padded = np.zeros((AT_ONCE, starts.shape[1]))
    padded[: len(starts)] = starts
    ends, kernels = _minima(padded, len(starts), model, tolerance)
    return np.asarray(ends)[: len(starts)], np.asarray(kernels)[: len(starts)]


class SaddlePoint(NamedTuple):
    """Where a polished search ended, in noise coordinates (many entries: in kernels), and what lies there."""

    at: Stationary
    described: Description | Flat

    @property
    def stable(self) -> bool:
        return bool(self.at.curvatures[0] > -SAME_BRANCH)


@jax.jit
def _polished(start, model):
    def value_and_gradient(coordinates):
        return jax.value_and_grad(free_energy)(coordinates, model)

    found = find_stationary(value_and_gradient, lambda point: hessian(point, model), start)
    return SaddlePoint(found, describe(found.point, model))


class LinearProblem:
    """A linear network on a task.

    Attributes:
        model: in arrays, on the device, in natural units (`theory.units`).
        images: the sign changes that turn saddle points into others (`theory.symmetry`).
    """

    def __init__(self, model: Model, images: np.ndarray) -> None:
        self.model, self.images = model, images
        self._many = ManyEntries(model, images) if model.entries > MOST_DENSE else None

    def find_saddle_points(self, starts: int, seed: int) -> list[SaddlePoint]:
        """Every distinct one reached from the starts and from unstable directions of those found.

        Besides ``starts`` random ones, the lazy limit and coherent steps.
        """
        if self._many is not None:
            return [self._described(found) for found in self._many.find_saddle_points(starts, seed)]
        rng = np.random.default_rng(seed)
        size = self.model.entries * (self.model.entries + 1) // 2
        amplitudes = np.linspace(0.1, 0.5, starts)
        queue = [np.zeros(size), *self._coherent_starts()]
        queue += [amplitude * rng.normal(size=size) for amplitude in amplitudes]
        found: list[SaddlePoint] = []
        kernels: list[np.ndarray] = []
        while queue:
            batch, queue = queue[:AT_ONCE], queue[AT_ONCE:]
            ends = minimise(np.array(batch), self.model, BEFORE_POLISHING)
            for rough, kernel in zip(*ends, strict=True):
                if any(self._same(kernel, other, ROUGHLY) for other in kernels):
                    continue
                point = self.polish(rough)
                if not np.isfinite(point.at.value):
                    continue
                assert isinstance(point.described, Description)
                kernel = point.described.trajectory.kernel
                if any(self._same(kernel, other, SAME_BRANCH) for other in kernels):
                    continue
                found.append(point)
                kernels.append(kernel)
                if math.hypot(*point.at.gradient) < GRADIENT_TOLERANCE:
                    downhill = np.flatnonzero(point.at.curvatures < -SAME_BRANCH)[:UNSTABLE_DIRECTIONS]
                    queue += [point.at.point + KICK * point.at.directions[:, i] for i in downhill]
        if not found:
            raise RuntimeError(why_unresolved(self.model))
        return found

    def _coherent_starts(self) -> list[np.ndarray]:
        """Where a broken branch is likely that the symmetric one, being stable, does not lead to: steps that correlate.

        As they are, and as they come to rest under stronger targets, where broken branches have no rival.
        """
        if not len(self.images):
            return []
        gram = (1 - COHERENCE) * np.eye(self.model.sites) + COHERENCE
        coherent = pack(np.kron(np.linalg.cholesky(gram), np.eye(self.model.patterns)))
        stronger = self.model.replace(targets=STRONGER * self.model.targets)
        return [coherent, minimise(coherent[None], stronger, BEFORE_POLISHING)[0][0]]

    def follow(self, kernel: np.ndarray, conjugate: np.ndarray) -> SaddlePoint:
        """The stable saddle point downhill from Phi and Phihat (n, n), over unstable ones if they are met."""
        if self._many is not None:
            return self._described(self._many.follow(kernel))
        factor = factorise(np.asarray(preactivation_cov(self.model, kernel)))
        noise = np.linalg.inv(np.eye(len(kernel)) + factor.T @ conjugate @ factor)
        coordinates = pack(np.linalg.cholesky((noise + noise.T) / 2))
        point = self.polish(minimise(coordinates[None], self.model)[0][0])
        for _ in range(UNSTABLE_DIRECTIONS):
            if point.stable:
                break
            kick = KICK * point.at.directions[:, 0]
            ends, _ = minimise(point.at.point + np.array([kick, -kick]), self.model)
            point = self.polish(min(ends, key=self._free_energy))
        return point

    def _described(self, found: Found) -> SaddlePoint:
        assert self._many is not None
        return SaddlePoint(found.at, self._many.flat(found))

    def _free_energy(self, coordinates: np.ndarray) -> float:
        return float(free_energy_and_gradient(coordinates, self.model)[0])

    def polish(self, point: np.ndarray) -> SaddlePoint:
        """The saddle point next to where a descent came to rest."""
        return jax.tree.map(np.asarray, _polished(point, self.model))

    def _same(self, one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
        """Equal kernels (n, n), relative to the largest entry, up to the mirror images that there are."""
        slack = tolerance * np.max(np.abs(one))
        images = [np.ones(self.model.sites), *self.images]
        return any(bool(np.max(np.abs(one - self._image(other, signs))) <= slack) for signs in images)

    def _image(self, kernel: np.ndarray, signs: np.ndarray) -> np.ndarray:
        by_entry = np.repeat(signs, self.model.patterns)
        return kernel * np.outer(by_entry, by_entry)

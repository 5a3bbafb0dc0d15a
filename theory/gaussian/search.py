"""The saddle points of linear networks, to rounding error: minimisation of the free energy over kernels.

Searches within a trust region (`theory.gaussian.trust_region`) from the lazy limit, which keeps to the symmetric
branch, from coherent steps and from random starts, then from every saddle point found along its directions of negative
curvature; where patterns are many, in the few directions that the data act through (`theory.gaussian.data_directions`),
and from what is found there in all. They run on the numbers that the kernel depends on (`theory.gaussian.reduced`),
however many patterns there are, and several together where those are few. A search that does not come to rest soon is
given up, unless it has reached less than all stable points. No second derivatives are ever stored, and nothing is
compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from theory.clock import time_is_up
from theory.gaussian.curvatures import lowest_curvatures
from theory.gaussian.data_directions import data_directions, lifted
from theory.gaussian.kernel_energy import Points
from theory.gaussian.reduced import Reduced
from theory.gaussian.saddle_point import SaddlePoint, by_entry, reduced_kernel
from theory.gaussian.settings import GaussianSettings
from theory.gaussian.starts import coherent_starts, random_starts
from theory.gaussian.trust_region import descend
from theory.model import Model
from theory.units import why_unresolved

# Numbers beyond double precision end a search, which says so; they need no warning.
RESOLVED = np.errstate(over="ignore", divide="ignore", invalid="ignore")


class Found(NamedTuple):
    """A saddle point of the reduced problem.

    Attributes:
        point: where it is, a single one.
        curvatures: the lowest ones, (k,), with steps of the kernel along them, (k, m, m).
        stable: whether none is negative.
    """

    point: Points
    curvatures: np.ndarray
    directions: np.ndarray
    stable: bool


class LinearProblem:
    """A linear network on a task.

    Attributes:
        model: in arrays, in natural units (`theory.units`).
        reduced: the numbers that the kernel depends on.
        settings: of the search.
    """

    def __init__(
        self,
        model: Model,
        images: np.ndarray,
        settings: GaussianSettings = GaussianSettings(),
        directions: np.ndarray | None = None,
    ) -> None:
        """``images`` are the sign changes of sites that turn saddle points into others (`theory.symmetry`).

        With ``directions`` V (P, k) the network is asked for in those directions of patterns alone.
        """
        self.model, self.settings = model, settings
        self.reduced = Reduced.of(model, directions)
        self._images, self._whole = images, directions is None
        self._signs = [np.ones(self.reduced.entries), *map(self._signs_of_numbers, images)]

    @RESOLVED
    def find_saddle_points(self, starts: int, seed: int, kernels: Sequence[np.ndarray] = ()) -> list[SaddlePoint]:
        """Every distinct one reached from the starts and from unstable directions of those found.

        Besides ``starts`` random ones, the lazy limit, coherent steps and ``kernels``, (n, n) each; all but the last
        in few directions of patterns where these are many.
        """
        return [self._by_entry(found) for found in self.find(starts, seed, kernels)]

    @RESOLVED
    def follow(self, kernel: np.ndarray) -> SaddlePoint:
        """The stable saddle point downhill from a kernel (n, n), over unstable ones if they are met."""
        region = self.settings.trust_region
        if not self.reduced.entries:
            return self._by_entry(self._silent())
        start = Points(self.reduced, reduced_kernel(kernel, self.reduced)[None])
        if not np.isfinite(start.value).all():
            start = self._lazy()
        (found,) = self._polished(descend(start, region))
        for _ in range(self.settings.unstable_directions):
            if found.stable or not len(found.directions):
                break
            kick = region.kick * found.directions[0]
            ends = descend(self._kicked(found, np.array([kick, -kick])), region)
            (found,) = self._polished(ends.at([int(np.argmin(ends.value))]))
        return self._by_entry(found)

    def find(self, starts: int, seed: int, kernels: Sequence[np.ndarray] = ()) -> list[Found]:
        """As `find_saddle_points`, in terms of the reduced problem."""
        region = self.settings.trust_region
        if not self.reduced.entries:
            return [self._silent()]
        queue = _Queue(self.reduced, self.settings)
        few = self._in_few_directions(starts, seed)
        if few is not None:
            queue.put(few, region.products)
        if not len(queue):
            few = None
            self._put_starts(queue, starts, seed)
        queue.put(np.array([reduced_kernel(kernel, self.reduced) for kernel in kernels]), region.products)
        found: list[Found] = []
        while len(queue) and not (found and time_is_up()):
            ends, finished = queue.searched()
            if time_is_up() and not found:  # what has been reached, at rest or not
                return self._polished(ends.at([int(np.argmin(ends.value))]))
            new: list[int] = []
            for i in np.flatnonzero(finished).tolist():
                known = [*(each.point.kernel for each in found), *(ends.kernel[j] for j in new)]
                if not self._among(ends.kernel[i], known, self.settings.roughly):
                    new.append(i)
            for point in self._polished(descend(ends.at(new), region), downhill=few is None) if new else []:
                if self._among(point.point.kernel, [each.point.kernel for each in found], self.settings.same):
                    continue
                found.append(point)
                downhill = point.directions[point.curvatures[: len(point.directions)] < -self.settings.same]
                if len(downhill) and few is None:
                    kicks = region.kick * downhill
                    # A few directions hold many phases, and searches there are quick: both ways.
                    kicks = kicks if self._whole else np.concatenate([kicks, *self._other_ways(point, kicks)])
                    queue.put(self._kicked(point, kicks).kernel, region.downhill)
            if not len(queue):
                queue.resume(min((float(each.point.value) for each in found if each.stable), default=np.inf))
            if not len(queue) and few is not None and not any(each.stable for each in found):
                few = None  # the directions were none of those that count
                self._put_starts(queue, starts, seed)
        if not found:
            raise RuntimeError(why_unresolved(self.model))
        return found

    def _other_ways(self, found: Found, kicks: np.ndarray) -> list[np.ndarray]:
        """The opposite kicks (1, m, m) each, but where a mirror image makes the one of the other."""
        kernel = found.point.kernel
        turns = [np.outer(signs, signs) for signs in self._signs[1:]]
        turns = [turn for turn in turns if np.allclose(kernel * turn, kernel, atol=self.settings.same)]
        size = self.settings.same * np.max(np.abs(kicks))
        return [-kick[None] for kick in kicks if not any(np.max(np.abs(kick * t + kick)) < size for t in turns)]

    def _put_starts(self, queue: _Queue, starts: int, seed: int) -> None:
        """Starts that ask for no knowledge of the problem."""
        region = self.settings.trust_region
        first = [self._lazy().kernel, coherent_starts(self.reduced, self.settings, len(self._images) > 0)]
        queue.put(np.concatenate(first), region.products)
        queue.put(random_starts(self.reduced, starts, seed, self.settings), region.random)

    def _in_few_directions(self, starts: int, seed: int) -> np.ndarray | None:
        """Kernels (S, m, m) close to the saddle points, found in few directions of patterns; None where all count."""
        directions = data_directions(self.model, self.reduced, self.settings) if self._whole else None
        if directions is None:
            return None
        region = replace(self.settings.trust_region, stationary=self.settings.nearly)
        by_pattern = directions if self.reduced.patterns is None else self.reduced.patterns @ directions
        few = LinearProblem(self.model, self._images, replace(self.settings, trust_region=region), by_pattern)
        try:
            kernels = [few.reduced.expand(found.point.kernel) for found in few.find(starts, seed)]
        except RuntimeError:  # nothing is found there
            return None
        return np.array([self.reduced.contract(lifted(kernel, directions, self.reduced)) for kernel in kernels])

    def _lazy(self) -> Points:
        return Points(self.reduced, self.reduced.lazy_kernel()[None])

    def _silent(self) -> Found:
        """Of a network that no input reaches."""
        return Found(self._lazy().at(0), np.ones(0), np.zeros((0, 0, 0)), True)

    def _kicked(self, found: Found, steps: np.ndarray) -> Points:
        return found.point.moved(steps, steps @ found.point.kernel_precision)

    def _polished(self, ends: Points, downhill: bool = True) -> list[Found]:
        """What lies where searches have come to rest, and in which directions it goes downhill if that is asked for."""
        settings, region = self.settings, self.settings.trust_region
        polished = []
        for number in range(len(ends)):
            point = ends.at(number)
            try:
                curvatures, directions = lowest_curvatures(point, 1, region.sign, region)
                if downhill and curvatures[0] < 0:
                    number_of = settings.unstable_directions
                    curvatures, directions = lowest_curvatures(point, number_of, region.precise, region)
            except np.linalg.LinAlgError:  # numbers beyond double precision: nothing is known
                curvatures, directions = np.array([-np.inf]), np.zeros((0, *point.kernel.shape))
            polished.append(Found(point, curvatures, directions, bool(curvatures[0] > -settings.same)))
        return polished

    def _by_entry(self, found: Found) -> SaddlePoint:
        try:
            return by_entry(found.point, self.model, found.stable, self.settings.trust_region)
        except np.linalg.LinAlgError as error:
            raise RuntimeError(why_unresolved(self.model)) from error

    def _among(self, kernel: np.ndarray, known: list[np.ndarray], tolerance: float) -> bool:
        """Whether a kernel (m, m) equals a known one, relative to the largest entry, up to mirror images."""
        slack = tolerance * np.max(np.abs(kernel))
        return any(
            bool(np.max(np.abs(kernel - other * np.outer(signs, signs))) <= slack)
            for other in known
            for signs in self._signs
        )

    def _signs_of_numbers(self, signs: np.ndarray) -> np.ndarray:
        """What signs of the sites do to z, (m,)."""
        by_entry = np.repeat(signs, self.reduced.maps.directions)
        basis = self.reduced.basis
        # Each column of L lies at sites of one sign: the prior ties no others.
        return by_entry if basis is None else np.sign(by_entry @ basis**2)


class _Queue:
    """Starts of searches, each with the second derivatives along directions that it may take."""

    def __init__(self, reduced: Reduced, settings: GaussianSettings) -> None:
        self._reduced, self._settings = reduced, settings
        self._waiting: list[tuple[np.ndarray, int]] = []
        self._given_up: list[tuple[float, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, kernels: np.ndarray, most: int) -> None:
        """Starts (S, m, m); those of infinite free energy are left out."""
        if len(kernels):
            finite = np.isfinite(Points(self._reduced, kernels).value)
            self._waiting += [(kernel, most) for kernel in kernels[finite]]

    def searched(self) -> tuple[Points, np.ndarray]:
        """Where the next of them lead, as many as one batch takes, and which have come to rest roughly."""
        region = self._settings.trust_region
        together = max(1, region.together // self._reduced.entries**2)
        batch, self._waiting = self._waiting[:together], self._waiting[together:]
        most = np.array([each for _, each in batch])
        starts = Points(self._reduced, np.array([kernel for kernel, _ in batch]))
        ends = descend(starts, region, region.rough, most)
        finished = (ends.residual <= region.rough) | (most >= region.products)
        self._given_up += [(float(ends.value[i]), ends.kernel[i]) for i in np.flatnonzero(~finished)]
        return ends, finished

    def resume(self, lowest: float) -> None:
        """The search among those given up that has reached least, where that lies below the lowest stable point."""
        self._given_up.sort(key=lambda each: each[0])
        if self._given_up:
            value, kernel = self._given_up.pop(0)
            if value < lowest:
                self._waiting.append((kernel, self._settings.trust_region.products))

r"""Where a network begins to correlate its time steps: critical signals, critical degrees of sharing.

Below them the stable solution of an RNN on a task with the sign symmetry W -> -W is symmetric: all kernels between
steps that the symmetry tells apart vanish, as without any sharing. Three values of a parameter (a factor of the
targets, a degree of sharing) matter:

- instability: the symmetric solution turns unstable against such kernels;
- spinodal: the broken (correlated) solution ceases to exist below it;
- crossing: the two have equal free energy; above it the broken one is the solution.

They coincide where the transition is continuous. Where it is first order, spinodal < crossing < instability, and
between the outer two both phases are locally stable. `theory.closed_form` has the instability of a linear chain.

Source: Bauer et al. 2026 (arXiv 2602.15593).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.optimize

from theory import arguments
from theory.activations import Activation
from theory.family import SIGNAL, Family
from theory.jax_settings import own_settings
from theory.linear.noise_gram import free_energy_and_gradient, hessian
from theory.linear.saddle import minimise
from theory.model import Model, signal_of
from theory.network import SHARED, Network
from theory.nonlinear.broken_branch import follow_broken
from theory.nonlinear.symmetric_branch import SymmetricBranch
from theory.seeds import part
from theory.symmetry import flipped_pairs, sign_changes
from theory.task import Task
from theory.ties import by_entry, by_site, needed_part
from theory.units import TINY, weak_signal

LARGEST_FACTOR = 1e4  # of the targets, relative to those of the size of the prior
SCAN_RATIO = 1.25
FOLLOW_RATIO = 0.99
PRECISION = 1e-5
# A transition whose broken branch reaches less than this below the instability counts as continuous.
HYSTERESIS = 1e-3
BROKEN = 1e-2  # norm of the odd noise coordinates above which a solution counts as broken


@dataclass(frozen=True)
class Thresholds:
    """Where the broken branch ends and where it wins, with standard errors; see `CriticalPoint`."""

    crossing: float
    spinodal: float
    order: str
    crossing_error: float = 0.0
    spinodal_error: float = 0.0


@dataclass(frozen=True)
class CriticalPoint:
    """Thresholds of a parameter: of a signal as factors that multiply the task's targets.

    The broken branch is followed when ``crossing``, ``spinodal`` or ``order`` is first asked for: a second or so for
    linear networks, seconds to minutes for others.

    Attributes:
        instability: of the symmetric solution; infinite where it is stable for all values.
        instability_error: its standard error; 0 where it is exact up to rounding.
        crossing: of the free energies.
        spinodal: the end of the broken branch.
        order: "continuous", "first order" (a broken branch reaches more than 1e-3 of it, and more than twice the
        scatter
            between sets of points, below the instability), or "none": all three are infinite.
        crossing_error, spinodal_error: their standard errors.
    """

    instability: float
    instability_error: float = 0.0
    _follow: Callable[[], Thresholds] = field(
        default=lambda: Thresholds(math.inf, math.inf, "none"), repr=False, compare=False
    )

    @cached_property
    def _thresholds(self) -> Thresholds:
        return self._follow()

    @property
    def crossing(self) -> float:
        return self._thresholds.crossing

    @property
    def spinodal(self) -> float:
        return self._thresholds.spinodal

    @property
    def order(self) -> str:
        return self._thresholds.order

    @property
    def crossing_error(self) -> float:
        return self._thresholds.crossing_error

    @property
    def spinodal_error(self) -> float:
        return self._thresholds.spinodal_error


def critical_signal(
    network: Network, task: Task, seed: int = 0, *, points: int = 16384, randomisations: int = 4
) -> CriticalPoint:
    """The `critical_point` in the signal: factors of the task's targets. Arguments as there."""
    return critical_point(network, task, "signal", seed, points=points, randomisations=randomisations)


def critical_sharing(
    network: Network,
    task: Task,
    weights: str = "recurrent",
    seed: int = 0,
    *,
    points: int = 16384,
    randomisations: int = 4,
) -> CriticalPoint:
    """The `critical_point` in the degree to which weights are shared: below it a network is as if it shared nothing.

    Args:
        network: what ``weights`` have for a degree does not matter.
        weights: whose degree of sharing.
        task, seed, points, randomisations: as for `critical_point`.
    """
    along = f"shared.{weights}"
    return critical_point(network, task, along, seed, points=points, randomisations=randomisations)


def critical_point(
    network: Network, task: Task, along: str, seed: int = 0, *, points: int = 16384, randomisations: int = 4
) -> CriticalPoint:
    r"""The `CriticalPoint` of a network with an odd activation on a task, in one parameter.

    The instability is where the largest eigenvalue of the stability map (`theory.nonlinear.decoupling`; linear: the
    lowest curvature) passes through zero against kernels between sites that a symmetry tells apart. It is exact as long
    as at most three entries of the symmetric branch are tied to one another: three patterns in endpoint tasks of any
    depth. The other thresholds follow from the broken branch, where all entries are tied.

    Args:
        network: its width does not matter.
        task: any on which the sign symmetry W -> -W holds (`theory.has_sign_symmetry`).
        along: the parameter: "signal" (a factor of the targets) or a degree of sharing ("shared.recurrent" and so on).
            Correlations grow with these. With gains, noise or leak they may grow and fall again: see
            `theory.continuation`.
        seed: of the points.
        points: size of each set of points, where more than three entries are tied; not for linear networks.
        randomisations: how many independent sets there, at least 2.

    Raises:
        ValueError: if there is no symmetric branch: the sign symmetry does not hold, or all targets are zero.
        RuntimeError: if the symmetric branch cannot be followed up to the instability; from ``crossing``, ``spinodal``
            and ``order``, if the broken branch is lost before it is known how it ends.
    """
    family = Family(network, task, along)
    task.require_kernel_memory(network.layers)
    if not (along == SIGNAL or along.startswith(SHARED)):
        raise ValueError(f"along is {along!r}; allowed are {SIGNAL!r} and degrees of sharing, {SHARED + 'recurrent'!r}")
    seed = arguments.seed("seed", seed)
    points = arguments.integer("points", points, 1024)
    randomisations = arguments.integer("randomisations", randomisations, 2)
    if not np.any(task.supervised_targets):
        raise ValueError("task has only zero targets; no factor makes a signal of them")

    # float64 within these calls only, as everywhere in the theory.
    with own_settings():
        model = needed_part(family.model(1.0))[0]
    if network.scaling == "standard" or not _ties_sites(model):
        return CriticalPoint(math.inf)
    if not network.phi.odd or not len(sign_changes(model)):
        raise ValueError(
            "network on this task has no symmetric branch: it needs an odd activation, and no leak, bias, input or "
            "readout that ties what the recurrent weights would tie (inputs and supervised steps each of one parity "
            "where U and V are shared)"
        )
    model_at = signal_of(model) if along == SIGNAL else lambda value: needed_part(family.model(value))[0]
    if network.activation == "linear":
        return _linear(model_at, family.largest)
    return _nonlinear(model_at, network.phi, along == SIGNAL, family.largest, seed, points, randomisations)


def _ties_sites(model: Model) -> bool:
    """Whether weights between neurons are correlated between any two sites."""
    between = ~np.eye(model.sites, dtype=bool)
    return any(bool(np.any(by_site(model, weights) & between)) for weights in model.weights)


def _linear(model_at: Callable[[float], Model], largest: float) -> CriticalPoint:
    with own_settings():
        branch = _Branches(model_at, largest)
        instability = branch.find_instability()
    if math.isinf(instability):
        return CriticalPoint(instability)

    def follow() -> Thresholds:
        with own_settings():
            path = branch.follow_broken(instability)
            spinodal = path[-1][0]
            if spinodal > (1 - HYSTERESIS) * instability:
                return Thresholds(instability, instability, "continuous")
            return Thresholds(branch.find_crossing(path, instability), spinodal, "first order")

    return CriticalPoint(instability, 0.0, follow)


def _nonlinear(
    model_at: Callable[[float], Model],
    phi: Activation,
    signal: bool,
    largest: float,
    seed: int,
    points: int,
    randomisations: int,
) -> CriticalPoint:
    with own_settings():
        symmetric = SymmetricBranch(model_at, phi, points, seed, signal, largest)
        seeds = [part(seed, number) for number in range(1 if symmetric.exact else randomisations)]
        found = [symmetric.find_instability(each) for each in seeds]
    instability, error = _mean_and_error(found)
    if math.isinf(instability):
        return CriticalPoint(instability)

    def follow() -> Thresholds:
        with own_settings():
            paths = [follow_broken(symmetric, found[0], points, seeds[0])]
            if not paths[0].exact:
                for number in range(1, randomisations):
                    own = found[number % len(found)]
                    paths.append(follow_broken(symmetric, own, points, part(seed, number)))
        ends = np.array([path.thresholds() for path in paths])
        (spinodal, spinodal_error), (crossing, crossing_error) = (_mean_and_error(column) for column in ends.T)
        # The smallest factor of a path that scatters lies too low by about the scatter of one path.
        scatter = math.sqrt(len(paths)) * math.hypot(error, spinodal_error)
        if spinodal > instability * (1 - HYSTERESIS) - 2 * scatter:
            return Thresholds(instability, instability, "continuous", error, error)
        return Thresholds(crossing, spinodal, "first order", crossing_error, spinodal_error)

    return CriticalPoint(instability, error, follow)


def _mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    mean = float(np.mean(values))
    if len(values) == 1 or math.isinf(mean):
        return mean, 0.0
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


class _Branches:
    """The symmetric and the broken branch of one family, in the coordinates of `theory.linear.noise_gram`.

    What is called a factor is the value of its parameter.
    """

    def __init__(self, model_at: Callable[[float], Model], largest: float):
        self.model_at, self.largest = model_at, largest
        model = model_at(1.0)
        odd = by_entry(model, flipped_pairs(sign_changes(model), model.sites))[np.tril_indices(model.entries, -1)]
        self.odd = np.concatenate([odd, np.zeros(model.entries, bool)])

    def symmetric(self, factor: float) -> np.ndarray:
        """The symmetric solution: the descent from the lazy limit keeps to it, its odd gradients being exact zeros."""
        return self._minimise(np.zeros(self.odd.size), factor)

    def _minimise(self, start: np.ndarray, factor: float) -> np.ndarray:
        return minimise(start[None], self.model_at(factor))[0][0]

    def softest(self, factor: float) -> tuple[float, np.ndarray]:
        """Lowest curvature of the symmetric solution against odd coordinates, and its direction."""
        curvature = np.asarray(hessian(self.symmetric(factor), self.model_at(factor)))
        values, vectors = np.linalg.eigh(curvature[np.ix_(self.odd, self.odd)])
        direction = np.zeros(self.odd.size)
        direction[self.odd] = vectors[:, 0]
        return float(values[0]), direction

    def find_instability(self) -> float:
        """The factor at which `softest` crosses zero; infinite if it never does."""
        if not self.odd.any():
            return math.inf
        if math.isfinite(self.largest):  # nothing is tied at zero
            if self.softest(self.largest)[0] > 0:
                return math.inf
            return scipy.optimize.brentq(lambda value: self.softest(value)[0], 0.0, self.largest, xtol=PRECISION / 10)
        above = below = first = weak_signal(self.model_at(1.0))
        while self.softest(above)[0] > 0:
            below, above = above, above * SCAN_RATIO
            if above > LARGEST_FACTOR * first:
                return math.inf
        while self.softest(below)[0] <= 0:
            above, below = below, below / SCAN_RATIO
        return scipy.optimize.brentq(
            lambda factor: self.softest(factor)[0], below, above, xtol=TINY, rtol=PRECISION / 10
        )

    def follow_broken(self, instability: float) -> list[tuple[float, np.ndarray]]:
        """The broken branch from just above the instability down to its end, as (factor, coordinates)."""
        factor = min(instability * (1 + 2 * HYSTERESIS), self.largest)
        start = self.symmetric(factor) + 0.3 * self.softest(factor)[1]
        path = [(factor, self._minimise(start, factor))]
        ratio = FOLLOW_RATIO
        while 1 - ratio > PRECISION:
            trial = path[-1][0] * ratio
            coordinates = self._minimise(path[-1][1], trial)
            if np.linalg.norm(coordinates[self.odd]) > BROKEN:
                path.append((trial, coordinates))
            else:
                ratio = 1 - (1 - ratio) / 2
        return path

    def find_crossing(self, path: list[tuple[float, np.ndarray]], instability: float) -> float:
        """The factor at which the broken branch's free energy meets the symmetric one's."""

        def excess(factor: float) -> float:
            model = self.model_at(factor)
            start = min((point for point in path if point[0] >= factor), key=lambda point: point[0])[1]
            broken = self._minimise(start, factor)
            both = (broken, self.symmetric(factor))
            energies = [float(free_energy_and_gradient(c, model)[0]) for c in both]
            return energies[0] - energies[1]

        return scipy.optimize.brentq(excess, path[-1][0], instability, xtol=TINY, rtol=PRECISION)

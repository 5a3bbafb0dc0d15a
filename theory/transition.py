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

from theory import arguments
from theory.activations import Activation
from theory.family import SIGNAL, Family
from theory.jax_settings import own_settings
from theory.model import Model, signal_of
from theory.network import Network
from theory.saddle import check_settings
from theory.search.branch import Options
from theory.search.broken_branch import follow_broken
from theory.search.problem import require_roots
from theory.search.settings import DEFAULT, Settings
from theory.search.symmetric_branch import SymmetricBranch
from theory.search.symmetry_breaking import decoupled_model
from theory.seeds import part
from theory.sharing import SHARED
from theory.symmetry import sign_changes
from theory.task import Task
from theory.ties import by_site, needed_part


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
            scatter between sets of points, below the instability), or "none": all three are infinite.
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
    network: Network,
    task: Task,
    seed: int = 0,
    *,
    points: int | None = None,
    randomisations: int | None = None,
    settings: Settings = DEFAULT,
) -> CriticalPoint:
    """The `critical_point` in the signal: factors of the task's targets. Arguments as there."""
    return critical_point(
        network, task, "signal", seed, points=points, randomisations=randomisations, settings=settings
    )


def critical_sharing(
    network: Network,
    task: Task,
    weights: str = "recurrent",
    seed: int = 0,
    *,
    points: int | None = None,
    randomisations: int | None = None,
    settings: Settings = DEFAULT,
) -> CriticalPoint:
    """The `critical_point` in the degree to which weights are shared: below it a network is as if it shared nothing.

    Args:
        network: what ``weights`` have for a degree does not matter.
        weights: whose degree of sharing.
        task, seed, points, randomisations, settings: as for `critical_point`.
    """
    along = f"shared.{weights}"
    return critical_point(network, task, along, seed, points=points, randomisations=randomisations, settings=settings)


def critical_point(
    network: Network,
    task: Task,
    along: str,
    seed: int = 0,
    *,
    points: int | None = None,
    randomisations: int | None = None,
    settings: Settings = DEFAULT,
) -> CriticalPoint:
    r"""The `CriticalPoint` of a network with an odd activation on a task, in one parameter.

    The instability is where the largest eigenvalue of the stability map (`theory.search.symmetry_breaking`) passes
    through 1 for kernels between sites that a symmetry tells apart. It is exact as long
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
        settings: the numbers that steer the search.

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
    check_settings(network, task, points=points, randomisations=randomisations)
    arguments.instance("settings", settings, Settings)
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
    if not network.phi.linear:
        with own_settings():
            require_roots(decoupled_model(model), settings.branches)
    sets = settings.sets
    options = Options(points or sets.first, randomisations or sets.randomisations, seed, settings=settings)
    return _followed(model_at, network.phi, along == SIGNAL, family.largest, options)


def _ties_sites(model: Model) -> bool:
    """Whether weights between neurons are correlated between any two sites."""
    between = ~np.eye(model.sites, dtype=bool)
    return any(bool(np.any(by_site(model, weights) & between)) for weights in model.weights)


def _followed(
    model_at: Callable[[float], Model], phi: Activation, signal: bool, largest: float, options: Options
) -> CriticalPoint:
    points, randomisations, seed, paths = options.points, options.randomisations, options.seed, options.settings.paths
    with own_settings():
        symmetric = SymmetricBranch(model_at, phi, points, seed, signal, largest, options.settings)
        seeds = [part(seed, number) for number in range(1 if symmetric.exact else randomisations)]
        found = [symmetric.find_instability(each) for each in seeds]
    instability, error = _mean_and_error(found)
    if math.isinf(instability):
        return CriticalPoint(instability)

    def follow() -> Thresholds:
        with own_settings():
            ways = [follow_broken(symmetric, found[0], points, seeds[0])]
            if not ways[0].exact:
                for number in range(1, randomisations):
                    own = found[number % len(found)]
                    ways.append(follow_broken(symmetric, own, points, part(seed, number)))
        ends = np.array([way.thresholds() for way in ways])
        (spinodal, spinodal_error), (crossing, crossing_error) = (_mean_and_error(column) for column in ends.T)
        # The smallest factor of a path that scatters lies too low by about the scatter of one path.
        scatter = math.sqrt(len(ways)) * math.hypot(error, spinodal_error)
        if spinodal > instability * (1 - paths.hysteresis) - 2 * scatter:
            return Thresholds(instability, instability, "continuous", error, error)
        return Thresholds(crossing, spinodal, "first order", crossing_error, spinodal_error)

    return CriticalPoint(instability, error, follow)


def _mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    mean = float(np.mean(values))
    if len(values) == 1 or math.isinf(mean):
        return mean, 0.0
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))

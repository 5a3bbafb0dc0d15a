r"""Where the recurrent network begins to correlate its time steps: the critical signal of a task.

Below it the stable solution of an RNN on a task with the sign symmetry W -> -W is symmetric: all odd-offset cross-time
kernels vanish. Three factors of the targets matter:

- instability: the symmetric solution turns unstable against odd-offset kernels;
- spinodal: the broken (correlated) solution ceases to exist below it;
- crossing: the two have equal free energy; above it the broken one is the solution.

They coincide where the transition is continuous. Where it is first order, spinodal < crossing < instability, and
between the outer two both phases are locally stable. For a linear chain of T steps the instability has a closed form.

Sources: Bauer et al. 2026 (arXiv 2602.15593); DESIGN.md section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import scipy.optimize

from theory.covariance import Terms, covariance_terms
from theory.network import Network
from theory.noise_gram import free_energy_and_gradient, hessian
from theory.saddle import minimise
from theory.symmetry import has_sign_symmetry
from theory.task import Task

LARGEST_FACTOR = 1e4
SCAN_RATIO = 1.25
FOLLOW_RATIO = 0.99
PRECISION = 1e-5
# A transition whose broken branch reaches less than this below the instability counts as continuous.
HYSTERESIS = 1e-3
BROKEN = 1e-2  # norm of the odd noise coordinates above which a solution counts as broken


@dataclass(frozen=True)
class CriticalSignal:
    """Thresholds of a task as factors that multiply its targets.

    Attributes:
        instability: of the symmetric solution.
        crossing: of the free energies.
        spinodal: the end of the broken branch.
        order: "continuous", "first order" (a broken branch reaches more than 1e-3 below the instability), or "none":
            all three are infinite.
    """

    instability: float
    crossing: float
    spinodal: float
    order: str


def critical_signal(network: Network, task: Task) -> CriticalSignal:
    """The `CriticalSignal` of a linear network on a task.

    Raises:
        ValueError: if there is no symmetric branch: the sign symmetry does not hold, or all targets are zero.
        NotImplementedError: if the activation is odd but not linear.
    """
    nothing = CriticalSignal(math.inf, math.inf, math.inf, "none")
    if not np.any(task.supervised_targets):
        raise ValueError("task has only zero targets; no factor makes a signal of them")
    if "recurrent" not in network.shared or network.scaling == "standard":
        return nothing
    if not has_sign_symmetry(network, task):
        raise ValueError(
            "network on this task has no symmetric branch: it needs an odd activation, and inputs and supervised steps "
            "each of one parity where U and V are shared"
        )
    if network.activation != "linear":
        raise NotImplementedError(
            f"theory.critical_signal handles activation 'linear' only so far, not {network.activation!r}"
        )
    # float64 within this call only.
    with jax.enable_x64(True):
        branch = _Branches(network, task)
        instability = branch.find_instability()
        if math.isinf(instability):
            return nothing
        path = branch.follow_broken(instability)
        spinodal = path[-1][0]
        if spinodal > (1 - HYSTERESIS) * instability:
            return CriticalSignal(instability, instability, instability, "continuous")
        return CriticalSignal(instability, branch.find_crossing(path, instability), spinodal, "first order")


class _Branches:
    """The symmetric and the broken branch of one problem, in the coordinates of `theory.noise_gram`."""

    def __init__(self, network: Network, task: Task):
        self.patterns = task.patterns
        self.terms_at: Callable[[float], Terms] = lambda factor: jax.tree.map(
            jax.numpy.asarray, covariance_terms(network, task.scaled(factor))
        )
        rows, columns = np.tril_indices(task.entries, -1)
        odd = (rows // task.patterns - columns // task.patterns) % 2 == 1
        self.odd = np.concatenate([odd, np.zeros(task.entries, bool)])

    def symmetric(self, factor: float) -> np.ndarray:
        """The symmetric solution: the descent from the lazy limit keeps to it, its odd gradients being exact zeros."""
        return minimise(np.zeros(self.odd.size), self.terms_at(factor), self.patterns)

    def softest(self, factor: float) -> tuple[float, np.ndarray]:
        """Lowest curvature of the symmetric solution against odd coordinates, and its direction."""
        curvature = np.asarray(hessian(self.symmetric(factor), self.terms_at(factor), self.patterns))
        values, vectors = np.linalg.eigh(curvature[np.ix_(self.odd, self.odd)])
        direction = np.zeros(self.odd.size)
        direction[self.odd] = vectors[:, 0]
        return float(values[0]), direction

    def find_instability(self) -> float:
        """The factor at which `softest` crosses zero; infinite if it never does."""
        if not self.odd.any():
            return math.inf
        above = below = 1.0
        while self.softest(above)[0] > 0:
            below, above = above, above * SCAN_RATIO
            if above > LARGEST_FACTOR:
                return math.inf
        while self.softest(below)[0] <= 0:
            above, below = below, below / SCAN_RATIO
        return scipy.optimize.brentq(lambda factor: self.softest(factor)[0], below, above, rtol=PRECISION / 10)

    def follow_broken(self, instability: float) -> list[tuple[float, np.ndarray]]:
        """The broken branch from just above the instability down to its end, as (factor, coordinates)."""
        factor = instability * (1 + 2 * HYSTERESIS)
        start = self.symmetric(factor) + 0.3 * self.softest(factor)[1]
        path = [(factor, minimise(start, self.terms_at(factor), self.patterns))]
        ratio = FOLLOW_RATIO
        while 1 - ratio > PRECISION:
            trial = path[-1][0] * ratio
            coordinates = minimise(path[-1][1], self.terms_at(trial), self.patterns)
            if np.linalg.norm(coordinates[self.odd]) > BROKEN:
                path.append((trial, coordinates))
            else:
                ratio = 1 - (1 - ratio) / 2
        return path

    def find_crossing(self, path: list[tuple[float, np.ndarray]], instability: float) -> float:
        """The factor at which the broken branch's free energy meets the symmetric one's."""

        def excess(factor: float) -> float:
            terms = self.terms_at(factor)
            start = min((point for point in path if point[0] >= factor), key=lambda point: point[0])[1]
            broken = minimise(start, terms, self.patterns)
            both = (broken, self.symmetric(factor))
            energies = [float(free_energy_and_gradient(c, terms, self.patterns)[0]) for c in both]
            return energies[0] - energies[1]

        return scipy.optimize.brentq(excess, path[-1][0], instability, rtol=PRECISION)

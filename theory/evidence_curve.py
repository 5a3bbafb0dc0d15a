r"""The log evidence of a network as a function of some of its numbers, with slopes and curvature.

    L(theta) = sum over tasks of  ln sum_b p_b(y | theta),        b: the stable saddle points that were found

with p_b as in `theory.evidence` ("full"), or L = - N sum F ("leading"). A positive number enters as its logarithm,
a number of the unit interval (a degree of sharing, the leak) as it is: these are the coordinates u. The slope is

    dL/du = - N dF/du + d(L + N F)/du ,

the first part by the envelope theorem (`theory.sensitivity`), exact; the second, of order one, by differences of the
second order. In standard scaling, where a solution is not a saddle point, all is by differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from theory.evidence import log_evidence, mirror_images
from theory.network import Network
from theory.parameters import network_at
from theory.saddle import solve
from theory.sensitivity import free_energy_slopes
from theory.sharing import SHARED
from theory.solution import Solution
from theory.task import Task

# Steps of the differences, in u. The terms of order one change on scales of order one. Smaller steps lose digits to
# the residual of a solution (1e-9 of linear networks) or to the scatter of neurons (others).
LINEAR_STEP, SAMPLED_STEP = 0.02, 0.1
COMPETING = 3.0  # of the log evidence: a phase that holds more than 1/20 of the posterior competes


def in_unit_interval(name: str) -> bool:
    """Whether a parameter lies between 0 and 1 by definition."""
    return name == "leak" or name.startswith(SHARED)


class Point(NamedTuple):
    """What was found at one u.

    Attributes:
        value: L, minus infinity where there is no stable solution or no Gaussian law around it.
        leading: -N sum F (standard scaling: -sum F).
        error: standard error of the value.
        phases: for each task how many mirror images the solution has, and how many phases compete with it.
        solutions: for each task the solution of smallest free energy.
        trouble: why the value is minus infinity; empty where it is not.
    """

    value: float
    leading: float = 0.0
    error: float = 0.0
    phases: tuple[tuple[int, int], ...] = ()
    solutions: tuple[Solution, ...] = ()
    trouble: str = ""


class EvidenceCurve:
    """L(u) of a network on tasks.

    Args:
        network: with the values of everything that is no parameter.
        tasks: the log evidences of which are added.
        names: of the parameters.
        bounds: least and largest u, (k, 2).
        leading: whether to leave out all but -N F.
        settings: further arguments of `theory.solve`.
    """

    def __init__(
        self,
        network: Network,
        tasks: Sequence[Task],
        names: Sequence[str],
        bounds: np.ndarray,
        leading: bool,
        settings: Mapping[str, Any],
    ) -> None:
        self.network, self.tasks, self.names = network, tuple(tasks), tuple(names)
        self.bounds, self.leading = bounds, leading
        self._settings = dict(settings)
        self._logarithmic = np.array([not in_unit_interval(name) for name in names])
        self._found: dict[tuple[float, ...], Point] = {}
        self._slopes: dict[tuple[float, ...], np.ndarray] = {}
        lazy = network.scaling == "standard"
        self.width = 1 if lazy else network.width
        self._by_envelope = not lazy
        self.step = LINEAR_STEP if network.activation == "linear" else SAMPLED_STEP

    @property
    def evaluations(self) -> int:
        """How many different u were looked at."""
        return len(self._found)

    def values(self, at: np.ndarray) -> dict[str, float]:
        """theta by name; the ends of the range exactly."""
        inside = np.clip(at, *self.bounds.T)
        theta = np.where(self._logarithmic, np.exp(np.where(self._logarithmic, inside, 0.0)), inside)
        return dict(zip(self.names, map(float, theta), strict=True))

    def coordinates(self, values: Mapping[str, float]) -> np.ndarray:
        """u of theta."""
        pairs = zip(self.names, self._logarithmic, strict=True)
        return np.array([np.log(values[name]) if logarithmic else values[name] for name, logarithmic in pairs])

    def by_parameter(self, at: np.ndarray) -> np.ndarray:
        """d theta / du, (k,)."""
        return np.where(self._logarithmic, list(self.values(at).values()), 1.0)

    def at(self, at: np.ndarray) -> Point:
        """What is found at u; remembered."""
        key = tuple(np.round(np.clip(at, *self.bounds.T), 12))
        if key not in self._found:
            self._found[key] = self._evaluate(np.array(key))
        return self._found[key]

    def _evaluate(self, at: np.ndarray) -> Point:
        network = network_at(self.network, self.values(at))
        value, leading, variance = 0.0, 0.0, 0.0
        phases, solutions = [], []
        try:
            for task in self.tasks:
                solution = solve(network, task, progress=False, **self._settings)
                solutions.append(solution)
                if not solution.stable:
                    return Point(-np.inf, trouble=f"no stable saddle point was found: {solution.message}")
                stable = [one for one in solution.branches if one.stable] or [solution]
                first = -self.width * solution.free_energy
                leading += first
                if self.leading:
                    value += first
                    variance += (self.width * solution.free_energy_error) ** 2
                    logs = np.array([-self.width * one.free_energy for one in stable])
                else:
                    found = [log_evidence(one) for one in stable]
                    logs = np.array([one.log_evidence for one in found])
                    value += float(np.logaddexp.reduce(logs))
                    variance += found[int(np.argmax(logs))].standard_error ** 2
                behind = logs.max() - logs
                # Images under a relabelling of patterns are listed too; they are no other phase.
                competing = int(np.sum((behind > 1e-6) & (behind < COMPETING)))
                phases.append((0 if solution.kind == "lazy limit" else mirror_images(solution), competing))
        except (RuntimeError, ValueError) as error:  # nothing found, or no Gaussian law around it
            return Point(-np.inf, trouble=str(error))
        return Point(value, leading, float(np.sqrt(variance)), tuple(phases), tuple(solutions))

    def slope(self, at: np.ndarray) -> np.ndarray:
        """dL/du, (k,)."""
        exact = self._leading_slope(at)
        if self.leading and self._by_envelope:
            return exact
        return exact + np.array([self._differences(at, k)[0] for k in range(len(self.names))])

    def curvature(self, at: np.ndarray, free: Sequence[int]) -> np.ndarray:
        """d^2L/du du of the parameters at these places, (free, free)."""
        size = len(free)
        hessian = np.zeros((size, size))
        unit = np.eye(len(at))
        if self._by_envelope:
            here = self._leading_slope(at)
            for row, k in enumerate(free):
                near, far = self._offsets(at, k)
                slopes = [self._leading_slope(at + offset * unit[k]) for offset in (near, far)]
                hessian[row] += _derivatives(near, far, here, *slopes)[0][list(free)]
            hessian = (hessian + hessian.T) / 2
        if self.leading and self._by_envelope:
            return hessian
        for row, k in enumerate(free):
            hessian[row, row] += self._differences(at, k)[1]
            for column in range(row):
                mixed = 0.0
                for mine, other in zip(self._offsets(at, k), self._offsets(at, free[column]), strict=True):
                    one, two = mine * unit[k], other * unit[free[column]]
                    corners = self._rest(at + one + two) - self._rest(at + one) - self._rest(at + two) + self._rest(at)
                    mixed += corners / (mine * other) / 2
                hessian[row, column] += mixed
                hessian[column, row] += mixed
        return hessian

    def _leading_slope(self, at: np.ndarray) -> np.ndarray:
        """-N sum dF/du; zero where everything is by differences, or nothing was found."""
        point = self.at(at)
        if not self._by_envelope or not point.solutions:
            return np.zeros(len(self.names))
        key = tuple(np.round(at, 12))
        if key not in self._slopes:
            slopes = [free_energy_slopes(solution, self.names)[0] for solution in point.solutions]
            self._slopes[key] = -self.width * np.sum(slopes, axis=0) * self.by_parameter(at)
        return self._slopes[key]

    def _rest(self, at: np.ndarray) -> float:
        """What of L the envelope theorem does not cover."""
        point = self.at(at)
        return point.value - point.leading if self._by_envelope else point.value

    def _differences(self, at: np.ndarray, k: int) -> tuple[float, float]:
        """First and second derivative of the rest by coordinate k."""
        near, far = self._offsets(at, k)
        unit = np.eye(len(at))[k]
        rests = [self._rest(at + offset * unit) for offset in (0.0, near, far)]
        first, second = _derivatives(near, far, *rests) if np.isfinite(rests).all() else (0.0, 0.0)
        return float(first), float(second)

    def _offsets(self, at: np.ndarray, k: int) -> tuple[float, float]:
        """Two steps along coordinate k that stay within the bounds: to both sides, or inward from an end."""
        low, high = self.bounds[k]
        step = min(self.step, (high - low) / 4)
        if at[k] - step < low:
            return step, 2 * step
        if at[k] + step > high:
            return -step, -2 * step
        return -step, step


def _derivatives(near: float, far: float, here: Any, at_near: Any, at_far: Any) -> tuple[Any, Any]:
    """First and second derivative at 0 of the parabola through values at 0, ``near`` and ``far``."""
    one, two = (at_near - here) / near, (at_far - here) / far
    second = 2 * (two - one) / (far - near)
    return one - second * near / 2, second

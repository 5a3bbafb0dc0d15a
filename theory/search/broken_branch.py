r"""The broken branch of a network with an odd activation: a parameter f as a function of how much it is broken.

Where the symmetric branch turns unstable, at a value f_c of a parameter of the model (a factor of the targets, a degree
of sharing), a branch of solutions starts in which sites are correlated that a symmetry tells apart. It may lead to
larger values (a continuous transition) or first back to smaller ones, up to a fold, the spinodal. To go around the fold
the amplitude a of the correlations is prescribed and the parameter solved for:

    the stationarity equations (`theory.search.stationarity`) at f,     v . Phi = a,

v being the direction in which the symmetric branch is softest. The free energy difference to the symmetric branch
follows along the path without another integral, since at a stationary point F depends on f at fixed law only:

    dF/df = d/df [ 1/2 sum(C_f[Phi] o Q) + data term_f(Phi) ],
    Delta F(a) = int_0^a (dF/df|_broken - dF/df|_symmetric) (df/da) da.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import jax.numpy as jnp
import numpy as np
import scipy.interpolate
import scipy.optimize

from theory.kernels import scale_of
from theory.laws.grid import ROUGHER
from theory.model import Model, data_term, preactivation_cov
from theory.search.problem import LostError, Problem, State, make_laws, make_problem, response_on_laws
from theory.search.roots import solve_root
from theory.search.stationarity import (
    Root,
    pack,
    root_of,
    unpack,
    violation,
    violation_derivative,
    violation_slope,
)
from theory.search.symmetric_branch import SymmetricBranch
from theory.search.symmetry_breaking import Softest
from theory.seeds import part

FINE = 4001  # nodes of splines between the steps, whose own error is far larger


@dataclass(frozen=True)
class BrokenPath:
    """The broken branch from the instability on.

    Attributes:
        amplitudes: a, from 0.
        factors: values of the parameter, where the branch has that amplitude.
        slopes: dF/df of the broken branch less that of the symmetric one.
        exact: whether no law has a statistical error.
    """

    amplitudes: np.ndarray
    factors: np.ndarray
    slopes: np.ndarray
    exact: bool

    def thresholds(self) -> tuple[float, float]:
        """Spinodal and crossing; both the instability where the path never leads below it.

        Raises:
            RuntimeError: if the path ends before the free energies cross.
        """
        if len(self.amplitudes) == 1:
            raise RuntimeError("the broken branch was lost right at the instability; use more points")
        if np.all(self.factors[1:] > self.factors[0]):
            return self.factors[0], self.factors[0]
        # Even in a: the mirror image of the path goes along.
        mirrored = np.concatenate([-self.amplitudes[:0:-1], self.amplitudes])
        factor = scipy.interpolate.CubicSpline(mirrored, np.concatenate([self.factors[:0:-1], self.factors]))
        slope = scipy.interpolate.CubicSpline(mirrored, np.concatenate([self.slopes[:0:-1], self.slopes]))
        fine = np.linspace(0, self.amplitudes[-1], FINE)
        turns = factor.derivative().roots(extrapolate=False)
        fold = min((turn for turn in turns if turn > 0), key=factor, default=self.amplitudes[-1])
        excess = scipy.interpolate.CubicSpline(fine, slope(fine) * factor(fine, 1)).antiderivative()
        beyond = fine[(excess(fine) < 0) & (fine > fold)]
        if not beyond.size:
            raise RuntimeError(
                f"the broken branch was lost at {self.factors[-1]:.4g}, before its free energy met that of the "
                "symmetric one; use more points"
            )
        crossing = (
            scipy.optimize.brentq(excess, max(fold, beyond[0] - fine[1]), beyond[0]) if excess(fold) > 0 else fold
        )
        return float(factor(fold)), float(factor(crossing))


@dataclass(frozen=True)
class Step:
    """A solution on the broken branch, its amplitude a, the value of the parameter, and Q (n, n)."""

    amplitude: float
    factor: float
    root: Root
    response: np.ndarray


def walk(
    problem: Problem, model_at: Callable[[float], Model], root: Root, softest: Softest, factor: float, seed: int
) -> Iterator[Step]:
    """The broken branch step by step from amplitude zero on, until it cannot be followed.

    Args:
        problem: with its weights whole.
        model_at: the model at a value of the parameter.
        root: solution of the decoupled problem, at the instability or a little above.
        softest: the perturbation that it yields to.
        factor: the parameter there.
        seed: of the draws.
    """
    scale = scale_of(root.kernel)
    direction = pack(softest.kernel, softest.conjugate, scale, problem.layout)
    half = len(direction) // 2
    direction = direction / np.linalg.norm(direction[:half])
    path = _Path(problem, model_at, scale, np.concatenate([direction[:half], np.zeros(half)]))
    before = (0.0, np.append(pack(root.kernel, root.conjugate, scale, problem.layout), factor))
    paths = problem.settings.paths
    tangent = np.append(direction, 0.0)
    step = paths.first_amplitude if problem.exact else paths.first_amplitude_of_draws
    largest = paths.largest_step if problem.exact else paths.largest_step_of_draws
    for number in range(1, paths.steps):
        amplitude = before[0] + step
        found = path.solve(amplitude, before[1] + step * tangent, part(seed, number))
        if found is None:
            step /= 2
            if step < paths.least_step:
                return
            continue
        unknowns, solution, response = found
        yield Step(amplitude, float(unknowns[-1]), solution, response)
        tangent = (unknowns - before[1]) / step
        before, step = (amplitude, unknowns), min(paths.amplitude_ratio * step, largest)


def follow_broken(symmetric: SymmetricBranch, instability: float, points: int, seed: int) -> BrokenPath:
    """The `BrokenPath` from the instability of the symmetric branch, on one sequence of sets of laws."""
    model_at, settings = symmetric.model_at, symmetric.settings
    state, laws, slope = symmetric.laws(instability, seed)
    root = symmetric.root(instability, state, laws, slope)
    softest = symmetric.softest(instability, root, laws)
    problem = make_problem(model_at(instability), symmetric.problem.phi, root.kernel, points, settings)
    amplitudes, factors, slopes = [0.0], [instability], [0.0]
    relative = settings.paths.difference
    for step in walk(problem, model_at, root, softest, instability, seed):
        if step.factor > symmetric.largest:
            break
        there = symmetric.laws(step.factor, seed)
        unbroken = symmetric.root(step.factor, *there)
        response = response_on_laws(symmetric.problem_at(step.factor), unbroken, there[1])
        amplitudes.append(step.amplitude)
        factors.append(step.factor)
        slopes.append(
            free_energy_slope(model_at, step.factor, step.root.kernel, step.response, relative)
            - free_energy_slope(model_at, step.factor, unbroken.kernel, response, relative)
        )
        if step.factor > settings.paths.past * instability:
            break
    return BrokenPath(np.array(amplitudes), np.array(factors), np.array(slopes), problem.exact)


class _Path:
    """The stationarity equations with the parameter as one more unknown, the last."""

    def __init__(
        self, problem: Problem, model_at: Callable[[float], Model], scale: np.ndarray, amplitude_of: np.ndarray
    ) -> None:
        self.problem, self.scale, self.amplitude_of = problem, scale, amplitude_of
        # The equations ask for one value many times.
        self.model_at = lru_cache(maxsize=8)(model_at)

    def solve(self, amplitude: float, guess: np.ndarray, seed: int) -> tuple[np.ndarray, Root, np.ndarray] | None:
        """Unknowns, root and Q at an amplitude, or None."""
        settings = self.problem.settings
        for redraw in range(settings.paths.redraws):
            kernel, conjugate = map(np.asarray, unpack(jnp.asarray(guess[:-1]), self.scale, self.problem.layout))
            problem = self.problem.with_model(self.model_at(float(guess[-1])))
            try:
                laws = make_laws(problem, State(kernel, conjugate), part(seed, redraw), ROUGHER)
            except LostError:
                return None
            solution, value, size = solve_root(
                partial(self._evaluate, amplitude=amplitude, laws=laws),
                guess,
                self._slope(guess, laws),
                partial(self._derivative, laws=laws),
                self.problem.tolerance,
                settings.roots,
            )
            if not np.max(np.abs(value)) <= self.problem.tolerance:
                return None
            guess = solution
            if size > settings.refreshes.good:
                break
        root = root_of(solution[:-1], value, size, self.scale, self.problem.layout)
        at = self.problem.with_model(self.model_at(float(solution[-1])))
        return solution, root, response_on_laws(at, root, laws)

    def _evaluate(self, at, amplitude, laws):
        value, size = violation(at[:-1], self.scale, self.model_at(float(at[-1])), laws, self.problem.layout)
        return np.append(value, self.amplitude_of @ at[:-1] - amplitude), size

    def _slope(self, at, laws):
        inner = violation_slope(
            at[:-1], self.scale, self.model_at(float(at[-1])), laws, self.problem.layout, self.problem.settings.roots
        )
        column = self._by_factor(at, laws)
        return np.block([[inner, column[:, None]], [self.amplitude_of[None, :], np.zeros((1, 1))]])

    def _derivative(self, at, direction, laws):
        layout = self.problem.layout
        inner = violation_derivative(at[:-1], direction[:-1], self.scale, self.model_at(float(at[-1])), laws, layout)
        whole = inner + direction[-1] * self._by_factor(at, laws)
        return np.append(whole, self.amplitude_of @ direction[:-1])

    def _by_factor(self, at, laws):
        def value(factor: float) -> np.ndarray:
            return violation(at[:-1], self.scale, self.model_at(float(factor)), laws, self.problem.layout)[0]

        # Rough slopes are enough; in a factor of the targets, which enters squared, the central difference is exact.
        step = self.problem.settings.paths.difference * at[-1]
        return (value(at[-1] + step) - value(at[-1] - step)) / (2 * step)


def free_energy_slope(
    model_at: Callable[[float], Model], value: float, kernel: np.ndarray, response: np.ndarray, relative: float
) -> float:
    """dF/df at a stationary point, whose law stays as it is; ``relative`` is the step of a central difference."""

    def at(value: float) -> float:
        model = model_at(value)
        cov = preactivation_cov(model, jnp.asarray(kernel))
        return float(jnp.sum(cov * response) / 2 + data_term(model, jnp.asarray(kernel)))

    step = relative * value
    return (at(value + step) - at(value - step)) / (2 * step)

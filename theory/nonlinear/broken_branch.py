r"""The broken branch of a network with an odd activation: its signal as a function of how much it is broken.

Where the symmetric branch turns unstable, at a factor f_c of the targets, a branch of solutions starts in which odd
offsets are correlated. It may lead to larger factors (a continuous transition) or first back to smaller ones, up to a
fold, the spinodal. To go around the fold the amplitude a of the correlations is prescribed and the factor solved for:

    the stationarity equations (`theory.nonlinear.fixed_point`) at targets f y,     v . Phi = a,

v being the direction in which the symmetric branch is softest. The free energy difference to the symmetric branch
follows along the path without another integral, since F depends on f by the data term alone at a stationary point:

    dF/df = f sum_o y_o^T A^{-1} y_o,         Delta F(a) = int_0^a (dF/df|_broken - dF/df|_symmetric) (df/da) da.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import scipy.interpolate

from theory.kernels import scale_of
from theory.model import Model, output_law
from theory.nonlinear.broyden import solve_root
from theory.nonlinear.decoupling import Softest
from theory.nonlinear.fixed_point import (
    Root,
    pack,
    root_of,
    unpack,
    violation,
    violation_derivative,
    violation_slope,
)
from theory.nonlinear.frozen_problem import (
    GOOD_EFFECTIVE_SAMPLE_SIZE,
    ON_THE_WAY,
    RESIDUAL_TOLERANCE,
    LostError,
    Problem,
    State,
    draw_points,
    make_problem,
)
from theory.nonlinear.symmetric_branch import SymmetricBranch
from theory.seeds import part

# On draws the first is large: their scatter unfolds the pitchfork, and shifts factors by itself over the amplitude.
FIRST_AMPLITUDE = {"grid": 0.05, "draws": 0.3}
AMPLITUDE_RATIO = 1.4
LARGEST_STEP = 0.15
LEAST_STEP = 0.01
PAST_INSTABILITY = 1.02  # times the instability: a path that has come that far does not turn back, it is assumed
MOST_STEPS = 60
REDRAWS = 3
FACTOR_STEP = 1e-3
FINE = 4001


@dataclass(frozen=True)
class BrokenPath:
    """The broken branch from the instability on.

    Attributes:
        amplitudes: a, from 0.
        factors: of the targets, where the branch has that amplitude.
        slopes: dF/df of the broken branch less that of the symmetric one.
        exact: whether grids were used.
    """

    amplitudes: np.ndarray
    factors: np.ndarray
    slopes: np.ndarray
    exact: bool

    def thresholds(self) -> tuple[float, float]:
        """Spinodal and crossing as factors; both the instability where the path never leads below it.

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
        factors = factor(fine)
        spinodal = float(factors.min())
        rate = slope(fine) * factor(fine, 1)
        steps = (rate[1:] + rate[:-1]) / 2 * np.diff(fine)
        excess = np.concatenate([[0.0], np.cumsum(steps)])
        beyond = np.flatnonzero((excess < 0) & (fine > fine[factors.argmin()]))
        if not beyond.size:
            raise RuntimeError(
                f"the broken branch was lost at targets times {self.factors[-1]:.4g}, before its free energy met the "
                "symmetric one's; use more points"
            )
        return spinodal, float(factors[beyond[0]])


@dataclass(frozen=True)
class Step:
    """A solution on the broken branch, its amplitude a and the factor of the targets."""

    amplitude: float
    factor: float
    root: Root


def walk(problem: Problem, root: Root, softest: Softest, factor: float, seed: int) -> Iterator[Step]:
    """The broken branch step by step from amplitude zero on, until it cannot be followed.

    Args:
        problem: with W whole.
        root: solution of the decoupled problem, at the instability or a little above.
        softest: the perturbation that it yields to.
        factor: of the targets of ``problem`` there.
        seed: of the points.
    """
    scale = scale_of(root.kernel)
    direction = pack(softest.kernel, softest.conjugate, scale, problem.layout)
    half = len(direction) // 2
    direction = direction / np.linalg.norm(direction[:half])
    path = _Path(problem, scale, np.concatenate([direction[:half], np.zeros(half)]))
    before = (0.0, np.append(pack(root.kernel, root.conjugate, scale, problem.layout), factor))
    tangent, step = np.append(direction, 0.0), FIRST_AMPLITUDE["grid" if problem.exact else "draws"]
    for number in range(1, MOST_STEPS):
        amplitude = before[0] + step
        found = path.solve(amplitude, before[1] + step * tangent, part(seed, number))
        if found is None:
            step /= 2
            if step < LEAST_STEP:
                return
            continue
        unknowns, solution = found
        yield Step(amplitude, float(unknowns[-1]), solution)
        tangent = (unknowns - before[1]) / step
        before, step = (amplitude, unknowns), min(AMPLITUDE_RATIO * step, LARGEST_STEP)


def follow_broken(symmetric: SymmetricBranch, instability: float, points: int, seed: int) -> BrokenPath:
    """The `BrokenPath` from the instability of the symmetric branch, on one sequence of point sets."""
    state, frozen, slope = symmetric.points(instability, seed)
    root = symmetric.root(instability, state, frozen, slope)
    softest = symmetric.softest(root, frozen)
    model = symmetric.whole_model
    problem = make_problem(model, symmetric.problem.phi, root.kernel, points)
    amplitudes, factors, slopes = [0.0], [instability], [0.0]
    for step in walk(problem, root, softest, instability, seed):
        at_symmetric = symmetric.root(step.factor, *symmetric.points(step.factor, seed))
        amplitudes.append(step.amplitude)
        factors.append(step.factor)
        slopes.append(
            _free_energy_slope(model, step.root.kernel, step.factor)
            - _free_energy_slope(model, at_symmetric.kernel, step.factor)
        )
        if step.factor > PAST_INSTABILITY * instability:
            break
    return BrokenPath(np.array(amplitudes), np.array(factors), np.array(slopes), problem.exact)


class _Path:
    """The stationarity equations with the factor of the targets as one more unknown, the last."""

    def __init__(self, problem: Problem, scale: np.ndarray, amplitude_of: np.ndarray) -> None:
        self.problem, self.scale, self.amplitude_of = problem, scale, amplitude_of

    def solve(self, amplitude: float, guess: np.ndarray, seed: int) -> tuple[np.ndarray, Root] | None:
        """Unknowns and root at an amplitude, or None."""
        for redraw in range(REDRAWS):
            kernel, conjugate = map(np.asarray, unpack(jnp.asarray(guess[:-1]), self.scale, self.problem.layout))
            problem = self.problem.scaled(guess[-1])
            try:
                points = draw_points(problem, State(kernel, conjugate), part(seed, redraw), ON_THE_WAY)
            except LostError:
                return None
            solution, value, size = solve_root(
                partial(self._evaluate, amplitude=amplitude, points=points),
                guess,
                self._slope(guess, points),
                partial(self._derivative, points=points),
                RESIDUAL_TOLERANCE,
            )
            if not np.max(np.abs(value)) <= RESIDUAL_TOLERANCE:
                return None
            guess = solution
            if size > GOOD_EFFECTIVE_SAMPLE_SIZE:
                break
        return solution, root_of(solution[:-1], value, size, self.scale, self.problem.layout)

    def _model(self, factor: float) -> Model:
        return self.problem.model.replace(targets=factor * self.problem.model.targets)

    def _evaluate(self, at, amplitude, points):
        value, size = violation(at[:-1], self.scale, self._model(at[-1]), points, self.problem.layout)
        return np.append(value, self.amplitude_of @ at[:-1] - amplitude), size

    def _slope(self, at, points):
        inner = violation_slope(at[:-1], self.scale, self._model(at[-1]), points, self.problem.layout)
        column = self._by_factor(at, points)
        return np.block([[inner, column[:, None]], [self.amplitude_of[None, :], np.zeros((1, 1))]])

    def _derivative(self, at, direction, points):
        layout = self.problem.layout
        inner = violation_derivative(at[:-1], direction[:-1], self.scale, self._model(at[-1]), points, layout)
        whole = inner + direction[-1] * self._by_factor(at, points)
        return np.append(whole, self.amplitude_of @ direction[:-1])

    def _by_factor(self, at, points):
        def value(factor: float) -> np.ndarray:
            return violation(at[:-1], self.scale, self._model(factor), points, self.problem.layout)[0]

        # Quadratic in the factor, so the central difference is exact.
        step = FACTOR_STEP * at[-1]
        return (value(at[-1] + step) - value(at[-1] - step)) / (2 * step)


def _free_energy_slope(model: Model, kernel: np.ndarray, factor: float) -> float:
    """dF/df = y . r at targets f y."""
    scaled = model.replace(targets=factor * model.targets)
    dual = np.asarray(output_law(scaled, jnp.asarray(kernel)).dual)[np.asarray(model.supervised)]
    return float(np.sum(np.asarray(model.targets) * dual))

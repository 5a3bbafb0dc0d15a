"""The symmetric branch of a network with an odd activation, followed in a parameter, and where it turns unstable."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from theory.activations import Activation
from theory.lazy import prior_kernel
from theory.model import Model, output_law
from theory.nonlinear.decoupling import SecondMoments, Softest, softest_perturbation
from theory.nonlinear.fixed_point import Root
from theory.nonlinear.frozen_problem import (
    ON_THE_WAY,
    RESIDUAL_TOLERANCE,
    Problem,
    State,
    draw_points,
    laws,
    make_problem,
    settle,
    slope_on_points,
    solve_on_points,
)
from theory.nonlinear.neuron import Points
from theory.response import covariance_inverse, factorise
from theory.symmetry import flipped_pairs, sign_changes
from theory.ties import by_entry, cut_between, tied_pairs, unbroken_entries
from theory.units import TINY

FIRST_PULL = 0.1  # strength of the targets, relative to the prior of a neuron, at the first factor
SCAN_RATIO = 1.25
LARGEST_RATIO = 1e4  # of the largest factor tried to the first
SLACK = 1.05
PRECISION = 1e-7
ROUNDS = 2  # points drawn at the middle of the bracket, then at the threshold that these give


class SymmetricBranch:
    """Solutions in which only those sites are correlated that must be (`theory.nonlinear.decoupling`).

    They are followed in one parameter of the model, from targets of zero at its value 1.

    Args:
        model_at: the model at a value of the parameter, all of whose patterns and last sites matter; at 1 the sign
            symmetry holds.
        phi: an odd activation.
        points: size of each set of points, where more than three entries are tied to one another.
        seed: of the points.
        signal: whether the parameter multiplies the targets.
        largest: its largest value.
    """

    def __init__(
        self,
        model_at: Callable[[float], Model],
        phi: Activation,
        points: int,
        seed: int,
        signal: bool = True,
        largest: float = math.inf,
    ) -> None:
        self.model_at, self.largest, self._seed = model_at, largest, seed
        whole = model_at(1.0)
        self.odd = by_entry(whole, flipped_pairs(sign_changes(whole), whole.sites)) & tied_pairs(whole)
        self._groups = unbroken_entries(whole)
        model = cut_between(whole, self._groups)
        kernel = prior_kernel(model, phi)
        self.problem = make_problem(model, phi, kernel, points)
        kernel[self.problem.layout.between] = 0
        dual = np.asarray(output_law(model, jnp.asarray(kernel)).dual)
        pull = np.max(np.diagonal(kernel) * np.diagonal(np.asarray(model.readout)) * np.sum(dual**2, axis=1))
        weak = math.sqrt(FIRST_PULL / pull)
        self.first = weak if signal else 1.0
        unmoved = State(kernel, np.zeros_like(kernel))
        self._known = {0.0: unmoved} if signal else {1.0: self._raised(unmoved, weak)}

    @property
    def exact(self) -> bool:
        """Whether its laws are averaged over on grids."""
        return self.problem.exact

    def problem_at(self, value: float) -> Problem:
        """The decoupled problem at a value of the parameter."""
        return self.problem.with_model(cut_between(self.model_at(value), self._groups))

    def _raised(self, state: State, weak: float) -> State:
        """The state at the whole targets, by way of weaker ones."""
        factors = weak * SCAN_RATIO ** np.arange(1 + max(0, math.ceil(math.log(1 / weak, SCAN_RATIO))))
        for factor in np.minimum(factors, 1.0):
            state = settle(self.problem.scaled(float(factor)), state, self._seed)[1]
        return state

    def state(self, value: float) -> State:
        """The settled state at a value of the parameter, reached from the nearest one known.

        Raises:
            RuntimeError: if the equations cannot be solved there.
        """
        if value not in self._known:
            nearest = min(self._known, key=lambda known: abs(known - value))
            self._known[value] = settle(self.problem_at(value), self._known[nearest], self._seed)[1]
        return self._known[value]

    def points(self, value: float, seed: int) -> tuple[State, tuple[Points, ...], np.ndarray]:
        """A state at a value, points frozen there and the slope."""
        problem = self.problem_at(value)
        state = self.state(value)
        points = draw_points(problem, state, seed, ON_THE_WAY)
        return state, points, slope_on_points(problem, state, points)

    def root(self, value: float, state: State, points: tuple[Points, ...], slope: np.ndarray) -> Root:
        """The solution at a value of the parameter on points frozen nearby.

        Raises:
            RuntimeError: if the equations cannot be solved there.
        """
        root = solve_on_points(self.problem_at(value), state, points, slope)
        if not root.residual <= RESIDUAL_TOLERANCE:
            raise RuntimeError(
                f"the symmetric branch could not be followed to {value:.4g} times the targets (or to that value of the "
                f"parameter): its equations were solved to {root.residual:.1e} only; use more points or weaker targets"
            )
        return root

    def softest(self, value: float, root: Root, points: tuple[Points, ...]) -> Softest:
        """The `Softest` perturbation of a solution between sites that a symmetry tells apart."""
        moments = second_moments(self.problem, root, points)
        return softest_perturbation(moments, self.model_at(value), self.problem.layout.between & self.odd)

    def find_instability(self, seed: int) -> float:
        """The value at which the largest eigenvalue of `softest` reaches 1, on one set of points; infinite if none.

        Raises:
            RuntimeError: if the branch cannot be followed that far.
        """
        below, above = self._bracket(seed)
        if math.isinf(above):
            return math.inf
        value = math.sqrt(below * above) if below else above / 2
        for _ in range(ROUNDS):
            state, points, slope = self.points(value, seed)

            def excess(value: float, frozen=(state, points, slope)) -> float:
                return self.softest(value, self.root(value, *frozen), frozen[1]).eigenvalue - 1

            value = scipy.optimize.brentq(excess, below, above, xtol=TINY, rtol=PRECISION)
        return value

    def _bracket(self, seed: int) -> tuple[float, float]:
        """Two values with the instability well between them."""

        def is_stable(value: float) -> bool:
            frozen = self.points(value, seed)
            return self.softest(value, self.root(value, *frozen), frozen[1]).eigenvalue < 1

        if math.isfinite(self.largest):  # nothing is tied at zero
            return (0.0, math.inf) if is_stable(self.largest) else (0.0, self.largest)
        value = self.first
        while not is_stable(value):
            value /= SCAN_RATIO
        while is_stable(value):
            value *= SCAN_RATIO
            if value > LARGEST_RATIO * self.first:
                return value, math.inf
        return value / (SCAN_RATIO * SLACK), value * SLACK


def softest_of(
    problem: Problem, root: Root, points: tuple[Points, ...], model: Model, odd_only: bool = False
) -> Softest:
    """The `Softest` perturbation between the groups of a problem's solution; ``model`` has its weights whole.

    ``odd_only``: only between sites whose correlation changes sign under a symmetry.
    """
    moments = second_moments(problem, root, points)
    free = problem.layout.between & tied_pairs(model)
    if odd_only:
        free &= by_entry(model, flipped_pairs(sign_changes(model), model.sites))
    return softest_perturbation(moments, model, free)


def second_moments(problem: Problem, root: Root, points: tuple[Points, ...]) -> SecondMoments:
    """The `SecondMoments` of a solution on points."""
    n = len(root.kernel)
    hh, h_phi, phi_phi = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for entries, weights, h in laws(problem, root, points):
        index = np.ix_(entries, entries)
        activity = np.asarray(problem.layout.phi(jnp.asarray(h)))
        hh[index] = (h * weights[:, None]).T @ h
        h_phi[index] = (h * weights[:, None]).T @ activity
        phi_phi[index] = (activity * weights[:, None]).T @ activity
    return SecondMoments(hh, h_phi, phi_phi, covariance_inverse(factorise(problem.cov(root.kernel))))

"""The symmetric branch of a network with an odd activation, followed in the signal, and where it turns unstable."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from theory.activations import Activation
from theory.lazy import prior_kernel
from theory.model import Model, output_law
from theory.nonlinear.decoupling import SecondMoments, Softest, decoupled_model, softest_perturbation
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
from theory.ties import by_entry, tied_pairs

FIRST_PULL = 0.1  # strength of the targets, relative to the prior of a neuron, at the first factor
SCAN_RATIO = 1.25
LARGEST_RATIO = 1e4  # of the largest factor tried to the first
SLACK = 1.05
PRECISION = 1e-7
ROUNDS = 2  # points drawn at the middle of the bracket, then at the threshold that these give


class SymmetricBranch:
    """Solutions in which only steps are correlated that inputs or read-outs tie (`theory.nonlinear.decoupling`).

    Args:
        model: all of whose patterns and last sites matter; the sign symmetry holds.
        phi: an odd activation.
        points: size of each set of points, where more than three entries hang together.
        seed: of the points.
    """

    def __init__(self, model: Model, phi: Activation, points: int, seed: int) -> None:
        self.whole_model = model
        model = decoupled_model(self.whole_model)
        kernel = prior_kernel(model, phi)
        self.problem = make_problem(model, phi, kernel, points)
        kernel[self.problem.layout.between] = 0
        dual = np.asarray(output_law(model, jnp.asarray(kernel)).dual)
        pull = np.max(np.diagonal(kernel) * np.diagonal(np.asarray(model.readout)) * np.sum(dual**2, axis=1))
        self.first_factor = math.sqrt(FIRST_PULL / pull)
        self._seed = seed
        self._known = {0.0: State(kernel, np.zeros_like(kernel))}

    @property
    def exact(self) -> bool:
        """Whether its laws are averaged over on grids."""
        return self.problem.exact

    def state(self, factor: float) -> State:
        """The settled state at a factor of the targets, reached from the nearest one known.

        Raises:
            RuntimeError: if the equations cannot be solved there.
        """
        if factor not in self._known:
            nearest = min(self._known, key=lambda known: abs(known - factor))
            self._known[factor] = settle(self.problem.scaled(factor), self._known[nearest], self._seed)[1]
        return self._known[factor]

    def points(self, factor: float, seed: int) -> tuple[State, tuple[Points, ...], np.ndarray]:
        """A state at a factor, points frozen there and the slope."""
        problem = self.problem.scaled(factor)
        state = self.state(factor)
        points = draw_points(problem, state, seed, ON_THE_WAY)
        return state, points, slope_on_points(problem, state, points)

    def root(self, factor: float, state: State, points: tuple[Points, ...], slope: np.ndarray) -> Root:
        """The solution at a factor on points frozen nearby.

        Raises:
            RuntimeError: if the equations cannot be solved there.
        """
        root = solve_on_points(self.problem.scaled(factor), state, points, slope)
        if not root.residual <= RESIDUAL_TOLERANCE:
            raise RuntimeError(
                f"the symmetric branch could not be followed to targets times {factor:.4g}: its equations were solved "
                f"to {root.residual:.1e} only; use more points or a task with a smaller critical signal"
            )
        return root

    def softest(self, root: Root, points: tuple[Points, ...]) -> Softest:
        """The `theory.nonlinear.decoupling.Softest` perturbation of a solution at odd offsets."""
        return softest_of(self.problem, root, points, self.whole_model, odd_only=True)

    def find_instability(self, seed: int) -> float:
        """The factor at which the largest eigenvalue of `softest` reaches 1, on one set of points; infinite if none.

        Raises:
            RuntimeError: if the branch cannot be followed that far.
        """
        below, above = self._bracket(seed)
        if math.isinf(above):
            return math.inf
        factor = math.sqrt(below * above)
        for _ in range(ROUNDS):
            state, points, slope = self.points(factor, seed)

            def excess(factor: float, frozen=(state, points, slope)) -> float:
                return self.softest(self.root(factor, *frozen), frozen[1]).eigenvalue - 1

            factor = scipy.optimize.brentq(excess, below, above, rtol=PRECISION)
        return factor

    def _bracket(self, seed: int) -> tuple[float, float]:
        """Two factors with the instability well between them."""

        def is_stable(factor: float) -> bool:
            frozen = self.points(factor, seed)
            return self.softest(self.root(factor, *frozen), frozen[1]).eigenvalue < 1

        factor = self.first_factor
        while not is_stable(factor):
            factor /= SCAN_RATIO
        while is_stable(factor):
            factor *= SCAN_RATIO
            if factor > LARGEST_RATIO * self.first_factor:
                return factor, math.inf
        return factor / (SCAN_RATIO * SLACK), factor * SLACK


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

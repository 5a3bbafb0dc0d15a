"""The symmetric branch of a network with an odd activation, followed in a parameter, and where it turns unstable."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from theory.activations import Activation
from theory.laws.grid import ROUGHER
from theory.lazy import prior_kernel
from theory.model import Model, output_law
from theory.response import covariance_inverse, factorise
from theory.search.problem import (
    Problem,
    State,
    each_average,
    make_laws,
    make_problem,
    settle,
    slope_on_laws,
    solve_on_laws,
)
from theory.search.settings import DEFAULT, Settings
from theory.search.stationarity import Laws, Root
from theory.search.symmetry_breaking import SecondMoments, Softest, softest_perturbation
from theory.symmetry import flipped_pairs, sign_changes
from theory.ties import by_entry, cut_between, tied_pairs, unbroken_entries
from theory.units import TINY


class SymmetricBranch:
    """Solutions in which only those sites are correlated that must be (`theory.search.symmetry_breaking`).

    They are followed in one parameter of the model, from targets of zero at its value 1.

    Args:
        model_at: the model at a value of the parameter, all of whose patterns and last sites matter; at 1 the sign
            symmetry holds.
        phi: an odd activation.
        points: size of each set of points, where more than three entries are tied to one another.
        seed: of the draws.
        signal: whether the parameter multiplies the targets.
        largest: its largest value.
        settings: of the search.
    """

    def __init__(
        self,
        model_at: Callable[[float], Model],
        phi: Activation,
        points: int,
        seed: int,
        signal: bool = True,
        largest: float = math.inf,
        settings: Settings = DEFAULT,
    ) -> None:
        self.model_at, self.largest, self._seed = model_at, largest, seed
        self.settings = settings
        whole = model_at(1.0)
        self.odd = by_entry(whole, flipped_pairs(sign_changes(whole), whole.sites)) & tied_pairs(whole)
        self._groups = unbroken_entries(whole)
        model = cut_between(whole, self._groups)
        kernel = prior_kernel(model, phi)
        self.problem = make_problem(model, phi, kernel, points, settings)
        kernel[self.problem.layout.between] = 0
        dual = np.asarray(output_law(model, jnp.asarray(kernel)).dual)
        pull = np.max(np.diagonal(kernel) * np.diagonal(np.asarray(model.readout)) * np.sum(dual**2, axis=1))
        weak = math.sqrt(settings.paths.first_pull / pull)
        self.first = weak if signal else 1.0
        unmoved = State(kernel, np.zeros_like(kernel))
        self._known = {0.0: unmoved} if signal else {1.0: self._raised(unmoved, weak)}

    @property
    def exact(self) -> bool:
        """Whether no law has a statistical error."""
        return self.problem.exact

    def problem_at(self, value: float) -> Problem:
        """The decoupled problem at a value of the parameter."""
        return self.problem.with_model(cut_between(self.model_at(value), self._groups))

    def _raised(self, state: State, weak: float) -> State:
        """The state at the whole targets, by way of weaker ones."""
        factors = weak * self.settings.paths.scan ** np.arange(
            1 + max(0, math.ceil(math.log(1 / weak, self.settings.paths.scan)))
        )
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

    def laws(self, value: float, seed: int) -> tuple[State, Laws, np.ndarray]:
        """A state at a value, laws made there and the slope."""
        problem = self.problem_at(value)
        state = self.state(value)
        laws = make_laws(problem, state, seed, ROUGHER)
        return state, laws, slope_on_laws(problem, state, laws)

    def root(self, value: float, state: State, laws: Laws, slope: np.ndarray) -> Root:
        """The solution at a value of the parameter on laws made nearby.

        Raises:
            RuntimeError: if the equations cannot be solved there.
        """
        root = solve_on_laws(self.problem_at(value), state, laws, slope)
        if not root.residual <= self.problem.tolerance:
            raise RuntimeError(
                f"the symmetric branch could not be followed to {value:.4g} times the targets (or to that value of the "
                f"parameter): its equations were solved to {root.residual:.1e} only; use more points or weaker targets"
            )
        return root

    def softest(self, value: float, root: Root, laws: Laws) -> Softest:
        """The `Softest` perturbation of a solution between sites that a symmetry tells apart."""
        moments = second_moments(self.problem, root, laws)
        free = self.problem.layout.between & self.odd
        return softest_perturbation(moments, self.model_at(value), free, self.settings.branches)

    def find_instability(self, seed: int) -> float:
        """The value at which the largest eigenvalue of `softest` reaches 1, on one set of points; infinite if none.

        Raises:
            RuntimeError: if the branch cannot be followed that far.
        """
        below, above = self._bracket(seed)
        if math.isinf(above):
            return math.inf
        value = math.sqrt(below * above) if below else above / 2
        for _ in range(self.settings.paths.rounds):
            laws = self.laws(value, seed)

            def excess(value: float, frozen=laws) -> float:
                return self.softest(value, self.root(value, *frozen), frozen[1]).eigenvalue - 1

            value = scipy.optimize.brentq(excess, below, above, xtol=TINY, rtol=self.settings.paths.precision)
        return value

    def _bracket(self, seed: int) -> tuple[float, float]:
        """Two values with the instability well between them."""

        def is_stable(value: float) -> bool:
            frozen = self.laws(value, seed)
            return self.softest(value, self.root(value, *frozen), frozen[1]).eigenvalue < 1

        if math.isfinite(self.largest):  # nothing is tied at zero
            return (0.0, math.inf) if is_stable(self.largest) else (0.0, self.largest)
        value, paths = self.first, self.settings.paths
        while not is_stable(value):
            value /= paths.scan
        while is_stable(value):
            value *= paths.scan
            if value > paths.largest * self.first:
                return value, math.inf
        return value / (paths.scan * paths.slack), value * paths.slack


def softest_of(problem: Problem, root: Root, laws: Laws, model: Model, odd_only: bool = False) -> Softest:
    """The `Softest` perturbation between the groups of a problem's solution; ``model`` has its weights whole.

    ``odd_only``: only between sites whose correlation changes sign under a symmetry.
    """
    moments = second_moments(problem, root, laws)
    free = problem.layout.between & tied_pairs(model)
    if odd_only:
        free &= by_entry(model, flipped_pairs(sign_changes(model), model.sites))
    return softest_perturbation(moments, model, free, problem.settings.branches)


def second_moments(problem: Problem, root: Root, laws: Laws) -> SecondMoments:
    """The `SecondMoments` of a solution."""
    n = len(root.kernel)
    hh, h_phi, phi_phi = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for group, average in each_average(problem, root, laws):
        hh[group.window], h_phi[group.window], phi_phi[group.window] = average.second, average.mixed, average.kernel
    return SecondMoments(hh, h_phi, phi_phi, covariance_inverse(factorise(problem.cov(root.kernel))))

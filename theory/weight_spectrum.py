r"""Spectrum of the recurrent weights given the neurons: a circular bulk and the outliers that learning puts there.

The rows of W are Gaussian given the activity, so W is its conditional mean, of rank at most (T-1) P, plus prior noise:

- eigenvalues: those of gw^2 < phi(h_{t-1}) (C^{-1} h)_s^T >, (n, n); those with modulus above gw leave the bulk disc;
- singular values: the rows of W have covariance Sigma / N, whose eigenvalues theta^2 are those of
  gw^2 I - gw^4 Phi_pre Q over steps 2..T (Phi_pre the kernel shifted by one step, Q = C^{-1} - C^{-1} <h h^T> C^{-1}),
  so an outlier leaves the bulk edge 2 gw where theta^2 > 2 gw^2, at sigma^2 = theta^4 / (theta^2 - gw^2).

Where W is unshared each step has its own matrix and everything holds step by step. For nonlinear phi both averages are
taken over neurons in Stein's form, which needs no inverse of C: with psi = phi'(h) o (Phihat phi(h)),

    < phi(h_{t-1}) (C^{-1} h)_s^T > = delta_{t-1,s} < phi' > - < phi(h_{t-1}) psi_s^T >.

Sources: DESIGN.md section 3; spiked random matrices: Benaych-Georges and Nadakuditi 2012, Tao 2013.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from theory import arguments
from theory.covariance import covariance_terms, shift_later
from theory.finite_width import draw_sets
from theory.jax_settings import own_settings
from theory.network import Network
from theory.nonlinear.neuron import derivatives, live_entries, range_of
from theory.nonlinear.neuron_sampling import Neurons
from theory.response import NEGLIGIBLE, covariance_inverse, covariance_response, factorise
from theory.solution import Solution
from theory.task import Task

NEURONS = 16384


@dataclass(frozen=True)
class Spectrum:
    """Predicted spectrum of the recurrent weights at infinite width.

    Attributes:
        eigenvalues: complex eigenvalues of the conditional mean of W, by decreasing modulus; one array per weight
            matrix (one if W is shared, else one for each of the steps 2..T).
        singular_values: positions of the singular value outliers, decreasing, one array per weight matrix.
        radius: gw, the radius of the eigenvalue bulk.
        edge: 2 gw, the upper edge of the singular value bulk.
        eigenvalue_error: statistical standard error of each eigenvalue's modulus, from independent sets of neurons;
            zero for linear networks.
    """

    eigenvalues: tuple[np.ndarray, ...]
    singular_values: tuple[np.ndarray, ...]
    radius: float
    edge: float
    eigenvalue_error: tuple[np.ndarray, ...]

    @property
    def outliers(self) -> tuple[np.ndarray, ...]:
        """The eigenvalues outside the bulk, one array per weight matrix."""
        return tuple(values[np.abs(values) > self.radius] for values in self.eigenvalues)


class LearnedWeights(NamedTuple):
    """The averages over neurons that determine the spectrum, (n, n) each.

    Attributes:
        mean: < phi(h_{t-1}) (C^{-1} h)_s^T >, zero rows at the first step.
        pre_kernel: < phi(h_{t-1}) phi(h_{s-1})^T >.
        response: Q.
    """

    mean: np.ndarray
    pre_kernel: np.ndarray
    response: np.ndarray


def spectrum(solution: Solution, *, neurons: int = NEURONS, seed: int = 0) -> Spectrum:
    """The spectrum of the recurrent weights that a `Solution` predicts.

    Args:
        solution: of any activation; inputs at any steps, any weights shared.
        neurons: how many to draw from q, four times over. Nonlinear networks only.
        seed: of the draws.

    Raises:
        ValueError: if an argument is out of its range.
    """
    arguments.instance("solution", solution, Solution)
    network, task = solution.network, solution.task
    # float64 within this call only, as everywhere in the theory.
    with own_settings():
        found = [_learned(solution, drawn) for drawn in draw_sets(solution, neurons, seed)]
    average = LearnedWeights(*(np.mean(parts, axis=0) for parts in zip(*found, strict=True)))
    result = spectrum_of_averages(network, task, average)
    if len(found) == 1:
        return result
    repeated = [spectrum_of_averages(network, task, one).eigenvalues for one in found]
    moduli = [np.abs(np.array(copies)) for copies in zip(*repeated, strict=True)]
    return replace(result, eigenvalue_error=tuple(m.std(axis=0, ddof=1) / np.sqrt(len(m)) for m in moduli))


def spectrum_of_averages(network: Network, task: Task, learned: LearnedWeights) -> Spectrum:
    """The spectrum from the averages over neurons."""
    gain = network.recurrent_gain
    mean = gain**2 * learned.mean
    eigenvalues, singular_values = [], []
    for block in _matrices(network, task):
        window = np.ix_(block, block)
        values = np.linalg.eigvals(mean[window])
        eigenvalues.append(values[np.argsort(-np.abs(values))])
        population = gain**2 * np.eye(len(block)) - gain**4 * learned.pre_kernel[window] @ learned.response[window]
        squares = np.linalg.eigvals(population).real
        above = squares[squares > 2 * gain**2]
        singular_values.append(np.sort(above / np.sqrt(above - gain**2))[::-1])
    exact = tuple(np.zeros(len(values)) for values in eigenvalues)
    return Spectrum(tuple(eigenvalues), tuple(singular_values), gain, 2 * gain, exact)


def linear_averages(kernel: np.ndarray, factor: np.ndarray, patterns: int) -> LearnedWeights:
    """`LearnedWeights` of a linear network from its kernel and the factor of C, (n, n)."""
    return LearnedWeights(
        _step_later(kernel @ covariance_inverse(factor), patterns),
        np.asarray(shift_later(kernel, patterns)),
        covariance_response(factor, kernel),
    )


def _learned(solution: Solution, neurons: Neurons | None) -> LearnedWeights:
    network, task = solution.network, solution.task
    n, patterns = task.entries, task.patterns
    kernel, conjugate, cov = (
        array.reshape(n, n) for array in (solution.kernel, solution.conjugate, solution.preactivation_cov)
    )
    if neurons is None:
        return linear_averages(kernel, factorise(cov), patterns)
    live = live_entries(factorise(cov, NEGLIGIBLE))
    spread = np.zeros((n, n))
    spread[:, list(live)] = np.asarray(range_of(jnp.asarray(cov), live).spread)
    activity, slope, _ = derivatives(network.phi.function, jnp.asarray(neurons.preactivation), kinks=True)
    activity, slope, weights = np.asarray(activity), np.asarray(slope), neurons.weights
    psi = (slope * (activity @ conjugate)) @ spread
    mean = (weights @ slope)[:, None] * spread - activity.T @ (weights[:, None] * psi)
    # Q at the later steps is what Phihat carries back from them.
    dual = solution.dual.transpose(1, 0, 2).reshape(n, -1)
    carried = conjugate + covariance_terms(network, task).readout * (dual @ dual.T)
    response = np.asarray(shift_later(carried, patterns)) / network.recurrent_gain**2
    return LearnedWeights(_step_later(mean, patterns), np.asarray(shift_later(kernel, patterns)), response)


def _step_later(rows: np.ndarray, patterns: int) -> np.ndarray:
    """Row t-1 in place of row t; zero at the first step."""
    return np.vstack([np.zeros((patterns, rows.shape[1])), rows[:-patterns]])


def _matrices(network: Network, task: Task) -> list[np.ndarray]:
    """Flat entries that each recurrent weight matrix acts on to: all steps from the second, together or one by one."""
    later = np.arange(task.patterns, task.entries)
    return [later] if "recurrent" in network.shared else list(later.reshape(task.steps - 1, task.patterns))

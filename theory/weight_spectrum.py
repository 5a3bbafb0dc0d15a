r"""Spectrum of the weights between neurons, given the neurons: a circular bulk, and outliers that learning puts there.

The rows of W_s are Gaussian given the activity. With v = C_u^{-1} u the whitened currents of a neuron and c_e the
covariance g_s g_e M_se of W_s with the weights that make entry e (`theory.model`), W_s is its conditional mean, of rank
n at most, plus prior noise:

    E[W_s] = (1/N) sum_e c_e v_e phi(h_{a(e)})^T

- eigenvalues: those of the matrix c_e' < phi(h_{a(e)}) v_e' >, (n, n); those with modulus above g leave the bulk disc;
- singular values: the rows of W have covariance Sigma / N, whose eigenvalues theta^2 are those of
  g^2 I - Phi_pre c Q_u c, Phi_pre being the kernel of what is read and Q_u = C_u^{-1} - C_u^{-1} <u u^T> C_u^{-1}; an
  outlier leaves the bulk edge 2 g where theta^2 > 2 g^2, at sigma^2 = theta^4 / (theta^2 - g^2).

For nonlinear phi the averages are taken over neurons in Stein's form, which needs no inverse of C: with
psi = phi'(h) o (Phihat phi(h)), < phi(h_i) (C^{-1} h)_j > = delta_ij < phi' > - < phi(h_i) psi_j >.

Source: spiked random matrices: Benaych-Georges and Nadakuditi 2012, Tao 2013.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from theory import arguments
from theory.connections import NOWHERE
from theory.finite_width import draw_sets
from theory.jax_settings import own_settings
from theory.kernel_action import covariance_of_pairs, pairs_of, symmetric_of
from theory.laws.law import live_entries, range_of
from theory.laws.neurons import Neurons
from theory.laws.smoothness import derivatives
from theory.model import Model, mix_transposed
from theory.response import NEGLIGIBLE, covariance_inverse, covariance_response, factorise
from theory.solution import Saddle, Solution

NEURONS = 16384  # drawn in a set where nothing is asked for: outliers are then known to a percent
# Of the correction to Q below, relative: far under any statistical error.
CARRIED = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Predicted spectrum of the weights of one kind at infinite width.

    Attributes:
        eigenvalues: complex eigenvalues of the conditional mean of W, by decreasing modulus; one array per weight
            matrix (one if W is shared, else one for each site that uses it, of a recurrent network the steps 2..T).
        singular_values: positions of the singular value outliers, decreasing, one array per weight matrix.
        gains: g of each weight matrix.
        eigenvalue_error: statistical standard error of each eigenvalue's modulus, from independent sets of neurons;
            zero for linear networks.
        sites: the sites that use each weight matrix, counted from 0.
    """

    eigenvalues: tuple[np.ndarray, ...]
    singular_values: tuple[np.ndarray, ...]
    gains: tuple[float, ...]
    eigenvalue_error: tuple[np.ndarray, ...]
    sites: tuple[tuple[int, ...], ...]

    @property
    def radius(self) -> float:
        """The radius of the eigenvalue bulk, g; the largest of those of several matrices."""
        return max(self.gains, default=0.0)

    @property
    def edge(self) -> float:
        """The upper edge of the singular value bulk, 2 g."""
        return 2 * self.radius

    @property
    def outliers(self) -> tuple[np.ndarray, ...]:
        """The eigenvalues outside the bulk, one array per weight matrix."""
        return tuple(values[np.abs(values) > g] for values, g in zip(self.eigenvalues, self.gains, strict=True))


class Learned(NamedTuple):
    """The averages over neurons that determine the spectra, (n, n) each.

    Attributes:
        mean: < phi(h_i) v_j >, v = C_u^{-1} u.
        kernel: Phi.
        response: Q_u.
    """

    mean: np.ndarray
    kernel: np.ndarray
    response: np.ndarray


def spectrum(solution: Solution, *, weights: str = "recurrent", neurons: int | None = None, seed: int = 0) -> Spectrum:
    """The spectrum of weights between neurons that a `Solution` predicts.

    Args:
        solution: of any activation; inputs at any steps, any weights shared.
        weights: which: the name of weights that read the activity of neurons ("recurrent", "feedforward").
        neurons: how many to draw from q, four times over; 16384 by default. Not for linear networks.
        seed: of the draws.

    Raises:
        ValueError: if an argument is out of its range.
    """
    arguments.instance("solution", solution, Solution)
    number = between_neurons(solution, weights)
    saddle = solution.saddle
    # float64 within this call only, as everywhere in the theory.
    with own_settings():
        found = [_learned(saddle, solution, drawn) for drawn in draw_sets(saddle, neurons, seed, NEURONS)]
    average = Learned(*(np.mean(parts, axis=0) for parts in zip(*found, strict=True)))
    result = spectrum_of_averages(saddle.model, number, average)
    if len(found) == 1:
        return result
    repeated = [spectrum_of_averages(saddle.model, number, one).eigenvalues for one in found]
    moduli = [np.abs(np.array(copies)) for copies in zip(*repeated, strict=True)]
    return replace(result, eigenvalue_error=tuple(m.std(axis=0, ddof=1) / np.sqrt(len(m)) for m in moduli))


def between_neurons(solution: Solution, weights: str) -> int:
    """Which of the weights between neurons has that name.

    Raises:
        ValueError: if none has.
    """
    names = [connection.name for connection in solution.network.wiring(solution.task.steps).weights]
    return names.index(arguments.one_of("weights", weights, names))


class Matrix(NamedTuple):
    """One weight matrix: the sites that use it, the entries that its mean is made of, what those read, and their c."""

    sites: tuple[int, ...]
    entries: np.ndarray
    read: np.ndarray
    coefficients: np.ndarray
    gain: float


def matrices(model: Model, number: int) -> Iterator[Matrix]:
    """The different matrices of one kind of weights."""
    patterns, source = model.patterns, np.array(model.sources[number])
    by_site = np.asarray(model.weights[number])[::patterns, ::patterns]
    used = np.flatnonzero((source != NOWHERE) & (np.diagonal(by_site) > 0))
    rows = by_site[used][:, used]
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    for label in np.argsort(first):
        row = rows[first[label]]
        chosen, members = used[row != 0], used[which.ravel() == label]
        entries, read = ((at[:, None] * patterns + np.arange(patterns)).ravel() for at in (chosen, source[chosen]))
        gain = float(np.sqrt(by_site[members[0], members[0]]))
        yield Matrix(tuple(map(int, members)), entries, read, np.repeat(row[row != 0], patterns), gain)


def spectrum_of_averages(model: Model, number: int, learned: Learned) -> Spectrum:
    """The spectrum of one kind of weights from the averages over neurons."""
    eigenvalues, singular_values, gains, sites = [], [], [], []
    for matrix in matrices(model, number):
        mean = learned.mean[np.ix_(matrix.read, matrix.entries)] * matrix.coefficients
        values = np.linalg.eigvals(mean)
        eigenvalues.append(values[np.argsort(-np.abs(values))])
        scaled = np.outer(matrix.coefficients, matrix.coefficients) * learned.response[np.ix_(*[matrix.entries] * 2)]
        variance = matrix.gain**2
        population = variance * np.eye(len(mean)) - learned.kernel[np.ix_(matrix.read, matrix.read)] @ scaled
        squares = np.linalg.eigvals(population).real
        above = squares[squares > 2 * variance]
        singular_values.append(np.sort(above / np.sqrt(above - variance))[::-1])
        gains.append(matrix.gain)
        sites.append(matrix.sites)
    exact = tuple(np.zeros(len(values)) for values in eigenvalues)
    return Spectrum(tuple(eigenvalues), tuple(singular_values), tuple(gains), exact, tuple(sites))


def linear_averages(model: Model, kernel: np.ndarray, factor: np.ndarray) -> Learned:
    """`Learned` of a linear network from its kernel and the factor of C, (n, n)."""
    mean = np.asarray(mix_transposed(model, covariance_inverse(factor) @ kernel)).T
    return Learned(mean, kernel, _of_currents(model, covariance_response(factor, kernel)))


def _of_currents(model: Model, response: np.ndarray) -> np.ndarray:
    """Q_u = F^T Q F."""
    return np.asarray(mix_transposed(model, mix_transposed(model, response).T))


def _learned(saddle: Saddle, solution: Solution, neurons: Neurons | None) -> Learned:
    model, phi, _, kernel, conjugate, cov = saddle
    if neurons is None:
        return linear_averages(model, kernel, factorise(cov))
    factor = factorise(cov, NEGLIGIBLE)
    live = live_entries(factor)
    spread = np.zeros_like(cov)
    spread[:, list(live)] = np.asarray(range_of(jnp.asarray(cov), live).spread)
    activity, slope, _ = derivatives(phi.function, jnp.asarray(neurons.preactivation), kinks=True)
    activity, slope, weights = np.asarray(activity), np.asarray(slope), neurons.weights
    psi = (slope * (activity @ conjugate)) @ spread
    mean = (weights @ slope)[:, None] * spread - activity.T @ (weights[:, None] * psi)
    precise = neurons.preactivation @ covariance_inverse(factor)
    response = psi.T @ (weights[:, None] * precise)
    dual = np.asarray(model.place_outputs(solution.dual))
    carried = conjugate + np.asarray(model.readout) * (dual @ dual.T)
    response = _carrying(model, (response + response.T) / 2, carried)
    return Learned(np.asarray(mix_transposed(model, mean.T)).T, kernel, _of_currents(model, response))


def _carrying(model: Model, response: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """The response nearest to one from draws that carries back exactly what the conjugate kernel, solved for, holds."""
    rows, columns = pairs_of(len(response))
    # The derivative of sum(C o Q) by one pair of Phi counts both of its entries.
    weight = np.where(rows == columns, 1.0, 2.0)
    adjoint = (covariance_of_pairs(model) * weight[:, None] / weight).T
    missing = carried[rows, columns] - adjoint @ response[rows, columns]
    change = scipy.sparse.linalg.lsqr(adjoint, missing, atol=CARRIED, btol=CARRIED)[0]
    return response + symmetric_of(change, len(response))

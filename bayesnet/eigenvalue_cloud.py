"""Eigenvalues of the recurrent weights under the posterior, as a report shows them, and under the prior."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr

from bayesnet.observables import site_in_words
from bayesnet.results import kernels_of, names_with_priors, network_of, task_of
from bayesnet.weight_draws import draw_weights
from theory.causal import semidefinite_cholesky
from theory.finite_width import NEURONS
from theory.jax_settings import own_settings
from theory.kernels import flat_of
from theory.model import Array, Model, build_model, preactivation_cov
from theory.network import Network
from theory.solution import Solution
from theory.task import Task
from theory.weight_spectrum import Spectrum, linear_averages, spectrum, spectrum_of_averages

LARGEST_MATRIX = 1024  # eigenvalues cost width^3: several seconds at this width
SMALL_MATRIX = 256  # up to here two draws are shown, of unshared weights the first and the last step; else one matrix
LEARNED_DRAWS = 50
UNUSED = "a task of one step uses no recurrent weights"


@dataclass(frozen=True)
class EigenvalueCloud:
    """Eigenvalues of W under the posterior or the prior.

    Attributes:
        values: complex, all matrices together; None where there is nothing to show (``note`` says why).
        radius: gw, the radius of the bulk.
        note: what was drawn, in words.
        edge: 2 gw, the upper edge of the singular values of a matrix of prior noise.
        singular_values: the largest singular value of each matrix drawn.
    """

    values: np.ndarray | None
    radius: float
    note: str
    edge: float
    singular_values: np.ndarray


def eigenvalue_cloud(posterior: xr.DataTree) -> EigenvalueCloud:
    """Eigenvalues of whole matrices W drawn back up to width 1024, else of their learned part (linear networks)."""
    network, task = network_of(posterior), task_of(posterior)
    values, singular_values, note = _drawn(posterior, network, task)
    gain = float(network.wiring(task.steps).weights[0].gain.max())
    return EigenvalueCloud(values, gain, note, 2 * gain, singular_values)


def prior_cloud(prior: xr.DataTree) -> EigenvalueCloud:
    """Eigenvalues of a whole matrix W of the prior, that of the last step: independent entries of variance gw^2 / N."""
    network, task = network_of(prior), task_of(prior)
    weights = network.wiring(task.steps).weights[0]
    gain = float(weights.gain[-1])
    note = f"all {network.width} eigenvalues of W in one draw from the prior"
    values, largest = None, np.zeros(0)
    if not weights.used.any():
        note = UNUSED
    elif f"{weights.name}_gain" in names_with_priors(prior):
        note = f"{weights.name}_gain has a prior, so that no circle is that of all draws"
    elif network.width > LARGEST_MATRIX:
        note = f"width {network.width} is above {LARGEST_MATRIX}: too large to diagonalise W"
    else:
        rng = np.random.default_rng([int(prior.attrs["seed"]), 7])
        matrix = gain / np.sqrt(network.width) * rng.normal(size=(network.width, network.width))
        values, largest = np.linalg.eigvals(matrix), np.array([_largest_singular_value(matrix)])
    return EigenvalueCloud(values, gain, note, 2 * gain, largest)


def predicted_by(solution: Solution) -> Spectrum | None:
    """What the theory says of the same weights; None where the task uses none."""
    weights = solution.network.wiring(solution.task.steps).weights[0]
    if not weights.used.any():
        return None
    # As many neurons as the predicted spread is computed from, which are drawn once.
    neurons = None if solution.saddle.linear else NEURONS
    return spectrum(solution, weights=weights.name, neurons=neurons)


def _drawn(posterior: xr.DataTree, network: Network, task: Task) -> tuple[np.ndarray | None, np.ndarray, str]:
    nothing = np.zeros(0)
    weights = network.wiring(task.steps).weights[0]
    if not weights.used.any():
        return None, nothing, UNUSED
    if "latents" not in posterior.children:
        return None, nothing, "of networks known by their activities the weights are not known"
    if network.width <= LARGEST_MATRIX:
        small = network.width <= SMALL_MATRIX
        chains = range(min(2 if small else 1, posterior["latents"].sizes["chain"]))
        drawn = [np.asarray(draw_weights(posterior, chain)[weights.name]) for chain in chains]
        copies = len(drawn[0])
        steps = range(copies) if copies == 1 or (small and copies == 2) else [0, copies - 1] if small else [copies - 1]
        matrices = [matrix[step] for matrix in drawn for step in steps]
        first = [int(np.flatnonzero(weights.copy_of == step)[0]) for step in steps]
        into = " and ".join(site_in_words(site, network.layers) for site in first)
        which = "" if copies == 1 else f" into {into}"
        note = f"all {network.width} eigenvalues of W{which} in {len(drawn)} draw{'s' * (len(drawn) > 1)}"
        largest = np.array([_largest_singular_value(matrix) for matrix in matrices])
        return np.concatenate([np.linalg.eigvals(matrix) for matrix in matrices]), largest, note
    if network.activation != "linear":
        return None, nothing, f"width {network.width} is above {LARGEST_MATRIX}: too large to draw and diagonalise W"
    kernels = flat_of(kernels_of(posterior, "the spectrum of a network as wide as this"))
    kernels = kernels.reshape(-1, *kernels.shape[-2:])
    chosen = kernels[np.linspace(0, len(kernels) - 1, min(LEARNED_DRAWS, len(kernels))).astype(int)]
    learned = [np.concatenate(found.eigenvalues) for found in learned_spectra(network, task, chosen)]
    note = (
        f"eigenvalues of the learned part of W, which has finite rank, in {len(chosen)} posterior draws (width "
        f"{network.width} is above {LARGEST_MATRIX}; the rest of W is prior noise that fills the circle)"
    )
    return np.concatenate(learned), nothing, note


def learned_spectra(network: Network, task: Task, kernels: np.ndarray) -> list[Spectrum]:
    """Spectra of E[W | H] of a linear network, from kernels (draws, n, n) alone: there phi(h) = h."""
    with own_settings():
        model = build_model(network, task).on_device()
        factors = np.asarray(_factors(model, jnp.asarray(kernels)))
        averages = [linear_averages(model, k, f) for k, f in zip(kernels, factors, strict=True)]
    return [spectrum_of_averages(model, 0, average) for average in averages]


@jax.jit
def _factors(model: Model, kernels: Array) -> Array:
    """The factors L of C[Phi] = L L^T of kernels (draws, n, n)."""

    def factor_of(kernel: Array) -> Array:
        cov = preactivation_cov(model, kernel)
        return semidefinite_cholesky(cov, jnp.diagonal(cov))

    return jax.lax.map(factor_of, kernels)


def _largest_singular_value(matrix: np.ndarray) -> float:
    last = [len(matrix) - 1] * 2
    return float(np.sqrt(scipy.linalg.eigvalsh(matrix @ matrix.T, subset_by_index=last)[0]))

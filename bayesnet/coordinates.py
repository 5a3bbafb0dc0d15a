"""The three coordinate systems as the sampler sees them: a model, and what is read off each of its draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import random

from bayesnet.models.field_space import field_kernel, field_model
from bayesnet.models.kernel_space import bartlett_kernel, kernel_model, kernels_refusal
from bayesnet.models.likelihood import target_density
from bayesnet.models.weight_space import run_network, scale_weights, weight_model
from theory.causal import semidefinite_cholesky
from theory.covariance import Array, Terms
from theory.network import Network
from theory.prediction import predict_given_kernel
from theory.task import Task

NAMES = ("auto", "kernels", "fields", "weights")


@dataclass(frozen=True)
class Coordinates:
    """A coordinate system of the posterior.

    Attributes:
        name: "weights", "fields" or "kernels".
        model: NumPyro model of (terms, observed=True, likelihood_weight=1).
        observe: (terms, latents, key) -> what is stored of a draw: ``kernel`` (n, n), ``prediction`` f (n, O),
            ``log_likelihood_marginal`` and the pointwise ``log_likelihood`` (number supervised, O).
    """

    name: str
    model: Callable
    observe: Callable


def choose_coordinates(name: str, network: Network, task: Task) -> str:
    """Resolve "auto": kernels where they are exact and possible, else fields.

    Raises:
        ValueError: for an unknown name, or "kernels" where they do not hold.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"coordinates is {name!r}; allowed are {', '.join(map(repr, NAMES))}")
    refusal = kernels_refusal(network, task)
    if name == "auto":
        return "fields" if refusal else "kernels"
    if name == "kernels" and refusal:
        raise ValueError(f"coordinates is 'kernels': {refusal}")
    return name


def build_coordinates(name: str, network: Network, task: Task) -> Coordinates:
    """The coordinate system ``name`` for a network on a task.

    For fields and kernels it depends on width, activation, steps and patterns only; all else is in the `Terms`.
    """
    phi, steps, patterns, width = network.phi.function, task.steps, task.patterns, network.width
    if name == "fields":
        model = field_model(phi, steps, patterns, width)
        return Coordinates(name, model, _observe_kernel(lambda terms, z: field_kernel(terms, z["z"], phi)))
    if name == "kernels":

        def kernel_of(terms, z):
            return bartlett_kernel(terms, z["bartlett_diagonal"], z["bartlett_lower"], patterns, width)

        return Coordinates(name, kernel_model(steps, patterns, width), _observe_kernel(kernel_of))

    def observe(terms: Terms, latents: dict[str, Array], key: Array) -> dict[str, Array]:
        kernel, prediction = run_network(network, task, scale_weights(network, task, latents))
        return _invariants(terms, kernel, prediction.transpose(1, 0, 2).reshape(task.entries, -1))

    return Coordinates(name, weight_model(network, task), observe)


def _observe_kernel(kernel_of: Callable) -> Callable:
    """Observation of coordinates without V: f is drawn from its law given the kernel and the targets."""

    def observe(terms: Terms, latents: dict[str, Array], key: Array) -> dict[str, Array]:
        kernel = kernel_of(terms, latents)
        return _invariants(terms, kernel, draw_prediction(terms, kernel, key))

    return observe


def draw_prediction(terms: Terms, kernel: Array, key: Array) -> Array:
    """A draw of f (n, O) given the kernel and the targets."""
    law = predict_given_kernel(terms, kernel)
    # The covariance is singular wherever activities repeat; what counts as zero is measured by the prior variance.
    prior = terms.scale * jnp.diagonal(terms.readout * kernel)
    return law.mean + semidefinite_cholesky(law.cov, prior) @ random.normal(key, law.mean.shape, kernel.dtype)


def _invariants(terms: Terms, kernel: Array, prediction: Array) -> dict[str, Array]:
    density = target_density(terms, kernel)
    return {
        "kernel": kernel,
        "prediction": prediction,
        "log_likelihood_marginal": density.joint,
        "log_likelihood": density.pointwise,
    }

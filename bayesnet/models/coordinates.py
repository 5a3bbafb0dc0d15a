"""The three coordinate systems as the sampler sees them: a model, and what is read off each of its draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax.numpy as jnp
from jax import random

from bayesnet.models.field_space import field_kernel, field_model
from bayesnet.models.gauge import GaugeMove, field_gauge, kernel_gauge
from bayesnet.models.kernel_space import bartlett_kernel, kernel_model, kernels_refusal
from bayesnet.models.likelihood import target_density
from bayesnet.models.weight_space import run_white, weight_model
from bayesnet.priors import Priors
from theory.causal import semidefinite_cholesky
from theory.model import Array, Model, output_law
from theory.network import Network
from theory.parameters import Parameters
from theory.task import Task

NOTHING: Mapping = MappingProxyType({})
NAMES = ("auto", "kernels", "fields", "weights")


@dataclass(frozen=True)
class Coordinates:
    """A coordinate system of the posterior.

    Attributes:
        name: "weights", "fields" or "kernels".
        model: NumPyro model of (model, observed=True, likelihood_weight=1).
        observe: (model, latents, key) -> what is stored of a draw: ``kernel`` (n, n), ``prediction`` f (T P, O),
            ``log_likelihood_marginal`` and the pointwise ``log_likelihood`` (number supervised, O).
        gauge: what a sampler may do to the latents where groups of sites are tied by nothing; None for weights.
    """

    name: str
    model: Callable
    observe: Callable
    gauge: GaugeMove | None = None


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


def build_coordinates(name: str, network: Network, task: Task, priors: Priors | None = None) -> Coordinates:
    """The coordinate system ``name`` for a network on a task.

    For fields and kernels it depends on width, activation, steps and patterns only; all else is in the `Model`. With
    ``priors`` the model takes the targets alone from its `Model`, and ``observe`` also gives the parameters' values.
    """
    phi, width = network.phi.function, network.width
    parameters = None if priors is None else Parameters(network, task, priors.names)

    def kernel_of(model, z):
        return bartlett_kernel(model, z["bartlett_diagonal"], z["bartlett_lower"], width)

    def observe(model: Model, latents: dict[str, Array], key: Array, values: Mapping[str, Array] = NOTHING) -> dict:
        kernel, prediction = run_white(network, task, latents, parameters, values)
        return _invariants(model, kernel, prediction.swapaxes(0, 1).reshape(task.entries, -1))

    if name == "weights":
        space = Coordinates(name, weight_model(network, task, parameters), observe)
    elif name == "fields":
        field = _observe_kernel(lambda model, z: field_kernel(model, z["z"], phi))
        space = Coordinates(name, field_model(phi, width), field, field_gauge(network.phi.odd))
    else:
        space = Coordinates(name, kernel_model(width), _observe_kernel(kernel_of), kernel_gauge(width))
    return space if parameters is None or priors is None else _with_priors(space, parameters, priors)


def _with_priors(space: Coordinates, parameters: Parameters, priors: Priors) -> Coordinates:
    """The coordinates with the parameters as further latents."""

    def at(model: Model, values: Mapping[str, Array]) -> tuple[Model, dict]:
        here = parameters.model(values).replace(targets=model.targets, supervised=model.supervised)
        return here, {"values": values} if space.name == "weights" else {}

    def posterior(model: Model, observed: bool = True, likelihood_weight: Array = 1.0) -> None:
        here, more = at(model, priors.sample_values())
        space.model(here, observed, likelihood_weight, **more)

    def observe(model: Model, latents: dict[str, Array], key: Array) -> dict[str, Array]:
        values = priors.values_of(latents)
        here, more = at(model, values)
        return {**space.observe(here, latents, key, **more), **values}

    return Coordinates(space.name, posterior, observe, space.gauge)


def _observe_kernel(kernel_of: Callable) -> Callable:
    """Observation of coordinates without V: f is drawn from its law given the kernel and the targets."""

    def observe(model: Model, latents: dict[str, Array], key: Array) -> dict[str, Array]:
        kernel = kernel_of(model, latents)
        return _invariants(model, kernel, model.read_out(draw_prediction(model, kernel, key)))

    return observe


def draw_prediction(model: Model, kernel: Array, key: Array) -> Array:
    """A draw of f (n, O) given the kernel and the targets."""
    law = output_law(model, kernel)
    # The covariance is singular wherever activities repeat; what counts as zero is measured by the prior variance.
    prior = model.scale * jnp.diagonal(model.readout * kernel)
    return law.mean + semidefinite_cholesky(law.cov, prior) @ random.normal(key, law.mean.shape, kernel.dtype)


def _invariants(model: Model, kernel: Array, prediction: Array) -> dict[str, Array]:
    density = target_density(model, kernel)
    return {
        "kernel": kernel,
        "prediction": prediction,
        "log_likelihood_marginal": density.joint,
        "log_likelihood": density.pointwise,
    }

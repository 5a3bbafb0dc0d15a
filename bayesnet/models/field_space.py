"""Coordinates (b), fields: all weights integrated out; what is sampled is the white noise of every neuron.

The pre-activations are built from the noise by `theory.causal.propagate`, exactly at any width and for any
activation; N numbers for each entry with a standard normal prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesnet.models.likelihood import observe_marginal_targets, record_kernel
from theory.causal import kernel_of_noise
from theory.model import Array, Model
from theory.network import Network
from theory.parameters import model_at
from theory.task import Task


def fields(network: Network, task: Task, observed: bool = True, parameters: Mapping[str, Array] | None = None) -> None:
    """The posterior of a network on a task in field coordinates, as a NumPyro model.

        z ~ N(0, 1),  H = F L[Phi] z,  Phi = phi(H) phi(H)^T / N,  y_o ~ N(0, (kappa I + gv^2 Mv o Phi) / N)

    Sites: ``z`` (T, P, N) latent; ``kernel`` (T, P, T, P) deterministic; ``y`` (O, number supervised), observed at
    the supervised targets, or drawn when ``observed`` is False.

    Args:
        network, task: whose posterior it is.
        observed: whether the targets are seen.
        parameters: values of numbers of the network ("noise", "recurrent_gain", "shared.recurrent" and so on) that take
            the place of its own: a model of yours may sample them, or JAX differentiate with respect to them.
    """
    posterior = field_model(network.phi.function, network.width)
    posterior(model_at(network, task, parameters), observed)


def field_model(phi: Callable, width: int) -> Callable:
    """The model with its arrays as an argument: ``posterior(model, observed=True, likelihood_weight=1)``."""

    def posterior(model: Model, observed: bool = True, likelihood_weight: Array = 1.0) -> None:
        z = numpyro.sample("z", dist.Normal(0, jnp.ones((model.sites, model.patterns, width))).to_event(3))
        kernel = field_kernel(model, z, phi)
        record_kernel(kernel, model.patterns)
        with numpyro.handlers.scale(scale=likelihood_weight):
            observe_marginal_targets(model, kernel, observed)

    return posterior


def field_kernel(model: Model, z: Array, phi: Callable) -> Array:
    """Phi (n, n) from the noise z (T, P, N)."""
    width = z.shape[-1]
    return kernel_of_noise(model, z.reshape(-1, width), phi, width)

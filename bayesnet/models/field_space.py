"""Coordinates (b), fields: W, U and V integrated out; what is sampled is the white noise of every neuron.

The pre-activations are built from the noise by `theory.causal.propagate`, exactly at any width and for any
activation; N T P numbers with a standard normal prior.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesnet.models.likelihood import observe_marginal_targets, record_kernel
from theory.causal import kernel_of_noise
from theory.covariance import Array, Terms, covariance_terms
from theory.network import Network
from theory.task import Task


def fields(network: Network, task: Task, observed: bool = True) -> None:
    """The posterior of a network on a task in field coordinates, as a NumPyro model.

        z ~ N(0, 1),  H = L[Phi] z,  Phi = phi(H) phi(H)^T / N,  y_o ~ N(0, (kappa I + gv^2 Mv o Phi) / N)

    Sites: ``z`` (T, P, N) latent; ``kernel`` (T, P, T, P) deterministic; ``y`` (O, number supervised), observed at
    the supervised targets, or drawn when ``observed`` is False.
    """
    model = field_model(network.phi.function, task.steps, task.patterns, network.width)
    model(covariance_terms(network, task), observed)


def field_model(phi: Callable, steps: int, patterns: int, width: int) -> Callable:
    """The model with its arrays as an argument: ``model(terms, observed=True, likelihood_weight=1)``."""

    def model(terms: Terms, observed: bool = True, likelihood_weight: Array = 1.0) -> None:
        z = numpyro.sample("z", dist.Normal(0, jnp.ones((steps, patterns, width))).to_event(3))
        kernel = field_kernel(terms, z, phi)
        record_kernel(kernel, patterns)
        with numpyro.handlers.scale(scale=likelihood_weight):
            observe_marginal_targets(terms, kernel, observed)

    return model


def field_kernel(terms: Terms, z: Array, phi: Callable) -> Array:
    """Phi (n, n) from the noise z (T, P, N)."""
    steps, patterns, width = z.shape
    return kernel_of_noise(terms, z.reshape(steps * patterns, width), phi, patterns, width)

"""Coordinates (a), weights: the literal model, with W, U and V sampled. The reference for the other two."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesnet.models.likelihood import record_kernel
from theory.covariance import Array, Terms, covariance_terms
from theory.network import Network
from theory.task import Task


class Weights(NamedTuple):
    """The weights of a network, one copy on the leading axis where shared, else one for each step.

    Attributes:
        recurrent: W, (1 or T, N, N); an unshared W_1 acts on phi(h_0) = 0 and is left out: (T-1, N, N).
        input: U, (1 or T, N, D).
        readout: V, (1 or T, O, N).
    """

    recurrent: Array
    input: Array
    readout: Array

    def at(self, name: str, step: int) -> Array:
        """The matrix used at ``step`` (0-based; for W at least 1)."""
        copies = getattr(self, name)
        index = 0 if copies.shape[0] == 1 else step - (name == "recurrent")
        return copies[index]


def weights(network: Network, task: Task, observed: bool = True) -> None:
    """The posterior of a network on a task in weight coordinates, as a NumPyro model.

        h_t = W_t phi(h_{t-1}) + U_t x_t,   f_t = V_t phi(h_t) / N,   y_t ~ N(f_t, kappa / N)

    Sites: ``recurrent``, ``input``, ``readout``, latent and whitened: standard normal, of the shapes of `Weights`
    (`scale_weights` gives W, U, V); ``kernel`` (T, P, T, P) and ``prediction`` f (P, T, O) deterministic; ``y``
    (O, number supervised), observed at the supervised targets, or drawn when ``observed`` is False.
    """
    weight_model(network, task)(covariance_terms(network, task), observed)


def weight_shapes(network: Network, task: Task) -> dict[str, tuple[int, int, int]]:
    """The shapes of `Weights` by name."""

    def copies(name: str, number: int) -> int:
        return 1 if name in network.shared else number

    return {
        "recurrent": (copies("recurrent", task.steps - 1), network.width, network.width),
        "input": (copies("input", task.steps), network.width, task.input_dim),
        "readout": (copies("readout", task.steps), task.output_dim, network.width),
    }


def weight_model(network: Network, task: Task):
    """The model with its targets as an argument: ``model(terms, observed=True, likelihood_weight=1)``."""
    shapes = weight_shapes(network, task)

    def model(terms: Terms, observed: bool = True, likelihood_weight: Array = 1.0) -> None:
        white = {
            name: numpyro.sample(name, dist.Normal(0, jnp.ones(shape)).to_event(3))
            for name, shape in shapes.items()
            if 0 not in shape
        }
        kernel, prediction = run_network(network, task, scale_weights(network, task, white))
        record_kernel(kernel, task.patterns)
        numpyro.deterministic("prediction", prediction)
        mean = prediction.transpose(2, 1, 0).reshape(task.output_dim, task.entries)[:, terms.supervised]
        law = dist.Normal(mean, jnp.sqrt(terms.scale * terms.noise)).to_event(2)
        with numpyro.handlers.scale(scale=likelihood_weight):
            numpyro.sample("y", law, obs=jnp.asarray(terms.targets.T, mean.dtype) if observed else None)

    return model


def scale_weights(network: Network, task: Task, white: dict[str, Array]) -> Weights:
    """W, U, V from the whitened sites: times gw / sqrt(N), gu / sqrt(D), gv."""
    nothing = jnp.zeros((0, network.width, network.width))
    return Weights(
        white.get("recurrent", nothing) * network.recurrent_gain / math.sqrt(network.width),
        white["input"] * network.input_gain / math.sqrt(task.input_dim),
        white["readout"] * network.readout_gain,
    )


def run_network(network: Network, task: Task, weights: Weights) -> tuple[Array, Array]:
    """Run the recurrence: the kernel (n, n) and the prediction f (P, T, O)."""
    scale = network.width if network.scaling == "mup" else math.sqrt(network.width)
    activities = [network.phi.function(h) for h in run_fields(network, task, weights)]
    outputs = [phi @ weights.at("readout", step).T / scale for step, phi in enumerate(activities)]
    activity = jnp.concatenate(activities)
    return activity @ activity.T / network.width, jnp.stack(outputs, axis=1)


def run_fields(network: Network, task: Task, weights: Weights) -> list[Array]:
    """The pre-activations h_1, ..., h_T, (P, N) each."""
    fields: list[Array] = []
    for step in range(task.steps):
        h = jnp.asarray(task.inputs[:, step], weights.input.dtype) @ weights.at("input", step).T
        if step:
            h = h + network.phi.function(fields[-1]) @ weights.at("recurrent", step).T
        fields.append(h)
    return fields

"""How single networks of a width scatter, by the theory: draws of observables around a saddle point or the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from bayesnet.models.coordinates import draw_prediction
from bayesnet.observables import Observable
from bayesnet.prior_draws import sample_prior
from bayesnet.recorded_neurons import as_recorded, neuron_covariance, without_bias
from bayesnet.task_images import turned_toward
from theory.finite_width import fluctuations
from theory.jax_settings import own_settings
from theory.kernels import flat_of, outputs_of
from theory.lazy import nngp
from theory.model import Array, Model, build_model
from theory.seeds import key_of
from theory.solution import Solution

DRAWS = 1000
BLOCK = 500  # draws whose kernels without each part of the neurons are held at once


def predicted_draws(
    solution: Solution, width: int, neurons: int, observables: Sequence[Observable], draws: int = DRAWS, seed: int = 0
) -> np.ndarray | None:
    """Observables of single networks of width N, (draws, K): Gaussian kernels around the saddle point, f given the
    kernel, and the kernel as estimated from ``neurons`` recorded neurons. None where the theory predicts no spread (a
    lazy limit, an unstable solution, one at its transition)."""
    try:
        kernels = fluctuations(replace(solution, network=solution.network.replace(width=width))).draw_kernels(
            draws, seed
        )
    except ValueError:
        return None
    return _evaluated(solution, kernels, width, neurons, observables, seed, solution)


def lazy_draws(
    solution: Solution, width: int, neurons: int, observables: Sequence[Observable], draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Observables of single networks whose kernels are drawn from the prior and of which the readout alone has learned,
    (draws, K): of the network of a solution at width N, in the images nearest to that (`bayesnet.task_images`)."""
    network, task = solution.network.replace(width=width), solution.task
    kernels = sample_prior(network, task, draws, seed=seed)["prior"]["kernel"].to_numpy()[0]
    return _evaluated(nngp(network, task), kernels, width, neurons, observables, seed, solution)


def _evaluated(
    solution: Solution,
    kernels: np.ndarray,
    width: int,
    neurons: int,
    observables: Sequence[Observable],
    seed: int,
    toward: Solution,
) -> np.ndarray:
    network, task = solution.network.replace(width=width), solution.task
    # float64 within this call only.
    with own_settings():
        model = build_model(network, task).on_device()
        keys = jax.random.split(key_of(seed), len(kernels))
        outputs = np.asarray(_draw_predictions(model, flat_of(kernels), keys))
    predictions = outputs_of(outputs, task)
    if neurons >= width:
        turned = turned_toward(toward, kernels[None], predictions[None])
        if turned is not None:
            kernels, predictions = turned.kernels(kernels[None])[0], turned.outputs(predictions[None])[0]
        return np.array([o.evaluate(kernels, predictions) for o in observables]).T
    covariance, rng = neuron_covariance(solution, seed), np.random.default_rng([seed, 3])
    blocks = []
    for start in range(0, len(kernels), BLOCK):
        block = slice(start, start + BLOCK)
        seen, without = as_recorded(kernels[block], covariance, width, neurons, rng)
        told = predictions[block]
        turned = turned_toward(toward, seen[None], told[None])
        if turned is not None:
            seen, without = turned.kernels(seen[None])[0], turned.kernels(without[None])[0]
            told = turned.outputs(told[None])[0]
        estimates = [without_bias(o, o.evaluate(seen, told), without, told, 1 - neurons / width) for o in observables]
        blocks.append(np.array(estimates).T)
    return np.concatenate(blocks)


@jax.jit
def _draw_predictions(model: Model, kernels: Array, keys: Array) -> Array:
    """A draw of f (T P, O) for each kernel (n, n)."""
    return jax.lax.map(lambda pair: model.read_out(draw_prediction(model, *pair)), (kernels, keys))

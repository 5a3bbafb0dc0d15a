"""predict: a posterior's answers to inputs it has not seen: new patterns, and longer sequences where all is shared."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesnet.forward_pass import forward
from bayesnet.models.weight_space import PROCESS_NOISE, Weights
from bayesnet.results import names_with_priors, network_of, require_whole, task_of
from bayesnet.weight_draws import draw_weights
from theory import arguments
from theory.jax_settings import own_settings
from theory.kernels import OUTPUT_DIMS, entry_coords
from theory.network import Network
from theory.parameters import Parameters
from theory.task import Task

ANEW = 1  # marks the random numbers of process noise
LARGEST_WIDTH = 8192  # W has N^2 entries


def predict(posterior: xr.DataTree, task: Task, seed: int = 0) -> xr.Dataset:
    """Outputs f on the inputs of another task, for every draw whose latent numbers were kept.

    The weights of each draw are drawn back exactly (`draw_weights`) and run on the new inputs, which is conditioning on
    the training data at finite width, without approximation. Process noise is drawn anew: with it, trained inputs do
    not give the outputs that they gave in training. Ask `sample` for more ``num_latents`` for more draws.

    Args:
        posterior: what `sample` returned.
        task: its inputs are what the network sees; its targets do not matter here (they may score the result).
        seed: of the prior noise that completes the weights, and of process noise.

    Returns:
        ``prediction`` with dims (chain, latent_draw, pattern, step, output), steps and patterns counted from 1.

    Raises:
        ValueError: if the input or output dimensions differ from the posterior's, if the task is longer than the
            posterior's and a weight is not shared over the steps, or if the width exceeds 8192.
    """
    network, seen = network_of(posterior), task_of(posterior)
    _check(network, seen, task)
    require_whole(posterior, "latents")
    sizes = posterior["latents"].sizes
    outputs = np.empty((sizes["chain"], sizes["latent_draw"], task.patterns, task.steps, task.output_dim))
    # float64 within this call only.
    with own_settings():
        names = names_with_priors(posterior)
        numbers = Parameters(network, task, names)
        for chain, draw in np.ndindex(outputs.shape[:2]):
            weights = draw_weights(posterior, chain, draw, seed)
            here = posterior["latents"].isel(chain=chain, latent_draw=draw)
            values = {name: float(here[name]) for name in names}
            if network.process_noise:  # what the neurons received in training says nothing of this task
                shape = (network.layers * task.steps, network.width, task.patterns)
                noise = np.random.default_rng([seed, chain, draw, ANEW]).normal(size=shape)
                weights = Weights({**dict(weights.items()), PROCESS_NOISE: numbers.process_noise(values) * noise})
            outputs[chain, draw] = forward(network, task, weights, numbers.mixing(values))[-1]
    coords = entry_coords(task)
    coords |= {name: posterior["latents"][name].to_numpy() for name in ("chain", "latent_draw")}
    return xr.Dataset({"prediction": (("chain", "latent_draw", *OUTPUT_DIMS), outputs)}, coords)


def _check(network: Network, seen: Task, task: Task) -> None:
    arguments.instance("task", task, Task)
    for name in ("input_dim", "output_dim"):
        if getattr(task, name) != getattr(seen, name):
            raise ValueError(f"task has {name} {getattr(task, name)}; the posterior's is {getattr(seen, name)}")
    network.require_extendable(task.steps, seen.steps)
    if network.width > LARGEST_WIDTH:
        raise ValueError(f"width is {network.width}; weights can be drawn back up to {LARGEST_WIDTH}")

"""sample_prior: what a network does before it has seen any target."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import lax, random
from numpyro import handlers

from bayesnet.models.coordinates import build_coordinates, choose_coordinates
from bayesnet.priors import Priors
from bayesnet.results import constant_data, installed_versions, invariant_data, observation_coords, observed_data
from bayesnet.samplers.engine import blank_problem
from bayesnet.samplers.memory_need import count_latents, entries_in_words
from theory import arguments
from theory.jax_settings import own_settings
from theory.memory import require_memory
from theory.model import build_model
from theory.network import Network
from theory.seeds import key_of
from theory.task import Task


def sample_prior(
    network: Network,
    task: Task,
    num_samples: int = 1000,
    coordinates: str = "auto",
    seed: int = 0,
    priors: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Independent draws from the prior of a network on a task's inputs, with the targets that it would give.

    Args:
        network: the network.
        task: its inputs are what the network sees; its targets do not matter, only where they are supervised.
        num_samples: number of draws.
        coordinates: as for `sample`; all give the same law.
        seed: the same seed gives the same draws.
        priors: of numbers of the network, as for `sample`; each draw has values of its own, which are in prior too.

    Returns:
        A DataTree with the groups prior (``kernel``, ``overlap``, ``prediction`` as in the posterior of `sample`),
        prior_predictive (``y``, new targets y = f + noise), observed_data and constant_data; dims begin with (chain,
        draw), one chain. ``bayesnet.to_arviz(posterior, prior)`` joins it with a posterior.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    unknown = None if priors is None else Priors(network, task, priors)
    network = network if unknown is None else unknown.network
    coordinates = choose_coordinates(coordinates, network, task)
    number, seed = arguments.integer("num_samples", num_samples, 1), arguments.seed("seed", seed)
    n, latents = network.layers * task.entries, count_latents(coordinates, network, task)
    require_memory(
        f"num_samples {number} for {entries_in_words(network, task)}, one at a time in {coordinates} at width "
        f"{network.width},",
        8.0 * (number * (2 * n**2 + task.entries * task.output_dim) + 2 * latents),
        "fewer draws or other coordinates take less",
    )
    # float64 within this call only.
    with own_settings():
        model = build_model(network, task).on_device()
        program = _program(coordinates, *blank_problem(coordinates, network, task, unknown), unknown)
        # Seen to its end before it is read: a result that failed for want of memory must not be.
        drawn = jax.block_until_ready(program(model, random.split(key_of(seed), number)))
        kernels, predictions, targets = (np.asarray(part)[None] for part in drawn[:3])
    coords = {"chain": np.arange(1), "draw": np.arange(number)}
    replicas = {"y": (("chain", "draw", "observation"), targets.reshape(1, number, -1))}
    invariants = invariant_data(task, kernels, predictions, coords)
    for name, values in drawn[3].items():
        invariants[name] = (("chain", "draw"), np.asarray(values)[None])
    tree = xr.DataTree.from_dict(
        {
            "prior": invariants,
            "prior_predictive": xr.Dataset(replicas, {**coords, **observation_coords(task)}),
            "observed_data": observed_data(task),
            "constant_data": constant_data(task),
        }
    )
    tree.attrs.update(
        network=json.dumps(network.to_dict()),
        settings=json.dumps({"coordinates": coordinates}),
        seed=seed,
        versions=json.dumps(installed_versions()),
    )
    if unknown is not None:
        tree.attrs["priors"] = json.dumps(unknown.describe())
    return tree


@lru_cache(maxsize=32)
def _program(coordinates: str, network: Network, task: Task, priors: Priors | None) -> Callable:
    """Compiled: (model, keys) -> kernels (draw, n, n), outputs f (draw, n, O), targets y (draw, supervised, O) and the
    values of what has a prior."""
    space = build_coordinates(coordinates, network, task, priors)

    @jax.jit
    def program(model, keys):
        def draw(key):
            model_key, output_key = random.split(key)
            sites = handlers.trace(handlers.seed(space.model, model_key)).get_trace(model, False)
            latents = {name: site["value"] for name, site in sites.items() if site["type"] == "sample" and name != "y"}
            targets = sites["y"]["value"].T
            # The pair (y, f given y) has the law of (f + noise, f).
            seen = space.observe(model.replace(targets=targets), latents, output_key)
            values = {name: seen[name] for name in (() if priors is None else priors.names)}
            return seen["kernel"], seen["prediction"], targets, values

        return lax.map(draw, keys)

    return program

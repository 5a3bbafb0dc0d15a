"""sample(network, task) -> xarray.DataTree: the posterior of a network on a task."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import time
from dataclasses import asdict, replace

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from bayesnet.chains import Chains, run_chains
from bayesnet.coordinates import choose_coordinates
from bayesnet.engine import Settings
from bayesnet.observables import overlaps
from theory import arguments
from theory.network import Network
from theory.solution import KERNEL_DIMS, OUTPUT_DIMS, entry_coords
from theory.task import Task

SAMPLERS = ("nuts", "hmc")
CHAIN_METHODS = ("auto", "parallel", "sequential", "vectorized")
STATISTICS = ("acceptance_rate", "n_steps", "diverging", "energy", "lp", "step_size")


def sample(
    network: Network,
    task: Task,
    coordinates: str = "auto",
    num_warmup: int = 500,
    num_samples: int = 1000,
    num_chains: int = 4,
    seed: int = 0,
    *,
    sampler: str = "nuts",
    target_accept: float = 0.8,
    max_tree_depth: int = 10,
    anneal: bool = True,
    num_latents: int = 4,
    precision: str = "float64",
    chain_method: str = "auto",
    progress: bool | None = None,
) -> xr.DataTree:
    """Sample the posterior of a network on a task, with NumPyro's NUTS unless told otherwise.

    Args:
        network: the network and its prior, of any width and activation.
        task: inputs and supervised targets.
        coordinates: "weights", "fields", "kernels" (linear networks of width >= steps * patterns; their cost does not
            depend on the width) or "auto": kernels where possible, else fields. All three are exact.
        num_warmup: warm-up draws of each chain, in which the step size adapts; discarded.
        num_samples: draws of each chain.
        num_chains: number of chains. Never fewer than four for a result: chains can freeze in metastable phases.
        seed: the same seed gives the same draws.
        sampler: "nuts" (NumPyro's), or "hmc" (`bayesnet.split_hmc`: trajectories of a quarter period with the prior
            solved exactly), several times faster on wide networks in fields.
        target_accept: acceptance rate that the step size aims at, between 0 and 1.
        max_tree_depth: of NUTS; a trajectory has at most 2^depth - 1 leapfrog steps.
        anneal: raise the weight of the likelihood from .01 to 1 in the first half of the warm-up.
        num_latents: number of draws of each chain, evenly spaced, whose latent numbers are kept, so that weights and
            new patterns can be drawn from them.
        precision: "float64", or "float32": about twice as fast when wide, with log densities rounded to 1e-2.
        chain_method: "parallel" (a thread for each chain, as many as cores), "sequential", "vectorized" (in lockstep,
            for accelerators) or "auto": vectorized on an accelerator, else parallel.
        progress: whether to show a progress bar; by default where standard error is a terminal.

    Returns:
        An ArviZ-shaped DataTree (`bayesnet.to_arviz` hands it to any version of ArviZ):

        - posterior: ``kernel`` and ``overlap`` (its normalisation) with dims (chain, draw, step, pattern, step_bis,
          pattern_bis), ``prediction`` (chain, draw, pattern, step, output) at every step, ``log_likelihood_marginal``,
          ln p(y | Phi) with V integrated out;
        - sample_stats: acceptance_rate, n_steps, tree_depth, diverging, energy, lp, step_size;
        - log_likelihood: ``y`` (chain, draw, observation), ln p(y_i | y_-i, Phi), for leave-one-out comparison;
        - observed_data, constant_data: the task; latents: the latent numbers of a few draws;
        - attributes: network, settings, seed, versions, device, wall time in seconds.

        Steps, patterns and outputs are counted from 1. An entry that no input has reached has no variance and no
        overlap: zero is stored, and ``constant_data.has_input`` is False there.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
        FloatingPointError: if a log density stops being finite, naming the chain and the draw.
    """
    settings = make_settings(
        network,
        task,
        coordinates=coordinates,
        sampler=sampler,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        anneal=anneal,
        num_latents=num_latents,
        precision=precision,
        chain_method=chain_method,
    )
    if settings.chain_method == "auto":
        method = "parallel" if jax.default_backend() == "cpu" else "vectorized"
        settings = replace(settings, chain_method=method)
    seed = arguments.integer("seed", seed, 0)
    network.to_dict()  # a network that cannot be stored is refused before anything is compiled
    started = time.perf_counter()
    draws = settings.num_chains * (settings.num_warmup + settings.num_samples)
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(total=draws, desc=f"sampling {settings.coordinates}", unit="draw", disable=hidden, leave=False) as bar:
        chains = run_chains(network, task, settings, seed, bar.update)
    return _assemble(network, task, settings, seed, chains, time.perf_counter() - started)


def make_settings(
    network: Network,
    task: Task,
    *,
    coordinates: str,
    sampler: str,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    target_accept: float,
    max_tree_depth: int,
    anneal: bool,
    num_latents: int,
    precision: str,
    chain_method: str,
) -> Settings:
    """The arguments of `sample`, checked; nothing is compiled and no device taken.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    if not isinstance(network, Network):
        raise ValueError(f"network is {type(network).__name__}; it must be a bayesnet.Network")
    if not isinstance(task, Task):
        raise ValueError(f"task is {type(task).__name__}; it must be a bayesnet.Task")
    return Settings(
        coordinates=choose_coordinates(coordinates, network, task),
        sampler=arguments.one_of("sampler", sampler, SAMPLERS),
        num_warmup=arguments.integer("num_warmup", num_warmup, 0),
        num_samples=arguments.integer("num_samples", num_samples, 1),
        num_chains=arguments.integer("num_chains", num_chains, 1),
        target_accept=arguments.fraction("target_accept", target_accept),
        max_tree_depth=arguments.integer("max_tree_depth", max_tree_depth, 1),
        anneal=arguments.flag("anneal", anneal),
        num_latents=arguments.integer("num_latents", num_latents, 1),
        precision=arguments.one_of("precision", precision, ("float64", "float32")),
        chain_method=arguments.one_of("chain_method", chain_method, CHAIN_METHODS),
    )


def _assemble(
    network: Network, task: Task, settings: Settings, seed: int, chains: Chains, seconds: float
) -> xr.DataTree:
    record = chains.record
    lead = record["lp"].shape
    shape = (task.steps, task.patterns)
    coords = {"chain": np.arange(lead[0]), "draw": np.arange(lead[1])}
    kernel = record["kernel"].reshape(*lead, *shape, *shape)
    prediction = record["prediction"].reshape(*lead, *shape, task.output_dim).swapaxes(-3, -2)
    posterior = xr.Dataset(
        {
            "kernel": (("chain", "draw", *KERNEL_DIMS), kernel),
            "overlap": (("chain", "draw", *KERNEL_DIMS), overlaps(kernel)),
            "prediction": (("chain", "draw", *OUTPUT_DIMS), prediction),
            "log_likelihood_marginal": (("chain", "draw"), record["log_likelihood_marginal"]),
        },
        coords={**coords, **entry_coords(task)},
    )
    stats = {name: (("chain", "draw"), record[name]) for name in STATISTICS}
    depth = np.ceil(np.log2(record["n_steps"] + 1)).astype(int)
    statistics = xr.Dataset({**stats, "tree_depth": (("chain", "draw"), depth)}, coords=coords)
    step, pattern = np.divmod(task.supervised_entries, task.patterns)
    observation = {
        "observation_step": ("observation", np.repeat(step + 1, task.output_dim)),
        "observation_pattern": ("observation", np.repeat(pattern + 1, task.output_dim)),
        "observation_output": ("observation", np.tile(np.arange(1, task.output_dim + 1), len(step))),
    }
    pointwise = record["log_likelihood"].reshape(*lead, -1)
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": statistics,
            "log_likelihood": xr.Dataset(
                {"y": (("chain", "draw", "observation"), pointwise)}, {**coords, **observation}
            ),
            "observed_data": xr.Dataset({"y": ("observation", task.supervised_targets.ravel())}, observation),
            "constant_data": _constant_data(task),
            "latents": _latent_data(chains),
        }
    )
    tree.attrs.update(
        network=json.dumps(network.to_dict()),
        settings=json.dumps(asdict(settings)),
        seed=seed,
        versions=json.dumps(_versions()),
        device=jax.devices()[0].device_kind,
        wall_time=seconds,
    )
    return tree


def _constant_data(task: Task) -> xr.Dataset:
    coords = {name: values for name, values in entry_coords(task).items() if not name.endswith("_bis")}
    return xr.Dataset(
        {
            "inputs": (("pattern", "step", "input_dim"), task.inputs),
            "targets": (OUTPUT_DIMS, task.targets),
            "supervised": (("pattern", "step"), task.supervised),
            "has_input": (("pattern", "step"), task.has_input),
        },
        coords=coords,
    )


def _latent_data(chains: Chains) -> xr.Dataset:
    sites = {
        name: (("chain", "latent_draw", *(f"{name}_dim_{i}" for i in range(values.ndim - 2))), values)
        for name, values in chains.latents.items()
    }
    number = next(iter(chains.latents.values())).shape[0]
    return xr.Dataset(sites, coords={"chain": np.arange(number), "latent_draw": chains.latent_draws})


def network_of(posterior: xr.DataTree) -> Network:
    """The network that a posterior was sampled for."""
    return Network.from_dict(json.loads(posterior.attrs["network"]))


def task_of(posterior: xr.DataTree) -> Task:
    """The task that a posterior was sampled for."""
    data = posterior["constant_data"]
    return Task(data["inputs"].to_numpy(), data["targets"].to_numpy(), data["supervised"].to_numpy().astype(bool))


def _versions() -> dict[str, str]:
    packages = ("bayesnet", "jax", "numpyro", "arviz", "xarray", "numpy")
    return {"python": platform.python_version(), **{name: version_of(name) for name in packages}}


def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

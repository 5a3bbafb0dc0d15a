"""Results as data: what the chains drew as an ArviZ-shaped DataTree, and the network and task read back from one."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict

import jax
import numpy as np
import xarray as xr

from bayesnet.observables import overlaps
from bayesnet.priors import LATENT, Priors
from bayesnet.samplers.chains import Chains
from bayesnet.samplers.engine import Settings
from bayesnet.samplers.moments import recorded_observables
from bayesnet.schema import (
    DRAWS,
    GROUPS,
    MOMENTS_GROUP,
    Variables,
    require_dims,
    stored_mapping,
    task_from,
    variables_of,
)
from theory.kernels import OUTPUT_DIMS, entry_coords, kernel_labels, kernel_of, outputs_of
from theory.network import Network
from theory.task import Task

# The variables that each group must have, and their dims.
LAYOUT: Mapping[str, Variables] = {**GROUPS, "latents": {}}
LEADING = {
    "posterior": DRAWS,
    "prior": DRAWS,
    "sample_stats": DRAWS,
    "latents": ("chain", "latent_draw"),
    MOMENTS_GROUP: ("chain",),
}
OUTSIDE = "outside"  # the sampler of networks that somebody else made
NEURONS = "recorded_neurons"  # attribute of recordings of fewer neurons than the width
PACKAGES = ("bayesnet", "jax", "jaxlib", "numpyro", "arviz", "xarray", "numpy")


def assemble(
    network: Network, task: Task, settings: Settings, seed: int, chains: Chains, priors: Priors | None = None
) -> xr.DataTree:
    """The DataTree that `sample` documents, from what the chains recorded."""
    statistics = _statistics(task, settings, chains.record)
    latents = _latent_data(chains, priors)
    moments = None if chains.moments is None else _moment_data(network, task, settings, chains.moments)
    tree = build_tree(network, task, chains.record, statistics, latents, seed, priors, moments)
    tree.attrs.update(settings=json.dumps(asdict(settings)), wall_time=chains.seconds)
    if moments is not None:
        draws = settings.num_chains * settings.num_samples
        tree.attrs["kernels"] = f"mean, sd and mcse of the kernels of {draws} draws in place of the kernel of each"
    if settings.sampler == "langevin":
        tree.attrs["bias"] = f"no Metropolis test: means are off by O(step_size), step_size {settings.step_size:g}"
    return tree


def build_tree(
    network: Network,
    task: Task,
    record: Mapping[str, np.ndarray],
    statistics: Mapping[str, np.ndarray],
    latents: xr.Dataset | None,
    seed: int,
    priors: Priors | None = None,
    moments: xr.Dataset | None = None,
) -> xr.DataTree:
    """A posterior as `sample` documents it, but for the attributes ``settings`` and ``wall_time``.

    Args:
        network, task: whose draws they are.
        record: ``kernel`` (chain, draw, n, n), ``prediction`` (chain, draw, T P, O), ``log_likelihood_marginal``
            (chain, draw) and the pointwise ``log_likelihood`` (chain, draw, number supervised, O).
        statistics: of each draw, (chain, draw).
        latents: of the kept draws; None where there are none.
        seed: of the new targets.
        priors: of numbers of the network, whose values are in the record too.
        moments: of the kernels, with the labels of the ``observables`` (chain, draw, K) that the record has in place of
            kernels; None where it has these.
    """
    lead = record["log_likelihood_marginal"].shape
    coords = {"chain": np.arange(lead[0]), "draw": np.arange(lead[1])}
    if moments is None:
        invariants = invariant_data(task, record["kernel"], record["prediction"], coords)
    else:
        invariants = observable_data(task, record["observables"], record["prediction"], coords, moments)
    invariants["log_likelihood_marginal"] = (DRAWS, record["log_likelihood_marginal"])
    for name in () if priors is None else priors.names:
        invariants[name] = (DRAWS, record[name])
    draws = {"y": ((*DRAWS, "observation"), record["log_likelihood"].reshape(*lead, -1))}
    groups = {
        "posterior": invariants,
        "posterior_predictive": predictive_data(network, task, invariants, seed),
        "sample_stats": xr.Dataset({name: (DRAWS, values) for name, values in statistics.items()}, coords=coords),
        "log_likelihood": xr.Dataset(draws, {**coords, **observation_coords(task)}),
        "observed_data": observed_data(task),
        "constant_data": constant_data(task),
    }
    groups |= {} if latents is None else {"latents": latents}
    groups |= {} if moments is None else {MOMENTS_GROUP: moments.drop_vars("observable")}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(
        network=json.dumps(network.to_dict()),
        seed=seed,
        versions=json.dumps(installed_versions()),
        device=jax.devices()[0].device_kind,
    )
    if priors is not None:
        tree.attrs["priors"] = json.dumps(priors.describe())
        tree["priors"] = xr.DataTree(priors.quantiles())
    return tree


def names_with_priors(posterior: xr.DataTree) -> tuple[str, ...]:
    """The numbers of the network that were sampled with it."""
    return tuple(stored_mapping(posterior.attrs, "priors")) if "priors" in posterior.attrs else ()


def from_outside(posterior: xr.DataTree) -> bool:
    """Whether a posterior holds networks that somebody else made (`bayesnet.from_weights`), not draws of a sampler."""
    return bool(stored_mapping(posterior.attrs, "settings").get("sampler") == OUTSIDE)


def recorded_neurons(posterior: xr.DataTree) -> int:
    """How many neurons of each network the kernels were read off: the width, unless fewer were recorded."""
    return int(posterior.attrs.get(NEURONS, network_of(posterior).width))


def network_of(posterior: xr.DataTree) -> Network:
    """The network that a posterior was sampled for.

    Raises:
        ValueError: if it is nothing that `sample` or `sample_prior` returned.
    """
    if not isinstance(posterior, xr.DataTree) or "network" not in posterior.attrs:
        raise ValueError(
            f"posterior is {type(posterior).__name__} without a network; it must come from bayesnet.sample"
        )
    try:
        return Network.from_dict(stored_mapping(posterior.attrs, "network"))
    except ValueError as error:
        raise ValueError(f"posterior has a network that cannot be read: {error}") from None


def task_of(posterior: xr.DataTree) -> Task:
    """The task that a posterior was sampled for.

    Raises:
        ValueError: as `require_whole`.
    """
    require_whole(posterior, "constant_data")
    return task_from(posterior["constant_data"].to_dataset())


def require_whole(posterior: xr.DataTree, *groups: str) -> None:
    """Refuse a posterior of which dimensions, steps, patterns, variables or the ``groups`` were selected away.

    Chains and draws may be selected, by lists or slices, which keep their dimensions.

    Raises:
        ValueError: naming what is missing and what to write instead.
    """
    network_of(posterior)
    for group in groups:
        if group not in posterior.children:
            raise ValueError(f"posterior lacks the group {group!r}; it must be whole, as bayesnet.sample returned it")
    for group in (name for name in LAYOUT if name in posterior.children):
        # Once for all variables: a Dataset made of a group takes a tenth of a millisecond, for every draw drawn back.
        data = posterior[group].to_dataset()
        layout = variables_of(group, posterior) if group in GROUPS else LAYOUT[group]
        for name in [*layout, *data.data_vars]:
            if name not in data.data_vars:
                raise ValueError(f"posterior lacks the variable {group}/{name}; it must be whole")
            dims = layout.get(str(name), LEADING.get(group, ()))
            require_dims("posterior", f"{group}/{name}", tuple(data.variables[name].dims), dims)
    if "constant_data" in posterior.children:
        _require_all_entries(posterior)


def _require_all_entries(posterior: xr.DataTree) -> None:
    data = posterior["constant_data"].to_dataset()
    of_kernels = [posterior[group] for group in ("posterior", "prior", MOMENTS_GROUP) if group in posterior.children]
    sites = [("site", group) for group in of_kernels if "site" in group.dims]
    for name, group in [("pattern", data), ("step", data), *sites]:
        labels = group[name].to_numpy().tolist() if name in group.coords else []
        if labels != list(range(1, len(labels) + 1)) or not labels:
            raise ValueError(f"posterior has the {name}s {labels} only; keep every {name}, and select afterwards")
    if "observed_data" in posterior.children:
        observed = posterior["observed_data"].sizes.get("observation", 0)
        if observed != int(data["supervised"].sum()) * data.sizes["output"]:
            raise ValueError(
                "posterior has lost patterns, steps or outputs, or some of its observations; keep all of them, and "
                "select from what is computed"
            )


def invariant_data(task: Task, kernels: np.ndarray, predictions: np.ndarray, coords: dict) -> xr.Dataset:
    """Kernels (chain, draw, n, n) and outputs (chain, draw, T P, O) with their labels; overlaps beside them."""
    kernel = kernel_of(kernels, task)
    dims, labels = kernel_labels(task, kernel.shape[-2])
    return xr.Dataset(
        {
            "kernel": (("chain", "draw", *dims), kernel),
            "overlap": (("chain", "draw", *dims), overlaps(kernel)),
            "prediction": (("chain", "draw", *OUTPUT_DIMS), outputs_of(predictions, task)),
        },
        coords={**coords, **entry_coords(task), **labels},
    )


def observable_data(
    task: Task, observables: np.ndarray, predictions: np.ndarray, coords: dict, moments: xr.Dataset
) -> xr.Dataset:
    """Observables (chain, draw, K), with labels as in the moments, and outputs (chain, draw, T P, O)."""
    return xr.Dataset(
        {
            "observables": ((*DRAWS, "observable"), observables),
            "prediction": ((*DRAWS, *OUTPUT_DIMS), outputs_of(predictions, task)),
        },
        coords={**coords, **entry_coords(task), "observable": moments["observable"].to_numpy()},
    )


def _moment_data(network: Network, task: Task, settings: Settings, moments: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The moments with their labels, and as a coordinate those of the observables recorded beside them."""
    flat = {name: kernel_of(values, task) for name, values in moments.items()}
    dims, labels = kernel_labels(task, next(iter(flat.values())).shape[-2])
    names = [observable.label for observable in recorded_observables(network, task)]
    coords = {"chain": np.arange(settings.num_chains), **labels, "observable": names}
    return xr.Dataset({name: (("chain", *dims), values) for name, values in flat.items()}, coords)


def kernels_of(posterior: xr.DataTree, what: str, group: str = "posterior") -> np.ndarray:
    """The kernel of every draw, (chain, draw, S, P, S, P), for ``what`` needs it.

    Raises:
        ValueError: if the posterior holds their moments instead.
    """
    if has_moments(posterior) and group == "posterior":
        raise ValueError(
            f"posterior holds the moments of its kernels, not the kernel of each draw, which {what} needs; give "
            "bayesnet.sample the argument kernels='every'"
        )
    return posterior[group]["kernel"].to_numpy()


def has_moments(posterior: xr.DataTree) -> bool:
    """Whether a posterior holds moments of its kernels in place of the kernel of every draw."""
    return MOMENTS_GROUP in posterior.children


def predictive_data(network: Network, task: Task, invariants: xr.Dataset, seed: int) -> xr.Dataset:
    """Targets that the network of each draw would give: y = f + noise at the supervised entries."""
    rng = np.random.default_rng([seed, 1])  # another stream than that of `draw_weights`
    outputs = invariants["prediction"].to_numpy().swapaxes(2, 3)
    means = outputs.reshape(*outputs.shape[:2], task.entries, task.output_dim)[:, :, task.supervised_entries]
    noise = invariants["noise"].to_numpy()[..., None, None] if "noise" in invariants else network.noise
    drawn = means + np.sqrt(noise * network.target_variance_scale) * rng.normal(size=means.shape)
    coords = {name: invariants[name].to_numpy() for name in ("chain", "draw")}
    values = drawn.reshape(*drawn.shape[:2], -1)
    return xr.Dataset({"y": (("chain", "draw", "observation"), values)}, {**coords, **observation_coords(task)})


def observed_data(task: Task) -> xr.Dataset:
    """The supervised targets, one number after the other."""
    return xr.Dataset({"y": ("observation", task.supervised_targets.ravel())}, observation_coords(task))


def observation_coords(task: Task) -> dict:
    """Step, pattern and output of each observation, counted from 1."""
    step, pattern = np.divmod(task.supervised_entries, task.patterns)
    return {
        "observation_step": ("observation", np.repeat(step + 1, task.output_dim)),
        "observation_pattern": ("observation", np.repeat(pattern + 1, task.output_dim)),
        "observation_output": ("observation", np.tile(np.arange(1, task.output_dim + 1), len(step))),
    }


def constant_data(task: Task) -> xr.Dataset:
    """The task, from which `task_of` reads it back."""
    coords = entry_coords(task)
    return xr.Dataset(
        {
            "inputs": (("pattern", "step", "input_dim"), task.inputs),
            "targets": (OUTPUT_DIMS, task.targets),
            "supervised": (("pattern", "step"), task.supervised),
            "has_input": (("pattern", "step"), task.has_input),
        },
        coords=coords,
    )


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the draws depend on."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}


def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _statistics(task: Task, settings: Settings, record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = ("acceptance_rate", "n_steps", "diverging", "energy", "lp", "step_size", "moved", "jumped")
    stats = {name: record[name] for name in names if name in record}
    if settings.sampler == "langevin":
        stats["loss"] = losses(task, record["prediction"])
        draws = settings.num_warmup + 1 + np.arange(settings.num_samples)
        time = settings.step_size * settings.steps_per_draw * draws
        stats["training_time"] = np.broadcast_to(time, stats["loss"].shape).copy()
    else:
        stats["tree_depth"] = np.ceil(np.log2(record["n_steps"] + 1)).astype(int)
    return stats


def losses(task: Task, predictions: np.ndarray) -> np.ndarray:
    """sum (y - f)^2 / 2 over the supervised entries, for outputs (chain, draw, T P, O)."""
    errors = predictions[:, :, task.supervised_entries] - task.supervised_targets
    return (errors**2).sum(axis=(2, 3)) / 2


def _latent_data(chains: Chains, priors: Priors | None) -> xr.Dataset:
    """The latent numbers of the kept draws; of numbers with priors their values, by their names."""
    latents = dict(chains.latents)
    for name in () if priors is None else priors.names:
        del latents[name + LATENT]
        latents[name] = chains.record[name][:, chains.latent_draws]
    sites = {
        name: (("chain", "latent_draw", *(f"{name}_dim_{i}" for i in range(values.ndim - 2))), values)
        for name, values in latents.items()
    }
    number = next(iter(chains.latents.values())).shape[0]
    return xr.Dataset(sites, coords={"chain": np.arange(number), "latent_draw": chains.latent_draws})

"""What posteriors, prior draws and solutions consist of: checked before they are saved, read or reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from theory.kernels import KERNEL_DIMS, OUTPUT_DIMS, SITE_DIMS
from theory.network import Network
from theory.solution import KERNELS, OUTPUTS, SCALAR_KINDS
from theory.task import Task

DRAWS = ("chain", "draw")
Variables = Mapping[str, tuple[str, ...]]
INVARIANTS: Variables = {
    "kernel": (*DRAWS, *KERNEL_DIMS),
    "overlap": (*DRAWS, *KERNEL_DIMS),
    "prediction": (*DRAWS, *OUTPUT_DIMS),
}
# In place of the kernel of every draw: the moments, in a group of their own, and observables.
MOMENTS_GROUP = "kernel_moments"
MOMENTS: Variables = {
    f"{what}_{name}": ("chain", *KERNEL_DIMS) for what in ("kernel", "overlap") for name in ("mean", "sd", "mcse")
}
RECORDED: Variables = {
    "observables": (*DRAWS, "observable"),
    "prediction": (*DRAWS, *OUTPUT_DIMS),
    "log_likelihood_marginal": DRAWS,
}
OBSERVED: Variables = {"y": (*DRAWS, "observation")}
TASK: Variables = {
    "inputs": ("pattern", "step", "input_dim"),
    "targets": OUTPUT_DIMS,
    "supervised": ("pattern", "step"),
}
GROUPS: Mapping[str, Variables] = {
    "posterior": {**INVARIANTS, "log_likelihood_marginal": DRAWS},
    "posterior_predictive": OBSERVED,
    "sample_stats": {"lp": DRAWS, "n_steps": DRAWS, "step_size": DRAWS},
    "log_likelihood": OBSERVED,
    MOMENTS_GROUP: MOMENTS,
    "prior": INVARIANTS,
    "prior_predictive": OBSERVED,
    "observed_data": {"y": ("observation",)},
    "constant_data": {**TASK, "has_input": ("pattern", "step")},
}
NEEDED = ("constant_data",)  # beside the draws
SETTINGS = {
    "coordinates": str,
    "sampler": str,
    "num_warmup": int,
    "num_samples": int,
    "num_chains": int,
    "max_tree_depth": int,
}


def variables_of(group: str, tree: xr.DataTree) -> Variables:
    """The variables that a group of a posterior or of prior draws must have."""
    return RECORDED if group == "posterior" and MOMENTS_GROUP in tree.children else GROUPS[group]


def check_draws(tree: xr.DataTree, groups: tuple[str, ...] = (), activations: Any = ()) -> tuple[Network, Task]:
    """The network and the task of a posterior or of prior draws, if nothing is missing or of another shape.

    Args:
        tree: to be checked.
        groups: that it must have beside the draws and the task.
        activations: functions of the user's that its network may have, see `theory.Network.from_dict`.

    Raises:
        ValueError: naming what is wrong.
    """
    drawn = [name for name in ("posterior", "prior") if name in tree.children]
    if not drawn:
        raise ValueError("it has neither a group 'posterior' nor a group 'prior'")
    for name in (*NEEDED, *groups):
        if name not in tree.children:
            raise ValueError(f"it lacks the group {name!r}")
    found = {name: tree[name].to_dataset() for name in GROUPS if name in tree.children}
    for name, dataset in found.items():
        _check_variables(dataset, variables_of(name, tree), f"{name}/")
    try:
        task = task_from(found["constant_data"])
    except ValueError as error:
        raise ValueError(f"its task is none: {error}") from None
    draws = {dim: found[drawn[0]].sizes[dim] for dim in DRAWS}
    for name, dataset in found.items():
        # A posterior may be joined with prior draws, which are others.
        of_draws: dict[str, int] = {} if name.startswith("prior") != drawn[0].startswith("prior") else draws
        _check_sizes(dataset, {**_sizes(task), **of_draws}, f"{name}/")
    attributes = tree.attrs
    stored = stored_mapping(attributes, "network")
    try:
        network = Network.from_dict(stored, activations)
    except ValueError as error:
        raise ValueError(f"its network cannot be made: {error}") from None
    versions = stored_mapping(attributes, "versions")
    if not isinstance(versions.get("bayesnet"), str):
        raise ValueError("its attribute 'versions' does not name the version of bayesnet")
    if not str(attributes.get("seed", "")).isdecimal():
        raise ValueError(f"its attribute 'seed' is {attributes.get('seed')!r}; it must be an integer of at least 0")
    if drawn[0] == "posterior":
        _check_run(attributes)
    return network, task


def check_solution(dataset: xr.Dataset) -> None:
    """Whether a Dataset is what `theory.Solution.to_xarray` returns.

    Raises:
        ValueError: naming what is wrong.
    """
    arrays = {**dict.fromkeys(KERNELS, KERNEL_DIMS), **dict.fromkeys(OUTPUTS, OUTPUT_DIMS)}
    arrays |= {"repetitions": ("repetition", *KERNEL_DIMS), **dict.fromkeys(SCALAR_KINDS, ())}
    branches = {f"branch_{name}": ("branch", *dims) for name, dims in arrays.items()}
    text = ("message", "branch_message")
    _check_variables(dataset, {**TASK, **arrays, **branches}, "", text)
    sizes = _sizes(task_from(dataset))
    _check_sizes(dataset, {name: sizes[name] for name in sizes if name != "observation"}, "")
    if not isinstance(dataset.attrs.get("kind"), str):
        raise ValueError(f"its attribute 'kind' is {dataset.attrs.get('kind')!r}; it must be text")
    stored_mapping(dataset.attrs, "network")


def stored_mapping(attributes: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """An attribute that holds a mapping as JSON.

    Raises:
        ValueError: if it is missing, or something else.
    """
    text = attributes.get(name)
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"its attribute {name!r} is {_shortened(text)}; it must be a mapping as JSON")
    return value


def task_from(dataset: xr.Dataset) -> Task:
    """The task that a Dataset holds.

    Raises:
        ValueError: if something is missing or of another shape, and as in `Task`.
    """
    _check_variables(dataset, TASK, "")
    return Task(dataset["inputs"].to_numpy(), dataset["targets"].to_numpy(), dataset["supervised"].to_numpy() != 0)


def _check_variables(dataset: xr.Dataset, wanted: Variables, place: str, text: tuple[str, ...] = ()) -> None:
    for name, dims in wanted.items():
        if name not in dataset.variables:
            raise ValueError(f"it lacks the variable {place}{name}")
        variable = dataset[name]
        require_dims("it", f"{place}{name}", variable.dims, dims, whole=True)
        if (variable.dtype.kind in "biuf") == (name in text):
            allowed = "text" if name in text else "numbers"
            raise ValueError(f"its variable {place}{name} is of dtype {variable.dtype}; it must hold {allowed}")


def require_dims(holder: str, name: str, found: tuple, wanted: tuple[str, ...], whole: bool = False) -> None:
    """Refuse a variable whose dims are not those wanted, or do not begin with them, or, of several layers, with sites.

    Args:
        holder: what holds the variable, for the message.
        name: of the variable.
        found: its dims.
        wanted: what they must begin with.
        whole: whether they must be these and no more.

    Raises:
        ValueError: naming what is missing and what to write instead.
    """
    if (found if whole else found[: len(wanted)]) in (wanted, of_sites(wanted)):
        return
    wanted = of_sites(wanted) if "site" in found else wanted
    gone = [dim for dim in wanted if dim not in found]
    if not gone:
        raise ValueError(f"{holder} has the dims {found} of {name}; they must be {wanted}, in this order")
    if gone[0] in ("chain", "draw", "latent_draw"):
        advice = f"select with a list or a slice, isel({gone[0]}=[0]), which keeps it"
    else:
        advice = f"keep every {gone[0]}, and select from what is computed"
    raise ValueError(f"{holder} has lost the dimension {gone[0]!r} of {name}; {advice}")


def of_sites(dims: tuple[str, ...]) -> tuple[str, ...]:
    """The dims of a kernel of several layers; others as they are."""
    lead = len(dims) - len(KERNEL_DIMS)
    return (*dims[:lead], *SITE_DIMS) if dims[lead:] == KERNEL_DIMS else dims


def _check_sizes(dataset: xr.Dataset, wanted: Mapping[str, int], place: str) -> None:
    for dim, size in dataset.sizes.items():
        if str(dim) in wanted and size != wanted[str(dim)]:
            raise ValueError(f"its dim {place}{dim} has the size {size}, not the {wanted[str(dim)]} of task and draws")


def _sizes(task: Task) -> dict[str, int]:
    return {
        "step": task.steps,
        "step_bis": task.steps,
        "pattern": task.patterns,
        "pattern_bis": task.patterns,
        "output": task.output_dim,
        "input_dim": task.input_dim,
        "observation": len(task.supervised_entries) * task.output_dim,
    }


def _check_run(attributes: Mapping[Any, Any]) -> None:
    settings = stored_mapping(attributes, "settings")
    for name, kind in SETTINGS.items():
        if type(settings.get(name)) is not kind:
            raise ValueError(f"its attribute 'settings' has {name} {settings.get(name)!r}, which is no {kind.__name__}")
    if not isinstance(attributes.get("device"), str):
        raise ValueError(f"its attribute 'device' is {attributes.get('device')!r}; it must be text")
    wall_time = attributes.get("wall_time")
    if not isinstance(wall_time, int | float | np.integer | np.floating) or not wall_time >= 0:
        raise ValueError(f"its attribute 'wall_time' is {wall_time!r}; it must be a number of seconds")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

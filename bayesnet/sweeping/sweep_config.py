"""The configuration of a sweep: a task, a network, a grid and how to measure it; read from TOML."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bayesnet.config import TASKS, build_task, merge_task
from bayesnet.sweeping.grids import BYTES_OF_VALUE, NETWORK_FIELDS, TaskMaker
from theory import arguments
from theory.memory import require_memory
from theory.network import Network
from theory.task import Task

TABLES = ("task", "network", "grid", "sampling", "solving", "sweep")
RANGE = {"start", "stop", "num", "spacing"}
# What `bayesnet phase-diagram` draws without a file: a linear chain of four steps.
DEFAULT_DIAGRAM: dict[str, dict[str, Any]] = {
    "task": {"name": "chain", "steps": 4, "signal": 1.0},
    "network": {"width": 1000},
    "grid": {
        "factor": {"start": 0.3, "stop": 6.0, "num": 20},
        "noise": {"start": 0.5, "stop": 10.0, "num": 20},
    },
}


@dataclass(frozen=True)
class SweepConfig:
    """What `bayesnet sweep` and `bayesnet phase-diagram` run; the arguments of `bayesnet.sweep`."""

    network: Network
    task: Task | TaskMaker
    grid: dict[str, Any]
    measure: str
    seed: int
    sampling: dict[str, Any]
    solving: dict[str, Any]


def build_sweep_config(tables: Mapping[str, Any]) -> SweepConfig:
    """Tables -> `SweepConfig`.

    ``[task]`` is a task by name with its arguments, or a file; arguments that are axes may be left out. ``[network]``
    holds fields of `Network` (width 512 and all weights shared where it does not say). ``[grid]`` maps each axis to a
    list of values, to a range {start, stop, num, spacing = "linear" or "log"}, or labels to values. ``[sampling]`` and
    ``[solving]`` hold arguments of `bayesnet.sample` and `theory.solve`, ``[sweep]`` holds ``measure`` and ``seed``.

    Raises:
        ValueError: naming the table and key, what was wrong and what is allowed.
    """
    for name, values in tables.items():
        if name not in TABLES:
            raise ValueError(f"table [{name}] is unknown; allowed are {', '.join(f'[{table}]' for table in TABLES)}")
        if not isinstance(values, Mapping):
            raise ValueError(f"[{name}] is {values!r}; it must be a table of keys and values")
    table = {name: dict(tables.get(name, {})) for name in TABLES}
    _check_keys("sweep", table["sweep"], ("measure", "seed"))
    _check_keys("network", table["network"], NETWORK_FIELDS)
    grid = {name: _read_values(name, values) for name, values in table["grid"].items()}
    return SweepConfig(
        network=Network(**{"width": 512, **table["network"]}),
        task=_read_task(table["task"], grid),
        grid=grid,
        measure=table["sweep"].get("measure", "theory"),
        seed=table["sweep"].get("seed", 0),
        sampling=table["sampling"],
        solving=table["solving"],
    )


def _read_values(axis: str, values: Any) -> Any:
    if not isinstance(values, Mapping) or not {"start", "stop", "num"} <= set(values) <= RANGE:
        return values
    start, stop = (arguments.real(f"[grid] {axis}.{end}", values[end]) for end in ("start", "stop"))
    number = arguments.integer(f"[grid] {axis}.num", values["num"])
    require_memory(f"[grid] {axis}.num {number}", BYTES_OF_VALUE * number, "give fewer values")
    spacing = arguments.one_of(f"[grid] {axis}.spacing", values.get("spacing", "linear"), ("linear", "log"))
    if spacing == "log":
        if min(start, stop) <= 0:
            raise ValueError(f"[grid] {axis} runs from {start} to {stop}; on a logarithmic axis both must be positive")
        return np.geomspace(start, stop, number).tolist()
    return np.linspace(start, stop, number).tolist()


def _read_task(values: dict[str, Any], grid: Mapping[str, Any]) -> Task | TaskMaker:
    """The task, or what makes it of the axes that are its arguments."""
    if "file" in values:
        return build_task(merge_task(values))
    name = values.get("name", "digits")
    maker = TASKS.get(name) if isinstance(name, str) else None
    axes = [] if maker is None else [axis for axis in grid if axis in inspect.signature(maker).parameters]
    # Any value will do for an argument that its axis decides.
    merged = merge_task({"name": name, **dict.fromkeys(axes), **values})
    if not axes:
        return build_task(merged)
    return partial(TASKS[name], **{key: value for key, value in merged.items() if key not in ("name", *axes)})


def _check_keys(name: str, values: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in values:
        if key not in allowed:
            raise ValueError(f"[{name}] {key} is unknown; allowed are {', '.join(allowed)}")

"""The grid of a sweep: axes checked before anything runs, and one point for every combination of their values.

An axis is a field of the network, a degree of sharing ("shared.recurrent" and so on), a field of the task, ``factor``
(multiplies the targets), ``seed``, or an argument of the function that makes the task.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from bayesnet.sampling import make_settings, sample
from bayesnet.sweeping.points import NOT_SETTINGS, POINT_VARIABLES, POSTERIOR, THEORY, Point, empty_values
from theory import arguments, solve
from theory.activation_identity import canonical_activation
from theory.memory import require_memory
from theory.network import Network
from theory.saddle import check_settings
from theory.sharing import SHARED, WEIGHTS
from theory.task import Task

NETWORK_FIELDS = tuple(field.name for field in fields(Network))
TASK_FIELDS = tuple(field.name for field in fields(Task))
BYTES_OF_VALUE, BYTES_OF_POINT = 50.0, 2000.0  # at least
TaskMaker = Callable[..., Task]


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        name: what varies.
        labels: its coordinate in the Dataset: numbers or strings, no two the same.
        values: what the labels stand for; the labels themselves where these are numbers or strings.
    """

    name: str
    labels: tuple[Any, ...]
    values: tuple[Any, ...]


def read_axes(grid: Any) -> list[Axis]:
    """The axes of a grid {name: values}, or {name: {label: value}} where values need names.

    Sets of weights are labelled "recurrent+input+readout" and the like (none of them: "none"), functions
    "module:name", arrays 1, 2, ... by their place.

    Raises:
        ValueError: naming the axis, what was wrong with it and what is allowed.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid is {grid!r}; it must map at least one axis to its values")
    return [_read_axis(name, values) for name, values in grid.items()]


def make_points(
    network: Network,
    task: Task | TaskMaker,
    axes: list[Axis],
    measure: str,
    *,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    solving: Mapping[str, Any] | None = None,
) -> list[Point]:
    """One `Point` for every combination of the axes' values, the last axis varying fastest.

    All networks, tasks and settings are made here, so that whatever they refuse is refused before the first point runs.

    Raises:
        ValueError: naming the axis and its value, what was wrong with it and what is allowed.
    """
    arguments.instance("network", network, Network)
    takes = _task_arguments(task, axes)
    taken = [*POINT_VARIABLES, "observable", *(name for names in empty_values(measure) for name in names)]
    for axis in axes:
        if axis.name in taken:
            raise ValueError(f"axis {axis.name!r} has the name of a variable of the result: {', '.join(taken)}")
    number = math.prod(len(axis.values) for axis in axes)
    require_memory(f"a grid of {number} points", BYTES_OF_POINT * number, "give fewer values, or several grids")
    for axis in axes:
        _check_axis(axis, network, task, takes)
    solver = _complete_settings("solving", solving, solve) if measure in THEORY else None
    sampler = _complete_settings("sampling", sampling, sample) if measure in POSTERIOR else None
    seed = arguments.seed("seed", seed)
    points = []
    for places in itertools.product(*(range(len(axis.values)) for axis in axes)):
        labels = {axis.name: axis.labels[i] for axis, i in zip(axes, places, strict=True)}
        values = {axis.name: axis.values[i] for axis, i in zip(axes, places, strict=True)}
        try:
            here = network
            for name in (*NETWORK_FIELDS, *degrees_of(network)):
                here = here.with_parameter(name, values[name]) if name in values else here
            asked = _make_task(task, values, takes)
            if solver is not None:
                check_settings(here, asked, **solver)
            if sampler is not None:
                make_settings(here, asked, **sampler)
        except Exception as error:  # the user's function may raise anything
            raise ValueError(f"the grid has no point at {name_place(labels)}: {error}") from error
        points.append(Point(labels, here, asked, measure, values.get("seed", seed), sampler, solver))
    return points


def _read_axis(name: Any, values: Any) -> Axis:
    if not isinstance(name, str):
        raise ValueError(f"grid has the axis {name!r}; the name of an axis must be a string")
    labels, listed = None, values
    if isinstance(values, range):
        number = (values.stop - values.start) // values.step  # beyond what len() can tell
        require_memory(f"axis {name!r} with {number} values", BYTES_OF_VALUE * number, "give fewer values")
    if isinstance(values, Mapping):
        labels, listed = list(values), list(values.values())
    try:
        # Text would be taken letter by letter, and a set has no order.
        listed = None if isinstance(values, str | bytes | Set) else list(listed)
    except TypeError:
        listed = None
    if listed is None:
        raise ValueError(f"axis {name!r} is {values!r}; it must be a sequence of values, or map labels to values")
    values = tuple(value.item() if isinstance(value, np.generic) else value for value in listed)
    if not values:
        raise ValueError(f"axis {name!r} is empty; it needs at least one value")
    if labels is None:
        labels = [_label_of(name, value, place) for place, value in enumerate(values, 1)]
    numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    labels = labels if numbers else [str(label) for label in labels]
    seen: set[Any] = set()
    for label in labels:
        if label in seen or label != label:
            raise ValueError(f"axis {name!r} has the value {label!r}{' twice' if label == label else ''}")
        seen.add(label)
    return Axis(name, tuple(labels), values)


def _label_of(name: str, value: Any, place: int) -> Any:
    if isinstance(value, str | int | float):
        return value
    if name == "shared" and isinstance(value, Iterable) and not isinstance(value, Mapping):
        kept = list(value)
        return "+".join(weight for weight in WEIGHTS if weight in kept) or "none"
    if callable(value):
        return str(canonical_activation(value)) if name == "activation" else getattr(value, "__name__", place)
    return place


def _task_arguments(task: Any, axes: list[Axis]) -> tuple[str, ...]:
    """The axes that the function which makes the task takes; none where ``task`` is one."""
    if isinstance(task, Task):
        return ()
    if not callable(task):
        raise ValueError(f"task is {type(task).__name__}; it must be a bayesnet.Task or a function that returns one")
    names = [axis.name for axis in axes]
    parameters = inspect.signature(task).parameters.values()
    if any(p.name == "factor" for p in parameters):
        raise ValueError("task has the argument 'factor', which multiplies its targets already; name it otherwise")
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [p.name for p in parameters if p.kind in by_name and p.default is p.empty and p.name not in names]
    if missing:
        raise ValueError(f"task needs {missing[0]!r}, which is no axis of the grid; its axes are {', '.join(names)}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return tuple(name for name in names if name != "factor")
    known = {p.name for p in parameters}
    return tuple(name for name in names if name in known)


def _check_axis(axis: Axis, network: Network, task: Task | TaskMaker, takes: tuple[str, ...]) -> None:
    """Every value of an axis on its own, as far as that is possible, so that the message names just this axis."""
    checks: dict[str, Callable[[Any], Any]] = {
        **{name: partial(network.with_parameter, name) for name in (*NETWORK_FIELDS, *degrees_of(network))},
        "factor": partial(arguments.real, "factor"),
        "seed": partial(arguments.seed, "seed"),
    }
    if isinstance(task, Task):
        checks["factor"] = task.scaled
        checks.update({name: lambda value: None for name in TASK_FIELDS})
    if axis.name not in checks and axis.name not in takes:
        allowed = [*checks, *([] if isinstance(task, Task) else inspect.signature(task).parameters)]
        raise ValueError(f"axis {axis.name!r} is unknown; allowed are {', '.join(dict.fromkeys(allowed))}")
    for label, value in zip(axis.labels, axis.values, strict=True):
        try:
            checks.get(axis.name, lambda value: None)(value)
        except ValueError as error:
            raise ValueError(f"axis {axis.name!r} has the value {label!r}: {error}") from None


def degrees_of(network: Network) -> tuple[str, ...]:
    """The axes that are degrees of sharing: "shared.recurrent" and so on."""
    return tuple(SHARED + name for name in network.weights) if network.connections is None else ()


def _make_task(task: Task | TaskMaker, values: dict[str, Any], takes: tuple[str, ...]) -> Task:
    if isinstance(task, Task):
        made = replace(task, **{name: values[name] for name in TASK_FIELDS if name in values})
    else:
        made = task(**{name: values[name] for name in takes})
        if not isinstance(made, Task):
            raise ValueError(f"task returned {type(made).__name__}; it must return a bayesnet.Task")
    return made.scaled(values["factor"]) if "factor" in values else made


def _complete_settings(name: str, given: Mapping[str, Any] | None, function: Callable) -> dict[str, Any]:
    """The given keyword arguments of ``function`` over its defaults."""
    parameters = inspect.signature(function).parameters.values()
    known = {p.name: p.default for p in parameters if p.name not in NOT_SETTINGS}
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} is {given!r}; it must map arguments of {function.__name__} to values")
    for key in given:
        if key not in known:
            hint = "; give seed to the sweep" if key == "seed" else ""
            raise ValueError(f"{name} has the key {key!r}; allowed are {', '.join(known)}{hint}")
    return {**known, **given}


def name_place(labels: Mapping[str, Any]) -> str:
    """Where a point stands, for messages."""
    return ", ".join(f"{name}={label}" for name, label in labels.items())

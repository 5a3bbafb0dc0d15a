"""The configuration of a run: a task, networks, sampling; read from TOML, with every default written out."""

from __future__ import annotations

import inspect
import json
import os
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bayesnet import tasks
from bayesnet.sampling import sample
from theory import files
from theory.network import WEIGHTS, Network
from theory.task import Task

TASKS: dict[str, Callable[..., Task]] = {
    "chain": tasks.chain,
    "endpoint": tasks.endpoint,
    "rotation": tasks.rotation,
    "digits": tasks.digits,
    "co2": tasks.co2,
}
NETWORK_FIELDS = ("width", "activation", "recurrent_gain", "input_gain", "readout_gain", "noise", "scaling")
COMMENTS = {
    "task": f'one of {", ".join(TASKS)} with its own arguments, or file = "task.npz" (inputs, targets, supervised)',
    "network": "what the networks have in common",
    "networks": "name = the weights it shares over the steps",
    "sampling": "arguments of bayesnet.sample",
}


@dataclass(frozen=True)
class Config:
    """What `bayesnet report` runs.

    Attributes:
        task: the task.
        networks: name -> network.
        sampling: keyword arguments of `bayesnet.sample`.
    """

    task: Task
    networks: dict[str, Network]
    sampling: dict[str, Any]


def default_tables() -> dict[str, dict[str, Any]]:
    """The defaults as nested tables: the digits task, RNN and DNN at width 512."""
    fields = inspect.signature(Network).parameters
    arguments = inspect.signature(sample).parameters
    network = {"width": 512, **{name: fields[name].default for name in NETWORK_FIELDS[1:]}}
    excluded = ("network", "task", "progress", "checkpoint")
    return {
        "task": {"name": "digits", **_task_arguments("digits")},
        "network": network,
        "networks": {"RNN": list(WEIGHTS), "DNN": []},
        "sampling": {name: _plain(p.default) for name, p in arguments.items() if name not in excluded},
    }


def read_tables(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file, or of a task archive (.npz) alone.

    Raises:
        ValueError: if the file is no TOML.
        OSError: if it cannot be read.
    """
    path = files.user_path("file", path)
    if path.suffix == ".npz":
        return {"task": {"file": str(path)}}
    with open(path, "rb") as file:
        try:
            tables = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"file {str(path)!r} is not TOML: {error}") from None
    task = tables.get("task")
    if isinstance(task, dict) and isinstance(task.get("file"), str):
        task["file"] = str(path.parent / files.user_path("[task] file", task["file"]))
    return tables


def build_config(tables: dict[str, Any]) -> Config:
    """Tables over the defaults -> `Config`.

    A ``[task]`` with another name or a file replaces the default task; ``[networks]`` replaces the default networks;
    everything else is merged key by key.

    Raises:
        ValueError: naming the table and key, what was wrong and what is allowed.
    """
    merged = default_tables()
    for section, values in tables.items():
        if section not in merged:
            raise ValueError(f"table [{section}] is unknown; allowed are {', '.join(f'[{name}]' for name in merged)}")
        if not isinstance(values, dict):
            raise ValueError(f"[{section}] is {values!r}; it must be a table of keys and values")
        if section == "networks":
            merged[section] = values
        elif section == "task":
            merged[section] = merge_task(values)
        else:
            for key in values:
                if key not in merged[section]:
                    raise ValueError(f"[{section}] {key} is unknown; allowed are {', '.join(merged[section])}")
            merged[section] |= values
    if not merged["networks"]:
        raise ValueError("[networks] is empty; it needs at least one name = [shared weights]")
    _check_file_names(merged["networks"])
    networks = {
        name: Network(**merged["network"], shared=_shared(name, shared)) for name, shared in merged["networks"].items()
    }
    return Config(build_task(merged["task"]), networks, merged["sampling"])


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Tables as TOML text with a comment on each."""
    parts = []
    for section, values in tables.items():
        lines = [f"# {COMMENTS[section]}", f"[{section}]"]
        lines += [f"{key} = {_toml_value(value)}" for key, value in values.items() if value is not None]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _task_arguments(name: str) -> dict[str, Any]:
    parameters = inspect.signature(TASKS[name]).parameters.values()
    return {p.name: _plain(p.default) for p in parameters if p.default is not p.empty}


def _plain(default: Any) -> Any:
    """A default as TOML gives it back."""
    return list(default) if isinstance(default, tuple) else default


def read_assignment(text: str) -> tuple[str, str, Any]:
    """'table.key=value' -> table, key, value; what is no TOML value is taken as a string.

    Raises:
        ValueError: if it has another form.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ValueError(f"--set is {text!r}; it must be TABLE.KEY=VALUE, for instance task.signal=2.0")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, value.strip()


def merge_task(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the named task over their defaults.

    Raises:
        ValueError: naming the key, what was wrong and what is allowed.
    """
    if "file" in values:
        if len(values) > 1:
            raise ValueError(f"[task] file stands alone; found {', '.join(values)}")
        return values
    name = values.get("name", "digits")
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f'[task] name is {name!r}; allowed are {", ".join(map(repr, TASKS))}, or file = "task.npz"')
    known = inspect.signature(TASKS[name]).parameters
    for key in values:
        if key != "name" and key not in known:
            raise ValueError(f"[task] {key} is unknown for {name!r}; allowed are {', '.join(known)}")
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in values]
    if missing:
        raise ValueError(f"[task] {name!r} needs {', '.join(missing)}")
    return {"name": name, **_task_arguments(name), **values}


def build_task(values: dict[str, Any]) -> Task:
    """The task that a merged table describes."""
    if "file" in values:
        if not isinstance(values["file"], str):
            raise ValueError(f"[task] file is {values['file']!r}; it must be the path of an .npz archive")
        return Task.from_npz(values["file"])
    return TASKS[values["name"]](**{key: value for key, value in values.items() if key != "name"})


def _shared(name: str, value: Any) -> list[str]:
    if not name or not all(letter.isalnum() or letter in " _-+." for letter in name):
        raise ValueError(f"[networks] {name!r} is no name; allowed are letters, digits, spaces and _ - + .")
    if not isinstance(value, list):
        raise ValueError(f"[networks] {name} is {value!r}; it must be a list out of {', '.join(map(repr, WEIGHTS))}")
    return value


def _check_file_names(names: Iterable[str]) -> None:
    """Networks are saved under their names: two must not end in one file, on no file system."""
    owners: dict[str, str] = {}
    for name in names:
        for file in (f"{name}.nc", f"{name}-theory.nc", f"{name}.checkpoint"):
            owner = owners.setdefault(file.casefold(), name)
            if owner != name:
                raise ValueError(
                    f"[networks] {owner!r} and {name!r} would both be saved as {file!r}; rename one of them"
                )


def _toml_value(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists of them are TOML's.
    return json.dumps(value)

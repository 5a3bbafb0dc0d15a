"""The configuration of a run: a task, networks, sampling; read from TOML, with every default written out."""

from __future__ import annotations

import inspect
import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayesnet import tasks
from bayesnet.sampling import make_settings, sample
from theory import arguments, files
from theory.network import Network
from theory.sharing import WEIGHTS
from theory.task import Task

TASKS: dict[str, Callable[..., Task]] = {
    "chain": tasks.chain,
    "endpoint": tasks.endpoint,
    "rotation": tasks.rotation,
    "digits": tasks.digits,
    "co2": tasks.co2,
}
# What a table says of sharing stands in [networks]; lists of connections are for Python.
NETWORK_FIELDS = tuple(name for name in inspect.signature(Network).parameters if name not in ("shared", "connections"))
COMMENTS = {
    "task": f'one of {", ".join(TASKS)} with its own arguments, or file = "task.npz" (inputs, targets, supervised), '
    "with a factor that multiplies its targets if need be",
    "network": "what the networks have in common",
    "networks": "name = the weights it shares over the steps, or their degrees, { recurrent = 0.7, input = 1.0 }",
    "sampling": "arguments of bayesnet.sample",
}
LONGEST_NAME = 200  # bytes; file systems take 255 with the endings


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
    in_python = {"priors", "tuning", "phases"}  # what no table can hold
    excluded = {"network", "task", "progress", "checkpoint"} | in_python
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
        except ValueError as error:
            raise ValueError(f"file {str(path)!r} is not TOML: {error}") from None
        except RecursionError:
            raise ValueError(f"file {str(path)!r} is nested too deeply for a configuration") from None
    task = tables.get("task")
    if isinstance(task, dict) and isinstance(task.get("file"), str):
        task["file"] = str(path.parent / files.user_path("[task] file", task["file"]))
    return tables


def build_config(tables: dict[str, Any]) -> Config:
    """Tables over the defaults -> `Config`.

    A ``[task]`` with another name or a file replaces the default task; ``[networks]`` replaces the default networks;
    everything else is merged key by key. Whatever sampling or saving would refuse is refused here.

    Raises:
        ValueError: naming the table and key, what was wrong and what is allowed.
    """
    merged = default_tables()
    for section, values in tables.items():
        if section not in merged:
            raise ValueError(f"table [{section}] is unknown; allowed are {', '.join(f'[{name}]' for name in merged)}")
        if not isinstance(values, dict):
            raise ValueError(_no_table(section, values))
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
    _check_names(list(merged["networks"]))
    networks = {
        name: Network(**merged["network"], shared=_shared(name, shared)) for name, shared in merged["networks"].items()
    }
    config = Config(build_task(merged["task"]), networks, merged["sampling"])
    _check_sampling(config)
    return config


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


def assign(tables: dict[str, Any], text: str) -> tuple[str, str]:
    """Put 'table.key=value' into the tables, or replace a whole one by 'table={key = value, ...}'.

    What is no TOML value is taken as a string.

    Returns:
        The table and the key; no key where a whole table was given.

    Raises:
        ValueError: if the text has another form, or ``table`` is none.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and section and bool(dot) == bool(key)):
        raise ValueError(f"--set is {text!r}; it must be TABLE.KEY=VALUE, for instance task.signal=2.0")
    read = _read_value(text, value)
    if key:
        set_value(tables, section, key, read)
    elif isinstance(read, dict):
        tables[section] = read
    else:
        raise ValueError(f"--set is {text!r}; it must be TABLE.KEY=VALUE, or TABLE={{KEY = VALUE, ...}}")
    return section, key


def set_value(tables: dict[str, Any], section: str, key: str, value: Any) -> None:
    """Put a value into a table, which is made where it is missing.

    Raises:
        ValueError: if there is something else in the table's place.
    """
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        raise ValueError(_no_table(section, table))
    table[key] = value


def _read_value(text: str, value: str) -> Any:
    try:
        read = tomllib.loads(f"value = {value}")
    except RecursionError:
        raise ValueError(f"--set is {text[:60]!r}...; it is nested too deeply") from None
    except ValueError:
        return value.strip()
    if set(read) != {"value"}:
        raise ValueError(f"--set is {text!r}; it must have one value, with nothing on a new line after it")
    return read["value"]


def _no_table(section: str, value: Any) -> str:
    return f"[{section}] is {value!r}; it must be a table of keys and values"


def merge_task(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the named task over their defaults.

    Raises:
        ValueError: naming the key, what was wrong and what is allowed.
    """
    if "file" in values:
        others = [key for key in values if key not in ("file", "factor")]
        if others:
            raise ValueError(f"[task] file takes a factor and nothing else beside it; found {', '.join(others)}")
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
    """The task that a merged table describes.

    Raises:
        ValueError: naming the key, what was wrong and what is allowed.
        OSError: if its file cannot be read.
    """
    if "file" in values:
        if not isinstance(values["file"], str):
            raise ValueError(f"[task] file is {values['file']!r}; it must be the path of an .npz archive")
        return Task.from_npz(values["file"]).scaled(arguments.real("[task] factor", values.get("factor", 1.0)))
    return TASKS[values["name"]](**{key: value for key, value in values.items() if key != "name"})


def _check_names(names: list[str]) -> None:
    """Networks are saved under their names: these must be names of files, no two in one file on any file system."""
    owners: dict[str, str] = {}
    for name in names:
        plain = name.isprintable() and all(letter.isalnum() or letter in " _-+." for letter in name)
        if not (plain and name == name.strip() and name[:1].isalnum() and len(name.encode()) <= LONGEST_NAME):
            shown = name if len(name) <= LONGEST_NAME else f"{name[:20]}..."
            raise ValueError(
                f"[networks] {shown!r} is no name; allowed are letters, digits, spaces and _ - + . after a letter or "
                f"digit, no space at the end, {LONGEST_NAME} bytes at most"
            )
        for file in (f"{name}.nc", f"{name}-theory.nc", f"{name}.checkpoint"):
            owner = owners.setdefault(file.casefold(), name)  # some file systems ignore the case
            if owner != name:
                raise ValueError(
                    f"[networks] {owner!r} and {name!r} would both be saved as {file!r}; rename one of them"
                )


def _check_sampling(config: Config) -> None:
    """What `bayesnet.sample` would refuse of any of the networks."""
    settings = {key: value for key, value in config.sampling.items() if key != "seed"}
    arguments.seed("seed", config.sampling["seed"])
    for name, network in config.networks.items():
        try:
            make_settings(network, config.task, **settings)
        except ValueError as error:
            raise ValueError(f"network {name!r}: {error}") from None


def _shared(name: str, value: Any) -> list[str] | dict[str, Any]:
    if not isinstance(value, list | dict):
        raise ValueError(
            f"[networks] {name} is {value!r}; it must be a list out of {', '.join(map(repr, WEIGHTS))}, or a table of "
            "their degrees of sharing"
        )
    return value


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml_value(part)}' for key, part in value.items())} }}"
    # JSON's strings, numbers, booleans and lists of them are TOML's.
    return json.dumps(value)

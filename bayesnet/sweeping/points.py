"""One point of a sweep: what is measured there, under which key it is stored, and how it is measured."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesnet.comparison import COLUMNS, compare, judge, theory_error
from bayesnet.diagnostics import summarise
from bayesnet.memory_maps import make_room
from bayesnet.observables import Observable, default_observables, order_parameter
from bayesnet.sampling import sample, version_of
from theory import critical_signal, solve
from theory.closed_form import closed_form_instability
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

MEASURES = ("theory", "posterior", "both")
THEORY, POSTERIOR = ("theory", "both"), ("posterior", "both")
TRANSITION = "transition"  # the thresholds of `theory.critical_signal`; asked for by phase diagrams only
# What a sweep decides by itself; all other arguments of `sample` and `solve` are settings.
NOT_SETTINGS = (
    "network",
    "task",
    "seed",
    "progress",
    "checkpoint",
    "keep",
    "thin",
    "kernels",
    "settings",
    "priors",
    "tuning",
    "start",
    "time_limit",
    "phases",
)
POINT_VARIABLES = ("outcome", "error", "point_seed", "seconds")  # known of every point, whatever is measured
Record = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """All that it takes to measure one point anywhere.

    Attributes:
        labels: axis -> label, where it stands in the grid.
        network, task: at this point.
        measure: one of `MEASURES`, or `TRANSITION`.
        seed: of the sweep, or of this point where seeds are an axis.
        sampling: every argument of `bayesnet.sample` but those of `NOT_SETTINGS`.
        solving: every argument of `theory.solve` but those of `NOT_SETTINGS`.
    """

    labels: Mapping[str, Any]
    network: Network
    task: Task
    measure: str
    seed: int
    sampling: Mapping[str, Any] | None = None
    solving: Mapping[str, Any] | None = None

    @cached_property
    def problem(self) -> dict[str, Any]:
        """Network, task and seed as plain values; a user's activation and arrays enter as digests."""
        arrays = {name: getattr(self.task, name) for name in ("inputs", "targets", "supervised")}
        return {
            # What is said of weights that the network does not have makes no difference.
            "network": {**self.network.to_dict(), "shared": self.network.plain_degrees()},
            "task": {name: [list(array.shape), _digest(array.tobytes())] for name, array in arrays.items()},
            "seed": self.seed,
        }

    @cached_property
    def specification(self) -> dict[str, Any]:
        """All that determines the outcome, as plain values: the problem, the settings, the version of the package."""
        settings = {"sampling": self.sampling, "solving": self.solving}
        return {**self.problem, "measure": self.measure, **settings, "version": version_of("bayesnet")}

    @cached_property
    def key(self) -> str:
        """Digest of the specification; the place in the grid does not enter."""
        return _digest(_canonical(self.specification))

    @cached_property
    def own_seed(self) -> int:
        """The seed that this point is solved and sampled with: its own, so that errors of points are independent."""
        return int(_digest(_canonical(self.problem))[:8], 16) >> 1  # 31 bits, which any integer type holds


def measure_point(point: Point, version: str) -> Record:
    """Solve, sample and compare; plain values that JSON holds. What goes wrong becomes part of the record.

    Args:
        point: what to measure.
        version: of bayesnet where the sweep was started; a worker with another one refuses.

    Returns:
        ``scalars`` (name -> number, string or flag), ``table`` (column -> {observable: value}), ``error`` (one line,
        empty where all went well), ``traceback``, ``seconds``.
    """
    started = time.perf_counter()
    record = blank_record()
    try:
        if version_of("bayesnet") != version:
            raise RuntimeError(f"this worker has bayesnet {version_of('bayesnet')}, the sweep {version}")
        make_room()
        for scalars, table in _measure(point):
            record["scalars"].update(scalars)
            record["table"].update({name: column.to_dict() for name, column in table.items()})
    except Exception as error:
        record["error"] = name_error(error)
        record["traceback"] = traceback.format_exc()
    record["seconds"] = time.perf_counter() - started
    return record


def blank_record(error: str = "") -> Record:
    """A record without any measurement."""
    return {"scalars": {}, "table": {}, "error": error, "traceback": "", "seconds": 0.0}


def name_error(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def empty_values(measure: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands for a value that is not there: scalar -> value, column -> value."""
    if measure == TRANSITION:
        thresholds = dict.fromkeys(("instability", "instability_error", "crossing"), np.nan)
        return {**thresholds, "closed_form": False, "order": ""}, {}
    scalars: dict[str, Any] = {}
    if measure in THEORY:
        scalars |= {"order_parameter": np.nan, "free_energy": np.nan, "free_energy_error": np.nan, "residual": np.nan}
        scalars |= {"stable": False, "converged": False, "solution": ""}
    if measure in POSTERIOR:
        scalars |= {"order_parameter_mean": np.nan, "order_parameter_mcse": np.nan, "status": "", "message": ""}
    names = {"theory": ("theory", "theory_error"), "posterior": tuple(COLUMNS[1:7]), "both": (*COLUMNS, "theory_error")}
    return scalars, {name: "" if name == "verdict" else np.nan for name in names[measure]}


def _measure(point: Point) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Scalars and columns as they are known: what fails later takes nothing with it that was solved or sampled."""
    network, task, seed = point.network, point.task, point.own_seed
    if point.measure == TRANSITION:
        yield _thresholds(network, task), pd.DataFrame()
        return
    order, observables = order_parameter(network, task), default_observables(network, task)
    if point.measure in THEORY:
        solution = solve(network, task, seed=seed, progress=False, **point.solving or {})
        scalars = _describe(solution)
        scalars["order_parameter"] = float(order.evaluate(solution.kernel, solution.prediction))
        table = pd.DataFrame(index=[o.label for o in observables])
        table["theory"] = [float(o.evaluate(solution.kernel, solution.prediction)) for o in observables]
        table["theory_error"] = theory_error(solution, observables)
        yield scalars, table
    if point.measure in POSTERIOR:
        posterior = sample(network, task, seed=seed, progress=False, **point.sampling or {})
        table = summarise(posterior, observables)
        yield _judged(posterior, order, table), table
    if point.measure == "both":
        table = compare(posterior, solution, observables)
        yield _judged(posterior, order, table), table


def _judged(posterior: xr.DataTree, order: Observable, table: pd.DataFrame) -> dict[str, Any]:
    """The order parameter of a posterior, and the verdict on a table of `summarise` or `compare`."""
    row, verdict = summarise(posterior, [order]).iloc[0], judge(posterior, table)
    return {
        "order_parameter_mean": float(row["mean"]),
        "order_parameter_mcse": float(row["mcse"]),
        "status": verdict.status,
        "message": verdict.message,
    }


def _thresholds(network: Network, task: Task) -> dict[str, Any]:
    """The instability, in closed form where there is one; the crossing only where finding it takes seconds at most."""
    exact = closed_form_instability(network, task)
    found = critical_signal(network, task)
    values: dict[str, Any] = {"instability": found.instability, "instability_error": found.instability_error}
    if exact is not None:
        values |= {"instability": exact, "instability_error": 0.0, "closed_form": True}
    if network.activation == "linear":
        values |= {"crossing": found.crossing, "order": found.order}
    return values


def _describe(solution: Solution) -> dict[str, Any]:
    return {
        "free_energy": float(solution.free_energy),
        "free_energy_error": float(solution.free_energy_error),
        "residual": float(solution.residual),
        "stable": bool(solution.stable),
        "converged": bool(solution.converged),
        "solution": solution.message,
    }


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=lambda number: number.item()).encode()  # numbers of NumPy


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

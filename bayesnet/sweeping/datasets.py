"""From the records of points to one labelled Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesnet.sweeping.grids import Axis
from bayesnet.sweeping.points import Point, Record, empty_values

DONE, FAILED, MISSING = "done", "failed", "missing"
LONG_NAMES = {
    "width": "N, width",
    "recurrent_gain": "gw, recurrent gain",
    "input_gain": "gu, input gain",
    "readout_gain": "gv, readout gain",
    "noise": "kappa, likelihood variance times N",
    "feedforward_gain": "feedforward gain",
    "bias_gain": "gb, bias gain",
    "process_noise": "sigma, process noise",
    "leak": "alpha, leak",
    "residual": "residual coefficient",
    "layers": "L, layers",
    "delay": "delay in steps",
    "shared.recurrent": "rho, degree of sharing of W",
    "shared.input": "rho, degree of sharing of U",
    "shared.readout": "rho, degree of sharing of V",
    "factor": "factor that multiplies the targets",
    "seconds": "wall time of the point, in seconds",
    "order_parameter": "largest squared overlap between two steps",
}


def gather(axes: list[Axis], points: list[Point], records: Mapping[str, Record]) -> xr.Dataset:
    """The Dataset of a grid, points in the order of `grids.make_points`; what has no record is "missing"."""
    shape = tuple(len(axis.labels) for axis in axes)
    dims = tuple(axis.name for axis in axes)
    found = [records.get(point.key) for point in points]
    scalars, columns = empty_values(points[0].measure)
    # The observables of all points, in the order in which they first occur.
    observables = list(dict.fromkeys(o for record in found if record for c in record["table"].values() for o in c))

    def per_point(values: list[Any]) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, np.array(values).reshape(shape)

    def per_observable(column: str, empty: Any) -> tuple[tuple[str, ...], np.ndarray]:
        tables = [record["table"].get(column, {}) if record else {} for record in found]
        values = np.array([[table.get(o, empty) for o in observables] for table in tables])
        return (*dims, "observable"), values.reshape(*shape, len(observables))

    variables = {
        "outcome": per_point([MISSING if r is None else FAILED if r["error"] else DONE for r in found]),
        "error": per_point([r["error"] if r else "" for r in found]),
        "point_seed": per_point([point.own_seed for point in points]),
        "seconds": per_point([r["seconds"] if r else np.nan for r in found]),
    }
    for name, empty in scalars.items():
        variables[name] = per_point([r["scalars"].get(name, empty) if r else empty for r in found])
    for name, empty in columns.items():
        variables[name] = per_observable(name, empty)
    coords: dict[str, Any] = {axis.name: _coordinate(axis) for axis in axes}
    if columns:
        coords["observable"] = np.array(observables, dtype=str)
    dataset = xr.Dataset(variables, coords=coords, attrs=_attributes(points[0]))
    for name, text in LONG_NAMES.items():
        if name in dataset.variables:
            dataset[name].attrs["long_name"] = text
    return dataset


def _coordinate(axis: Axis) -> np.ndarray:
    """The labels of an axis; whole numbers stay whole, also seeds of 64 bits."""
    whole = all(isinstance(label, int) for label in axis.labels)
    return np.array(axis.labels, dtype=np.uint64 if whole and max(axis.labels) > np.iinfo(np.int64).max else None)


def _attributes(point: Point) -> dict[str, Any]:
    """What all points have in common."""
    specification = point.specification
    kept = {name: specification[name] for name in ("measure", "version")}
    return kept | {name: json.dumps(specification[name]) for name in ("sampling", "solving")}

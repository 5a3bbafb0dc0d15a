"""Where a sweep keeps its points: one small JSON file for each, named by the hash of all that determines it.

    DIR/points/<first two characters>/<key>.json     a finished (or failed) point
    DIR/sweep-<name>.nc                              the Dataset of a sweep, as far as it has come

Each file appears whole or not at all, so a process may be killed at any moment and several may share a directory: two
that measure the same point write the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from bayesnet.netcdf import write_netcdf
from bayesnet.sweeping.points import Point, Record
from theory import files


class PointStore:
    """The records of measured points in a directory.

    Args:
        directory: made where it is missing.

    Raises:
        OSError: if it cannot be made or written to.
        ValueError: if ``directory`` is no path, or a file.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = files.directory_path("store", directory)
        (self.directory / "points").mkdir(parents=True, exist_ok=True)

    def read(self, point: Point) -> Record | None:
        """The record of a point; None if it was never finished, or, with a warning, if its file is damaged."""
        path = self._path(point)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            record = json.loads(content)
            _check_record(record, point.key)
        except (ValueError, RecursionError) as error:
            warnings.warn(f"store: {str(path)!r} is damaged ({error}); its point is measured again", stacklevel=2)
            return None
        return record

    def write(self, point: Point, record: Record) -> None:
        """Keep the record of a point, replacing an older one."""
        path = self._path(point)
        path.parent.mkdir(exist_ok=True)
        content = {"key": point.key, "specification": point.specification, **record}
        plain = json.loads(json.dumps(content, default=lambda number: number.item()))  # settings may be NumPy's numbers
        files.write_file(path, json.dumps({**plain, "sha256": _checksum(plain)}).encode())

    def write_dataset(self, name: str, dataset: xr.Dataset) -> Path:
        """Save the Dataset of a sweep and return its path."""
        path = self.directory / f"sweep-{name}.nc"
        write_netcdf(path, dataset)
        return path

    def _path(self, point: Point) -> Path:
        return self.directory / "points" / point.key[:2] / f"{point.key}.json"


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_record(record: Any, key: str) -> None:
    """Whether what was read is what `PointStore.write` wrote for a point of this key.

    Raises:
        ValueError: saying what is wrong.
    """
    kinds = {"key": str, "specification": dict, "scalars": dict, "table": dict, "error": str, "seconds": int | float}
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    # Version 0.1.0 wrote no checksums.
    if "sha256" in record and record.pop("sha256") != _checksum(record):
        raise ValueError("its checksum is another one than when it was written")
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"its entry {name!r} is missing or of another type")
    if record["key"] != key:
        raise ValueError("it belongs to another point")
    columns = list(record["table"].values())
    if not all(isinstance(column, dict) for column in columns):
        raise ValueError("its table is of another form")
    for value in (*record["scalars"].values(), *(value for column in columns for value in column.values())):
        if not isinstance(value, str | int | float):
            raise ValueError(f"it holds {value!r}, which is neither a number nor text")

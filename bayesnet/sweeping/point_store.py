"""Where a sweep keeps its points: one small JSON file for each, named by the hash of all that determines it.

    DIR/points/<first two characters>/<key>.json     a finished (or failed) point
    DIR/sweep-<name>.nc                              the Dataset of a sweep, as far as it has come

Each file appears whole or not at all, so a process may be killed at any moment and several may share a directory: two
that measure the same point write the same content.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import xarray as xr

from bayesnet.storage import ENGINE, replacing
from bayesnet.sweeping.points import Point, Record


class PointStore:
    """The records of measured points in a directory.

    Args:
        directory: made where it is missing.

    Raises:
        OSError: if it cannot be made or written to.
        ValueError: if ``directory`` is no path.
    """

    def __init__(self, directory: str | os.PathLike):
        try:
            self.directory = Path(directory)
        except TypeError:
            raise ValueError(f"store is {directory!r}; it must be the name of a directory") from None
        (self.directory / "points").mkdir(parents=True, exist_ok=True)

    def read(self, point: Point) -> Record | None:
        """The record of a point; None if it was never finished, or if what is there is not readable."""
        try:
            record = json.loads(self._path(point).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("key") == point.key else None

    def write(self, point: Point, record: Record) -> None:
        """Keep the record of a point, replacing an older one."""
        path = self._path(point)
        path.parent.mkdir(exist_ok=True)
        content = {"key": point.key, "specification": point.specification, **record}
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, default=lambda number: number.item())  # settings may be numbers of NumPy
            file.flush()
            os.fsync(file.fileno())

    def write_dataset(self, name: str, dataset: xr.Dataset) -> Path:
        """Save the Dataset of a sweep and return its path."""
        path = self.directory / f"sweep-{name}.nc"
        with replacing(path) as partial:
            dataset.to_netcdf(partial, engine=ENGINE)
        return path

    def _path(self, point: Point) -> Path:
        return self.directory / "points" / point.key[:2] / f"{point.key}.json"

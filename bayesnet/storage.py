"""save and load: posteriors and solutions as netCDF files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import xarray as xr

from theory.solution import Solution

ENGINE: Final = "h5netcdf"


def save(value: xr.DataTree | Solution, path: str | os.PathLike) -> None:
    """Write a posterior (of `sample`) or a `theory.Solution` to a netCDF file, replacing it only once complete.

    Raises:
        ValueError: if ``value`` is neither.
    """
    if isinstance(value, Solution):
        data: xr.DataTree | xr.Dataset = value.to_xarray()
    elif isinstance(value, xr.DataTree):
        data = value
    else:
        raise ValueError(f"value is {type(value).__name__}; it must be a posterior (DataTree) or a theory.Solution")
    with replacing(Path(path)) as partial:
        data.to_netcdf(partial, engine=ENGINE)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; what is there takes the place of ``path`` when all went well."""
    # Its own name for every writer: other threads, processes and machines may write the same file.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> xr.DataTree | Solution:
    """Read what `save` wrote, into memory.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds neither a posterior nor a solution.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path {os.fspath(path)!r} is not a file")
    try:
        with xr.open_datatree(path, engine=ENGINE) as opened:
            tree = opened.load()
    except (OSError, ValueError) as error:
        raise ValueError(f"path {os.fspath(path)!r} is not a netCDF file: {error}") from None
    if "posterior" in tree.children:
        return tree
    if {"kernel", "conjugate"} <= set(tree.data_vars):
        return Solution.from_xarray(tree.to_dataset())
    raise ValueError(f"path {os.fspath(path)!r} holds neither a posterior nor a solution of bayesnet")

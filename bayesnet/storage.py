"""save and load: posteriors, prior draws and solutions as netCDF files."""

from __future__ import annotations

import json
import os
from typing import Any

import xarray as xr

from bayesnet.netcdf import read_netcdf, write_netcdf
from bayesnet.schema import check_draws, check_solution
from theory import files
from theory.solution import Solution


def save(value: xr.DataTree | Solution, path: str | os.PathLike) -> None:
    """Write a posterior (of `sample`), prior draws (of `sample_prior`) or a `theory.Solution` to a netCDF file.

    The file ends with a checksum and replaces an older one only once complete.

    Args:
        value: what to write; it must be what `load` can read. A posterior may have lost groups that `load` does not
            need, or have more of them.
        path: of the file; its directory must exist.

    Raises:
        ValueError: naming the argument, what was wrong and what is allowed; attributes and variables that netCDF cannot
            hold by their names.
        OSError: if the file cannot be written; what was there stays.
    """
    target = files.new_file("path", path)
    if isinstance(value, Solution):
        data: xr.DataTree | xr.Dataset = value.to_xarray()
    elif isinstance(value, xr.DataTree):
        data = value
        try:
            check_draws(data)
        except ValueError as error:
            raise ValueError(f"value is no posterior that can be read again: {error}") from None
    else:
        raise ValueError(f"value is {type(value).__name__}; it must be a posterior (DataTree) or a theory.Solution")
    write_netcdf(target, data, sealed=True)


def load(path: str | os.PathLike, activations: Any = ()) -> xr.DataTree | Solution:
    """Read what `save` wrote, into memory. Nothing is imported for a file, and no function of it is called.

    Args:
        path: of the file.
        activations: a function or functions of yours, for networks that have one as activation. It need not be handed
            over where its module has been imported; either way it must be the function that was saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and its fault: it is damaged, refers to other files, declares more than it holds,
            holds neither a posterior nor a solution, or its activation is not found or another one.
    """
    source = files.user_path("path", path)
    tree = read_netcdf(source)
    try:
        if {"posterior", "prior"} & set(tree.children):
            network, _ = check_draws(tree, activations=activations)
            # The function may have another name by now, and a file of bayesnet 0.1.0 has no digest of it.
            tree.attrs["network"] = json.dumps(network.to_dict())
            return tree
        dataset = tree.to_dataset()
        if not {"kernel", "conjugate"} <= set(dataset.data_vars):
            raise ValueError("it holds neither a posterior nor a solution of bayesnet")
        check_solution(dataset)
        return Solution.from_xarray(dataset, activations)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"path {os.fspath(source)!r}: {error}") from None

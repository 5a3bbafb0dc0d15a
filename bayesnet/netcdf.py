"""netCDF: written by way of memory, and read only as far as a file holds what it declares.

HDF5 writes to disk as it goes and ends the process where the disk is full; here it writes to memory. What is read is
first looked through: a file may refer to other files, be a link, declare arrays that it does not hold, or be damaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import xarray as xr

from theory import files

ENGINE: Final = "h5netcdf"
FORMAT: Final = "bayesnet_format"  # an attribute of files that end with a checksum
CURRENT: Final = 2
PURE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
# What readers take for instructions: the first of any group, the others of variables.
RESERVED = ("coordinates",)
RESERVED_OF_VARIABLES = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype")


def write_netcdf(path: Path, data: xr.DataTree | xr.Dataset, sealed: bool = False) -> None:
    """Write data to a file, whole or not at all.

    Args:
        path: of `theory.files.new_file`.
        data: what to write.
        sealed: whether with a checksum, for `read_netcdf`.

    Raises:
        ValueError: naming what netCDF cannot hold.
        OSError: if the file cannot be written.
    """
    tree = data if isinstance(data, xr.DataTree) else xr.DataTree(data)
    _check_writable(tree)
    # Without what files that were read before have stored numbers as: full precision always.
    nodes = {node.path: node.to_dataset(inherit=False).drop_encoding() for node in tree.subtree}
    copy = xr.DataTree.from_dict(nodes)
    if sealed:
        copy.attrs[FORMAT] = CURRENT
    try:
        content = copy.to_netcdf(engine=ENGINE)
    except MemoryError:
        raise
    except Exception as error:  # whatever xarray, h5netcdf and HDF5 raise on names and values that they do not take
        raise ValueError(f"value cannot be written as netCDF: {error}") from error
    # Released here, not at some garbage collection: within a reference cycle, such as an exception makes of the frames
    # that it passes, the buffer may be finalised before the view of it, and complains.
    with content:
        files.write_file(path, content, sealed)


def read_netcdf(path: Path) -> xr.DataTree:
    """Read a file into memory that `write_netcdf` has sealed, or that bayesnet 0.1.0 has written.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and its fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path {os.fspath(path)!r} is not a file")
    with open(path, "rb") as file:
        try:
            sealed = files.check_seal(file) is not None
            with h5py.File(file, "r") as content:
                _check_objects(content, "", set())
            with xr.open_datatree(file, engine=ENGINE, decode_times=False, decode_timedelta=False) as opened:
                tree = opened.load()
            if tree.attrs.pop(FORMAT, None) is not None and not sealed:
                raise ValueError("it is cut short or was written anew by another program: its checksum is missing")
        except Exception as error:  # damaged files make HDF5 and what reads it raise almost anything
            fault = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"path {os.fspath(path)!r} is not a netCDF file of bayesnet: {fault}") from None
    return tree


def _check_objects(group: h5py.Group, place: str, seen: set[int]) -> None:
    """Refuse whatever leads out of the file, and arrays that the file does not hold in full.

    Raises:
        ValueError: naming the object.
    """
    for name in group:
        where = f"{place}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{where} is a link, which is not followed")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise ValueError(f"{where} is in the file twice")
        seen.add(address)
        if isinstance(item, h5py.Group):
            _check_objects(item, where, seen)
        elif isinstance(item, h5py.Dataset):
            _check_array(item, where)
        else:
            raise ValueError(f"{where} is neither a group nor an array")


def _check_array(array: h5py.Dataset, where: str) -> None:
    settings = array.id.get_create_plist()
    if array.is_virtual or settings.get_external_count():
        raise ValueError(f"{where} lies in another file, which is not read")
    if settings.get_nfilters():
        raise ValueError(f"{where} is compressed, which files of bayesnet are not")
    declared, held = array.size * array.id.get_type().get_size(), array.id.get_storage_size()
    # A dimension without a variable is only a shape.
    if declared > held and not bytes(array.attrs.get("NAME", b"")).startswith(PURE_DIMENSION):
        raise ValueError(f"{where} is declared with {declared} bytes, of which the file holds {held}")


def _check_writable(tree: xr.DataTree) -> None:
    for node in tree.subtree:
        where = "" if node.path == "/" else f" of group {node.path[1:]!r}"
        _check_attributes(node.attrs, where)
        for name, variable in node.to_dataset(inherit=False).variables.items():
            _check_attributes(
                variable.attrs, f" of variable {f'{node.path}/{name}'.lstrip('/')!r}", RESERVED_OF_VARIABLES
            )
            if variable.dtype.kind not in "biufUST" and not _is_text(variable):
                raise ValueError(
                    f"value has the variable {name!r}{where} of dtype {variable.dtype}; netCDF holds real numbers, "
                    "booleans and text"
                )


def _check_attributes(attributes: Mapping[Any, Any], where: str, reserved: tuple[str, ...] = ()) -> None:
    for name, value in attributes.items():
        taken = (*RESERVED, *reserved, FORMAT)
        if not isinstance(name, str) or not _holds_text(name) or not name or "/" in name or name in taken:
            raise ValueError(f"value has an attribute named {name!r}{where}, which netCDF has no place for; rename it")
        if not _holds_attribute(value):
            raise ValueError(
                f"value has the attribute {name!r}{where}, which is {value!r}; netCDF holds text, numbers and lists of "
                "either: turn it into text (json.dumps), or delete it"
            )


def _holds_attribute(value: Any) -> bool:
    if isinstance(value, str):
        return _holds_text(value)
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**64  # in 64 bits, with sign or without
    if isinstance(value, float | np.integer | np.floating):
        return True
    if isinstance(value, list | tuple) and value:
        # One kind throughout: NumPy would make text of numbers among text.
        kinds = {str if isinstance(entry, str) else float for entry in value}
        return len(kinds) == 1 and all(not isinstance(e, list | tuple) and _holds_attribute(e) for e in value)
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.size > 0 and value.dtype.kind in "iufU"


def _holds_text(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _is_text(variable: xr.Variable) -> bool:
    return variable.dtype.kind == "O" and all(isinstance(entry, str) for entry in variable.to_numpy().ravel())

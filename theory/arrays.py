"""Arrays as users hold them (JAX, PyTorch, pandas, xarray, masked, low precision) as plain NumPy arrays, exactly."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def plain_array(name: str, value: Any, shape: str, missing: bool = False) -> np.ndarray:
    """Anything rectangular as a NumPy array; numbers that NumPy itself has no type for become float64.

    Args:
        name: of the argument, for messages.
        value: what the user gave.
        shape: what it must be, in words.
        missing: whether masked and missing entries are allowed, as NaN.

    Raises:
        ValueError: naming the argument, if it is no rectangular array, or has masked or missing entries.
    """
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = _from_torch(value)
        if isinstance(value, np.ma.MaskedArray):
            return _filled(name, value.data, np.ma.getmaskarray(value), "masked", missing)
        if hasattr(value, "isna") and hasattr(value, "to_numpy"):
            return _from_pandas(name, value, missing)
        array = np.asarray(value)
    except _Refused:
        raise
    except Exception as error:  # whatever the owner of the array raises
        raise ValueError(f"{name} is not a rectangular array {shape}: {error}") from None
    # bfloat16 and the like.
    exotic = array.dtype.kind == "V" and jax.dtypes.issubdtype(array.dtype, np.number)
    return array.astype(np.float64) if exotic else array


def real_array(name: str, value: Any, shape: str, ranks: tuple[int, ...], missing: bool = False) -> np.ndarray:
    """A float64 copy of an array of real numbers of one of the ``ranks`` and at least one entry.

    Zeros have no sign and NaNs are all the same, so that arrays of equal numbers have equal bytes.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    array = plain_array(name, value, shape, missing)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {array.dtype}; it must be an array of real numbers {shape}")
    if array.ndim not in ranks:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}; every size must be at least 1")
    with np.errstate(over="ignore"):
        converted = np.array(array, dtype=np.float64, order="C")
    if array.dtype.kind in "iu":
        numbers = array.ravel().tolist() if _large(array) else []
        for number in [number for number in numbers if int(float(number)) != number]:
            raise ValueError(f"{name} has the integer {number}, which no float64 number equals; give floats")
    converted += 0.0  # -0 becomes 0
    converted[np.isnan(converted)] = np.nan
    return converted


def scalar(value: Any) -> Any:
    """A number held in an array without dimensions, as a plain Python number; anything else as it is."""
    known = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    if known or isinstance(value, str) or getattr(value, "shape", None) != ():
        return value
    try:
        array = plain_array("value", value, "")
    except ValueError:
        return value
    return array.item() if array.dtype.kind in "iufb" else value


class _Refused(ValueError):
    """A refusal in words already."""


def _large(array: np.ndarray) -> bool:
    """Whether some integers are beyond those that float64 holds one by one."""
    return bool(np.max(array) > 2**53 or np.min(array) < -(2**53))


def _filled(name: str, data: np.ndarray, absent: np.ndarray, what: str, missing: bool) -> np.ndarray:
    if not absent.any():
        return data
    if not missing or data.dtype.kind not in "iuf":
        where = tuple(int(i) for i in np.argwhere(absent)[0])
        raise _Refused(f"{name} has {what} entries, the first at {where}; give every entry a value")
    return np.where(absent, np.nan, data)


def _from_torch(value: Any) -> Any:
    """A PyTorch tensor without its history, on the host; half-precision types that NumPy lacks as float."""
    value = value.detach().cpu()
    if hasattr(value, "resolve_neg"):  # signs and conjugations that PyTorch has put off
        value = value.resolve_conj().resolve_neg()
    try:
        np.asarray(value)
    except TypeError:
        value = value.float()
    return value


def _from_pandas(name: str, value: Any, missing: bool) -> np.ndarray:
    array = np.asarray(value)
    dtypes = value.dtypes if hasattr(value, "dtypes") else value.dtype
    kinds = {dtype.kind for dtype in (dtypes if hasattr(dtypes, "__iter__") else [dtypes])}
    if array.dtype.kind != "O" or not (kinds <= set("iuf") or kinds == {"b"}):
        return array
    # Nullable columns with missing entries.
    absent = np.asarray(value.isna())
    kind = bool if kinds == {"b"} else np.float64
    return _filled(name, np.asarray(value.to_numpy(dtype=kind, na_value=kind(0))), absent, "missing", missing)

"""Which weights a network shares over the steps, and to what degree: what stands in its field ``shared``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theory.connections import Degree, Degrees, Drift, checked_degree

WEIGHTS = ("recurrent", "input", "readout", "feedforward", "bias")
SHARED = "shared."  # and the name of weights: their degree of sharing as a parameter


def sharing_of(value: Any) -> frozenset[str] | Degrees:
    """A set of names, or `Degrees` where some weights are neither shared nor not."""
    allowed = f"{', '.join(map(repr, WEIGHTS))}"
    if isinstance(value, Mapping):
        _require_names(value, allowed)
        degrees = {str(name): checked_degree(name, degree) for name, degree in value.items()}
        if all(degree in (0.0, 1.0) for degree in degrees.values()):
            return frozenset(name for name, degree in degrees.items() if degree == 1.0)
        return Degrees(degrees)
    try:
        names = None if isinstance(value, str) else list(value)
    except TypeError:
        names = None
    if names is None:
        raise ValueError(f"shared is {value!r}; it must be a set of names out of {allowed}, or a mapping from them")
    _require_names(names, allowed)
    return frozenset(str(name) for name in names)


def _require_names(names: Any, allowed: str) -> None:
    for name in names:
        if not isinstance(name, str) or name not in WEIGHTS:
            raise ValueError(f"shared contains {name!r}; allowed names are {allowed}")


def completed(shared: Any, degree: float) -> Any:
    """A mapping with the weights that it leaves out added at a degree."""
    if not isinstance(shared, Mapping):
        return shared
    return {**{name: degree for name in WEIGHTS}, **shared}


def plain_sharing(shared: frozenset[str] | Degrees) -> Any:
    """As lists, numbers and tables, the inverse of `sharing_of`."""
    if not isinstance(shared, Degrees):
        return [name for name in WEIGHTS if name in shared]
    return {name: plain_degree(value) for name, value in shared.items()}


def plain_degree(degree: Degree) -> Any:
    """The same of a single degree."""
    return {"drift": degree.tau} if isinstance(degree, Drift) else degree

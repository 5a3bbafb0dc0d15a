"""Checks of arguments: one message for one fault, naming the argument, what was wrong and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from theory.arrays import scalar

Kind = TypeVar("Kind")
LARGEST_SEED = 2**64 - 1


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An integer (no boolean) from ``least`` to ``most``."""
    value = scalar(value)
    allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {value!r}; it must be {allowed}")
    return int(value)


def seed(name: str, value: Any) -> int:
    """A seed: an integer of 64 bits, from 0 to 2^64 - 1. Every bit of it counts."""
    return integer(name, value, 0, LARGEST_SEED)


def real(name: str, value: Any) -> float:
    """A finite real number."""
    number = _as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; it must be a finite real number")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number greater than zero whose square neither under- nor overflows, because gains enter squared."""
    number = _as_float(value)
    if not (number > 0 and 0 < number * number < math.inf):
        raise ValueError(f"{name} is {value!r}; it must be a finite number greater than zero, and so must its square")
    return number


def not_negative(name: str, value: Any) -> float:
    """Zero, or what `positive` takes."""
    number = _as_float(value)
    if not (number == 0 or (number > 0 and 0 < number * number < math.inf)):
        raise ValueError(f"{name} is {value!r}; it must be zero or a finite number greater than zero")
    return number


def degree(name: str, value: Any) -> float:
    """A number greater than 0 and at most 1."""
    number = _as_float(value)
    if not 0 < number <= 1:
        raise ValueError(f"{name} is {value!r}; it must be greater than 0 and at most 1")
    return number


def fraction(name: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    number = _as_float(value)
    if not 0 < number < 1:
        raise ValueError(f"{name} is {value!r}; it must lie between 0 and 1")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of the names in ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
    return value


def only_for(kind: str, applies: bool, **given: Any) -> None:
    """Refuse arguments that would have no effect.

    Args:
        kind: what they act on, for messages.
        applies: whether that is at hand.
        given: values by name; None is what was not given.

    Raises:
        ValueError: naming the first one that was given all the same.
    """
    for name, value in given.items():
        if value is not None and not applies:
            raise ValueError(f"{name} is {value!r}; it acts on {kind} only: leave it out here")


def instance(name: str, value: Any, kind: type[Kind]) -> Kind:
    """An object of a class of ours."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {type(value).__name__}; it must be a {kind.__name__}")
    return value


def _as_float(value: Any) -> float:
    """The value as a float: NaN for what is no real number, infinite for integers beyond its range."""
    value = scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf

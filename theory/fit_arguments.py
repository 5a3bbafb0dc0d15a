"""The arguments of `theory.fit`, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory import arguments
from theory.evidence_curve import in_unit_interval
from theory.network import Network
from theory.parameters import parameter_names
from theory.sensitivity import current_values
from theory.task import Task

REACH = 1e3  # a positive number is looked for this many times below and above its value in the network
LEAST_LEAK = 1e-3  # at zero leak a network never moves
MOST = 4  # parameters; the second derivatives take of the order of MOST^2 solutions


def listed_tasks(given: Any) -> tuple[Task, ...]:
    """One task or several."""
    if isinstance(given, Task):
        return (given,)
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not listed or not all(isinstance(one, Task) for one in listed):
        raise ValueError(f"task is {type(given).__name__}; it must be a Task or a list of them")
    return tuple(listed)


def parameters_to_fit(network: Network, over: Any) -> tuple[str, ...]:
    """Different names of parameters that are single numbers."""
    single = current_values(network)
    names = tuple(over) if isinstance(over, Sequence) and not isinstance(over, str) else ()
    fine = 1 <= len(names) <= MOST and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not fine:
        raise ValueError(f"over is {over!r}; it must be a list of one to {MOST} different names of parameters")
    for name in names:
        if name not in single:
            listed = "is not a single number in this network" if name in parameter_names(network) else "is no parameter"
            raise ValueError(f"over has {name!r}, which {listed}; allowed are {', '.join(single)}")
    return names


def parameter_bounds(network: Network, names: Sequence[str], given: Any) -> dict[str, tuple[float, float]]:
    """Least and largest value by name."""
    if given is not None and not (isinstance(given, Mapping) and set(given) <= set(names)):
        raise ValueError(f"bounds is {given!r}; it must map names of over to pairs of numbers")
    own, bounds = current_values(network), {}
    for name in names:
        unit = in_unit_interval(name)
        if given is not None and name in given:
            try:
                low, high = (arguments.real(f"bounds[{name!r}]", end) for end in given[name])
            except (TypeError, ValueError):
                raise ValueError(f"bounds[{name!r}] is {given[name]!r}; it must be two finite numbers") from None
        elif unit:
            low, high = (LEAST_LEAK if name == "leak" else 0.0), 1.0
        elif own[name] == 0:
            raise ValueError(f"over has {name!r}, which is 0 in the network; give it bounds, or a value to start from")
        else:
            low, high = own[name] / REACH, own[name] * REACH
        allowed = 0 <= low < high <= 1 if unit else 0 < low < high
        if not allowed or (name == "leak" and low == 0):
            within = "within 0 and 1" if unit else "above 0"
            raise ValueError(f"bounds[{name!r}] is {(low, high)!r}; it must be a smaller and a larger number {within}")
        bounds[name] = (low, high)
    return bounds

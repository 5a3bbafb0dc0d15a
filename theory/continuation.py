"""Solutions along a parameter, each started from its neighbour, so that hysteresis shows: continuation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from theory import arguments
from theory.arrays import real_array
from theory.family import SIGNAL, Family
from theory.jax_settings import own_settings
from theory.kernels import OUTPUT_DIMS, entry_coords, kernel_labels
from theory.lazy import nngp
from theory.network import Network
from theory.saddle import check_settings
from theory.search.branch import Options
from theory.search.settings import DEFAULT, Settings
from theory.search.solutions import Follower
from theory.solution import KERNELS, OUTPUTS, SCALAR_KINDS, Solution
from theory.task import Task

DIRECTIONS = ("up", "down")


def continuation(
    network: Network,
    task: Task,
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    *,
    along: str = SIGNAL,
    points: int | None = None,
    randomisations: int | None = None,
    tolerance: float | None = None,
    settings: Settings = DEFAULT,
) -> xr.Dataset:
    """Stable solutions at several values of a parameter, followed up from the smallest and down from the largest.

    At either end the sweep starts from what `theory.solve` finds; where it finds nothing at the largest value, from
    where the way up has led. From there each solution is the start of the next one. A branch that turns unstable, or
    ends, is left for the one below it. Between the spinodal and the instability of a first-order transition the two
    directions therefore differ: there both solutions are locally stable, and the one of smaller free energy is the
    posterior's.

    Args:
        network, task: as for `theory.solve`.
        values: of the parameter, 0 or more and finite, no two equal; sorted in the answer.
        along: the parameter: "signal", which multiplies the task's targets; a number of the network ("recurrent_gain",
            "noise", "leak", "bias_gain" and so on); or a degree of sharing ("shared.recurrent" and so on).
        seed, points, randomisations, tolerance, settings: as for `theory.solve`.

    Returns:
        A Dataset with dims "direction" and "factor" (of another parameter its name) before those of each variable: the
        arrays ``kernel``, ``conjugate``, ``preactivation_cov``, ``standard_error``, ``prediction``, ``dual`` and the
        numbers ``free_energy``, ``free_energy_error``, ``residual``, ``effective_sample_size``, ``randomisations``,
        ``stable``, ``converged``, ``message`` of each `theory.Solution`; direction is "up" or "down". ``inputs``,
        ``targets`` (times 1) and ``supervised`` are the task's, the attribute ``network`` is that given.

    Raises:
        ValueError: if an argument is out of its range, or as in `theory.solve`.
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    family, ordered = Family(network, task, along), _checked(values)
    for value in ordered:
        family.at(float(value))  # refuses what the parameter cannot be
    seed = arguments.seed("seed", seed)
    arguments.instance("settings", settings, Settings)
    check_settings(network, task, points=points, randomisations=randomisations, tolerance=tolerance)
    if network.scaling == "standard":
        up = down = [(nngp(*family.at(float(value))), None) for value in ordered]
    else:
        sets = settings.sets
        options = Options(points or sets.first, randomisations or sets.randomisations, seed, settings=settings)
        follower = Follower(family, options, tolerance or sets.tolerance)
        # float64 within this call only: as in solve.
        with own_settings():
            up = _sweep(follower, ordered)
            down = _sweep(follower, ordered[::-1], start=up[-1])[::-1]
    return _dataset(family, ordered, ([pair[0] for pair in up], [pair[0] for pair in down]))


def _sweep(
    follower: Follower, values: np.ndarray, start: tuple[Solution, Any] | None = None
) -> list[tuple[Solution, Any]]:
    """Solution and state at each value; ``start`` serves where the search at the first of them finds nothing."""
    try:
        pairs = [follower.best(float(values[0]))]
    except RuntimeError:
        if start is None:
            raise
        pairs = [start]
    for value in values[1:]:
        pairs.append(follower.follow(float(value), pairs[-1][1]))
    return pairs


def _checked(given: Any) -> np.ndarray:
    values = real_array("values", given, "of finite numbers of at least 0", ranks=(1,))
    fine = np.isfinite(values).all() and (values >= 0).all()
    if not fine or len(np.unique(values)) < len(values):
        raise ValueError(
            f"values is {given!r}; it must be a sequence of finite numbers of at least 0, no two of them equal"
        )
    return np.sort(values)


def _dataset(family: Family, values: np.ndarray, sweeps: Sequence[Sequence[Solution]]) -> xr.Dataset:
    def stacked(name: str) -> np.ndarray:
        return np.array([[getattr(solution, name) for solution in sweep] for sweep in sweeps])

    network, task = family.network, family.task
    axis = "factor" if family.along == SIGNAL else family.along
    axes = ("direction", axis)
    dims, labels = kernel_labels(task, len(sweeps[0][0].kernel))
    return xr.Dataset(
        {
            **{name: ((*axes, *dims), stacked(name)) for name in KERNELS},
            **{name: ((*axes, *OUTPUT_DIMS), stacked(name)) for name in OUTPUTS},
            **{name: (axes, stacked(name)) for name in SCALAR_KINDS},
            "inputs": (("pattern", "step", "input_dim"), task.inputs),
            "targets": (("pattern", "step", "output"), task.targets),
            "supervised": (("pattern", "step"), task.supervised),
        },
        coords={"direction": list(DIRECTIONS), axis: values, **entry_coords(task), **labels},
        attrs={"network": json.dumps(network.to_dict())},
    )

"""Free energies of branches, and the order parameter along a signal or another parameter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesnet.observables import order_parameter
from bayesnet.plots.sources import BAND, axes_of, colour_in, values_of
from bayesnet.plots.style import COLOURS, add_legend, parameter_label, trim_frame
from theory import arguments
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

DIRECTIONS = {"up": "-", "down": "--"}
ORDER = "largest overlap$^2$ of two steps"


def free_energy(source: Solution | xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Free energies F of all that was found.

    Of a solution, every branch against its largest squared overlap of two steps (filled: stable). Of what
    `theory.continuation` returned, F along its parameter, one line for each direction: where they differ, two phases
    coexist, and the lower one is the posterior's.

    Args:
        source: a `theory.Solution` or a Dataset of `theory.continuation`.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    if isinstance(source, xr.Dataset):
        axis = _followed(source)
        axes = axes_of(ax)
        for direction, style in DIRECTIONS.items():
            values = source["free_energy"].sel(direction=direction)
            axes.plot(source[axis], values, style, color=colour_in(axes, None), label=f"followed {direction}")
        axes.set_xlabel(parameter_label(axis))
    else:
        arguments.instance("source", source, Solution)
        axes = axes_of(ax)
        parameter = order_parameter(source.network, source.task)
        for branch in source.branches or (source,):
            place = float(parameter.evaluate(branch.kernel, branch.prediction))
            face, label = (COLOURS[0], "stable") if branch.stable else ("white", "unstable")
            look: dict[str, Any] = {"color": COLOURS[0], "markerfacecolor": face, "markersize": 8, "label": label}
            axes.plot(place, branch.free_energy, "o", **look)
        axes.set_xlabel(ORDER)
    axes.set_ylabel("free energy $F$")
    trim_frame(axes)
    add_legend(axes)
    return axes


def overlap_along(
    followed: xr.Dataset,
    posteriors: Mapping[float, xr.DataTree] | None = None,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The order parameter, the largest squared overlap of two steps, along a signal or another parameter.

    Args:
        followed: what `theory.continuation` returned: lines, dashed on the way down.
        posteriors: {value of the parameter: what `sample` returned there}: means with the central 90% of the draws.
        ax: where to draw.
        label: for the legend.
        color: by default the next one.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    axis = _followed(followed)
    axes = axes_of(ax)
    network = Network.from_dict(json.loads(followed.attrs["network"]))
    task = Task(followed["inputs"].values, followed["targets"].values, followed["supervised"].values.astype(bool))
    parameter, colour, name = order_parameter(network, task), colour_in(axes, color), label or network.kind
    for direction, style in DIRECTIONS.items():
        one = followed.sel(direction=direction)
        values = parameter.evaluate(one["kernel"].values, one["prediction"].values)
        axes.plot(one[axis], values, style, color=colour, label=f"{name}, theory" if direction == "up" else None)
    points = []
    for value, posterior in (posteriors or {}).items():
        draws = values_of(posterior, parameter)
        points.append((value, draws.mean(), *np.abs(np.percentile(draws, BAND[::2]) - draws.mean())))
    if points:
        at, mean, below, above = np.array(points).T
        axes.errorbar(at, mean, [below, above], fmt="o", color=colour, capsize=2.5, label=f"{name}, draws (90%)")
    axes.set(xlabel=parameter_label(axis), ylabel=ORDER)
    trim_frame(axes)
    add_legend(axes)
    return axes


def _followed(source: Any) -> str:
    """The name of the parameter of a Dataset of `theory.continuation`."""
    if not isinstance(source, xr.Dataset) or not {"free_energy", "direction"} <= set(source.variables):
        raise ValueError(f"{type(source).__name__} is not what theory.continuation returned")
    return str(source["free_energy"].dims[1])

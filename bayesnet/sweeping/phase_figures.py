"""The figure of a phase diagram."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bayesnet.plots.style import parameter_label
from bayesnet.sweeping.grids import TaskMaker
from theory.network import Network
from theory.task import Task

LINES: dict[str, tuple[str, Any]] = {"instability": ("w", "-"), "crossing": ("w", ":")}
ORDER = "order parameter: largest overlap$^2$ between two steps"


def draw_diagram(dataset: xr.Dataset, network: Network, task: Task | TaskMaker, message: str) -> Figure:
    """The Dataset of a `bayesnet.sweeping.phase_diagrams.PhaseDiagram`: colour, lines, points."""
    theory = dataset["order_parameter"]
    y_name, x_name = (str(name) for name in theory.dims)
    x, y = dataset[x_name].values.astype(float), dataset[y_name].values.astype(float)
    figure = Figure((7.2, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.8")
    seen = theory.values[np.isfinite(theory.values)]
    norm = Normalize(0, max(0.1, float(seen.max(initial=0))))
    style: dict[str, Any] = {"cmap": "viridis", "norm": norm}
    mesh = axes.pcolormesh(_edges(x), _edges(y), np.ma.masked_invalid(theory.values), rasterized=True, **style)
    figure.colorbar(mesh, ax=axes, label=ORDER)
    handles = _mark_unsolved(axes, dataset, x, y) + _draw_lines(axes, dataset, x, y)
    if "order_parameter_mean" in dataset:
        handles += _draw_points(axes, dataset, x, y, network.width, style)
    axes.set(xlabel=parameter_label(x_name), ylabel=parameter_label(y_name))
    for values, axis, ends in ((x, "x", _edges(x)), (y, "y", _edges(y))):
        axes.set(**{f"{axis}lim": (ends[0], ends[-1]), f"{axis}scale": "log" if _geometric(values) else "linear"})
    size = f", T = {task.steps}, P = {task.patterns}" if isinstance(task, Task) else ""
    named = ", ".join(
        name if degree == 1 else f"{name} ({degree})" for name, degree in network.degrees.items() if degree
    )
    shared = "RNN" if network.kind == "RNN" else f"{named or 'no'} weights shared"
    axes.set_title(f"{network.activation} {shared}{size}: theory at infinite width", fontsize=11)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, facecolor="0.6")
    if message:
        figure.text(0.01, 0.005, message if len(message) < 120 else f"{message[:119]}…", fontsize=8, color="0.3")
    return figure


def _draw_lines(axes: Axes, dataset: xr.Dataset, x: np.ndarray, y: np.ndarray) -> list[Line2D]:
    """Thresholds: curves where the factor is an axis, else the contour on which the task's own targets are critical."""
    exact = bool(dataset["closed_form"].any())
    labels = {
        "instability": f"symmetric solution turns unstable ({'closed form' if exact else 'numerical'})",
        "crossing": "free energies cross (first-order transition)",
    }
    handles = []
    for name, (colour, dashes) in LINES.items():
        values = dataset[name]
        if name == "crossing":
            values = values.where(dataset["order"] == "first order")
        if not np.isfinite(values.values).any():
            continue
        if values.ndim == 1:
            finite = np.where(np.isfinite(values.values), values.values, np.nan)
            curve = (finite, y) if dataset["order_parameter"].dims[1] == "factor" else (x, finite)
            axes.plot(*curve, color=colour, linestyle=dashes, linewidth=2, scalex=False, scaley=False)
        else:
            axes.contour(x, y, np.ma.masked_invalid(1 / values.values), [1.0], colors=colour, linestyles=dashes)
        handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=2, label=labels[name]))
    return handles


def _draw_points(axes: Axes, dataset: xr.Dataset, x: np.ndarray, y: np.ndarray, width: int, style) -> list[Line2D]:
    means, status = dataset["order_parameter_mean"].values, dataset["status"].values
    rows, columns = np.nonzero(np.isfinite(means))
    axes.scatter(x[columns], y[rows], c=means[rows, columns], s=46, edgecolors="w", linewidths=1.2, **style)
    ring: dict[str, Any] = {"marker": "o", "color": "w", "linestyle": "", "markerfacecolor": "none"}
    at_width = "" if "width" in dataset.dims else f" at N = {width}"
    handles = [Line2D([], [], **ring, label=f"posterior mean{at_width}")]
    rows, columns = np.nonzero(status == "FAIL")
    if len(rows):
        axes.plot(x[columns], y[rows], "x", color="r", markersize=5)
        handles.append(Line2D([], [], marker="x", color="r", linestyle="", label="not converged: no error bar holds"))
    return handles


def _mark_unsolved(axes: Axes, dataset: xr.Dataset, x: np.ndarray, y: np.ndarray) -> list[Line2D]:
    done = dataset["outcome"].values == "done"
    converged, stable = dataset["converged"].values, dataset["stable"].values
    handles = []
    for where, marker, label in (
        (done & ~converged, "D", "theory not converged"),
        (done & converged & ~stable, "v", "theory found unstable solutions only"),
        (~done, "s", "theory failed"),
    ):
        rows, columns = np.nonzero(where)
        if len(rows):
            axes.plot(x[columns], y[rows], marker, color="r", markersize=5, zorder=3)
            handles.append(Line2D([], [], marker=marker, color="r", linestyle="", label=label))
    return handles


def _geometric(values: np.ndarray) -> bool:
    """Whether the values grow by a constant factor: then they belong on a logarithmic axis."""
    if len(values) < 3 or values[0] <= 0:
        return False
    return bool(np.ptp(np.diff(np.log(values))) < 1e-6 < np.ptp(np.diff(values)))


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders of the cells around the values, (number + 1,)."""
    scaled = np.log(values) if _geometric(values) else values
    middle = (scaled[1:] + scaled[:-1]) / 2
    edges = np.concatenate([[2 * scaled[0] - middle[0]], middle, [2 * scaled[-1] - middle[-1]]])
    if _geometric(values):
        return np.exp(edges)
    # What is positive (gains, noise) does not reach below zero.
    return np.maximum(edges, 0) if values[0] >= 0 else edges

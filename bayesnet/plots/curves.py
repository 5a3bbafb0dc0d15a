"""Curves: predictions over the steps, densities of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayesnet.observables import Observable, check_observables
from bayesnet.plots.sources import (
    BAND,
    Source,
    aligned_predictions,
    axes_of,
    colour_in,
    group_of,
    name_of,
    problem_of,
    values_of,
)
from bayesnet.plots.style import GREY, THEORY, add_legend, observable_label, parameter_label, trim_frame
from bayesnet.results import names_with_priors
from theory import arguments
from theory.solution import Solution
from theory.task import Task

TOP = 1.12  # of the axis of densities, whose peak is 1


def prediction(
    source: Source,
    pattern: int = 1,
    output: int = 1,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The prediction f of one pattern over the steps, with its targets (filled: supervised; hollow: kept as truth).

    Of draws the median and the central 90%, each draw in the mirror image whose neighbouring steps correlate
    positively. Steps that are not supervised are grey.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        pattern, output: which, counted from 1.
        ax: where to draw.
        label: for the legend; by default what the source is.
        color: by default the next one.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    task = problem_of(source)[1]
    mu = arguments.integer("pattern", pattern, 1, task.patterns) - 1
    o = arguments.integer("output", output, 1, task.output_dim) - 1
    axes = axes_of(ax)
    colour = colour_in(axes, color)
    if not axes.has_data():
        _targets(axes, task, mu, o)
    steps, name = np.arange(1, task.steps + 1), label or name_of(source)
    if isinstance(source, Solution):
        axes.plot(steps, source.prediction[mu, :, o], color=colour, label=name, marker="x", markersize=5, **THEORY)
    else:
        low, middle, high = np.percentile(aligned_predictions(source)[:, mu, :, o], BAND, axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(steps, middle, color=colour, label=name, linewidth=1.4, marker=".", markersize=5)
        if task.steps == 1:  # where a band has no width
            axes.errorbar(steps, middle, np.abs([low - middle, high - middle]), color=colour, capsize=3)
    add_legend(axes)
    return axes


def _targets(axes: Axes, task: Task, mu: int, o: int) -> None:
    """What was asked of a pattern, and the frame."""
    steps, told, y = np.arange(1, task.steps + 1), task.supervised[mu], task.targets[mu, :, o]
    for step in steps[~told]:
        axes.axvspan(step - 0.5, step + 0.5, color="#eeeeee", linewidth=0.6, zorder=0)
    axes.plot(steps[told], y[told], "o", color="k", markersize=5.5, label="target", zorder=7)
    if np.isfinite(y[~told]).any():
        hollow: dict[str, Any] = {
            "color": "k",
            "markerfacecolor": "w",
            "markersize": 5.5,
            "label": "truth, not supervised",
        }
        axes.plot(steps[~told], y[~told], "o", zorder=7, **hollow)
    axes.set(xlabel="step $t$", ylabel="prediction $f_t$", xlim=(0.5, task.steps + 0.5))
    axes.set_title(f"pattern {mu + 1}" + (f", output {o + 1}" if task.output_dim > 1 else ""), fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    trim_frame(axes)


def density(
    source: Source,
    observable: Observable | str,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The density of an observable over draws, its peak at 1; of a solution its value, as a dashed line.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        observable: of `bayesnet.observables`, e.g. ``bn.observables.overlap(1, 2, 0, squared=True)``; or the name of a
            number of the network that was sampled under a prior, e.g. "noise": the prior is then a grey line.
        ax: where to draw.
        label: for the legend; by default what the source is.
        color: by default the next one.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    if not isinstance(observable, str):
        check_observables([observable])
    problem_of(source)
    axes = axes_of(ax)
    colour, name = colour_in(axes, color), label or name_of(source)
    if isinstance(observable, str):
        values, quantity, bounded = _sampled_number(source, observable), parameter_label(observable), True
        _prior_of(axes, source, observable, values)
    else:
        values = values_of(source, observable)
        quantity, bounded = observable_label(observable.label), "^2" in observable.label
    if isinstance(source, Solution):
        axes.axvline(float(values[0]), color=colour, label=name, **THEORY)
    else:
        at, height = kernel_density(values, bounded)
        axes.fill_between(at, height, color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, height, color=colour, label=name, linewidth=1.4)
    axes.set(xlabel=quantity, ylabel="density (peak = 1)", yticks=[], ylim=(0, TOP))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    trim_frame(axes)
    add_legend(axes)
    return axes


def _sampled_number(source: Source, name: str) -> np.ndarray:
    known = () if isinstance(source, Solution) else names_with_priors(source)
    if name not in known:
        allowed = ", ".join(known) or "none here"
        raise ValueError(f"observable is {name!r}; of the numbers that source was sampled with are allowed: {allowed}")
    return np.asarray(group_of(source)[name].to_numpy()).ravel()


def _prior_of(axes: Axes, source: Source, name: str, values: np.ndarray) -> None:
    """The prior of a number as a grey line, once, and axes that show the draws and its bulk."""
    if isinstance(source, xr.DataTree) and "priors" in source.children:
        quantiles = source["priors"][name].to_numpy()
        shown = 1.2 * max(float(np.quantile(values, 0.999)), float(quantiles[len(quantiles) // 2]))
        if "prior" not in axes.get_legend_handles_labels()[1]:
            axes.plot(*kernel_density(quantiles, bounded=True), color=GREY, linewidth=1.2, label="prior")
            axes.set_xlim(0, shown)
        axes.set_xlim(0, max(shown, axes.get_xlim()[1]))


def kernel_density(draws: np.ndarray, bounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of draws with its peak at 1, (points, heights); reflected at 0 where ``bounded``."""
    low, high = float(draws.min()), float(draws.max())
    quartiles = np.subtract(*np.percentile(draws, [75, 25])) / 1.34
    spread = min(float(draws.std()), quartiles) or float(draws.std())
    if spread <= 1e-12 * max(abs(low), abs(high)):
        width = 1e-3 * max(abs(low), 1e-3)
        return np.array([low - width, low, low + width]), np.array([0.0, 1.0, 0.0])
    bandwidth = 0.9 * spread * draws.size**-0.2  # Silverman's rule
    at = np.linspace(max(low - 3 * bandwidth, 0) if bounded else low - 3 * bandwidth, high + 3 * bandwidth, 241)
    # Bins much finer than the bandwidth stand for the draws.
    counts, edges = np.histogram(draws, bins=1000)
    centres = (edges[1:] + edges[:-1]) / 2
    height = np.exp(-0.5 * ((at[:, None] - centres) / bandwidth) ** 2) @ counts
    if bounded:
        height += np.exp(-0.5 * ((at[:, None] + centres) / bandwidth) ** 2) @ counts
    return at, height / height.max()

"""The figures of a report: one function each, returning a matplotlib Figure; no pyplot, no global state.

Posteriors and solutions come as {name: object} with the same names; a name without a solution has no theory in the
figure. Steps, patterns and outputs are counted from 1. Each name keeps its colour in all figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from bayesnet.observables import Observable, overlaps
from bayesnet.sampling import task_of
from bayesnet.weight_spectra import EigenvalueCloud
from theory.solution import Solution
from theory.task import Task

# Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WIDTH = 9.6  # inches
GREY = "#595959"
TRACE_POINTS = 1000
SQUARE_SIDE = 5  # inputs of at least 5 x 5 numbers are drawn as images
Posteriors = Mapping[str, xr.DataTree]
Solutions = Mapping[str, Solution]


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """Name -> colour, by position."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def pattern_order(task: Task) -> np.ndarray:
    """Patterns sorted by their target where one step is supervised, so that classes form blocks; else as they are."""
    steps = np.flatnonzero(task.supervised.any(axis=0))
    if len(steps) > 1 or not task.supervised[:, steps].all():
        return np.arange(task.patterns)
    return np.lexsort(-task.targets[:, steps[0]].T[::-1])


def task_overview(task: Task, largest: int = 8) -> Figure:
    """Gram matrix of the inputs, the targets, and the first ``largest`` inputs at the first step that has any."""
    order = pattern_order(task)
    figure = Figure((WIDTH, 4.9), layout="constrained")
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=(3.1, 1.8), squeeze=False))
    gram_axes, target_axes = top.subplots(1, 2)
    active = np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2)))
    gram = task.input_kernel[active][:, order][:, :, active][..., order].reshape(len(active) * task.patterns, -1)
    limit = np.abs(gram).max() or 1.0
    image = gram_axes.imshow(gram, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    _mark_steps(gram_axes, [int(t) + 1 for t in active], task.patterns)
    gram_axes.set_title("Gram matrix of the inputs, x·x'/D", fontsize=10)
    top.colorbar(image, ax=gram_axes, shrink=0.8)
    _target_map(top, target_axes, task, order)
    shown = order[:largest]
    first = int(active[0]) if len(active) else 0
    _draw_inputs(bottom, task.inputs[shown, first], [int(mu) + 1 for mu in shown], first + 1)
    return figure


def kernel_maps(posteriors: Posteriors, solutions: Solutions, squared: bool) -> Figure:
    """Overlaps Phi_ij / sqrt(Phi_ii Phi_jj) over (step, pattern): theory, posterior mean, and their difference.

    Where ``squared``, the squares: theory's square beside the posterior mean of the square.
    """
    figure = Figure((WIDTH, 2.75 * len(posteriors)), layout="constrained")
    grid = figure.subplots(len(posteriors), 3, squeeze=False)
    for row, (name, posterior) in zip(grid, posteriors.items(), strict=True):
        task = task_of(posterior)
        power = 2 if squared else 1
        mean = (posterior["posterior"]["overlap"].to_numpy() ** power).mean(axis=(0, 1))
        solution = solutions.get(name)
        theory = None if solution is None else overlaps(solution.kernel) ** power
        kind = "no theory" if solution is None else "lazy limit" if solution.kind == "lazy limit" else "theory"
        panels = [(theory, kind), (mean, "posterior mean")]
        panels.append((None if theory is None else mean - theory, "posterior − theory"))
        for axes, (values, title) in zip(row, panels, strict=True):
            if values is None:
                _say(axes, "no theory for this network")
                continue
            difference = title.startswith("posterior −")
            limit = max(float(np.abs(values).max()), 1e-3) if difference else 1.0
            scale = (
                {"cmap": "cividis", "vmin": 0.0} if squared and not difference else {"cmap": "RdBu_r", "vmin": -limit}
            )
            image = axes.imshow(_flat(values, task), vmax=limit, interpolation="nearest", **scale)
            _mark_steps(axes, range(1, task.steps + 1), task.patterns, "w" if squared and not difference else GREY)
            axes.set_title(f"{plain(name)}: {title}", fontsize=10)
            figure.colorbar(image, ax=axes, shrink=0.75)
    return figure


def densities(posteriors: Posteriors, solutions: Solutions, observables: Sequence[Observable]) -> Figure:
    """Posterior density of each observable, all networks in one panel; the theory's value is a dashed line."""
    columns = min(3, len(observables))
    rows = math.ceil(len(observables) / columns)
    figure = Figure((WIDTH, 0.5 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = colour_of(list(posteriors))
    for axes, observable in zip(grid, observables, strict=False):
        for name, posterior in posteriors.items():
            group = posterior["posterior"]
            draws = observable.evaluate(group["kernel"].to_numpy(), group["prediction"].to_numpy())
            at, height = density(draws.ravel(), bounded="^2" in observable.label)
            axes.fill_between(at, height, color=colours[name], alpha=0.25, linewidth=0)
            axes.plot(at, height, color=colours[name], linewidth=1.4)
            if name in solutions:
                value = float(observable.evaluate(solutions[name].kernel, solutions[name].prediction))
                axes.axvline(value, color=colours[name], linestyle="--", linewidth=1.6)
        axes.set(yticks=[], ylim=(0, 1.12))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(observable.label, fontsize=9.5)
        _frame(axes)
    for axes in grid[len(observables) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel("density (peak = 1)")
    _legend(figure, _handles(posteriors, solutions, band=True))
    return figure


def density(draws: np.ndarray, bounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
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


def predictions(
    bands: Mapping[str, np.ndarray], solutions: Solutions, task: Task, panels: Sequence[tuple[int, int]]
) -> Figure:
    """Predictions over the steps with bands, targets and truth, one panel for each (pattern, output), 0-based.

    Args:
        bands: name -> lower end, median, upper end of f, (3, P, T, O).
        solutions: theory's predictions, dashed.
        task: the targets; filled where supervised, hollow where kept as truth.
        panels: which to show.
    """
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure((WIDTH, 0.6 + 2.15 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    colours = colour_of(list(bands))
    steps = np.arange(1, task.steps + 1)
    for axes, (mu, o) in zip(grid, panels, strict=False):
        for step in steps[~task.supervised[mu]]:
            axes.axvspan(step - 0.5, step + 0.5, color="#eeeeee", linewidth=0, zorder=0)
        for i, (name, (low, middle, high)) in enumerate(bands.items()):
            shift = 0.08 * (i - (len(bands) - 1) / 2)
            ends = np.abs(np.stack([low, high])[:, mu, :, o] - middle[mu, :, o])
            axes.errorbar(steps + shift, middle[mu, :, o], ends, color=colours[name], capsize=2.5, linewidth=1.3)
            axes.fill_between(steps + shift, low[mu, :, o], high[mu, :, o], color=colours[name], alpha=0.2, linewidth=0)
            if name in solutions:
                theory = solutions[name].prediction[mu, :, o]
                axes.plot(steps + shift, theory, color=colours[name], linestyle="--", marker="x", markersize=5)
        told, y = task.supervised[mu], task.targets[mu, :, o]
        axes.plot(steps[told], y[told], "o", color="k", markersize=5.5, zorder=5)
        axes.plot(steps[~told], y[~told], "o", color="k", markerfacecolor="w", markersize=5.5, zorder=5)
        axes.set_title(f"pattern {mu + 1}" + (f", output {o + 1}" if task.output_dim > 1 else ""), fontsize=9.5)
        axes.set_xlim(0.5, task.steps + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _frame(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("step t")
        axes.tick_params(labelbottom=True)
    for axes in grid[::columns]:
        axes.set_ylabel("prediction f")
    extra = [Line2D([], [], color="k", marker="o", linestyle="", label="target")]
    if (~task.supervised & np.isfinite(task.targets[..., 0])).any():
        extra.append(
            Line2D([], [], color="k", marker="o", markerfacecolor="w", linestyle="", label="truth, not supervised")
        )
    _legend(figure, _handles(bands, solutions, band=True) + extra)
    return figure


def eigenvalues(clouds: Mapping[str, EigenvalueCloud]) -> Figure:
    """Eigenvalues of the recurrent weights in the complex plane, with the bulk circle and the theory's outliers."""
    columns = min(3, len(clouds))
    rows = math.ceil(len(clouds) / columns)
    figure = Figure((WIDTH, 0.3 + 4.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = colour_of(list(clouds))
    for axes, (name, cloud) in zip(grid, clouds.items(), strict=False):
        axes.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
        axes.axvline(0, color="#dddddd", linewidth=0.8, zorder=0)
        axes.set_title(plain(name), fontsize=10)
        if cloud.values is None:
            _say(axes, cloud.note)
            continue
        size = 5 if cloud.values.size > 100 else 14
        points = axes.scatter(
            cloud.values.real, cloud.values.imag, s=size, color=colours[name], alpha=0.45, linewidths=0
        )
        points.set_rasterized(True)
        turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(cloud.radius * turn.real, cloud.radius * turn.imag, color="k", linewidth=1)
        if cloud.outliers is not None:
            axes.plot(cloud.outliers.real, cloud.outliers.imag, "ks", markersize=11, markerfacecolor="none")
        everything = np.concatenate([cloud.values, [cloud.radius], [] if cloud.outliers is None else cloud.outliers])
        limits = np.array([-1.12, 1.12]) * np.abs(everything).max()
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="real part", ylabel="imaginary part")
        _frame(axes)
    for axes in grid[len(clouds) :]:
        axes.set_axis_off()
    marks = [
        Line2D([], [], color="k", linewidth=1, label="bulk circle, radius recurrent_gain"),
        Line2D([], [], color="k", marker="s", markerfacecolor="none", linestyle="", label="outliers by the theory"),
    ]
    _legend(figure, marks)
    return figure


def traces(draws: Mapping[str, np.ndarray]) -> Figure:
    """Trace and rank histogram of each row of draws (chain, draw), one colour for each chain."""
    figure = Figure((WIDTH, 0.3 + 1.75 * len(draws)), layout="constrained")
    grid = figure.subplots(len(draws), 2, squeeze=False, width_ratios=(2, 1))
    for (trace, rank), (label, values) in zip(grid, draws.items(), strict=True):
        chains, length = values.shape
        stride = math.ceil(length / TRACE_POINTS)
        ranks = rankdata(values).reshape(values.shape)
        bins = np.linspace(0.5, values.size + 0.5, max(2, min(20, length // 5)) + 1)
        for chain in range(chains):
            style = {"color": COLOURS[chain % len(COLOURS)], "linewidth": 0.7}
            trace.plot(np.arange(0, length, stride), values[chain, ::stride], alpha=0.8, rasterized=True, **style)
            counts = np.histogram(ranks[chain], bins)[0] * (len(bins) - 1) / length
            rank.stairs(counts, bins / values.size, color=style["color"], linewidth=1.3)
        rank.axhline(1, color="k", linestyle=":", linewidth=1)
        trace.set_title(label, fontsize=9.5, loc="left")
        rank.set(ylim=(0, None))
        for axes in (trace, rank):
            _frame(axes)
    grid[-1, 0].set_xlabel("draw")
    grid[-1, 1].set_xlabel("rank among all draws (relative)")
    for rank in grid[:, 1]:
        rank.set_ylabel("frequency")
    return figure


def energies(posteriors: Posteriors) -> Figure:
    """Marginal distribution of the energy beside that of its changes between draws, centred."""
    columns = min(3, len(posteriors))
    rows = math.ceil(len(posteriors) / columns)
    figure = Figure((WIDTH, 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, posterior) in zip(grid, posteriors.items(), strict=False):
        energy = posterior["sample_stats"]["energy"].to_numpy()
        centred = (energy - energy.mean(axis=1, keepdims=True)).ravel()
        change = np.diff(energy, axis=1).ravel()
        reach = max(np.abs(centred).max(), np.abs(change).max(initial=0), 1e-9)
        bins = np.linspace(-reach, reach, 61)
        for values, colour, label in ((centred, GREY, "marginal"), (change, COLOURS[4], "transition")):
            axes.hist(
                values, bins, density=values.size > 0, histtype="stepfilled", alpha=0.5, color=colour, label=label
            )
        axes.set_title(plain(name), fontsize=10)
        axes.set(xlabel="energy, centred (nats)", yticks=[])
        axes.legend(frameon=False, fontsize=9)
        _frame(axes)
    grid[0].set_ylabel("density")
    for axes in grid[len(posteriors) :]:
        axes.set_axis_off()
    return figure


def plain(name: str) -> str:
    """A name as matplotlib shows it literally: no mathematics, no label hidden for its underscore."""
    shown = name if len(name) <= 40 else name[:39] + "…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _flat(kernel: np.ndarray, task: Task) -> np.ndarray:
    order = pattern_order(task)
    return kernel[:, order][..., order].reshape(task.entries, task.entries)


def _mark_steps(axes: Axes, steps: Sequence[int], patterns: int, colour: str = GREY) -> None:
    """Lines between steps and a label at the middle of each; not every step where there are many."""
    for edge in np.arange(1, len(steps)) * patterns - 0.5:
        axes.axhline(edge, color=colour, linewidth=0.6)
        axes.axvline(edge, color=colour, linewidth=0.6)
    every = math.ceil(len(steps) / 12)
    centres = (np.arange(len(steps)) + 0.5)[::every] * patterns - 0.5
    labels = [str(step) for step in steps][::every]
    axes.set_xticks(centres, labels)
    axes.set_yticks(centres, labels)
    axes.set(xlabel="step", ylabel="step")
    axes.tick_params(length=0, labelsize=9)


def _target_map(figure, axes: Axes, task: Task, order: np.ndarray) -> None:
    """Targets of the first output, patterns by steps; dots mark what is supervised."""
    values = task.targets[order, :, 0]
    limit = np.nanmax(np.abs(values)) or 1.0
    axes.set_facecolor("#e4e4e4")
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    mu, t = np.nonzero(task.supervised[order])
    axes.plot(t, mu, "o", color="k", markersize=4)
    axes.set_xticks(range(task.steps)[:: math.ceil(task.steps / 12)])
    axes.set_xticklabels([str(step + 1) for step in axes.get_xticks().astype(int)])
    every = math.ceil(task.patterns / 12)
    axes.set_yticks(range(task.patterns)[::every], [str(mu + 1) for mu in order[::every]])
    axes.set(xlabel="step", ylabel="pattern")
    axes.set_title("Targets" + (" (output 1)" if task.output_dim > 1 else "") + "; dots: supervised", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)


def _draw_inputs(figure, inputs: np.ndarray, names: Sequence[int], step: int) -> None:
    """Inputs (number, D) at one step: square numbers of dimensions as images, else as a line over the dimensions."""
    side = math.isqrt(inputs.shape[1])
    figure.suptitle(f"Inputs at step {step}", fontsize=10)
    if side >= SQUARE_SIDE and side**2 == inputs.shape[1]:
        limit = np.abs(inputs).max() or 1.0
        for axes, image, name in zip(figure.subplots(1, len(inputs), squeeze=False)[0], inputs, names, strict=True):
            axes.imshow(image.reshape(side, side), cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"pattern {name}", fontsize=9)
        return
    axes = figure.subplots()
    for image, name in zip(inputs, names, strict=True):
        style = {"color": COLOURS[(name - 1) % len(COLOURS)], "linestyle": "-" if name <= len(COLOURS) else "--"}
        axes.plot(np.arange(1, inputs.shape[1] + 1), image, marker=".", label=f"pattern {name}", **style)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set(xlabel="input dimension", ylabel="x", xlim=(0.5, inputs.shape[1] + 0.5))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _frame(axes)


def _handles(posteriors: Mapping, solutions: Solutions, band: bool) -> list[Line2D]:
    colours = colour_of(list(posteriors))
    handles = []
    for name in posteriors:
        handles.append(Line2D([], [], color=colours[name], linewidth=2, label=f"{plain(name)}, posterior"))
        if name in solutions:
            kind = "lazy limit" if solutions[name].kind == "lazy limit" else "theory"
            handles.append(Line2D([], [], color=colours[name], linestyle="--", label=f"{plain(name)}, {kind}"))
    return handles


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)), frameon=False, fontsize=9)


def _say(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=GREY, transform=axes.transAxes)
    for side in axes.spines.values():
        side.set_visible(False)


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)

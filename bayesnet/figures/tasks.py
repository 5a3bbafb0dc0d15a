"""The figure of a task: its inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesnet.figures.picture import NO_INPUT, Picture, draw, spaced
from bayesnet.plots.maps import is_sorted, mark_steps, pattern_order
from bayesnet.plots.style import GREY, WIDTH
from theory.task import Task

MOST_PATTERNS = 24  # whose inputs are drawn over the steps or dimensions
MOST_IMAGES = 16  # inputs drawn as images, eight in a row
SQUARE_SIDE = 5  # inputs of at least 5 x 5 numbers are drawn as images
MOST_ROWS = 8  # of a pattern that the height of a figure of inputs allows for; more are drawn finer
TALLEST = 5.0  # inches of it


def task_picture(task: Task) -> Picture:
    """Gram matrix of the inputs, the targets of all outputs, and the inputs."""
    active, shown = input_steps(task), shown_patterns(task)
    caption = (
        "Left: Gram matrix of the inputs, over pairs of patterns at the steps that have input. Right: the targets of "
        "all outputs, grey where none is known; a dot marks what the likelihood sees. Below: the inputs themselves"
    )
    if len(active) > 1:
        caption += " over the steps, one row for each of their dimensions."
    else:
        caption += f", at their only step, {'as images' if as_images(task) else 'over their dimensions'}."
    if is_sorted(task):
        caption += " Patterns are sorted by their target."
    if len(shown) < task.patterns:
        caption += (
            f" Inputs of {len(shown)} patterns, evenly spaced in this order, are shown; {task.patterns - len(shown)} "
            "are left out."
        )

    def build() -> tuple[Figure, str]:
        if not task.has_input.any():
            raise ValueError(NO_INPUT)
        when = f"step {active[0] + 1} only" if len(active) == 1 else f"{len(active)} of {task.steps} steps"
        reading = (
            f"Inputs come at {when}; {task.supervised.sum()} of {task.entries} (step, pattern) entries are asked for."
        )
        return task_overview(task), reading

    return draw("Inputs and targets", caption, build)


def task_overview(task: Task) -> Figure:
    """The figure of `task_picture`."""
    order, active, shown = pattern_order(task), input_steps(task), shown_patterns(task)
    rows = len(shown) * min(task.input_dim, MOST_ROWS) if len(active) > 1 else len(shown)
    below = 1.0 + 0.9 * math.ceil(len(shown) / 8) if as_images(task) else min(1.3 + 0.12 * rows, TALLEST)
    figure = Figure((WIDTH, 3.1 + below), layout="constrained")
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=(3.1, below), squeeze=False))
    gram_axes, target_axes = top.subplots(1, 2)
    gram = task.input_kernel[active][:, order][:, :, active][..., order].reshape(len(active) * task.patterns, -1)
    limit = np.abs(gram).max() or 1.0
    image = gram_axes.imshow(gram, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    mark_steps(gram_axes, [int(t) + 1 for t in active], task.patterns)
    gram_axes.set_title(r"Gram matrix of the inputs", fontsize=10)
    top.colorbar(image, ax=gram_axes, shrink=0.8).set_label(r"$x \cdot x' / D$", fontsize=9)
    _target_map(top, target_axes, task, order)
    if as_images(task):
        _images(bottom, task.inputs[shown, active[0]], shown, int(active[0]) + 1)
    else:
        _input_map(bottom, task, shown, active)
    return figure


def input_steps(task: Task) -> np.ndarray:
    """The steps, counted from 0, at which any pattern has an input."""
    return np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2)))


def as_images(task: Task) -> bool:
    """Whether inputs are drawn as images: those of a single step, square numbers of dimensions."""
    side = math.isqrt(task.input_dim)
    return len(input_steps(task)) == 1 and side >= SQUARE_SIDE and side**2 == task.input_dim


def shown_patterns(task: Task) -> np.ndarray:
    """The patterns whose inputs are drawn, evenly spaced in the order of the patterns."""
    return np.array(spaced(pattern_order(task).tolist(), MOST_IMAGES if as_images(task) else MOST_PATTERNS))


def _target_map(figure, axes: Axes, task: Task, order: np.ndarray) -> None:
    """Targets, patterns by steps, one block of rows for each output; dots mark what is supervised."""
    values = task.targets[order].transpose(2, 0, 1).reshape(-1, task.steps)
    limit = np.nanmax(np.abs(values)) or 1.0
    axes.set_facecolor("#e4e4e4")
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    row, t = np.nonzero(np.tile(task.supervised[order], (task.output_dim, 1)))
    size = float(np.clip(100 / len(values), 1, 4))  # points: smaller than the rows
    axes.plot(t, row, "o", color="k", markeredgecolor="w", markeredgewidth=size / 8, markersize=size)
    _label_steps(axes, np.arange(task.steps), 12)
    if task.output_dim == 1:
        _label_blocks(axes, order, 1)
        axes.set(ylabel="pattern")
    else:
        _label_blocks(axes, np.arange(task.output_dim), task.patterns)
        axes.set(ylabel="output (in each: patterns)")
    axes.set_title("Targets; dots: supervised", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("$y$", fontsize=9)


def _input_map(figure, task: Task, shown: np.ndarray, active: np.ndarray) -> None:
    """Over the steps: one block of rows for each pattern, in it one row for each dimension; at the only step: one row
    for each pattern, over the dimensions."""
    axes = figure.subplots()
    over_steps = len(active) > 1
    inputs = task.inputs[shown]
    rows = inputs.transpose(0, 2, 1).reshape(-1, task.steps) if over_steps else inputs[:, active[0]]
    limit = np.abs(rows).max() or 1.0
    image = axes.imshow(rows, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    dimensions = task.input_dim if over_steps else 1
    _label_blocks(axes, shown, dimensions)
    _label_steps(axes, np.arange(rows.shape[1]), 24)
    within = f"\n(in each: {dimensions} dimensions)" * (dimensions > 1)
    axes.set(xlabel="step $t$" if over_steps else "input dimension", ylabel=f"pattern{within}")
    axes.set_title("Inputs" if over_steps else f"Inputs at step {active[0] + 1}", fontsize=10)
    figure.colorbar(image, ax=axes).set_label("$x$", fontsize=9)


def _images(figure, inputs: np.ndarray, names: np.ndarray, step: int) -> None:
    """Inputs (number, D) at one step as images."""
    side, limit = math.isqrt(inputs.shape[1]), np.abs(inputs).max() or 1.0
    figure.suptitle(f"Inputs at step {step}", fontsize=10)
    grid = figure.subplots(math.ceil(len(inputs) / 8), min(8, len(inputs)), squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, name in zip(grid, inputs, names, strict=False):
        axes.imshow(image.reshape(side, side), cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(f"pattern {name + 1}", fontsize=9)


def _label_steps(axes: Axes, columns: np.ndarray, most: int) -> None:
    shown = columns[:: math.ceil(len(columns) / most)]
    axes.set_xticks(shown, [str(column + 1) for column in shown])
    axes.set_xlabel("step $t$")
    axes.tick_params(labelsize=9)


def _label_blocks(axes: Axes, names: Sequence[int] | np.ndarray, rows: int) -> None:
    """A label at the middle of each block of so many rows, not of all where there are many, and lines between them."""
    if rows > 1:
        for edge in np.arange(1, len(names)) * rows - 0.5:
            axes.axhline(edge, color=GREY, linewidth=0.8)
    places = np.arange(len(names))[:: math.ceil(len(names) / 12)]
    axes.set_yticks((places + 0.5) * rows - 0.5, [str(int(names[place]) + 1) for place in places])

"""Figures of tasks: their inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesnet.figures.style import COLOURS, GREY, WIDTH, trim_frame
from theory.task import Task

MOST_ROWS = 8  # of a pattern that the height of a figure of inputs allows for; more are drawn finer
TALLEST = 4.5  # inches of it
SQUARE_SIDE = 5  # inputs of at least 5 x 5 numbers are drawn as images


def pattern_order(task: Task) -> np.ndarray:
    """Patterns sorted by their target where one step is supervised, so that classes form blocks; else as they are."""
    steps = np.flatnonzero(task.supervised.any(axis=0))
    if len(steps) > 1 or not task.supervised[:, steps].all():
        return np.arange(task.patterns)
    return np.lexsort(-task.targets[:, steps[0]].T[::-1])


def task_overview(task: Task, largest: int = 8) -> Figure:
    """Gram matrix of the inputs, the targets of all outputs, and the inputs of the first ``largest`` patterns."""
    order = pattern_order(task)
    active = input_steps(task)
    below = 1.8 if len(active) < 2 else 1.2 + 0.12 * min(largest, task.patterns) * min(task.input_dim, MOST_ROWS)
    below = min(below, TALLEST)
    figure = Figure((WIDTH, 3.1 + below), layout="constrained")
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=(3.1, below), squeeze=False))
    gram_axes, target_axes = top.subplots(1, 2)
    gram = task.input_kernel[active][:, order][:, :, active][..., order].reshape(len(active) * task.patterns, -1)
    limit = np.abs(gram).max() or 1.0
    image = gram_axes.imshow(gram, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    mark_steps(gram_axes, [int(t) + 1 for t in active], task.patterns)
    gram_axes.set_title("Gram matrix of the inputs, x·x'/D", fontsize=10)
    top.colorbar(image, ax=gram_axes, shrink=0.8)
    _target_map(top, target_axes, task, order)
    shown = order[:largest]
    names = [int(mu) + 1 for mu in shown]
    if len(active) > 1:
        _input_map(bottom, task.inputs[shown], names)
    else:
        first = int(active[0]) if len(active) else 0
        _draw_inputs(bottom, task.inputs[shown, first], names, first + 1)
    return figure


def input_steps(task: Task) -> np.ndarray:
    """The steps, counted from 0, at which any pattern has an input."""
    return np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2)))


def mark_steps(axes: Axes, steps: Sequence[int], patterns: int, colour: str = GREY) -> None:
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
    """Targets, patterns by steps, one block of rows for each output; dots mark what is supervised."""
    values = task.targets[order].transpose(2, 0, 1).reshape(-1, task.steps)
    limit = np.nanmax(np.abs(values)) or 1.0
    axes.set_facecolor("#e4e4e4")
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    row, t = np.nonzero(np.tile(task.supervised[order], (task.output_dim, 1)))
    axes.plot(t, row, "o", color="k", markersize=4 if len(values) <= 16 else 2)
    axes.set_xticks(range(task.steps)[:: math.ceil(task.steps / 12)])
    axes.set_xticklabels([str(step + 1) for step in axes.get_xticks().astype(int)])
    if task.output_dim == 1:
        every = math.ceil(task.patterns / 12)
        axes.set_yticks(range(task.patterns)[::every], [str(mu + 1) for mu in order[::every]])
        axes.set(xlabel="step", ylabel="pattern")
    else:
        for edge in np.arange(1, task.output_dim) * task.patterns - 0.5:
            axes.axhline(edge, color=GREY, linewidth=0.8)
        every = math.ceil(task.output_dim / 12)
        outputs = np.arange(task.output_dim)[::every]
        axes.set_yticks((outputs + 0.5) * task.patterns - 0.5, [str(output + 1) for output in outputs])
        axes.set(xlabel="step", ylabel="output (in each: patterns)")
    axes.set_title("Targets; dots: supervised", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)


def _input_map(figure, inputs: np.ndarray, names: Sequence[int]) -> None:
    """Inputs (number, T, D) over the steps, one block of rows for each pattern, in it one row for each dimension."""
    number, steps, dimensions = inputs.shape
    axes = figure.subplots()
    limit = np.abs(inputs).max() or 1.0
    rows = inputs.transpose(0, 2, 1).reshape(-1, steps)
    image = axes.imshow(rows, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for edge in np.arange(1, number) * dimensions - 0.5:
        axes.axhline(edge, color=GREY, linewidth=0.8)
    axes.set_yticks((np.arange(number) + 0.5) * dimensions - 0.5, [str(name) for name in names])
    axes.set_xticks(range(steps)[:: math.ceil(steps / 24)])
    axes.set_xticklabels([str(step + 1) for step in axes.get_xticks().astype(int)])
    within = "" if dimensions == 1 else f" (in each: {dimensions} dimensions)"
    axes.set(xlabel="step", ylabel=f"pattern{within}" if dimensions == 1 else f"pattern\n{within.strip()}")
    axes.set_title("Inputs", fontsize=10)
    figure.colorbar(image, ax=axes)


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
    trim_frame(axes)

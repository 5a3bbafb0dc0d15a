"""Maps over all pairs of (step, pattern): kernels and overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from bayesnet.plots.sources import Source, axes_of, mean_of, name_of, problem_of
from bayesnet.plots.style import GREY
from theory import arguments
from theory.kernels import flat_of
from theory.symmetry import has_sign_symmetry
from theory.task import Task

MOST_TICKS = 12  # more steps than that are not all labelled


def kernel(source: Source, *, ax: Axes | None = None) -> Axes:
    r"""The kernel Phi over all pairs of (step, pattern), step by step, as a map.

    Of draws, their mean. Where the sign symmetry holds (`theory.has_sign_symmetry`) the modulus is shown, of draws the
    root of the mean square: signs differ between mirror modes. Where a single step is supervised, patterns are sorted
    by their target, so that classes form blocks.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: if ``source`` or ``ax`` is anything else.
    """
    network, task = problem_of(source)
    axes = axes_of(ax)
    if has_sign_symmetry(network, task):
        return _show(axes, np.sqrt(mean_of(source, "kernel", 2)), task, name_of(source), r"$|\Phi|$")
    return _show(axes, mean_of(source, "kernel", 1), task, name_of(source), r"$\Phi$")


def overlaps(
    source: Source, *, minus: Source | None = None, squared: bool | None = None, ax: Axes | None = None
) -> Axes:
    r"""Overlaps Phi_ij / sqrt(Phi_ii Phi_jj) over all pairs of (step, pattern), step by step, as a map.

    Of draws, the mean. Patterns are sorted as by `kernel`.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        minus: another source of the same task, whose overlaps are subtracted: the map of the difference.
        squared: whether overlaps are squared before they are averaged; by default where the sign symmetry of ``source``
            holds, whose mirror modes average overlaps of both signs.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    network, task = problem_of(source)
    power = 1 + (has_sign_symmetry(network, task) if squared is None else arguments.flag("squared", squared))
    axes, quantity, name = axes_of(ax), "overlap" if power == 1 else "overlap$^2$", name_of(source)
    values = mean_of(source, "overlap", power)
    if minus is None:
        # Of an activation that is never negative (ReLU) no overlap is.
        signed = power == 1 and bool(np.min(network.phi.function(np.linspace(-3, 3, 13))) < 0)
        return _show(axes, values, task, name, quantity, 1.0, signed)
    other_task, other = problem_of(minus)[1], mean_of(minus, "overlap", power)
    if other_task != task or other.shape != values.shape:
        raise ValueError("minus belongs to another task than source, or to a network of another number of layers")
    difference = values - other
    most = max(float(np.abs(difference).max()), 1e-3)
    return _show(axes, difference, task, f"{name} − {name_of(minus)}", f"difference of {quantity}", most, signed=True)


def _show(
    axes: Axes, values: np.ndarray, task: Task, title: str, quantity: str, most: float = 0.0, signed: bool | None = None
) -> Axes:
    order = pattern_order(task)
    image = draw_map(axes, values[:, order][..., order], task.steps, most, signed)
    axes.set_title(title, fontsize=10)
    axes.figure.colorbar(image, ax=axes, shrink=0.8).set_label(quantity, fontsize=9)
    return axes


def draw_map(axes: Axes, values: np.ndarray, steps: int, most: float = 0.0, signed: bool | None = None) -> AxesImage:
    """Values (S, P, S, P) as an image, steps marked; from 0, or where ``signed`` (by default: where any is negative)
    from -``most``, up to ``most`` (by default the largest modulus)."""
    flat = flat_of(values)
    most = most or float(np.abs(flat).max()) or 1.0
    signed = bool((flat < -1e-12 * most).any()) if signed is None else signed
    style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most} if signed else {"cmap": "cividis", "vmin": 0.0}
    image = axes.imshow(flat, vmax=most, interpolation="nearest", **style)
    mark_steps(axes, range(1, steps + 1), len(flat) // steps, GREY if signed else "w")
    return image


def mark_steps(axes: Axes, steps: Sequence[int], entries: int, colour: str = GREY) -> None:
    """Lines between steps of so many entries and a label at the middle of each; not every step where there are many."""
    for edge in np.arange(1, len(steps)) * entries - 0.5:
        axes.axhline(edge, color=colour, linewidth=0.6)
        axes.axvline(edge, color=colour, linewidth=0.6)
    every = math.ceil(len(steps) / MOST_TICKS)
    centres = (np.arange(len(steps)) + 0.5)[::every] * entries - 0.5
    labels = [str(step) for step in steps][::every]
    axes.set_xticks(centres, labels)
    axes.set_yticks(centres, labels)
    axes.set(xlabel="step $t$", ylabel="step $t$")
    axes.tick_params(length=0, labelsize=9)


def pattern_order(task: Task) -> np.ndarray:
    """Patterns sorted by their target where one step is supervised, so that classes form blocks; else as they are."""
    steps = np.flatnonzero(task.supervised.any(axis=0))
    if len(steps) > 1 or not task.supervised[:, steps].all():
        return np.arange(task.patterns)
    return np.lexsort(-task.targets[:, steps[0]].T[::-1])


def is_sorted(task: Task) -> bool:
    """Whether `pattern_order` changes the order."""
    return not np.array_equal(pattern_order(task), np.arange(task.patterns))

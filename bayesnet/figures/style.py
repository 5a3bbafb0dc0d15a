"""What all figures share: colours, the width of a page, legends, frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

# Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WIDTH = 9.6  # inches
GREY = "#595959"
# Theory is dashed, above the draws, with a white rim: seen where it coincides with them or with another network's.
THEORY: dict[str, Any] = {
    "linestyle": "--",
    "linewidth": 1.6,
    "zorder": 6,
    "path_effects": [withStroke(linewidth=3.2, foreground="white")],
}


def draw_panels(number: int, height: float, extra: float = 0.0, shared: bool = False) -> tuple[Figure, np.ndarray]:
    """A figure of so many panels of a height (inches), with ``extra`` inches for what is above, and its axes, (rows,
    columns), those left over blank. Where ``shared``, all panels have one scale."""
    columns = 2 if number == 4 else min(3, number)
    rows = math.ceil(number / columns)
    figure = Figure((WIDTH, extra + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    for axes in grid.ravel()[number:]:
        axes.set_axis_off()
    return figure, grid


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """Name -> colour, by position."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def plain(name: str) -> str:
    """A name as matplotlib shows it literally: no mathematics, no label hidden for its underscore."""
    shown = name if len(name) <= 40 else name[:39] + "…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def add_legend(figure: Figure, handles: list[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)), frameon=False, fontsize=9)


def say(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=GREY, transform=axes.transAxes)
    for side in axes.spines.values():
        side.set_visible(False)


def trim_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)

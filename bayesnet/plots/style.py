"""What all pictures share: colours, names in mathematical type, legends, frames, the panels of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

# Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WIDTH = 9.6  # inches
LEGEND = 140  # characters that a line of a legend of this width takes
GREY = "#595959"
# Theory is dashed, above the draws, with a white rim: seen where it coincides with them or with another network's.
THEORY: dict[str, Any] = {
    "linestyle": "--",
    "linewidth": 1.6,
    "zorder": 6,
    "path_effects": [withStroke(linewidth=3.2, foreground="white")],
}
PARAMETERS = {
    "width": "width $N$",
    "recurrent_gain": r"recurrent gain $g_w$",
    "input_gain": r"input gain $g_u$",
    "readout_gain": r"readout gain $g_v$",
    "noise": r"noise $\kappa$ (likelihood variance times $N$)",
    "feedforward_gain": "feedforward gain $g_z$",
    "bias_gain": "bias gain $g_b$",
    "process_noise": r"process noise $\sigma$",
    "leak": r"leak $\alpha$",
    "residual": "residual coefficient",
    "layers": "layers $L$",
    "delay": "delay in steps",
    "shared.recurrent": r"degree of sharing $\rho$ of $W$",
    "shared.input": r"degree of sharing $\rho$ of $U$",
    "shared.readout": r"degree of sharing $\rho$ of $V$",
    "factor": "signal (factor of the targets)",
}
LABEL = re.compile(r"(kernel|overlap|prediction)(\^2)?(_y)?\[(.+)\]")  # of `bayesnet.observables`
INDICES = {"t": "t", "mu": r"\mu", "l": r"\ell", "o": "o"}


def parameter_label(name: str) -> str:
    """A number of the network or the task, as an axis names it."""
    return PARAMETERS.get(name, plain(name.replace("_", " ").replace("shared.", "degree of sharing: ")))


def observable_label(label: str) -> str:
    """The label of an observable in mathematical type; as it is where it is none of `bayesnet.observables`."""
    found = LABEL.fullmatch(label)
    if found is None:
        return label
    kind, squared, along, places = found.groups()
    symbol = {"kernel": r"$\Phi$", "overlap": "overlap", "prediction": "$f$"}[kind]
    if squared:
        symbol = symbol[:-1] + "^2$" if symbol.endswith("$") else f"{symbol}$^2$"
    named = [place.split("=") for place in places.split(", ")]
    indices = ", ".join(f"${INDICES.get(name, name)} = {numbers.replace(',', ', ')}$" for name, numbers in named)
    return f"{symbol} along $y$, {indices}" if along else f"{symbol}, {indices}"


def draw_panels(
    number: int, height: float, extra: float = 0.0, columns: int = 0, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of so many panels of a height (inches), with ``extra`` inches for what is above, and its axes, (rows,
    columns), those left over blank. ``shared`` goes to `Figure.subplots`."""
    columns = columns or (2 if number == 4 else min(3, number))
    rows = math.ceil(number / columns)
    figure = Figure((WIDTH, extra + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
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


def add_legend(axes: Axes, **place: Any) -> None:
    """A legend in which each label stands once."""
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(handles.values(), handles.keys(), **({"frameon": False, "fontsize": 9} | place))


def share_legend(figure: Figure, grid: Iterable[Axes]) -> None:
    """One legend above all panels in place of one in each."""
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    style: dict[str, Any] = {"loc": "outside upper center", "frameon": False, "fontsize": 9.5}
    columns = min(6, len(handles), max(1, LEGEND // (6 + max(map(len, handles), default=0))))
    figure.legend(handles.values(), handles.keys(), ncols=columns, **style)


def say(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=GREY, transform=axes.transAxes)
    for side in axes.spines.values():
        side.set_visible(False)


def trim_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)

"""A figure of a report with its words."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesnet.report_content import Run
from bayesnet.results import from_outside
from bayesnet.task_images import turned_draws
from theory.symmetry import has_sign_symmetry

SVG = "data:image/svg+xml;base64,"
DPI = {"svg": 150, "pdf": 300}  # of clouds of points and traces, images within a figure; SVGs are in the page
NO_INPUT = "no input reaches any entry: there is nothing to show"


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it; ``image`` is a data URI, or None where ``error`` says why there is none."""

    title: str
    image: str | None
    caption: str
    reading: str
    error: str = ""
    figure: Figure | None = None

    def files(self, name: str) -> dict[str, bytes]:
        """The figure as SVG and PDF, by file name; nothing where there is none."""
        if self.figure is None or self.image is None:
            return {}
        svg = base64.b64decode(self.image.removeprefix(SVG))
        return {f"{name}.svg": svg, f"{name}.pdf": _written(self.figure, "pdf")}


def draw(title: str, caption: str, build: Callable[[], tuple[Figure, str]]) -> Picture:
    """Make one figure; ``build`` returns it with the sentence on what one sees."""
    try:
        figure, reading = build()
        image = SVG + base64.b64encode(_written(figure, "svg")).decode("ascii")
        figure.set_layout_engine("none")  # the layout is found once
    except Exception as error:  # whatever it is, the reader has to see it in the figure's place
        return Picture(title, None, caption, "", f"{type(error).__name__}: {error}")
    return Picture(title, image, caption, reading, figure=figure)


def _written(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI[form], metadata={"Date" if form == "svg" else "CreationDate": None})
    return buffer.getvalue()


def draws_of(run: Run) -> str:
    """What the draws of a network are, as a legend calls them."""
    return "networks" if from_outside(run.posterior) else "posterior"


def theory_of(run: Run) -> str:
    """What the infinite-width prediction of a network is: "theory" or "lazy limit"."""
    return "lazy limit" if run.solution is not None and run.solution.kind == "lazy limit" else "theory"


def symmetric(runs: Sequence[Run]) -> list[Run]:
    """The networks whose posterior has mirror modes."""
    return [run for run in runs if has_sign_symmetry(run.network, run.task)]


def images_note(runs: Sequence[Run]) -> str:
    """A sentence on the networks whose draws break a symmetry of the task; empty where there are none."""
    turned = [run for run in runs if turned_draws(run.posterior) is not None]
    if not turned:
        return ""
    return (
        f" Draws of {named(turned, runs)} break a symmetry of the task, an exchange of its patterns; all are shown in "
        "one image, that of most draws of chain 0."
    )


def named(runs: Sequence[Run], among: Sequence[Run]) -> str:
    """``runs`` by name, in a sentence on ``among``."""
    if len(among) == 1:
        return "this network"
    return " and ".join(run.name for run in runs)


def spaced(items: Sequence, most: int) -> list[Any]:
    """At most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]

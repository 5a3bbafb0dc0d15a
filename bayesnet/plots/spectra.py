"""Eigenvalues of the recurrent weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesnet.eigenvalue_cloud import EigenvalueCloud, eigenvalue_cloud, predicted_by, prior_cloud
from bayesnet.plots.sources import Source, axes_of, colour_in, name_of, problem_of
from bayesnet.plots.style import add_legend, trim_frame
from theory.solution import Solution
from theory.weight_spectrum import Spectrum

MANY = 100  # eigenvalues, which are drawn as smaller points


def spectrum(
    source: Source | Spectrum | EigenvalueCloud | np.ndarray,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """Eigenvalues of the recurrent weights in the complex plane.

    Of draws, those of weights drawn back from the posterior (points; of linear networks wider than 1024 their learned
    part) or drawn from the prior, and the circle that prior noise fills, whose radius is the gain. Of a solution, this
    circle and the outliers that it predicts (squares).

    Args:
        source: a solution or draws, see `bayesnet.plots`; or a `theory.spectrum`; or eigenvalues
            of weights of your own, complex (number,).
        ax: where to draw.
        label: for the legend; by default what the source is.
        color: of the points, by default the next one; outliers of the theory are black.

    Returns:
        The axes.

    Raises:
        ValueError: if the source has no recurrent weights that could be drawn, or an argument is anything else.
    """
    values, predicted, radius, name = _content(source)
    axes = axes_of(ax)
    if not axes.has_data():
        for line in (axes.axhline, axes.axvline):
            line(0, color="#dddddd", linewidth=0.8, zorder=0)
    colour = colour_in(axes, color)
    if values is not None:
        axes.plot([], [], "o", color=colour, markersize=5, label=label or name)  # larger in the legend than the points
        style = {"s": 7 if values.size > MANY else 16, "color": colour, "alpha": 0.6, "linewidths": 0}
        axes.scatter(values.real, values.imag, rasterized=True, **style)
    if radius is not None:
        turn = radius * np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(turn.real, turn.imag, color="k", linewidth=1, label="prior noise: radius $g_w$")
    if predicted is not None:
        squares: dict[str, Any] = {"markersize": 11, "markerfacecolor": "none", "zorder": 6}
        axes.plot(predicted.real, predicted.imag, "ks", label=label or f"{name}: outliers", **squares)
    axes.set(xlabel="real part", ylabel="imaginary part")
    axes.set_aspect("equal", adjustable="datalim")
    trim_frame(axes)
    add_legend(axes, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return axes


def _content(source) -> tuple[np.ndarray | None, np.ndarray | None, float | None, str]:
    """Eigenvalues, outliers predicted, the radius of the circle, what it is."""
    if isinstance(source, np.ndarray):
        if source.ndim != 1 or not np.issubdtype(source.dtype, np.number):
            raise ValueError(f"source has shape {source.shape}; eigenvalues are numbers in one dimension")
        return source.astype(complex), None, None, "weights"
    if isinstance(source, Spectrum):
        return None, np.concatenate([*source.outliers, []]), source.radius, "theory"
    if isinstance(source, EigenvalueCloud):
        return _drawn(source, "posterior")
    problem_of(source)
    if isinstance(source, Solution):
        predicted = predicted_by(source)
        if predicted is None:
            raise ValueError("source has no eigenvalues to show: a task of one step uses no recurrent weights")
        return None, np.concatenate([*predicted.outliers, []]), predicted.radius, name_of(source)
    assert isinstance(source, xr.DataTree)
    if "posterior" not in source.children:
        return _drawn(prior_cloud(source), name_of(source))
    return _drawn(eigenvalue_cloud(source), name_of(source))


def _drawn(cloud: EigenvalueCloud, name: str) -> tuple[np.ndarray, None, float, str]:
    if cloud.values is None:
        raise ValueError(f"source has no eigenvalues to show: {cloud.note}")
    return cloud.values, None, cloud.radius, name

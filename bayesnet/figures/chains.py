"""Figures of chains: how they moved."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import rankdata

from bayesnet.figures.style import COLOURS, GREY, WIDTH, draw_panels, plain, trim_frame

TRACE_POINTS = 1000


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
            trim_frame(axes)
    grid[-1, 0].set_xlabel("draw")
    grid[-1, 1].set_xlabel("rank among all draws (relative)")
    for rank in grid[:, 1]:
        rank.set_ylabel("frequency")
    return figure


def energies(posteriors: Mapping[str, xr.DataTree]) -> Figure:
    """Marginal distribution of the energy beside that of its changes between draws, centred."""
    figure, grid = draw_panels(len(posteriors), height=2.8)
    for axes, (name, posterior) in zip(grid.ravel(), posteriors.items(), strict=False):
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
        trim_frame(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    return figure

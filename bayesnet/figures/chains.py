"""Figures of chains: how they moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from bayesnet.diagnostics import evaluate_observables, observables_of, summarise_draws
from bayesnet.figures.picture import NO_INPUT, Picture, draw
from bayesnet.plots.style import COLOURS, GREY, WIDTH, draw_panels, observable_label, plain, share_legend, trim_frame
from bayesnet.report_content import Run

TRACE_POINTS = 1000
SLOWEST = 2  # invariants traced for each network


def traces_picture(run: Run) -> Picture:
    """Traces and ranks of the invariants of a network that move most slowly."""
    caption = (
        f"The {SLOWEST} invariants with the smallest effective sample size. Left: value along each chain (a colour "
        "each, warm-up left out). Right: how often each chain takes each rank among all draws; 1 (dotted) if the "
        "chains have forgotten where they started."
    )

    def build() -> tuple[Figure, str]:
        draws = evaluate_observables(run.posterior, observables_of(run.posterior))
        if not draws:
            raise ValueError(NO_INPUT)
        moving = {label: values for label, values in draws.items() if np.ptp(values) > 0}
        if not moving:
            single = run.posterior["posterior"].sizes["draw"] == 1
            why = "there is one draw only" if single else "the sampler is frozen"
            raise ValueError(f"no observable ever changes along the chains: {why}")
        ess = summarise_draws(moving)["ess_bulk"].fillna(0).sort_values()
        slowest = [str(label) for label in ess.index[:SLOWEST]]
        total = next(iter(moving.values())).size
        reading = f"{run.name}: the slowest invariant, {slowest[0]}, has {ess.iloc[0]:.0f} effective of {total} draws."
        return traces({label: moving[label] for label in slowest}), reading

    return draw(f"Slowest invariants, {run.name}", caption, build)


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
        trace.set_title(observable_label(label), fontsize=10, loc="left")
        trace.set_ylabel("value")
        rank.set(ylim=(0, None), ylabel="frequency")
        for axes in (trace, rank):
            trim_frame(axes)
    grid[-1, 0].set_xlabel("draw")
    grid[-1, 1].set_xlabel("rank among all draws (relative)")
    return figure


def energies_picture(runs: Sequence[Run]) -> Picture:
    """The marginal distribution of the energy beside that of its changes between draws, a panel for each network."""
    caption = (
        "Energy of the Hamiltonian dynamics, centred per chain (marginal), beside its change from draw to draw "
        "(transition). Where the change is much narrower than the marginal (E-BFMI below 0.3) the sampler does not "
        "reach the tails."
    )

    def build() -> tuple[Figure, str]:
        figure, grid = draw_panels(len(runs), height=2.8)
        for axes, run in zip(grid.ravel(), runs, strict=False):
            energy = run.posterior["sample_stats"]["energy"].to_numpy()
            centred = (energy - energy.mean(axis=1, keepdims=True)).ravel()
            change = np.diff(energy, axis=1).ravel()
            reach = max(np.abs(centred).max(), np.abs(change).max(initial=0), 1e-9)
            bins = np.linspace(-reach, reach, 61)
            for values, colour, label in ((centred, GREY, "marginal"), (change, COLOURS[4], "transition")):
                style = {"histtype": "stepfilled", "alpha": 0.5, "color": colour, "label": label}
                axes.hist(values, bins, density=values.size > 0, **style)
            axes.set_title(plain(run.name), fontsize=10)
            axes.set(xlabel="energy, centred (nats)", yticks=[])
            trim_frame(axes)
        for axes in grid[:, 0]:
            axes.set_ylabel("density")
        share_legend(figure, grid.ravel()[: len(runs)])
        details = {run.name: gate.detail for run in runs for gate in run.verdict.gates if "BFMI" in gate.name}
        return figure, "; ".join(f"{name}: E-BFMI {detail}" for name, detail in details.items()) + "."

    return draw("Energies", caption, build)

"""Posterior densities: of invariants beside the theory, and of the numbers of the network that have priors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bayesnet import plots
from bayesnet.diagnostics import evaluate_observables
from bayesnet.figures.picture import NO_INPUT, Picture, draw, draws_of, images_note, spaced, theory_of
from bayesnet.observables import (
    Observable,
    diagonal_kernel,
    directed_kernel,
    directed_overlap,
    overlap,
    reached_by,
    target_direction,
)
from bayesnet.plots.sources import BAND
from bayesnet.plots.style import colour_of, draw_panels, plain, share_legend
from bayesnet.report_content import NOTHING, Run
from bayesnet.results import names_with_priors
from theory.model import build_model
from theory.symmetry import flipped_pairs, mirror_signs

MOST_PANELS = 6  # of kernels, and as many of overlaps


def invariants(runs: Sequence[Run]) -> tuple[list[Observable], int, int]:
    """The observables whose densities are shown, and how many kernels and overlaps there are in all.

    Kernels and overlaps along the target direction where there is one, else of pattern 1; at most `MOST_PANELS` of
    each, overlaps of neighbouring sites where there are more, spaced evenly.
    """
    task, layers = runs[0].task, runs[0].network.layers
    direction = target_direction(task)
    active = np.ones(1, bool) if direction is None else direction != 0
    reached = reached_by(runs[0].network, build_model(runs[0].network, task))[: len(active)][active]
    sites = [t for t in range(reached.shape[1]) if reached[:, t].any()]
    pairs = [(t, s) for t in sites for s in sites if t < s]
    neighbours = pairs if len(pairs) <= MOST_PANELS else [(t, s) for t, s in pairs if s == t + 1]
    chosen = spaced(neighbours, MOST_PANELS)
    turned = [flipped_pairs(mirror_signs(run.network, task), reached.shape[1]) for run in runs]
    flips = [any(bool(one[pair]) for one in turned) for pair in chosen]
    shown: list[Observable] = []
    for t in spaced(sites, MOST_PANELS):
        shown.append(diagonal_kernel(t, 0, layers) if direction is None else directed_kernel(t, direction, layers))
    for (t, s), flip in zip(chosen, flips, strict=True):
        if direction is None:
            shown.append(overlap(t, s, 0, flip, layers))
        else:
            shown.append(directed_overlap(t, s, direction, flip, layers))
    return shown, len(sites), len(pairs)


def invariants_picture(runs: Sequence[Run]) -> Picture:
    """The density of each invariant, all networks in one panel; the theory's value is a dashed line."""
    chosen, kernels, pairs = invariants(runs)
    shown = _seen(chosen, runs)
    along = target_direction(runs[0].task) is not None
    caption = (
        "Densities over all draws, each scaled to a peak of 1, of kernels Φ and of overlaps between steps "
        + ("along the target direction y over patterns" if along else "of pattern 1")
        + "; kernels are in units of the squared activity, overlaps dimensionless."
        + _meaning_of_lines(runs)
    )
    number = sum("kernel" in observable.label for observable in chosen)
    if (number, len(chosen) - number) != (kernels, pairs):
        caption += (
            f" Chosen are {number} of {kernels} kernels and {len(chosen) - number} of {pairs} "
            "overlaps, evenly spaced over the steps."
        )
    if len(shown) < len(chosen):
        caption += f" {len(chosen) - len(shown)} that vanish in every draw are left out."
    caption += images_note(runs)
    rows = max(len(run.table) for run in runs)
    caption += f" The table has all {rows} observables; there Φ is “kernel”, f “prediction”, and “_y” along y."

    def build() -> tuple[Figure, str]:
        if not shown:
            raise ValueError(NO_INPUT)
        figure, grid = draw_panels(len(shown), height=2.2, extra=0.5)
        colours = colour_of([run.name for run in runs])
        for axes, observable in zip(grid.ravel(), shown, strict=False):
            for run in runs:
                style = {"ax": axes, "color": colours[run.name]}
                plots.density(run.posterior, observable, label=f"{plain(run.name)}, {draws_of(run)}", **style)
                if run.solution is not None:
                    plots.density(run.solution, observable, label=f"{plain(run.name)}, {theory_of(run)}", **style)
        _finish(figure, grid, len(shown))
        return figure, " ".join(_covered(run, shown) for run in runs)

    return draw("Invariants of the posterior", caption, build)


def _seen(chosen: Sequence[Observable], runs: Sequence[Run]) -> list[Observable]:
    """Those that do not vanish in draws and theory of all networks."""
    try:
        drawn = [evaluate_observables(run.posterior, chosen) for run in runs]
    except ValueError:
        return list(chosen)  # the figure will say why they cannot be had
    solved = [run.solution for run in runs if run.solution is not None]
    return [
        observable
        for observable in chosen
        if any(values[observable.label].any() for values in drawn)
        or any(observable.evaluate(solution.kernel, solution.prediction) != 0 for solution in solved)
    ]


def _meaning_of_lines(runs: Sequence[Run]) -> str:
    solved = [run for run in runs if run.solution is not None]
    text = ""
    if any(_exact(run) for run in solved):
        text += (
            " Dashed lines: the infinite-width value, to which the densities shrink as 1/sqrt(N) while their centre "
            "moves by 1/N, away from a transition."
        )
    if not all(_exact(run) for run in solved):
        text += " Dashed lines of a lazy limit: the value at vanishing targets; what lies beside them was learned."
    return text


def _exact(run: Run) -> bool:
    """Whether the solution is the limit of the posterior."""
    return theory_of(run) == "theory" or run.network.scaling != "mup"


def _covered(run: Run, shown: Sequence[Observable]) -> str:
    if run.solution is None:
        return f"{run.name}: no theory, hence no line."
    inside, drawn = 0, evaluate_observables(run.posterior, shown)
    for observable in shown:
        draws = drawn[observable.label]
        value = observable.evaluate(run.solution.kernel, run.solution.prediction)
        low, high = np.percentile(draws, [BAND[0], BAND[-1]])
        # The square of a fluctuating number is never zero: there only the upper end can tell.
        inside += bool(value <= high and (low <= value or abs(value) <= NOTHING * high))
    return (
        f"{run.name}: in {inside} of {len(shown)} panels the {theory_of(run)} lies within the central 90% of the draws."
    )


def numbers_picture(runs: Sequence[Run]) -> Picture:
    """The density of each number of the networks that has a prior."""
    caption = (
        "Posterior densities over all chains, each scaled to a peak of 1, of the numbers of the network that have "
        "priors; grey: these priors."
    )

    def build() -> tuple[Figure, str]:
        names = list(dict.fromkeys(name for run in runs for name in names_with_priors(run.posterior)))
        figure, grid = draw_panels(len(names), height=2.2, extra=0.5)
        colours, readings = colour_of([run.name for run in runs]), []
        for run in runs:
            parts = []
            for axes, name in zip(grid.ravel(), names, strict=False):
                if name in names_with_priors(run.posterior):
                    plots.density(run.posterior, name, ax=axes, label=plain(run.name), color=colours[run.name])
                    low, middle, high = np.percentile(run.posterior["posterior"][name].to_numpy(), BAND)
                    prior = float(run.posterior["priors"][name].sel(probability=0.5, method="nearest"))
                    parts.append(f"{name} {middle:.3g} ({low:.3g} to {high:.3g}; prior median {prior:.3g})")
            readings.append(f"{run.name}, median and central 90%: {', '.join(parts)}.")
        _finish(figure, grid, len(names))
        return figure, " ".join(readings)

    return draw("Numbers of the network", caption, build)


def _finish(figure: Figure, grid: np.ndarray, number: int) -> None:
    for axes in grid[:, 1:].ravel():
        axes.set_ylabel("")
    share_legend(figure, grid.ravel()[:number])

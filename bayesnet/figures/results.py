"""Posteriors beside the theory: overlaps, predictions, eigenvalues of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bayesnet import plots
from bayesnet.eigenvalue_cloud import eigenvalue_cloud, predicted_by
from bayesnet.figures.picture import Picture, draw, draws_of, images_note, named, spaced, symmetric, theory_of
from bayesnet.observables import overlaps, site_in_words
from bayesnet.plots.maps import is_sorted, pattern_order
from bayesnet.plots.sources import aligned_predictions, mean_of
from bayesnet.plots.style import colour_of, draw_panels, plain, say, share_legend
from bayesnet.report_content import Run
from theory.task import Task

MOST_OUTPUTS = 6  # whose predictions are shown
MOST_PANELS = 12  # of predictions: as many patterns as fit, at least one


def overlaps_picture(runs: Sequence[Run]) -> Picture:
    """Overlaps over (step, pattern): theory, posterior mean, and their difference, a row for each network; without any
    theory the mean alone."""
    mirrored, task = symmetric(runs), runs[0].task
    squared, solved = bool(mirrored), any(run.solution is not None for run in runs)
    what = "squared overlaps, Φ_ij² / (Φ_ii Φ_jj)" if squared else "overlaps, Φ_ij / sqrt(Φ_ii Φ_jj)"
    layered = any(run.network.layers > 1 for run in runs)
    within = f"within a step over the {'layers and in each over the ' * layered}{task.patterns} pattern(s)"
    caption = (
        f"Rows and columns run over the steps, {within}; shown are {what}: 1 on the diagonal, dimensionless. "
        + ("Left: infinite width. Middle: the" if solved else "The")
        + " mean over all draws."
        + " Right: their difference, on its own scale." * solved
    )
    if squared:
        caption += (
            f" Squares, because changing signs of weights (W → −W) leaves the posterior of {named(mirrored, runs)} as "
            "it is: its mirror modes would average overlaps of both signs to zero. A square has a floor of about 1/N "
            "at finite width."
        )
    caption += images_note(runs)
    if is_sorted(task):
        caption += " Patterns are sorted by their target."

    def build() -> tuple[Figure, str]:
        panels = [(run, what) for run in runs for what in (("theory", "mean", "gap") if solved else ("mean",))]
        figure, grid = draw_panels(len(panels), 2.75, columns=3 * solved)
        for axes, (run, what) in zip(grid.ravel(), panels, strict=False):
            kind, name = theory_of(run), plain(run.name)
            if what == "mean":
                plots.overlaps(run.posterior, squared=squared, ax=axes).set_title(
                    f"{name}: mean of {draws_of(run)}", fontsize=10
                )
            elif run.solution is None:
                say(axes, "no theory for this network")
            elif what == "theory":
                plots.overlaps(run.solution, squared=squared, ax=axes).set_title(f"{name}: {kind}", fontsize=10)
            else:
                plots.overlaps(run.posterior, minus=run.solution, squared=squared, ax=axes)
                axes.set_title(f"{name}: {draws_of(run)} − {kind}", fontsize=10)
        return figure, " ".join(_largest_gap(run, squared) for run in runs)

    return draw("Overlaps between steps", caption, build)


def _largest_gap(run: Run, squared: bool) -> str:
    if run.solution is None:
        return f"{run.name}: there is no theory to compare with."
    power = 2 if squared else 1
    mean = mean_of(run.posterior, "overlap", power)
    gap = np.abs(mean - overlaps(run.solution.kernel) ** power)
    t, mu, s, nu = (int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    one, other = (site_in_words(site, run.network.layers) for site in (t, s))
    where = f"{one}, pattern {mu + 1} against {other}, pattern {nu + 1}"
    size = f"by at most {gap.max():.2g} ({where})"
    return f"{run.name}: the mean of the {draws_of(run)} and the {theory_of(run)} differ {size}."


def predictions_picture(runs: Sequence[Run]) -> Picture:
    """Predictions over the steps with targets and truth, a panel for each pattern and output shown."""
    task = runs[0].task
    patterns, outputs = shown_predictions(task)
    caption = (
        "Network output f over the steps, in the units of the targets. Line and dots: median over all draws; "
        f"{'bar' if task.steps == 1 else 'band'}: the central 90% of them (f without the noise of the targets). Black: "
        "targets. Grey steps: not supervised." + " Each panel has its own scale." * (len(outputs) > 1)
    )
    if any(run.solution is not None for run in runs):
        caption += " Dashed with crosses: infinite width."
    if mirrored := symmetric(runs):
        caption += (
            f" Draws of {named(mirrored, runs)} are turned into the mirror image (W → −W) whose neighbouring steps "
            "correlate positively."
        )
    caption += images_note(runs)
    for shown, number, what in ((patterns, task.patterns, "patterns"), (outputs, task.output_dim, "outputs")):
        if len(shown) < number:
            which = ", ".join(str(index + 1) for index in shown)
            order = ", spaced evenly in the order of their targets" * (what == "patterns" and is_sorted(task))
            caption += f" Shown are {what} {which} of {number}{order}; {number - len(shown)} are left out."

    def build() -> tuple[Figure, str]:
        panels = [(mu, o) for mu in patterns for o in outputs]
        # The outputs of a pattern stand side by side, of two outputs those of two patterns in a row.
        columns = {2: min(4, len(panels)), 4: 4}.get(len(outputs), 0)
        figure, grid = draw_panels(len(panels), 2.2, 0.6, columns, sharex=True, sharey=len(outputs) == 1)
        colours = colour_of([run.name for run in runs])
        used = grid.ravel()[: len(panels)]
        for axes, (mu, o) in zip(used, panels, strict=True):
            for run in runs:
                style = {"ax": axes, "color": colours[run.name]}
                plots.prediction(run.posterior, mu + 1, o + 1, label=f"{plain(run.name)}, {draws_of(run)}", **style)
            for run in runs:
                if run.solution is not None:
                    label = f"{plain(run.name)}, {theory_of(run)}"
                    plots.prediction(run.solution, mu + 1, o + 1, label=label, ax=axes, color=colours[run.name])
        _outer_labels(grid, len(panels))
        share_legend(figure, used)
        return figure, " ".join(_prediction_error(run) for run in runs)

    return draw("Predictions", caption, build)


def shown_predictions(task: Task) -> tuple[list[int], list[int]]:
    """Patterns and outputs that have a panel: up to `MOST_OUTPUTS` outputs, patterns spaced evenly over their order."""
    outputs = spaced(range(task.output_dim), MOST_OUTPUTS)
    patterns = spaced(pattern_order(task).tolist(), max(1, MOST_PANELS // len(outputs)))
    return patterns, outputs


def _outer_labels(grid: np.ndarray, number: int) -> None:
    """Axis labels at the left and the lower edge of the panels used."""
    columns = grid.shape[1]
    for place, axes in enumerate(grid.ravel()[:number]):
        lowest = place + columns >= number
        axes.tick_params(labelbottom=lowest)
        axes.set_xlabel(axes.get_xlabel() if lowest else "")
        axes.set_ylabel(axes.get_ylabel() if place % columns == 0 else "")


def _prediction_error(run: Run) -> str:
    task = run.task
    median, known = np.median(aligned_predictions(run.posterior), axis=0), np.isfinite(task.targets[..., 0])
    parts = []
    for told, what in ((task.supervised, "at supervised steps"), (known & ~task.supervised, "where kept as truth")):
        if told.any():
            error = np.sqrt(np.mean((median[told] - task.targets[told]) ** 2))
            size = np.sqrt(np.mean(task.targets[told] ** 2))
            parts.append(f"{error:.2g} {what} (targets: {size:.2g})")
    return (
        f"{run.name}: the median misses the target by {' and by '.join(parts)}, root mean square over all patterns and "
        "outputs."
    )


def spectrum_picture(runs: Sequence[Run]) -> Picture:
    """Eigenvalues of the recurrent weights in the complex plane, a panel for each network."""
    caption = (
        "Eigenvalues of the recurrent weights W (of a posterior drawn back, with their prior noise) in the complex "
        "plane, dimensionless. Prior noise fills the circle of radius g_w, the recurrent gain; its rim frays by about "
        "1/sqrt(N)."
    )
    if any(run.solution is not None for run in runs):
        caption += " Squares: outliers that the infinite-width theory predicts."
    if mirrored := symmetric(runs):
        caption += f" In a mirror mode of {named(mirrored, runs)} signs are turned (W → −W)."

    def build() -> tuple[Figure, str]:
        figure, grid = draw_panels(len(runs), height=4.3, extra=0.3)
        colours, readings = colour_of([run.name for run in runs]), []
        for axes, run in zip(grid.ravel(), runs, strict=False):
            axes.set_title(plain(run.name), fontsize=10)
            cloud = eigenvalue_cloud(run.posterior)
            if cloud.values is None:
                say(axes, cloud.note)
                readings.append(f"{run.name}: not shown, {cloud.note}.")
                continue
            plots.spectrum(cloud, ax=axes, color=colours[run.name], label=f"{plain(run.name)}, {draws_of(run)}")
            text = f"{run.name}: {cloud.note}; largest modulus {np.abs(cloud.values).max():.3f}"
            predicted = None if run.solution is None else predicted_by(run.solution)
            if predicted is not None:
                plots.spectrum(predicted, ax=axes)
                outliers = np.concatenate([*predicted.outliers, []])
                largest = np.abs(outliers).max(initial=predicted.radius)
                text += f", by the {theory_of(run)} {largest:.3f} ({len(outliers)} outside)"
            if len(cloud.singular_values):
                text += f". Largest singular value {cloud.singular_values.mean():.3f}, bulk edge {cloud.edge:.3g}"
                if predicted is not None:
                    above = np.concatenate([*predicted.singular_values, []])
                    text += f", by the {theory_of(run)} {above.max(initial=cloud.edge):.3f}"
            readings.append(text + ".")
        share_legend(figure, grid.ravel())
        return figure, " ".join(readings)

    return draw("Spectrum of the recurrent weights", caption, build)

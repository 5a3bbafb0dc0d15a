"""Figures of posteriors beside the theory: kernels, densities, predictions, eigenvalues of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bayesnet.eigenvalue_cloud import EigenvalueCloud
from bayesnet.figures.style import GREY, THEORY, WIDTH, add_legend, colour_of, draw_panels, plain, say, trim_frame
from bayesnet.figures.tasks import mark_steps, pattern_order
from bayesnet.observables import Observable, overlaps
from bayesnet.sampling import task_of
from theory.kernels import flat_of
from theory.solution import Solution
from theory.task import Task

Posteriors = Mapping[str, xr.DataTree]
Solutions = Mapping[str, Solution]


def kernel_maps(posteriors: Posteriors, solutions: Solutions, squared: bool) -> Figure:
    """Overlaps Phi_ij / sqrt(Phi_ii Phi_jj) over (step, pattern): theory, posterior mean, and their difference.

    Where ``squared``, the squares: theory's square beside the posterior mean of the square.
    """
    figure = Figure((WIDTH, 2.75 * len(posteriors)), layout="constrained")
    grid = figure.subplots(len(posteriors), 3, squeeze=False)
    for row, (name, posterior) in zip(grid, posteriors.items(), strict=True):
        task = task_of(posterior)
        power = 2 if squared else 1
        mean = (posterior["posterior"]["overlap"].to_numpy() ** power).mean(axis=(0, 1))
        solution = solutions.get(name)
        theory = None if solution is None else overlaps(solution.kernel) ** power
        kind = "no theory" if solution is None else "lazy limit" if solution.kind == "lazy limit" else "theory"
        panels = [(theory, kind), (mean, "posterior mean")]
        panels.append((None if theory is None else mean - theory, "posterior − theory"))
        for axes, (values, title) in zip(row, panels, strict=True):
            if values is None:
                say(axes, "no theory for this network")
                continue
            difference = title.startswith("posterior −")
            limit = max(float(np.abs(values).max()), 1e-3) if difference else 1.0
            scale = (
                {"cmap": "cividis", "vmin": 0.0} if squared and not difference else {"cmap": "RdBu_r", "vmin": -limit}
            )
            image = axes.imshow(_flat(values, task), vmax=limit, interpolation="nearest", **scale)
            rows = task.patterns * (len(values) // task.steps)  # of several layers: all those of a step
            mark_steps(axes, range(1, task.steps + 1), rows, "w" if squared and not difference else GREY)
            axes.set_title(f"{plain(name)}: {title}", fontsize=10)
            figure.colorbar(image, ax=axes, shrink=0.75)
    return figure


def densities(posteriors: Posteriors, solutions: Solutions, observables: Sequence[Observable]) -> Figure:
    """Posterior density of each observable, all networks in one panel; the theory's value is a dashed line."""
    figure, grid = draw_panels(len(observables), height=2.0, extra=0.5)
    colours = colour_of(list(posteriors))
    for axes, observable in zip(grid.ravel(), observables, strict=False):
        for name, posterior in posteriors.items():
            group = posterior["posterior"]
            draws = observable.evaluate(group["kernel"].to_numpy(), group["prediction"].to_numpy())
            at, height = density(draws.ravel(), bounded="^2" in observable.label)
            axes.fill_between(at, height, color=colours[name], alpha=0.25, linewidth=0)
            axes.plot(at, height, color=colours[name], linewidth=1.4)
            if name in solutions:
                value = float(observable.evaluate(solutions[name].kernel, solutions[name].prediction))
                axes.axvline(value, color=colours[name], **THEORY)
        axes.set(yticks=[], ylim=(0, 1.12))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(observable.label, fontsize=9.5)
        trim_frame(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("density (peak = 1)")
    add_legend(figure, _handles(posteriors, solutions))
    return figure


def parameters(posteriors: Posteriors) -> Figure:
    """Posterior density of each number of the networks that has a prior, the prior as a grey line."""
    names = sorted({str(name) for posterior in posteriors.values() for name in posterior["priors"].data_vars})
    figure, grid = draw_panels(len(names), height=2.0, extra=0.5)
    colours = colour_of(list(posteriors))
    for axes, name in zip(grid.ravel(), names, strict=False):
        for label, posterior in posteriors.items():
            if name not in posterior["priors"].data_vars:
                continue
            draws = posterior["posterior"][name].to_numpy().ravel()
            at, height = density(draws, bounded=True)
            axes.fill_between(at, height, color=colours[label], alpha=0.25, linewidth=0)
            axes.plot(at, height, color=colours[label], linewidth=1.4)
            quantiles = posterior["priors"][name].to_numpy()
            shown = max(float(np.quantile(draws, 0.999)), float(quantiles[len(quantiles) // 2]))
            prior_at, prior_height = density(quantiles, bounded=True)
            axes.plot(prior_at, prior_height, color=GREY, linewidth=1.2)
            axes.set_xlim(0, 1.2 * shown)
        axes.set(yticks=[], ylim=(0, 1.12))
        axes.set_title(name, fontsize=9.5)
        trim_frame(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("density (peak = 1)")
    add_legend(figure, [*_handles(posteriors, {}), Line2D([], [], color=GREY, label="prior")])
    return figure


def density(draws: np.ndarray, bounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of draws with its peak at 1, (points, heights); reflected at 0 where ``bounded``."""
    low, high = float(draws.min()), float(draws.max())
    quartiles = np.subtract(*np.percentile(draws, [75, 25])) / 1.34
    spread = min(float(draws.std()), quartiles) or float(draws.std())
    if spread <= 1e-12 * max(abs(low), abs(high)):
        width = 1e-3 * max(abs(low), 1e-3)
        return np.array([low - width, low, low + width]), np.array([0.0, 1.0, 0.0])
    bandwidth = 0.9 * spread * draws.size**-0.2  # Silverman's rule
    at = np.linspace(max(low - 3 * bandwidth, 0) if bounded else low - 3 * bandwidth, high + 3 * bandwidth, 241)
    # Bins much finer than the bandwidth stand for the draws.
    counts, edges = np.histogram(draws, bins=1000)
    centres = (edges[1:] + edges[:-1]) / 2
    height = np.exp(-0.5 * ((at[:, None] - centres) / bandwidth) ** 2) @ counts
    if bounded:
        height += np.exp(-0.5 * ((at[:, None] + centres) / bandwidth) ** 2) @ counts
    return at, height / height.max()


def predictions(
    bands: Mapping[str, np.ndarray], solutions: Solutions, task: Task, panels: Sequence[tuple[int, int]]
) -> Figure:
    """Predictions over the steps with bands, targets and truth, one panel for each (pattern, output), 0-based.

    Args:
        bands: name -> lower end, median, upper end of f, (3, P, T, O).
        solutions: theory's predictions, dashed.
        task: the targets; filled where supervised, hollow where kept as truth.
        panels: which to show.
    """
    figure, grid = draw_panels(len(panels), height=2.15, extra=0.6, shared=True)
    colours = colour_of(list(bands))
    steps = np.arange(1, task.steps + 1)
    for axes, (mu, o) in zip(grid.ravel(), panels, strict=False):
        for step in steps[~task.supervised[mu]]:
            axes.axvspan(step - 0.5, step + 0.5, color="#eeeeee", linewidth=0, zorder=0)
        for i, (name, (low, middle, high)) in enumerate(bands.items()):
            shift = 0.08 * (i - (len(bands) - 1) / 2)
            ends = np.abs(np.stack([low, high])[:, mu, :, o] - middle[mu, :, o])
            axes.errorbar(steps + shift, middle[mu, :, o], ends, color=colours[name], capsize=2.5, linewidth=1.3)
            axes.fill_between(steps + shift, low[mu, :, o], high[mu, :, o], color=colours[name], alpha=0.2, linewidth=0)
            if name in solutions:
                theory = solutions[name].prediction[mu, :, o]
                axes.plot(steps + shift, theory, color=colours[name], marker="x", markersize=5, **THEORY)
        told, y = task.supervised[mu], task.targets[mu, :, o]
        axes.plot(steps[told], y[told], "o", color="k", markersize=5.5, zorder=5)
        axes.plot(steps[~told], y[~told], "o", color="k", markerfacecolor="w", markersize=5.5, zorder=5)
        axes.set_title(f"pattern {mu + 1}" + (f", output {o + 1}" if task.output_dim > 1 else ""), fontsize=9.5)
        axes.set_xlim(0.5, task.steps + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        trim_frame(axes)
    for axes in grid.ravel()[: len(panels)][-grid.shape[1] :]:
        axes.set_xlabel("step t")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("prediction f")
    extra = [Line2D([], [], color="k", marker="o", linestyle="", label="target")]
    if (~task.supervised & np.isfinite(task.targets[..., 0])).any():
        extra.append(
            Line2D([], [], color="k", marker="o", markerfacecolor="w", linestyle="", label="truth, not supervised")
        )
    add_legend(figure, _handles(bands, solutions) + extra)
    return figure


def eigenvalues(clouds: Mapping[str, EigenvalueCloud]) -> Figure:
    """Eigenvalues of the recurrent weights in the complex plane, with the bulk circle and the theory's outliers."""
    figure, grid = draw_panels(len(clouds), height=4.3, extra=0.3)
    colours = colour_of(list(clouds))
    for axes, (name, cloud) in zip(grid.ravel(), clouds.items(), strict=False):
        axes.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
        axes.axvline(0, color="#dddddd", linewidth=0.8, zorder=0)
        axes.set_title(plain(name), fontsize=10)
        if cloud.values is None:
            say(axes, cloud.note)
            continue
        size = 5 if cloud.values.size > 100 else 14
        points = axes.scatter(
            cloud.values.real, cloud.values.imag, s=size, color=colours[name], alpha=0.45, linewidths=0
        )
        points.set_rasterized(True)
        turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(cloud.radius * turn.real, cloud.radius * turn.imag, color="k", linewidth=1)
        if cloud.outliers is not None:
            axes.plot(cloud.outliers.real, cloud.outliers.imag, "ks", markersize=11, markerfacecolor="none")
        everything = np.concatenate([cloud.values, [cloud.radius], [] if cloud.outliers is None else cloud.outliers])
        limits = np.array([-1.12, 1.12]) * np.abs(everything).max()
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="real part", ylabel="imaginary part")
        trim_frame(axes)
    marks = [
        Line2D([], [], color="k", linewidth=1, label="bulk circle, radius recurrent_gain"),
        Line2D([], [], color="k", marker="s", markerfacecolor="none", linestyle="", label="outliers by the theory"),
    ]
    add_legend(figure, marks)
    return figure


def _flat(kernel: np.ndarray, task: Task) -> np.ndarray:
    order = pattern_order(task)
    return flat_of(kernel[:, order][..., order])


def _handles(posteriors: Mapping, solutions: Solutions) -> list[Line2D]:
    colours = colour_of(list(posteriors))
    handles = []
    for name in posteriors:
        handles.append(Line2D([], [], color=colours[name], linewidth=2, label=f"{plain(name)}, posterior"))
        if name in solutions:
            kind = "lazy limit" if solutions[name].kind == "lazy limit" else "theory"
            handles.append(Line2D([], [], color=colours[name], linestyle="--", label=f"{plain(name)}, {kind}"))
    return handles

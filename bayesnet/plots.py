"""Pictures one call away: each function draws one quantity of one source into one pair of axes, and returns the axes.

A source is what says something of a network on a task:

- a `theory.Solution` (infinite width; drawn dashed),
- what `sample`, `from_weights` or `from_activations` returned (draws),
- what `sample_prior` returned (draws from the prior).

Call a function again with another source and the same ``ax`` to lay them over each other: colours follow one another
and are told apart by colour-blind readers. Without ``ax`` a new figure is made. Theory has a white rim, so that it can
be seen where it coincides with draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayesnet.eigenvalue_cloud import eigenvalue_cloud
from bayesnet.figures.posteriors import density as kernel_density
from bayesnet.figures.style import COLOURS, GREY, THEORY, trim_frame
from bayesnet.observables import Observable, aligned_outputs, check_observables, order_parameter
from bayesnet.observables import overlaps as normalised
from bayesnet.results import network_of, task_of
from theory import arguments
from theory.network import Network
from theory.solution import Solution
from theory.symmetry import has_sign_symmetry
from theory.task import Task
from theory.weight_spectrum import spectrum as predicted_spectrum

__all__ = ["density", "free_energy", "kernel", "overlap_along", "overlaps", "prediction", "spectrum"]

Source = Solution | xr.DataTree
BAND = (5.0, 50.0, 95.0)  # percentiles of draws that are shown


def kernel(source: Source, *, ax: Axes | None = None) -> Axes:
    r"""The kernel Phi over all pairs of (step, pattern), step by step, as a map.

    Of draws, their mean. Where the sign symmetry holds (`theory.has_sign_symmetry`) the modulus is shown, of draws the
    root of the mean square: signs differ between mirror modes.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: if ``source`` or ``ax`` is anything else.
    """
    network, task, kernels, _ = _read(source)
    if has_sign_symmetry(network, task):
        values, name = np.sqrt((kernels**2).mean(axis=0)), r"$|\Phi|$"
    else:
        values, name = kernels.mean(axis=0), r"$\Phi$"
    return _map(values, task, name, _axes(ax), None)


def overlaps(source: Source, *, ax: Axes | None = None) -> Axes:
    r"""Overlaps Phi_ij / sqrt(Phi_ii Phi_jj) over all pairs of (step, pattern) as a map; their squares where the sign
    symmetry holds. Of draws, the mean. Arguments as for `kernel`."""
    network, task, kernels, _ = _read(source)
    values = normalised(kernels)
    if has_sign_symmetry(network, task):
        return _map((values**2).mean(axis=0), task, "overlap$^2$", _axes(ax), 1.0)
    return _map(values.mean(axis=0), task, "overlap", _axes(ax), 1.0)


def prediction(
    source: Source, pattern: int = 1, output: int = 1, *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """The prediction f of one pattern over the steps, with its targets (filled: supervised; hollow: kept as truth).

    Of draws the median and the central 90%, each draw in the mirror image whose neighbouring steps correlate
    positively.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        pattern, output: which, counted from 1.
        ax: where to draw.
        label: for the legend; by default what the source is.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    network, task, kernels, outputs = _read(source)
    mu = arguments.integer("pattern", pattern, 1, task.patterns) - 1
    o = arguments.integer("output", output, 1, task.output_dim) - 1
    fresh, axes = ax is None or not ax.has_data(), _axes(ax)
    steps, colour, name = np.arange(1, task.steps + 1), _next_colour(axes), label or _name(source, network)
    if isinstance(source, Solution):
        axes.plot(steps, outputs[0, mu, :, o], color=colour, label=name, marker="x", markersize=5, **THEORY)
    else:
        low, middle, high = np.percentile(aligned_outputs(network, task, kernels, outputs)[:, mu, :, o], BAND, axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(steps, middle, color=colour, label=name)
    if fresh:
        told, y = task.supervised[mu], task.targets[mu, :, o]
        axes.plot(steps[told], y[told], "ko", label="target", zorder=7)
        if np.isfinite(y[~told]).any():
            axes.plot(steps[~told], y[~told], "ko", markerfacecolor="w", label="truth, not supervised", zorder=7)
        axes.set(xlabel="step $t$", ylabel="prediction $f_t$", title=f"pattern {pattern}")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        trim_frame(axes)
    axes.legend(frameon=False, fontsize=9)
    return axes


def density(source: Source, observable: Observable, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """The density of an observable over draws, its peak at 1; of a solution its value, as a dashed line.

    Args:
        source: a solution or draws, see `bayesnet.plots`.
        observable: of `bayesnet.observables`, e.g. ``bn.observables.overlap(1, 2, 0, squared=True)``.
        ax: where to draw.
        label: for the legend; by default what the source is.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    check_observables([observable])
    network, _, kernels, outputs = _read(source)
    axes = _axes(ax)
    colour, name = _next_colour(axes), label or _name(source, network)
    values = np.asarray(observable.evaluate(kernels, outputs))
    if isinstance(source, Solution):
        axes.axvline(float(values[0]), color=colour, label=name, **THEORY)
    else:
        at, height = kernel_density(values, bounded="^2" in observable.label)
        axes.fill_between(at, height, color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, height, color=colour, label=name)
    axes.set(xlabel=observable.label, ylabel="density (peak = 1)", yticks=[], ylim=(0, 1.12))
    trim_frame(axes)
    axes.legend(frameon=False, fontsize=9)
    return axes


def spectrum(source: Source, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Eigenvalues of the recurrent weights in the complex plane.

    Of draws, those of weights drawn back from the posterior (points; of linear networks wider than 1024 their learned
    part). Of a solution, the rim of the bulk (circle) and the outliers that it predicts (squares).

    Args:
        source: a solution or draws other than the prior's, see `bayesnet.plots`.
        ax: where to draw.
        label: for the legend; by default what the source is.

    Returns:
        The axes.

    Raises:
        ValueError: if the source has no recurrent weights that could be drawn, or an argument is anything else.
    """
    network, _, _, _ = _read(source)
    axes = _axes(ax)
    name = label or _name(source, network)
    if isinstance(source, Solution):
        predicted = predicted_spectrum(source)
        outliers = np.concatenate([*predicted.outliers, []])
        turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(predicted.radius * turn.real, predicted.radius * turn.imag, color="k", linewidth=1)
        axes.plot(
            outliers.real,
            outliers.imag,
            "ks",
            markersize=11,
            markerfacecolor="none",
            label=f"{name}: outliers",
            zorder=6,
        )
    else:
        if "posterior" not in source.children:
            raise ValueError("source holds draws from the prior; the weights of a posterior are shown")
        cloud = eigenvalue_cloud(source)
        if cloud.values is None:
            raise ValueError(f"source has no eigenvalues to show: {cloud.note}")
        colour = _next_colour(axes)
        axes.plot([], [], color=colour)  # the next source has the next colour
        axes.scatter(
            cloud.values.real,
            cloud.values.imag,
            s=10,
            color=colour,
            alpha=0.5,
            linewidths=0,
            label=name,
            rasterized=True,
        )
    axes.set(xlabel="real part", ylabel="imaginary part")
    axes.set_aspect("equal", adjustable="datalim")
    trim_frame(axes)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return axes


def free_energy(source: Solution | xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Free energies F of all that was found.

    Of a solution, every branch against its largest squared overlap of two steps (filled: stable). Of what
    `theory.continuation` returned, F along its parameter, one line for each direction: where they differ, two phases
    coexist, and the lower one is the posterior's.

    Args:
        source: a `theory.Solution` or a Dataset of `theory.continuation`.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    if isinstance(source, xr.Dataset):
        axis = _followed(source)
        axes = _axes(ax)
        for direction, style in (("up", "-"), ("down", "--")):
            values = source["free_energy"].sel(direction=direction)
            axes.plot(source[axis], values, style, color=_next_colour(axes), label=f"followed {direction}")
        axes.set(xlabel=_axis_label(axis), ylabel="free energy $F$")
    else:
        arguments.instance("source", source, Solution)
        axes = _axes(ax)
        parameter = order_parameter(source.network, source.task)
        for branch in source.branches or (source,):
            place = float(parameter.evaluate(branch.kernel, branch.prediction))
            face = COLOURS[0] if branch.stable else "white"
            axes.plot(place, branch.free_energy, "o", color=COLOURS[0], markerfacecolor=face, markersize=8)
        axes.plot([], [], "o", color=COLOURS[0], label="stable")
        axes.plot([], [], "o", color=COLOURS[0], markerfacecolor="white", label="unstable")
        axes.set(xlabel="largest overlap$^2$ of two steps", ylabel="free energy $F$")
    trim_frame(axes)
    axes.legend(frameon=False, fontsize=9)
    return axes


def overlap_along(
    followed: xr.Dataset,
    posteriors: Mapping[float, xr.DataTree] | None = None,
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The order parameter, the largest squared overlap of two steps, along a signal or another parameter.

    Args:
        followed: what `theory.continuation` returned: lines, dashed on the way down.
        posteriors: {value of the parameter: what `sample` returned there}: means with the central 90% of the draws.
        ax: where to draw.
        label: for the legend.

    Returns:
        The axes.

    Raises:
        ValueError: if an argument is anything else.
    """
    axis = _followed(followed)
    axes = _axes(ax)
    network = Network.from_dict(json.loads(followed.attrs["network"]))
    task = Task(followed["inputs"].values, followed["targets"].values, followed["supervised"].values.astype(bool))
    parameter, colour, name = order_parameter(network, task), _next_colour(axes), label or network.kind
    for direction, style in (("up", "-"), ("down", "--")):
        one = followed.sel(direction=direction)
        values = parameter.evaluate(one["kernel"].values, one["prediction"].values)
        axes.plot(one[axis], values, style, color=colour, label=f"{name}, theory" if direction == "up" else None)
    points = []
    for value, posterior in (posteriors or {}).items():
        _, _, kernels, outputs = _read(posterior)
        draws = parameter.evaluate(kernels, outputs)
        points.append((value, draws.mean(), *np.abs(np.percentile(draws, BAND[::2]) - draws.mean())))
    if points:
        at, mean, below, above = np.array(points).T
        axes.errorbar(at, mean, [below, above], fmt="o", color=colour, capsize=2.5, label=f"{name}, draws")
    axes.set(xlabel=_axis_label(axis), ylabel="largest overlap$^2$ of two steps")
    trim_frame(axes)
    axes.legend(frameon=False, fontsize=9)
    return axes


def _read(source: Any) -> tuple[Network, Task, np.ndarray, np.ndarray]:
    """Network, task, kernels (draws, T, P, T, P) and predictions (draws, P, T, O); a solution is one draw."""
    if isinstance(source, Solution):
        return source.network, source.task, source.kernel[None], source.prediction[None]
    if not isinstance(source, xr.DataTree) or not {"posterior", "prior"} & set(source.children):
        raise ValueError(
            f"source is {type(source).__name__}; it must be a theory.Solution, or what bayesnet.sample or "
            "bayesnet.sample_prior returned"
        )
    group = source["posterior" if "posterior" in source.children else "prior"]
    kernels, outputs = (group[name].to_numpy() for name in ("kernel", "prediction"))
    return (
        network_of(source),
        task_of(source),
        kernels.reshape(-1, *kernels.shape[2:]),
        outputs.reshape(-1, *outputs.shape[2:]),
    )


def _name(source: Source, network: Network) -> str:
    if isinstance(source, Solution):
        return f"{network.kind}, {'theory' if source.kind == 'saddle point' else source.kind}"
    return f"{network.kind}, {'posterior' if 'posterior' in source.children else 'prior'}, N = {network.width}"


def _axes(ax: Any) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt  # not before it is needed: it chooses a backend

        return plt.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise ValueError(f"ax is {type(ax).__name__}; it must be matplotlib axes, or None for new ones")
    return ax


def _next_colour(axes: Axes) -> str:
    """The colour after those of the sources that have been drawn, which every one leaves on a line."""
    used = {line.get_color() for line in axes.get_lines()}
    return next((colour for colour in COLOURS if colour not in used), COLOURS[0])


def _map(values: np.ndarray, task: Task, name: str, axes: Axes, limit: float | None) -> Axes:
    size = values.shape[0] * values.shape[1]
    flat = values.reshape(size, size)
    signed = bool((flat < -1e-12 * np.abs(flat).max()).any())
    most = limit or float(np.abs(flat).max()) or 1.0
    style: dict[str, Any] = {"cmap": "RdBu_r" if signed else "cividis", "vmin": -most if signed else 0.0, "vmax": most}
    image = axes.imshow(flat, interpolation="nearest", **style)
    per_step = size // task.steps
    for border in np.arange(1, task.steps) * per_step - 0.5:
        axes.axhline(border, color=GREY if signed else "w", linewidth=0.8)
        axes.axvline(border, color=GREY if signed else "w", linewidth=0.8)
    places = (np.arange(task.steps) + 0.5) * per_step - 0.5
    labels = [str(step + 1) for step in range(task.steps)]
    axes.set(xlabel="step", ylabel="step", title=name)
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.figure.colorbar(image, ax=axes, shrink=0.85)
    return axes


def _followed(source: Any) -> str:
    """The name of the parameter of a Dataset of `theory.continuation`."""
    if not isinstance(source, xr.Dataset) or not {"free_energy", "direction"} <= set(source.variables):
        raise ValueError(f"{type(source).__name__} is not what theory.continuation returned")
    return str(source["free_energy"].dims[1])


def _axis_label(axis: str) -> str:
    known = {"factor": "signal (factor of the targets)", "noise": r"noise $\kappa$", "leak": r"leak $\alpha$"}
    return known.get(axis, axis.replace("_", " ").replace("shared.", "degree of sharing: "))

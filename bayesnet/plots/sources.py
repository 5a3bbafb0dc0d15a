"""What a source holds, and where and in which colour it is drawn.

Draws that break a symmetry of their task are all drawn in one image, that of most draws of the first chain
(`bayesnet.task_images`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like

from bayesnet.diagnostics import evaluate_observables
from bayesnet.observables import Observable, aligned_outputs, overlaps
from bayesnet.plots.style import COLOURS
from bayesnet.results import has_moments, kernels_of, network_of, task_of
from bayesnet.schema import MOMENTS_GROUP
from bayesnet.task_images import turned_draws
from theory.network import Network
from theory.solution import Solution
from theory.symmetry import mirror_signs
from theory.task import Task

Source = Solution | xr.DataTree
BAND = (5.0, 50.0, 95.0)  # percentiles of draws that are shown


def read(source: Any) -> tuple[Network, Task, np.ndarray, np.ndarray]:
    """Network, task, kernels (draws, T, P, T, P) and predictions (draws, P, T, O); a solution is one draw."""
    if isinstance(source, Solution):
        return source.network, source.task, source.kernel[None], source.prediction[None]
    group = group_of(source)
    kernels, outputs = kernels_of(source, "this plot", str(group.name)), group["prediction"].to_numpy()
    turned = turned_draws(source) if group.name == "posterior" else None
    if turned is not None:
        kernels, outputs = turned.kernels(kernels), turned.outputs(outputs)
    return (
        network_of(source),
        task_of(source),
        kernels.reshape(-1, *kernels.shape[2:]),
        outputs.reshape(-1, *outputs.shape[2:]),
    )


def problem_of(source: Any) -> tuple[Network, Task]:
    """Network and task."""
    if isinstance(source, Solution):
        return source.network, source.task
    group_of(source)  # refuses what is none
    return network_of(source), task_of(source)


def aligned_predictions(source: Any) -> np.ndarray:
    """Predictions (draws, P, T, O), each draw in the mirror image whose neighbouring steps correlate positively."""
    network, task = problem_of(source)
    if isinstance(source, Solution) or len(mirror_signs(network, task)):
        return aligned_outputs(network, task, *read(source)[2:])
    outputs = group_of(source)["prediction"].to_numpy()
    turned = turned_draws(source) if group_of(source).name == "posterior" else None
    outputs = outputs if turned is None else turned.outputs(outputs)
    return outputs.reshape(-1, *outputs.shape[2:])


def values_of(source: Any, observable: Observable) -> np.ndarray:
    """An observable of every draw, (draws,)."""
    if not isinstance(source, Solution) and group_of(source).name == "posterior" and has_moments(source):
        return evaluate_observables(source, [observable])[observable.label].ravel()
    return np.asarray(observable.evaluate(*read(source)[2:]))


def mean_of(source: Any, what: str, power: int) -> np.ndarray:
    """The mean over draws of "kernel" or "overlap", or of its square (``power`` 2), (T, P, T, P)."""
    if not isinstance(source, Solution) and group_of(source).name == "posterior" and has_moments(source):
        moments, turned = source[MOMENTS_GROUP].to_dataset(), turned_draws(source)
        mean, sd = (moments[f"{what}_{name}"].to_numpy() for name in ("mean", "sd"))
        if turned is not None:
            mean, sd = (turned.kernels(values, turned.of_chains) for values in (mean, sd))
        number = group_of(source).sizes["draw"]
        spread = sd**2 * (number - 1) / number
        return (mean if power == 1 else mean**2 + spread).mean(axis=0)
    kernels = read(source)[2]
    return ((kernels if what == "kernel" else overlaps(kernels)) ** power).mean(axis=0)


def group_of(source: Any) -> xr.DataTree:
    """The group that holds the draws."""
    if not isinstance(source, xr.DataTree) or not {"posterior", "prior"} & set(source.children):
        raise ValueError(
            f"source is {type(source).__name__}; it must be a theory.Solution, or what bayesnet.sample or "
            "bayesnet.sample_prior returned"
        )
    return source.children["posterior" if "posterior" in source.children else "prior"]


def name_of(source: Source) -> str:
    """What a legend calls a source."""
    if isinstance(source, Solution):
        return f"{source.network.kind}, {kind_of(source)}"
    network = network_of(source)
    return f"{network.kind}, {'posterior' if 'posterior' in source.children else 'prior'}, $N = {network.width}$"


def kind_of(solution: Solution) -> str:
    """What a solution is: "theory" or "lazy limit"."""
    return "theory" if solution.kind == "saddle point" else solution.kind


def axes_of(ax: Any) -> Axes:
    """The axes to draw into."""
    if ax is None:
        import matplotlib.pyplot as plt  # not before it is needed: it chooses a backend

        return plt.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise ValueError(f"ax is {type(ax).__name__}; it must be matplotlib axes, or None for new ones")
    return ax


def colour_in(axes: Axes, color: Any) -> Any:
    """The colour asked for; by default that after those of the sources drawn, which every one leaves on a line."""
    if color is None:
        used = {line.get_color() for line in axes.get_lines()}
        return next((colour for colour in COLOURS if colour not in used), COLOURS[0])
    if not is_color_like(color):
        raise ValueError(f"color is {color!r}; it must be a colour of matplotlib, or None for the next one")
    return color

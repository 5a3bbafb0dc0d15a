"""phase_diagram: where in a plane of two parameters a network correlates its time steps, by theory and by samples."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesnet.netcdf import write_netcdf
from bayesnet.sweeping.grids import Axis, TaskMaker, make_points, read_axes
from bayesnet.sweeping.phase_figures import draw_diagram
from bayesnet.sweeping.points import TRANSITION, empty_values
from bayesnet.sweeping.sweeps import Sweep, check_executor, measure_grid
from theory import arguments, files
from theory.display import html_table
from theory.network import Network
from theory.task import Task

THEORY, LINE, POSTERIOR = "theory", "critical line", "posterior"


@dataclass(frozen=True, repr=False)
class PhaseDiagram:
    """What `phase_diagram` returns.

    Attributes:
        dataset: dims (y, x) by the names of the axes.
            Theory: ``order_parameter``, ``converged``, ``stable``, ``outcome``, ``error``.
            Posterior, where one was asked for: ``order_parameter_mean``, ``order_parameter_mcse``, ``status``,
            ``message``; NaN and "" where none was sampled.
            Transition, as factors that multiply the targets (so without a dim "factor"): ``instability`` of the
            symmetric solution, ``instability_error``, its standard error, ``closed_form`` (whether by formula),
            ``crossing`` of the free energies (linear networks only), ``order``; NaN where there is no symmetric branch.
        network, task: what does not vary along the axes.
        message: in words, why there is no critical line; empty where there is one.
        sweeps: what came of the theory, of the critical line, and of the posterior where one was asked for.
    """

    dataset: xr.Dataset
    network: Network
    task: Task | TaskMaker
    message: str
    sweeps: dict[str, Sweep]

    @property
    def failed(self) -> int:
        """How many points of theory and posterior failed."""
        return sum(swept.failed for what, swept in self.sweeps.items() if what != LINE)

    @property
    def trusted(self) -> bool:
        """Whether every theory solution converged to a stable saddle point, and every sampler converged."""
        return all(swept.trusted for swept in self.sweeps.values())

    @property
    def summary(self) -> str:
        """A line for each sweep, and one on the critical line where there is something to say."""
        lines = [f"{what}: {swept.summary}" for what, swept in self.sweeps.items()]
        return "\n".join([*lines, self.message] if self.message else lines)

    def __repr__(self) -> str:
        axes = " x ".join(f"{name} ({size})" for name, size in self.dataset["order_parameter"].sizes.items())
        return f"PhaseDiagram({axes} of {self.network!r}; {self.summary.replace(chr(10), '; ')})"

    def _repr_html_(self) -> str:
        picture = io.BytesIO()
        self.draw().savefig(picture, dpi=80, format="png")
        encoded = base64.b64encode(picture.getbuffer()).decode()
        image = f'<img alt="phase diagram" src="data:image/png;base64,{encoded}">'
        return html_table("PhaseDiagram", [line.split(": ", 1) for line in self.summary.splitlines()]) + image

    def draw(self) -> Figure:
        """The theory's order parameter as colour, the critical lines, and posterior points in the same colours."""
        return draw_diagram(self.dataset, self.network, self.task, self.message)

    def save(self, directory: str | os.PathLike) -> list[Path]:
        """Write phase_diagram.png and phase_diagram.nc to a directory, each only once complete; returns their paths."""
        place = files.directory_path("directory", directory)
        picture = io.BytesIO()
        self.draw().savefig(picture, dpi=130, format="png")
        with files.made_directory(place):
            paths = [place / "phase_diagram.png", place / "phase_diagram.nc"]
            files.write_file(paths[0], picture.getvalue())
            write_netcdf(paths[1], self.dataset)
        return paths


def phase_diagram(
    network: Network,
    task: Task | TaskMaker,
    x: tuple[str, Sequence[float]],
    y: tuple[str, Sequence[float]],
    posterior: bool | tuple[int, int] = False,
    *,
    executor: Executor | None = None,
    store: str | os.PathLike | None = None,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    solving: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
) -> PhaseDiagram:
    """The order parameter of the theory over two axes, the critical line, and posterior points on top.

    The order parameter is the largest squared overlap between two different steps
    (`bayesnet.observables.order_parameter`). The critical line is where the symmetric solution turns unstable: in
    closed form for linear chains, else by `theory.critical_signal`. Where the transition is first order the colour
    changes earlier, at the crossing of the free energies, which is drawn too for linear networks.

    Args:
        network: where no axis says otherwise; its width matters to the posterior only.
        task: as in `bayesnet.sweep`.
        x, y: (axis, values): a numerical field of `Network`, "factor", which multiplies the task's targets, or a
            numerical argument of ``task``; at least two values, increasing.
        posterior: whether to sample the posterior at every point, or (number along x, number along y) to sample an
            evenly spread part of them.
        executor, store, seed, sampling, solving, retry_failed, progress: as in `bayesnet.sweep`.

    Raises:
        ValueError, ConnectionError, OSError: as in `bayesnet.sweep`.
    """
    check_executor(executor)
    axes = [_read_plane_axis("y", y), _read_plane_axis("x", x)]
    if axes[0].name == axes[1].name:
        raise ValueError(f"x and y are both {axes[0].name!r}; they must differ")
    coarse = _thin(axes, posterior)
    settings: dict[str, Any] = {"seed": seed, "sampling": sampling, "solving": solving}
    points = make_points(network, task, axes, "theory", **settings)
    # A threshold is a factor: it does not depend on the axis of factors.
    rest = [axis for axis in axes if axis.name != "factor"]
    thresholds = make_points(network, task, rest, TRANSITION, seed=seed)
    samples = make_points(network, task, coarse, "posterior", **settings) if coarse else []

    work = {THEORY: (axes, points), LINE: (rest, thresholds)} | ({POSTERIOR: (coarse, samples)} if coarse else {})
    sweeps = {what: measure_grid(*grid, executor, store, retry_failed, progress, what) for what, grid in work.items()}
    theory = sweeps[THEORY].dataset
    parts = [theory[["order_parameter", "converged", "stable", "outcome", "error"]]]
    parts.append(sweeps[LINE].dataset[list(empty_values(TRANSITION)[0])])
    if coarse:
        empty = empty_values("posterior")[0]
        same_places = {axis.name: theory[axis.name] for axis in axes}
        parts.append(sweeps[POSTERIOR].dataset[list(empty)].reindex(same_places, fill_value=empty))
    dataset = xr.merge(parts, compat="no_conflicts", join="exact")
    return PhaseDiagram(dataset, network, task, _describe_line(sweeps[LINE]), sweeps)


def _read_plane_axis(name: str, value: Any) -> Axis:
    try:
        field, values = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; it must be (axis, values)") from None
    axis = read_axes({field: values})[0]
    numbers = np.array([label if isinstance(label, int | float) else np.nan for label in axis.labels], dtype=float)
    if axis.labels != axis.values or len(numbers) < 2 or not np.all(np.diff(numbers) > 0):
        raise ValueError(f"{name} has the values {list(axis.labels)}; a plane needs two or more numbers, increasing")
    return axis


def _thin(axes: list[Axis], posterior: bool | tuple[int, int]) -> list[Axis]:
    """The axes (y, x) with the values at which to sample; none where there is nothing to sample."""
    if isinstance(posterior, bool):
        return axes if posterior else []
    try:
        along_x, along_y = posterior
    except (TypeError, ValueError):
        raise ValueError(f"posterior is {posterior!r}; it must be True, False or (number along x, along y)") from None
    thinned = []
    for axis, number in zip(axes, (along_y, along_x), strict=True):
        number = arguments.integer("posterior", number, 1, len(axis.values))
        places = ((np.arange(number) + 0.5) * len(axis.values) / number).astype(int)
        values = tuple(axis.values[i] for i in places)
        thinned.append(Axis(axis.name, values, values))
    return thinned


def _describe_line(critical: Sweep) -> str:
    """Why there is no critical line, or not everywhere; empty where there is one."""
    errors = [str(error) for error in critical.dataset["error"].values.ravel() if error]
    total = critical.dataset["error"].size
    if errors:
        where = "no critical line" if len(errors) == total else f"no critical line at {len(errors)} of {total} values"
        return f"{where}: {errors[0]}"
    return "" if np.isfinite(critical.dataset["instability"]).any() else "no transition: the steps never correlate"

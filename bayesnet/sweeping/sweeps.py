"""sweep: a grid of points measured by an executor, kept in a store, and gathered in one Dataset."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from bayesnet.progress import progress_bar, progress_shown
from bayesnet.sampling import version_of
from bayesnet.sweeping.datasets import FAILED, gather
from bayesnet.sweeping.executors import LocalProcesses
from bayesnet.sweeping.grids import Axis, TaskMaker, make_points, name_place, read_axes
from bayesnet.sweeping.point_store import PointStore
from bayesnet.sweeping.points import MEASURES, Point, Record, blank_record, measure_point, name_error
from theory import arguments
from theory.network import Network
from theory.task import Task

SAVE_EVERY = 30.0  # seconds between two versions of the Dataset on disk


def sweep(
    network: Network,
    task: Task | TaskMaker,
    grid: Mapping[str, Any],
    measure: str = "theory",
    *,
    executor: Executor | None = None,
    store: str | os.PathLike | None = None,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    solving: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure every point of a grid: theory, posterior, or both and their comparison.

    Points do not depend on each other: each is solved from its own start and draws with its own seed, so the result is
    the same whatever else is in the grid, whatever measures it, and however often it was interrupted.

    Args:
        network: where no axis says otherwise.
        task: a `Task`, or a function that returns one and is called with those axes that its parameters name
            (``lambda steps: bn.tasks.chain(steps, 1.0)`` with an axis "steps").
        grid: axis -> values, or axis -> {label: value}. An axis is a field of `Network`; a field of `Task`;
            "factor", which multiplies the targets; "seed"; or an argument of ``task``.
        measure: "theory" (`theory.solve`), "posterior" (`bayesnet.sample`), or "both" (and `bayesnet.compare`).
        executor: what measures the points: this process if None, or any `concurrent.futures.Executor`:
            `bayesnet.executors.LocalProcesses` for several processes, `connect_dask` there for a cluster.
        store: directory where each point is kept once it is finished, under the hash of its network, task, settings,
            seed and the version of bayesnet; the same sweep started again goes on where it ended, and sweeps may share
            a store. None keeps nothing. It also holds the Dataset, ``sweep-<hash>.nc``, as far as it has come.
        seed: of everything random. Each point derives its own, ``point_seed`` in the result: ``bn.sample`` and
            ``theory.solve`` with it repeat the point.
        sampling: arguments of `bayesnet.sample`.
        solving: arguments of `theory.solve`.
        retry_failed: measure again what failed before; by default a failure in the store stands.
        progress: whether to show points done, time left and failures; by default in notebooks and where
            standard error is a terminal.

    Returns:
        A Dataset with the axes as dims. For each point: ``outcome`` ("done" or "failed"), ``error``, ``point_seed``,
        ``seconds``; of the theory ``order_parameter`` (the largest squared overlap between two steps), ``free_energy``
        and its error, ``residual``, ``stable``, ``converged``, ``solution`` (in words); of the posterior ``status``
        ("PASS", "DIFFER" or "FAIL", see `bayesnet.comparison.Verdict`), ``message``, and ``order_parameter_mean`` with
        its Monte Carlo standard error ``order_parameter_mcse``. For each point and ``observable``: the columns of
        `bayesnet.compare`, and ``theory_error``, the theory's own standard error. NaN (or "" or False) stands where a
        point failed, or has no such observable.

    Raises:
        ValueError: for a bad argument or a value that its field refuses, naming axis and value, before the first point
            is measured. What goes wrong in a point is recorded there and does not stop the others.
        ConnectionError: if the executor itself breaks down; finished points are in the store.
        OSError: if the store cannot be written.
    """
    measure = arguments.one_of("measure", measure, MEASURES)
    check_executor(executor)
    axes = read_axes(grid)
    points = make_points(network, task, axes, measure, seed=seed, sampling=sampling, solving=solving)
    return measure_grid(axes, points, executor, store, retry_failed, progress).dataset


def check_executor(executor: Any) -> None:
    """An executor, or None.

    Raises:
        ValueError: if it is neither.
    """
    if executor is not None and not isinstance(executor, Executor):
        raise ValueError(
            f"executor is {type(executor).__name__}; it must be a concurrent.futures.Executor, "
            "bayesnet.executors.LocalProcesses for instance, or None"
        )


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes:
        dataset: see `sweep`.
        path: of the Dataset in the store; None without a store.
        reused: how many points the store had already.
        seconds: wall time.
    """

    dataset: xr.Dataset
    path: Path | None
    reused: int
    seconds: float

    @property
    def failed(self) -> int:
        """How many points failed."""
        return int((self.dataset["outcome"] == FAILED).sum())

    @property
    def trusted(self) -> bool:
        """Whether every theory solution converged to a stable saddle point, and every sampler converged."""
        data = self.dataset
        solved = "converged" not in data or bool((data["converged"] & data["stable"]).all())
        return solved and not ("status" in data and bool((data["status"] == "FAIL").any()))

    @property
    def summary(self) -> str:
        """One line."""
        total = self.dataset["outcome"].size
        parts = [
            f"{total - self.failed} of {total} points done",
            f"{self.failed} failed",
            f"{self.reused} from the store",
        ]
        if "status" in self.dataset:
            names = [str(name) for name in self.dataset["status"].values.ravel() if name]
            parts.append(", ".join(f"{names.count(name)} {name}" for name in ("PASS", "DIFFER", "FAIL")))
        if "converged" in self.dataset:
            parts.append(f"{int(self.dataset['converged'].sum())} theory solutions converged")
        return f"{'; '.join(parts)}; {self.seconds:.0f} s"


def measure_grid(
    axes: list[Axis],
    points: list[Point],
    executor: Executor | None = None,
    store: str | os.PathLike | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
    what: str = "sweep",
) -> Sweep:
    """Measure the points that the store does not hold yet and gather all of them. ``what`` names the progress bar."""
    started = time.perf_counter()
    if isinstance(executor, LocalProcesses | ProcessPoolExecutor):
        _check_sendable(points)
    kept = None if store is None else PointStore(store)
    records: dict[str, Record] = {}
    for point in points:
        record = kept.read(point) if kept else None
        if record is not None and not (retry_failed and record["error"]):
            records[point.key] = record
    missing = [point for point in points if point.key not in records]
    failed = sum(bool(record["error"]) for record in records.values())
    bar = _Progress(what, len(points), len(points) - len(missing), failed, progress)
    name = hashlib.sha256(" ".join(point.key for point in points).encode()).hexdigest()[:16]
    saved = time.perf_counter()

    def keep(point: Point, record: Record) -> None:
        nonlocal saved
        records[point.key] = record
        if kept is not None:
            kept.write(point, record)
            if time.perf_counter() - saved > SAVE_EVERY:
                kept.write_dataset(name, gather(axes, points, records))
                saved = time.perf_counter()
        bar.count(point, record)

    with bar:
        try:
            _measure(missing, executor, keep)
        except (BrokenExecutor, CancelledError) as error:
            raise ConnectionError(
                f"the executor broke down ({name_error(error)}) when {len(records)} of {len(points)} points were done"
                + ("; start the same sweep again to go on" if kept else "")
            ) from error
        finally:
            dataset = gather(axes, points, records)
            path = kept.write_dataset(name, dataset) if kept else None
    return Sweep(dataset, path, len(points) - len(missing), time.perf_counter() - started)


def _check_sendable(points: list[Point]) -> None:
    """Refuse activations that worker processes of this machine would not find, before the first point is measured."""
    for activation in {point.network.activation for point in points}:
        try:
            pickle.dumps(activation)
        except Exception as error:  # whatever functions raise that pickle does not find by name
            reason = str(error)
        else:
            # A prompt and a notebook have no file that a worker could read its functions from.
            if not str(activation).startswith("__main__:") or hasattr(sys.modules["__main__"], "__file__"):
                continue
            reason = "it was defined at a prompt or in a notebook"
        raise ValueError(
            f"activation {str(activation)!r} cannot be sent to worker processes ({reason}); define it with def at the "
            "top level of a module and import it from there"
        )


def _measure(points: list[Point], executor: Executor | None, keep: Callable[[Point, Record], None]) -> None:
    version = version_of("bayesnet")
    if executor is None:
        for point in points:
            keep(point, measure_point(point, version))
        return
    futures: dict[Future, Point] = {}
    broken: Exception | None = None
    try:
        try:
            for point in points:
                futures[executor.submit(measure_point, point, version)] = point
        except BrokenExecutor as error:
            broken = error
        for future in as_completed(futures):
            try:
                keep(futures[future], _outcome(future))
            except (BrokenExecutor, CancelledError) as error:
                broken = error  # others may have been answered before it broke
    finally:
        for future in futures:
            future.cancel()
    if broken is not None:
        raise broken


def _outcome(future: Future) -> Record:
    """The record of a point; one of a failure where its worker could not even answer."""
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        raise
    except Exception as error:
        return blank_record(name_error(error))


class _Progress:
    """Points done and total, time left, failures so far; each failure in a line of its own."""

    def __init__(self, what: str, total: int, done: int, failed: int, shown: bool | None):
        hidden = not progress_shown(shown)
        # A log file gets a line now and then, not ten a second.
        every = 0.1 if progress_shown(None) else 10.0
        self._bar = progress_bar(total=total, initial=done, desc=what, unit="point", disable=hidden, mininterval=every)
        self._hidden, self._failed = hidden, failed
        if failed:
            self._bar.set_postfix(failed=failed)

    def count(self, point: Point, record: Record) -> None:
        if record["error"]:
            self._failed += 1
            self._bar.set_postfix(failed=self._failed, refresh=False)
            if not self._hidden:
                self._bar.write(f"failed at {name_place(point.labels)}: {record['error']}", file=sys.stderr)
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()

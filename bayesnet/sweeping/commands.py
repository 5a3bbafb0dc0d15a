"""The commands `bayesnet sweep` and `bayesnet phase-diagram`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from bayesnet.config import assign, read_tables
from bayesnet.netcdf import write_netcdf
from bayesnet.sweeping.executors import LocalProcesses, connect_dask
from bayesnet.sweeping.grids import make_points, read_axes
from bayesnet.sweeping.phase_diagrams import phase_diagram
from bayesnet.sweeping.points import MEASURES
from bayesnet.sweeping.sweep_config import DEFAULT_DIAGRAM, SweepConfig, build_sweep_config
from bayesnet.sweeping.sweeps import measure_grid
from theory import arguments as checks
from theory import files

FAILED = 1

SWEEP = """\
Measure a grid of networks and tasks: theory, posterior, or both and their comparison.

FILE is a TOML configuration with the tables [task], [network], [grid], and optionally [sweep] (measure = "theory",
"posterior" or "both"; seed), [sampling] and [solving] (arguments of bayesnet.sample and theory.solve):

  [task]
  name = "chain"
  signal = 1.0

  [network]
  width = 1000

  [grid]                       # fields of the network, factor (multiplies the targets), seed, arguments of the task
  steps = [3, 4, 6]
  noise = [0.1, 1.0]
  factor = { start = 0.5, stop = 4.0, num = 8 }

  [sweep]
  measure = "both" """

SWEEP_EPILOG = """\
It writes sweep.nc (netCDF, the axes as dimensions) into the output directory. Every finished point is kept in the
store: the same command started again, after an interrupt or with a larger grid, measures only what is missing.
Exit status: 0 done; 1 some points failed (with --strict also: did not converge); 2 bad input; 130 interrupted."""

DIAGRAM = """\
Draw a phase diagram: the largest squared overlap between two steps, by theory, over two axes; with the critical line.

FILE is a TOML configuration as for `bayesnet sweep`; the first axis of its [grid] runs along x, the second along y.
Without FILE: a linear chain of four steps, signal against noise."""

DIAGRAM_EPILOG = """\
examples:
  bayesnet phase-diagram
  bayesnet phase-diagram --jobs 2 --set task.steps=6 --set 'grid.factor={start=0.2, stop=4.0, num=20}'
  bayesnet phase-diagram --posterior 5x5 --set network.width=1000

It writes phase_diagram.png and phase_diagram.nc into the output directory. Exit status: as for `bayesnet sweep`."""


def add_commands(commands: Any) -> None:
    """Add both commands to the subparsers of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    sweep = commands.add_parser(
        "sweep",
        help="measure a grid of networks and tasks",
        description=SWEEP,
        epilog=SWEEP_EPILOG,
        formatter_class=raw,
    )
    sweep.add_argument("file", metavar="FILE", help="TOML configuration")
    _add_options(sweep, "bayesnet-sweep")
    sweep.set_defaults(run=_sweep)
    diagram = commands.add_parser(
        "phase-diagram", help="draw a phase diagram", description=DIAGRAM, epilog=DIAGRAM_EPILOG, formatter_class=raw
    )
    diagram.add_argument("file", nargs="?", metavar="FILE", help="TOML configuration")
    diagram.add_argument(
        "--posterior",
        nargs="?",
        const="all",
        metavar="NXxNY",
        help="also sample the posterior, at every point or at NX x NY evenly spread ones",
    )
    _add_options(diagram, "bayesnet-phase-diagram")
    diagram.set_defaults(run=_phase_diagram)


def _add_options(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--out", default=out, metavar="DIR", help=f"output directory ({out})")
    parser.add_argument("--store", metavar="DIR", help="where finished points are kept (OUT/store); may be shared")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=1, metavar="K", help="processes, each with a share of the cores (1)")
    where.add_argument("--dask", metavar="ADDRESS", help="scheduler of a running Dask cluster, tcp://HOST:PORT")
    parser.add_argument("--retry-failed", action="store_true", help="measure again what failed before")
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 when a theory or a sampler did not converge"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="any configuration value, as TOML; repeatable",
    )


def _sweep(options: argparse.Namespace) -> int:
    config = _read_config(options, {})
    measure = checks.one_of("[sweep] measure", config.measure, MEASURES)
    axes = read_axes(config.grid)
    settings: dict[str, Any] = {"seed": config.seed, "sampling": config.sampling, "solving": config.solving}
    points = make_points(config.network, config.task, axes, measure, **settings)
    with _directories(options) as (directory, store):
        with _executor(options) as executor:
            swept = measure_grid(axes, points, executor, store, options.retry_failed, progress=True)
        path = directory / "sweep.nc"
        write_netcdf(path, swept.dataset)
    print(swept.summary)
    print(path)
    return FAILED if swept.failed or (options.strict and not swept.trusted) else 0


def _phase_diagram(options: argparse.Namespace) -> int:
    config = _read_config(options, DEFAULT_DIAGRAM)
    if len(config.grid) != 2:
        raise ValueError(
            f"[grid] has the axes {', '.join(config.grid) or 'none'}; a phase diagram needs two, x and y; "
            "--set 'grid={X = [...], Y = [...]}' replaces them all"
        )
    x, y = config.grid.items()
    posterior = _posterior_places(options.posterior)
    with _directories(options) as (directory, store):
        with _executor(options) as executor:
            diagram = phase_diagram(
                config.network,
                config.task,
                x,
                y,
                posterior,
                executor=executor,
                store=store,
                seed=config.seed,
                sampling=config.sampling,
                solving=config.solving,
                retry_failed=options.retry_failed,
                progress=True,
            )
        paths = diagram.save(directory)
    print(diagram.summary)
    print(*paths, sep="\n")
    return FAILED if diagram.failed or (options.strict and not diagram.trusted) else 0


def _read_config(options: argparse.Namespace, default: Mapping[str, Any]) -> SweepConfig:
    tables = read_tables(options.file) if options.file else {name: dict(values) for name, values in default.items()}
    axes = list(default.get("grid", {})) if not options.file else []
    named: list[str] = []
    for assignment in options.set:
        section, key = assign(tables, assignment)
        if section == "grid":
            named.append(key)
    # Default axes are there only where no other ones are asked for.
    for axis in [name for name in axes[::-1] if name not in named]:
        if len(tables["grid"]) > len(axes) and "" not in named:
            del tables["grid"][axis]
    return build_sweep_config(tables)


@contextlib.contextmanager
def _directories(options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """Where to write and where to keep points; what goes wrong is followed by where finished points are."""
    out = files.directory_path("--out", options.out)
    store = files.directory_path("--store", options.store) if options.store else out / "store"
    with files.made_directory(out) as directory:
        try:
            yield directory, store
        except BaseException:
            if store.is_dir():
                kept = f"finished points are kept in {store}"
                print(f"bayesnet: {kept}; the same command goes on from them", file=sys.stderr)
            raise


@contextlib.contextmanager
def _executor(options: argparse.Namespace) -> Iterator[Executor | None]:
    jobs = checks.integer("--jobs", options.jobs)
    if options.dask:
        with connect_dask(options.dask) as executor:
            yield executor
    elif jobs > 1:
        with LocalProcesses(jobs) as executor:
            yield executor
    else:
        yield None


def _posterior_places(text: str | None) -> bool | tuple[int, int]:
    if text is None or text == "all":
        return text is not None
    try:
        along_x, along_y = text.split("x")
        return int(along_x), int(along_y)
    except ValueError:
        raise ValueError(f"--posterior is {text!r}; it must be two numbers, 5x5 for instance, or nothing") from None

"""The command line: `bayesnet report`, `bayesnet config`, `bayesnet sweep` and `bayesnet phase-diagram`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

import bayesnet as bn
import theory
from bayesnet.config import Config, assign, build_config, default_tables, read_tables, set_value, to_toml
from bayesnet.program_cache import kept_programs
from bayesnet.sweeping import commands as sweep_commands
from bayesnet.sweeping.points import name_error
from theory import files

ERROR, GATE_FAILED, INTERRUPTED = 2, 1, 130

DESCRIPTION = """\
Recurrent and deep networks as one Bayesian inference over sequences.

`bayesnet report` samples the posterior of a weight-shared (RNN) and an unshared (DNN) network with NUTS, solves the
infinite-width theory of both, and writes one HTML report that lays the two side by side. `bayesnet sweep` does so over
a grid of networks and tasks, `bayesnet phase-diagram` draws one over two of their parameters."""

REPORT = """\
Sample, solve, compare, report.

Without FILE: the digits task (8 handwritten zeros and ones, 3 steps), RNN and DNN at width 512.
FILE may be a TOML configuration (`bayesnet config` prints the default one, to be edited) or a task archive .npz with
the arrays inputs (patterns, steps[, input dimensions]), targets (patterns, steps[, outputs]) and, optionally,
supervised (patterns, steps).
A theory that cannot be had is a sentence in the report; the posterior stands without it."""

EPILOG = """\
examples:
  bayesnet report                                     the default: digits, about a minute and a half on two cores
  bayesnet report --width 2048 --set task.signal=2.0  another width, a weaker signal
  bayesnet report task.npz --activation tanh          your own task, another activation
  bayesnet config > run.toml; bayesnet report run.toml

It writes report.html and summary.json into the output directory (and with --save the posteriors and solutions as
netCDF files, for bayesnet.load). What was compiled is kept in the user's cache directory, so that the next run begins
sooner; BAYESNET_CACHE names another directory, or none where it is empty.

Exit status: 0 done; 1 with --strict when a convergence gate fails; 2 bad input."""

# option -> (table, key, type, help); the defaults are those of `bayesnet config`
OPTIONS: dict[str, tuple[str, str, type, str]] = {
    "--width": ("network", "width", int, "number of hidden neurons N (512)"),
    "--activation": ("network", "activation", str, "linear, erf, tanh, relu or module:function (linear)"),
    "--noise": ("network", "noise", float, "kappa, the likelihood variance times N (0.1)"),
    "--coordinates": ("sampling", "coordinates", str, "auto, kernels, fields or weights (auto)"),
    "--num-warmup": ("sampling", "num_warmup", int, "warm-up draws of each chain (500)"),
    "--num-samples": ("sampling", "num_samples", int, "draws of each chain (1000)"),
    "--num-chains": ("sampling", "num_chains", int, "chains (4)"),
    "--seed": ("sampling", "seed", int, "random seed (0)"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with kept_programs():
            return arguments.run(arguments)
    except KeyboardInterrupt:
        print("bayesnet: interrupted; no file is half-written", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError, NotImplementedError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        message = f"{name_error(error)} (a fault of bayesnet's own; python -X dev -m bayesnet shows where)"
    print(f"bayesnet: error: {message}", file=sys.stderr)
    return ERROR


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("bayesnet", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"bayesnet {importlib.metadata.version('bayesnet')}")
    commands = parser.add_subparsers(title="commands", required=True)
    report = commands.add_parser(
        "report", help="sample, solve, compare, report", description=REPORT, epilog=EPILOG, formatter_class=raw
    )
    report.add_argument("file", nargs="?", metavar="FILE", help="TOML configuration or .npz task")
    report.add_argument("--out", default="bayesnet-report", metavar="DIR", help="output directory (bayesnet-report)")
    for option, (_, _, kind, text) in OPTIONS.items():
        report.add_argument(option, type=kind, metavar="X", help=text)
    report.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="any configuration value, as TOML; repeatable",
    )
    report.add_argument(
        "--checkpoint", metavar="DIR", help="keep every block of draws there; the same command resumes a killed report"
    )
    report.add_argument("--save", action="store_true", help="also save posteriors and solutions as netCDF")
    report.add_argument("--figures", metavar="DIR", help="also write every figure there, as SVG and PDF")
    report.add_argument("--strict", action="store_true", help="exit with status 1 when a convergence gate fails")
    report.set_defaults(run=_report)
    sweep_commands.add_commands(commands)
    config = commands.add_parser(
        "config",
        help="print every default as TOML",
        description="Print the configuration of `bayesnet report` as TOML, every default written out.",
    )
    config.set_defaults(run=_print_config)
    return parser


def _print_config(arguments: argparse.Namespace) -> int:
    print(to_toml(default_tables()), end="")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    tables = read_tables(arguments.file) if arguments.file else {}
    for option, (section, key, _, _) in OPTIONS.items():
        value = getattr(arguments, option.removeprefix("--").replace("-", "_"))
        if value is not None:
            set_value(tables, section, key, value)
    for assignment in arguments.set:
        assign(tables, assignment)
    config = build_config(tables)
    checkpoint = None if arguments.checkpoint is None else files.directory_path("--checkpoint", arguments.checkpoint)
    figures = None if arguments.figures is None else files.directory_path("--figures", arguments.figures)
    with files.made_directory(files.directory_path("--out", arguments.out)) as directory:
        return _run(config, directory, checkpoint, figures, arguments.save, arguments.strict)


def _run(
    config: Config, directory: Path, checkpoint: Path | None, figures: Path | None, save: bool, strict: bool
) -> int:
    posteriors: dict[str, xr.DataTree] = {}
    solutions: dict[str, theory.Solution | str] = {}
    saved: set[str] = set()
    with _keeping(posteriors, saved, directory, checkpoint):
        for name, network in config.networks.items():
            print(f"{name}: sampling", file=sys.stderr, flush=True)
            place = None if checkpoint is None else checkpoint / f"{name}.checkpoint"
            posteriors[name] = bn.sample(network, config.task, checkpoint=place, **config.sampling)
            if save:
                bn.save(posteriors[name], directory / f"{name}.nc")
                saved.add(name)
            print(f"{name}: solving the infinite-width theory", file=sys.stderr, flush=True)
            solution = solutions[name] = _theory_of(network, config.task)
            if isinstance(solution, str):
                print(f"{name}: {solution}", file=sys.stderr)
            elif save:
                bn.save(solution, directory / f"{name}-theory.nc")
        print("writing the report", file=sys.stderr, flush=True)
        report = bn.report(posteriors, solutions, directory / "report.html", figures)
    print(f"{report.status}: {report.message}")
    print(report.path)
    return GATE_FAILED if strict and report.status == "FAIL" else 0


def _theory_of(network: bn.Network, task: bn.Task) -> theory.Solution | str:
    """The theory, or why there is none: whatever it fails of, what was sampled stands without it."""
    try:
        return theory.solve(network, task)
    except Exception as error:
        return f"the theory could not be solved: {name_error(error)}"


@contextlib.contextmanager
def _keeping(
    posteriors: dict[str, xr.DataTree], saved: set[str], directory: Path, checkpoint: Path | None
) -> Iterator[None]:
    """Save the posteriors that were finished when anything goes wrong, and say where they, or their draws, are."""
    try:
        yield
    except BaseException:
        for name in posteriors:
            path = directory / f"{name}.nc"
            try:
                if name not in saved and checkpoint is None:
                    bn.save(posteriors[name], path)
                    saved.add(name)
            except (OSError, ValueError) as error:
                print(f"bayesnet: the posterior of {name} cannot be saved: {error}", file=sys.stderr)
            if name in saved:
                print(f"bayesnet: kept the posterior of {name} in {path}", file=sys.stderr)
        if checkpoint is not None:
            print(f"bayesnet: kept what was drawn in {checkpoint}; the same command goes on from it", file=sys.stderr)
        raise

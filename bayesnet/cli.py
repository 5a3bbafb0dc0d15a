"""The command line: `bayesnet report`, `bayesnet config`, `bayesnet sweep` and `bayesnet phase-diagram`."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path

import bayesnet as bn
import theory
from bayesnet.config import Config, build_config, default_tables, read_assignment, read_tables, to_toml
from bayesnet.sweeping import commands as sweep_commands
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
the arrays inputs (patterns, steps, input dimensions), targets (patterns, steps[, outputs]) and, optionally, supervised
(patterns, steps)."""

EPILOG = """\
examples:
  bayesnet report                                     the default: digits, about a minute and a half on two cores
  bayesnet report --width 2048 --set task.signal=2.0  another width, a weaker signal
  bayesnet report task.npz --activation tanh          your own task, another activation
  bayesnet config > run.toml; bayesnet report run.toml

It writes report.html and summary.json into the output directory (and with --save the posteriors and solutions as
netCDF files, for bayesnet.load). Exit status: 0 done; 1 with --strict when a convergence gate fails; 2 bad input."""

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
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("bayesnet: interrupted; no file is half-written", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError, NotImplementedError) as error:
        print(f"bayesnet: error: {' '.join(str(error).split())}", file=sys.stderr)
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
            tables.setdefault(section, {})[key] = value
    for assignment in arguments.set:
        section, key, value = read_assignment(assignment)
        tables.setdefault(section, {})[key] = value
    config = build_config(tables)
    checkpoint = None if arguments.checkpoint is None else files.directory_path("--checkpoint", arguments.checkpoint)
    with files.made_directory(files.directory_path("--out", arguments.out)) as directory:
        return _run(config, directory, checkpoint, arguments.save, arguments.strict)


def _run(config: Config, directory: Path, checkpoint: Path | None, save: bool, strict: bool) -> int:
    posteriors, solutions = {}, {}
    for name, network in config.networks.items():
        print(f"{name}: sampling", file=sys.stderr, flush=True)
        place = None if checkpoint is None else checkpoint / f"{name}.checkpoint"
        posteriors[name] = bn.sample(network, config.task, checkpoint=place, **config.sampling)
        print(f"{name}: solving the infinite-width theory", file=sys.stderr, flush=True)
        try:
            solutions[name] = theory.solve(network, config.task)
        except NotImplementedError as error:
            print(f"{name}: no theory: {error}", file=sys.stderr)
    print("writing the report", file=sys.stderr, flush=True)
    report = bn.report(posteriors, solutions, directory / "report.html")
    if save:
        for name, posterior in posteriors.items():
            bn.save(posterior, directory / f"{name}.nc")
        for name, solution in solutions.items():
            bn.save(solution, directory / f"{name}-theory.nc")
    print(f"{report.status}: {report.message}")
    print(report.path)
    return GATE_FAILED if strict and report.status == "FAIL" else 0

"""What the scripts here share: command line, sampling at several widths, claims judged together, files, figure style.

The verdict of a script covers all its claims at once. Each comparison of a number with what is predicted for it gives

    z = (value - expected) / error,   error: the Monte Carlo standard error (MCSE), and the theory's where it has one

and the script passes if all |z| stay below the normal quantile that m true claims together exceed with probability
1/1000 (Bonferroni: 3.9 for m = 10, 4.4 for m = 100). A sampler that did not converge (R-hat, ESS, divergences) fails
it; where draws are merely too few, as they are near a transition, more are drawn (`Experiment.converge`).

Theory is infinitely wide and a posterior is not: its means are off by O(1/N). So a script samples at two widths or more
and extrapolates (`Ladder.limit`); there is no tolerance to choose.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayesnet as bn
import theory
from bayesnet.plots.style import COLOURS as PALETTE
from bayesnet.plots.style import trim_frame
from theory import files

FAMILY_LEVEL = 1e-3
ATTEMPTS = 3  # at enough draws
ENOUGH = 1200  # effective draws to aim at: with 400, R-hat of four chains exceeds 1.01 in every third run
QUICK = {"num_warmup": 40, "num_samples": 40}
COLOURS = dict(zip(("RNN", "DNN"), PALETTE, strict=False))
MORE_COLOURS = (*PALETTE[2:], "#000000", "#7f7f7f")
BARS = "bars: 2 Monte Carlo standard errors"
Observable = bn.observables.Observable


@dataclass(frozen=True)
class Ladder:
    """Posterior means of observables at several widths.

    Attributes:
        widths: N, ascending, (W,).
        labels: of the observables, K of them.
        mean, error: posterior means and their MCSE, (W, K).
        sd, sd_error: posterior standard deviations and their MCSE, (W, K).
    """

    widths: np.ndarray
    labels: tuple[str, ...]
    mean: np.ndarray
    error: np.ndarray
    sd: np.ndarray
    sd_error: np.ndarray

    def limit(self, order: int | None = None, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Means at 1/N = 0 and their standard errors, (K,) each: see `extrapolate`; widths below ``least`` left out."""
        used = self.widths >= least
        fit = extrapolate(self.widths[used], self.mean[used], self.error[used], order)
        return fit[0][0], fit[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}


def extrapolate(
    widths: np.ndarray, mean: np.ndarray, error: np.ndarray, order: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Weighted least squares of mean = c_0 + c_1 / N + ... + c_k / N^k for each column.

    Args:
        widths: N, (W,).
        mean, error: values and standard errors, (W, K).
        order: k; by default as high as the widths determine, but at most 2.

    Returns:
        The coefficients (k+1, K), the limit of infinite width first, and the standard errors of the limit (K,).
    """
    order = min(len(widths) - 1, 2) if order is None else order
    powers = (widths[:, None] / widths[-1]) ** -np.arange(order + 1.0)
    coefficients, errors = np.empty((order + 1, mean.shape[1])), np.empty(mean.shape[1])
    for k in range(mean.shape[1]):
        # A constant (a prediction that is zero by symmetry, say) has no error: any equal weights do.
        scale = np.where(error[:, k] > 0, error[:, k], 1.0)
        inverse = np.linalg.pinv(powers / scale[:, None])
        coefficients[:, k] = inverse @ (mean[:, k] / scale)
        errors[k] = np.sqrt(np.sum((inverse[0] * (error[:, k] > 0)) ** 2))
    return coefficients * float(widths[-1]) ** np.arange(order + 1.0)[:, None], errors


class Experiment:
    """One run of a script: its arguments, its random seeds, its claims, its files.

    Args:
        argv: command line arguments; those of the process if None.
        path: ``__file__`` of the script; its stem names the figure.
        doc: its docstring, shown by --help.
        width: default of --width.
        width_help: what the width means in this script.
        options: further command line options, name -> keyword arguments of ``add_argument``.
    """

    def __init__(
        self,
        argv: list[str] | None,
        path: str,
        doc: str,
        width: int,
        width_help: str = "the largest width N",
        options: dict[str, dict] | None = None,
    ):
        self.name = Path(path).stem
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--width", type=_integer(16), default=width, help=f"{width_help} ({width})")
        parser.add_argument("--seed", type=_integer(0), default=0, help="of all random numbers (0)")
        out = Path(self.name.replace("_", "-"))
        parser.add_argument("--out", type=Path, default=out, help=f"output directory ({out})")
        parser.add_argument("--quick", action="store_true", help="few draws, small sizes, no verdict: does it run?")
        for option, settings in (options or {}).items():
            parser.add_argument(option, **settings)
        self.arguments = parser.parse_args(argv)
        self.width, self.quick, self.out = self.arguments.width, self.arguments.quick, self.arguments.out
        self._seeds = np.random.SeedSequence(self.arguments.seed)
        self._started = time.perf_counter()
        self.claims: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        try:
            self.out = files.directory_path("directory", self.out)
            self.out.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            parser.error(f"argument --out: {error}")

    def seed(self) -> int:
        """A seed of its own for each call."""
        return int(self._seeds.spawn(1)[0].generate_state(1)[0])

    def say(self, what: str) -> None:
        """A line of progress on standard error."""
        if not self.quick:
            print(f"[{time.perf_counter() - self._started:4.0f} s] {what}", file=sys.stderr, flush=True)

    def sample(self, network: bn.Network, task: bn.Task, **settings: Any) -> xr.DataTree:
        """`bayesnet.sample`, with few draws if --quick."""
        if self.quick:
            settings |= QUICK
            settings["num_latents"] = min(settings.get("num_latents", 1), 2)
        return bn.sample(network, task, seed=self.seed(), **settings)

    def converge(
        self, network: bn.Network, task: bn.Task, observables: Sequence[Observable] | None, what: str, **settings: Any
    ) -> tuple[xr.DataTree, pd.DataFrame]:
        """`sample` and `measure`; where R-hat or ESS says that draws are too few, again from scratch with more.

        The next number of draws is what the ESS found makes necessary, twice to ten times the last. Draws that were too
        few are thrown away, and what they said of the observables decides nothing. Without observables those of
        `bayesnet.observables.default_observables` count, and the numbers that have priors.
        """
        for attempt in range(ATTEMPTS):
            posterior = self.sample(network, task, **settings)
            table = bn.diagnostics.summarise(posterior, observables)
            failed = [gate.name for gate in bn.diagnostics.check_gates(posterior, table) if not gate.passed]
            too_few = bool(failed) and all(name.startswith(("R-hat", "ESS")) for name in failed)
            if self.quick or not too_few or attempt == ATTEMPTS - 1:
                break
            draws, effective = posterior["posterior"].sizes["draw"], table[["ess_bulk", "ess_tail"]].min(axis=None)
            settings["num_samples"] = math.ceil(draws * np.clip(ENOUGH / effective, 2, 10))
            self.say(f"{what}: {effective:.0f} effective draws; again with {settings['num_samples']} draws a chain")
        return posterior, self.measure(posterior, observables, what)

    def measure(self, posterior: xr.DataTree, observables: Sequence[Observable] | None, what: str):
        """`bayesnet.diagnostics.summarise`; a gate that fails goes to the complaints."""
        table = bn.diagnostics.summarise(posterior, observables)
        for gate in bn.diagnostics.check_gates(posterior, table):
            self.require(gate.passed, f"{what}: {gate.name} fails: {gate.detail}")
        return table

    def climb(
        self,
        network: bn.Network,
        task: bn.Task,
        observables: Sequence[Observable],
        widths: Sequence[int],
        what: str,
        keep: Callable[[xr.DataTree], None] = lambda posterior: None,
        **settings: Any,
    ) -> Ladder:
        """Sample at each width and measure; ``keep`` is handed each posterior, ``settings`` go to `bayesnet.sample`."""
        rows = []
        for width in sorted(widths):
            self.say(f"{what}, N = {width}")
            label = f"{what}, N = {width}"
            posterior, table = self.converge(network.replace(width=width), task, observables, label, **settings)
            draws = bn.diagnostics.evaluate_observables(posterior, observables)
            squares = {label: (values - values.mean()) ** 2 for label, values in draws.items()}
            spread = bn.diagnostics.summarise_draws(squares)["mcse"].to_numpy() / (2 * table["sd"].to_numpy() + 1e-300)
            rows.append((*(table[name].to_numpy() for name in ("mean", "mcse", "sd")), spread))
            keep(posterior)
        mean, error, sd, sd_error = (np.array(column) for column in zip(*rows, strict=True))
        return Ladder(np.sort(widths), tuple(o.label for o in observables), mean, error, sd, sd_error)

    def require(self, holds: bool, complaint: str) -> None:
        """A condition without an error bar; ``complaint`` says what is wrong where it does not hold."""
        if not holds:
            self.complaints.append(complaint)

    def agree(self, label: str, value: Any, error: Any, expected: Any, own: Any = 0.0, randomisations: int = 1) -> None:
        """Claim: value = expected within their errors; arrays make one claim for each entry.

        ``own`` is the error of what is expected, known from so many ``randomisations``
        (`bayesnet.comparison.standard_scores`).
        """
        self._claim(label, "agrees", *np.broadcast_arrays(value, error, expected, own), randomisations)

    def exceed(self, label: str, value: Any, error: Any, bound: Any) -> None:
        """Claim: value > bound, beyond doubt: by as many errors as the others may be off."""
        self._claim(label, "exceeds", *np.broadcast_arrays(value, error, bound, 0.0), 1)

    def _claim(
        self,
        label: str,
        kind: str,
        value: np.ndarray,
        error: np.ndarray,
        expected: np.ndarray,
        own: np.ndarray,
        randomisations: int,
    ) -> None:
        # An exact zero on both sides agrees; any other gap without an error bar does not.
        gap = np.where(np.isclose(value, expected, rtol=1e-12, atol=1e-14), 0.0, value - expected)
        total = np.hypot(error, own)
        # An error bar that is not a number supports no claim.
        z = np.where(np.isfinite(total), bn.comparison.standard_scores(gap, error, own, randomisations), np.nan)
        columns = {"value": value, "error": total, "expected": expected, "z": z}
        for index in np.ndindex(value.shape):
            name = f"{label} ({np.ravel_multi_index(index, value.shape) + 1})" if value.size > 1 else label
            numbers = {key: float(column[index]) for key, column in columns.items()}
            self.claims.append({"claim": name, "kind": kind, **numbers})

    def verdict(self) -> tuple[str, list[str]]:
        """PASS, FAIL or NO VERDICT, and what speaks against the claims."""
        limit = family_limit(len(self.claims))
        complaints = list(self.complaints)
        for c in self.claims:
            wrong = abs(c["z"]) > limit if c["kind"] == "agrees" else c["z"] < limit
            if wrong or not np.isfinite(c["z"]):
                complaints.append(
                    f"{c['claim']}: {c['value']:.4g} +- {c['error']:.1g} {c['kind']} {c['expected']:.4g} fails"
                    f" (z = {c['z']:.1f}, limit {limit:.1f})"
                )
        if self.quick:
            return "NO VERDICT", ["too few draws for one (--quick)"]
        return ("FAIL" if complaints else "PASS"), complaints

    def save(self, figure: Figure, suffix: str = "") -> Path:
        """Write a figure as <script><suffix>.png."""
        path = self.out / f"{self.name}{suffix}.png"
        for axes in figure.axes if self.quick else ():
            if axes.axison and not axes.has_data():
                axes.set_axis_off()
                axes.text(0.5, 0.5, "left out with --quick", ha="center", transform=axes.transAxes, fontsize=9)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=110, format="png")
        files.write_file(path, picture.getvalue())
        return path

    def finish(self, statement: str, results: dict[str, Any]) -> int:
        """Write results.json, print the verdict; the exit status: 1 for FAIL, else 0."""
        status, complaints = self.verdict()
        record = {
            "status": status,
            "statement": statement,
            "complaints": complaints,
            "arguments": {k: v if isinstance(v, int | float) else str(v) for k, v in vars(self.arguments).items()},
            "seconds": round(time.perf_counter() - self._started, 1),
            "z_limit": family_limit(len(self.claims)),
            "claims": self.claims,
            "results": results,
        }
        text = json.dumps(_plain(record), indent=1, allow_nan=False)
        files.write_file(self.out / "results.json", text.encode())
        print(f"{status}: " + (statement if status == "PASS" else "\n  ".join(complaints)))
        print(f"{len(self.claims)} claims; files in {self.out}")
        return int(status == "FAIL")


def family_limit(claims: int) -> float:
    """|z| that ``claims`` true claims together exceed with probability at most 1/1000."""
    return float(scipy.stats.norm.isf(FAMILY_LEVEL / (2 * max(claims, 1))))


def expected(solution: theory.Solution, observables: Sequence[Observable]) -> np.ndarray:
    """The theory's value of each observable, (K,)."""
    return np.array([float(o.evaluate(solution.kernel, solution.prediction)) for o in observables])


def leave_one_out(posterior: xr.DataTree) -> tuple[float, float]:
    """Sum of ln p(y_i | y_-i) over the supervised targets by ArviZ's importance sampling, and the largest Pareto k."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large Pareto k, which is returned
        loo = az.loo(bn.to_arviz(posterior), pointwise=True)
    score = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo  # ArviZ 1.x and 0.23
    return float(score), float(np.max(loo.pareto_k))


def panels(rows: int, columns: int, width: float, height: float, **settings: Any) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches and its axes (rows, columns), in the common style."""
    figure = Figure((width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **settings)
    for axes in grid.flat:
        trim_frame(axes)
    return figure, grid


def points(axes: Axes, x: Any, mean: Any, error: Any, **style: Any) -> None:
    """Posterior means with bars of two standard errors."""
    defaults: dict[str, Any] = {"fmt": "o", "ms": 4.5, "lw": 1, "capsize": 2}
    axes.errorbar(x, mean, 2 * np.asarray(error), **(defaults | style))


def _integer(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    convert.__name__ = "integer"  # argparse names the type in its message
    return convert


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy numbers and arrays unpacked, null for what is not finite."""
    if isinstance(value, Ladder):
        value = value.to_dict()
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""What a report says besides its figures: its runs, tables as text, facts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from bayesnet.comparison import DIFFER, Verdict
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

ROWS = 12  # of a table that is shown unfolded
NOTHING = 1e-12  # of what it is compared with: rounding error, shown as 0
DIMENSIONAL = ("theory", "mean", "sd", "mcse", "expected_sd")  # columns in the units of the row's observable


@dataclass(frozen=True)
class Run:
    """One network of a report: posterior, theory (or None, and why), table of observables and verdict; of networks from
    outside also what `locate` remarks."""

    name: str
    posterior: xr.DataTree
    solution: Solution | None
    network: Network
    task: Task
    table: pd.DataFrame
    verdict: Verdict
    no_theory: str = ""
    remarks: tuple[str, ...] = ()


def headline_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows shown unfolded: along the target direction, or else the first; rows that differ before all others."""
    if len(table) <= ROWS:
        return table
    first = table[table.index.str.contains("_y[", regex=False)]
    worst = table.iloc[:0]
    if "verdict" in table:
        worst = table[table["verdict"] == DIFFER]
        worst = worst.loc[worst["z_sd"].abs().sort_values(ascending=False).index]
    chosen = list(dict.fromkeys([*worst.index[: ROWS // 2], *first.index, *worst.index]))
    return table.loc[(chosen or list(table.index))[:ROWS]]


def evidence_sentence(runs: Sequence[Run]) -> str:
    """The leading log Bayes factor between the first two networks with comparable saddle points; else empty."""
    solved = [run for run in runs if run.solution is not None and run.solution.kind == "saddle point"]
    if len(solved) < 2 or solved[0].network.width != solved[1].network.width:
        return ""
    one, other = solved[0], solved[1]
    assert one.solution is not None
    assert other.solution is not None
    gap = one.network.width * (other.solution.free_energy - one.solution.free_energy)
    favoured, rest = (one, other) if gap >= 0 else (other, one)
    return (
        f"To leading order the data favour {favoured.name} over {rest.name} by N times the difference of the free "
        f"energies: {abs(gap):.3g} nats of log evidence at N = {one.network.width}."
    )


def settings_of(run: Run) -> dict:
    """Everything needed to repeat the run, with its wall time in seconds."""
    attributes = run.posterior.attrs
    return {
        "network": json.loads(attributes["network"]),
        "settings": json.loads(attributes["settings"]),
        "seed": int(attributes["seed"]),
        "versions": json.loads(attributes["versions"]),
        "device": str(attributes["device"]),
        "wall_time": float(attributes["wall_time"]),
    }


def formatted(column: str, row: pd.Series) -> str:
    """A cell of the table."""
    value = row[column]
    if isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return "–"
    size = row[[name for name in DIMENSIONAL if name in row]].abs().max() if column in DIMENSIONAL else 1.0
    if abs(number) <= NOTHING * size:
        return "0"
    forms = {"r_hat": ".3f", "ess_bulk": ".0f", "ess_tail": ".0f", "z_sd": "+.2f", "z_mcse": "+.1f"}
    if column in ("sd", "mcse", "expected_sd"):
        return format(number, ".2g")
    if abs(number) >= 1e5 and column.startswith("z_"):
        return format(number, "+.0e")
    return format(number, forms.get(column, ".4g"))

"""report: posteriors beside the theory in one self-contained HTML file, and its numbers as summary.json beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import xarray as xr

from bayesnet import figures as pictures
from bayesnet import report_content as content
from bayesnet.comparison import MCSE_LIMIT, PLACED, SPREAD_LIMIT, Verdict, compare, judge, require_same_problem
from bayesnet.diagnostics import Gate, summarise
from bayesnet.location import locate
from bayesnet.report_content import Run
from bayesnet.results import from_outside
from bayesnet.sampling import network_of, task_of
from bayesnet.schema import check_draws
from bayesnet.task_images import image_near
from theory import files
from theory.display import html_table
from theory.solution import Solution

SUMMARY_NAME = "summary.json"
SEVERITY = (PLACED, "PASS", "DIFFER", "FAIL")
GROUPS = ("posterior", "sample_stats", "observed_data", "constant_data")


@dataclass(frozen=True, repr=False)
class Report:
    """What `report` wrote.

    Attributes:
        path: the HTML file.
        summary_path: summary.json beside it.
        status: the worst verdict of all networks: "FAIL" over "DIFFER" over "PASS"; "PLACED" where all of them come
            from outside (`bayesnet.from_weights`), since nothing was sampled then.
        message: one line, failures first.
    """

    path: Path
    summary_path: Path
    status: str
    message: str

    def __repr__(self) -> str:
        return f"Report({self.status}: {self.message}; {self.path})"

    def _repr_html_(self) -> str:
        rows = [("status", self.status), ("message", self.message), ("page", self.path), ("numbers", self.summary_path)]
        return html_table("Report", rows)


def report(
    posteriors: xr.DataTree | Mapping[str, xr.DataTree],
    solutions: Solution | Mapping[str, Solution | str] | None,
    path: str | os.PathLike,
    figures: str | os.PathLike | None = None,
) -> Report:
    """Write one HTML report on the posteriors of one or more networks on one task, and summary.json beside it.

    The page needs neither network nor scripts. Both files replace older ones only once complete; ``report_sha256`` in
    summary.json is the digest of the page that it belongs to.

    Args:
        posteriors: what `sample` returned, or {name: such}, all of the same task. A single one is called RNN or DNN by
            what it shares, else "network".
        solutions: the theory of the same names; names may be missing, or have a sentence on why there is no theory in
            its place, and None stands for none at all. A lazy limit of a network in muP scaling is shown but not judged
            by: it holds for vanishing targets only.
        path: the HTML file; its directory must exist.
        figures: a directory to which every figure is written too, as SVG and as PDF; made where it does not exist.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    target = _target(path)
    runs = _runs(_named_posteriors(posteriors), solutions)
    status = max((run.verdict.status for run in runs), key=SEVERITY.index)
    prefix = len(runs) > 1
    lines = [f"{run.name}: {run.verdict.message}" if prefix else run.verdict.message for run in _ranked(runs)]
    message = "; ".join(lines)
    outcome = Report(target, target.with_name(SUMMARY_NAME), status, message)
    place = None if figures is None else files.directory_path("figures", figures)
    shown = {
        "task": pictures.task_pictures(runs[0].task),
        "result": pictures.result_pictures(runs),
        "sampler": pictures.sampler_pictures(runs),
    }
    page = _render(outcome, runs, shown).encode()
    facts = {**_summary(outcome, runs), "report_sha256": hashlib.sha256(page).hexdigest()}
    summary = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # A process that is killed between the two leaves a summary whose digest is not that of the page.
    files.write_files({outcome.path: page, outcome.summary_path: summary.encode()})
    if place is not None:
        _write_figures(place, [picture for group in shown.values() for picture in group])
    return outcome


def _write_figures(place: Path, shown: list[pictures.Picture]) -> None:
    """Every figure in the order of the page, named by its number and its title."""
    with files.made_directory(place):
        for number, picture in enumerate(shown, 1):
            name = f"{number:02d}-{re.sub('[^a-z0-9]+', '-', picture.title.lower()).strip('-')}"
            for file, content in picture.files(name).items():
                files.write_file(place / file, content)


def _target(path: Any) -> Path:
    target = files.new_file("path", path)
    if target.name == SUMMARY_NAME:
        raise ValueError(f"path {str(path)!r} is the name of the summary; give the name of an HTML file")
    return target


def _named_posteriors(posteriors: Any) -> dict[str, xr.DataTree]:
    if isinstance(posteriors, xr.DataTree):
        posteriors = {_usual_name(_checked("posteriors", posteriors)): posteriors}
    if not isinstance(posteriors, Mapping):
        raise ValueError(
            f"posteriors is {type(posteriors).__name__}; it must be what bayesnet.sample returned, or a dict"
        )
    if not posteriors:
        raise ValueError("posteriors is empty; give at least one posterior")
    for name, posterior in posteriors.items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"posteriors has the name {name!r}; names must be strings that are not empty")
        _checked(f"posteriors[{name!r}]", posterior)
    first = next(iter(posteriors))
    for name, posterior in posteriors.items():
        if task_of(posterior) != task_of(posteriors[first]):
            raise ValueError(
                f"posteriors[{name!r}] belongs to another task than posteriors[{first!r}]; report them apart"
            )
    return dict(posteriors)


def _checked(argument: str, posterior: Any) -> xr.DataTree:
    if not isinstance(posterior, xr.DataTree):
        raise ValueError(f"{argument} is {type(posterior).__name__}; it must be what bayesnet.sample returned")
    try:
        check_draws(posterior, GROUPS)
        # Networks known by their activities have no latent numbers.
        if "latents" not in posterior.children and not from_outside(posterior):
            raise ValueError("it lacks the group 'latents'")
    except ValueError as error:
        raise ValueError(f"{argument} is no posterior: {error}; it must be what bayesnet.sample returned") from None
    return posterior


def _usual_name(posterior: xr.DataTree) -> str:
    return network_of(posterior).kind


def _runs(posteriors: dict[str, xr.DataTree], solutions: Any) -> list[Run]:
    if isinstance(solutions, Solution):
        if len(posteriors) > 1:
            raise ValueError(
                f"solutions is one Solution but there are {len(posteriors)} posteriors; give {{name: Solution}}"
            )
        solutions = {next(iter(posteriors)): solutions}
    solutions = {} if solutions is None else solutions
    if not isinstance(solutions, Mapping):
        raise ValueError(
            f"solutions is {type(solutions).__name__}; it must be a theory.Solution, a dict of them or None"
        )
    for name, solution in solutions.items():
        if name not in posteriors:
            raise ValueError(
                f"solutions has the name {name!r}; allowed are those of posteriors: {', '.join(posteriors)}"
            )
        if not isinstance(solution, Solution | str):
            raise ValueError(
                f"solutions[{name!r}] is {type(solution).__name__}; it must be a theory.Solution, or a sentence on why "
                "there is none"
            )
    return [_run(name, posterior, solutions.get(name)) for name, posterior in posteriors.items()]


def _run(name: str, posterior: xr.DataTree, solution: Solution | str | None) -> Run:
    network, task = network_of(posterior), task_of(posterior)
    if isinstance(solution, Solution):
        try:
            require_same_problem(posterior, solution)
        except ValueError as error:
            raise ValueError(f"solutions[{name!r}]: {error}") from None
        solution = image_near(solution, posterior)  # the figures show that, too
        try:
            table = compare(posterior, solution)
        except Exception as error:  # whatever it is, the posterior is reported without it
            solution = f"the theory cannot be compared with the posterior: {type(error).__name__}: {error}"
    if not isinstance(solution, Solution):
        table = summarise(posterior)
        return Run(name, posterior, None, network, task, table, judge(posterior, table), solution or "")
    if solution.kind == "lazy limit" and network.scaling == "mup":
        table = table.drop(columns=["verdict", "expected_sd"])
        verdict = judge(posterior, table)
        if verdict.status in ("PASS", PLACED):
            origin = verdict.gates[0].detail if from_outside(posterior) else "the sampler converged"
            message = f"{origin}; only the lazy limit to compare with, exact for vanishing targets alone"
            verdict = Verdict(verdict.status, message, verdict.gates)
    else:
        verdict = judge(posterior, table)
    remarks: tuple[str, ...] = ()
    if verdict.status == PLACED and solution.converged:
        # A solution around which nothing scatters by a known law places nothing; the table stands.
        with contextlib.suppress(ValueError):
            location = locate(posterior, solution)
            verdict, remarks = replace(verdict, message=location.message), location.remarks
    if not solution.converged:
        gate = Gate("theory solved", False, solution.message)
        before = f"; {verdict.message}" if verdict.status == "FAIL" else ""
        verdict = Verdict("FAIL", f"the theory is not solved: {solution.message}{before}", [gate, *verdict.gates])
    return Run(name, posterior, solution, network, task, table, verdict, remarks=remarks)


def _ranked(runs: list[Run]) -> list[Run]:
    """The worst verdict first."""
    return sorted(runs, key=lambda run: -SEVERITY.index(run.verdict.status))


def _render(outcome: Report, runs: list[Run], shown: dict[str, list[pictures.Picture]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bayesnet", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(formatted=content.formatted, headline_rows=content.headline_rows)
    return environment.get_template("report.html").render(
        outcome=outcome,
        runs=runs,
        ranked=_ranked(runs),
        solved=any(run.solution is not None for run in runs),
        sampled=not all(from_outside(run.posterior) for run in runs),
        judged=any("verdict" in run.table for run in runs),
        task=runs[0].task,
        task_pictures=shown["task"],
        result_pictures=shown["result"],
        sampler_pictures=shown["sampler"],
        evidence=content.evidence_sentence(runs),
        settings={run.name: content.settings_of(run) for run in runs},
        limits={"mcse": MCSE_LIMIT, "spread": SPREAD_LIMIT},
    )


def _summary(outcome: Report, runs: list[Run]) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "message": outcome.message,
        "report": outcome.path.name,
        "networks": {run.name: _network_summary(run) for run in runs},
    }


def _network_summary(run: Run) -> dict[str, Any]:
    solution = run.solution
    return {
        "status": run.verdict.status,
        "message": run.verdict.message,
        "remarks": list(run.remarks),
        "gates": [asdict(gate) for gate in run.verdict.gates],
        "no_theory": run.no_theory,
        "theory": None
        if solution is None
        else {
            name: _strict(getattr(solution, name))
            for name in ("kind", "free_energy", "residual", "stable", "converged", "message")
        },
        "table": _rows(run.table),
        **content.settings_of(run),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"observable": str(label), **{str(name): _strict(value) for name, value in row.items()}}
        for label, row in table.iterrows()
    ]


def _strict(value: Any) -> Any:
    """Plain JSON values; what is not finite is null."""
    if isinstance(value, str | bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None

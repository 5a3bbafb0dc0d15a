"""Theory beside posterior: one table, one row for each observable, with a verdict that respects the error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from bayesnet.diagnostics import ESS_LIMIT, NOTHING, R_HAT_LIMIT, Gate, check_gates, observables_of, summarise
from bayesnet.observables import Observable, check_observables, unit_of
from bayesnet.predicted_spread import predicted_draws
from bayesnet.results import from_outside, names_with_priors, recorded_neurons
from bayesnet.sampling import network_of, task_of
from bayesnet.task_images import image_near
from theory import arguments
from theory.jax_settings import own_settings
from theory.kernels import flat_of, outputs_of
from theory.model import output_law
from theory.solution import Solution, error_of_repetitions

COLUMNS = (
    "theory",
    "mean",
    "sd",
    "mcse",
    "r_hat",
    "ess_bulk",
    "ess_tail",
    "z_sd",
    "z_mcse",
    "expected_sd",
    "verdict",
)
PLACED = "PLACED"  # the status of networks from outside
AGREE, SPREAD, DIFFER, UNRELIABLE = "agree", "within spread", "differ", "unreliable"
MCSE_LIMIT = 4.0
SPREAD_LIMIT = 2.0
ROUNDING = 1e-12


def compare(
    posterior: xr.DataTree, solution: Solution, observables: Sequence[Observable] | None = None
) -> pd.DataFrame:
    r"""Lay the posterior at width N beside the theory at infinite width.

    Args:
        posterior: what `sample` returned.
        solution: of the same network (its width may differ) and the same task.
        observables: what to compare; `observables.default_observables` if not given. Choose invariants.

    Where the draws break a symmetry of the task, a permutation of its patterns, all of them are looked at in one image,
    and the theory is that of the nearest image of the solution (`bayesnet.task_images`).

    Returns:
        A table with one row for each observable and the columns ``theory``; ``mean``, ``sd`` of the posterior; ``mcse``
        of the mean, ``r_hat``, ``ess_bulk``, ``ess_tail``; ``expected_sd``, the spread that the theory predicts at this
        width (NaN where it predicts none: lazy limits, unstable solutions, at a transition); ``z_sd`` = (mean -
        theory) / expected_sd, over the posterior's own sd where none is predicted; ``z_mcse`` = (mean - theory) /
        mcse, where the theory's own statistical error (nonlinear networks) is added to the mcse in quadrature and
        the few randomisations that it is known from are allowed for (`standard_scores`);
        ``verdict``:

        - "agree": the mean is within 4 such errors of the theory;
        - "within spread": it is not, but |z_sd| is at most 2: a bias of the order expected at finite width, which
          shrinks as 1/N (the spread as 1/sqrt(N));
        - "differ": neither;
        - "unreliable": R-hat or ESS of this row fails its gate, so its error bar means nothing.

        Networks from outside (`from_weights`, `from_activations`), one or many, count as independent draws: ``mcse`` is
        ``expected_sd`` over the square root of their number (their own spread where none is predicted), so that of a
        single network ``z_sd`` and ``z_mcse`` are one. Where fewer neurons than the width were recorded ``expected_sd``
        contains what that adds. Of a single network without a predicted spread every row is "unreliable".

    Raises:
        ValueError: if posterior and solution belong to different tasks, or to networks that differ in more than width.
    """
    require_same_problem(posterior, solution)
    network, task = network_of(posterior), task_of(posterior)
    if observables is None:
        observables = observables_of(posterior)
    check_observables(observables)
    table = summarise(posterior, observables, solution)
    solution = image_near(solution, posterior)
    if table.empty:
        return table.reindex(columns=list(COLUMNS)).astype({"verdict": str})
    theory = np.array([float(o.evaluate(solution.kernel, solution.prediction)) for o in observables])
    table.insert(0, "theory", theory)
    # A constant observable that the theory hits up to rounding has z = 0, not 0/0.
    units = np.array([unit_of(o, network, solution.kernel, task.output_dim) for o in observables])
    gap = table["mean"].to_numpy() - theory
    gap = np.where(np.abs(gap) <= ROUNDING * (np.abs(theory) + units), 0.0, gap)
    predicted = predicted_draws(solution, network.width, recorded_neurons(posterior), observables)
    table["expected_sd"] = np.nan if predicted is None else _spread(predicted)
    spread = table["expected_sd"].fillna(table["sd"]).to_numpy()
    table["z_sd"] = _ratio(gap, spread)
    own = theory_error(solution, observables)
    if from_outside(posterior):
        return _judge_networks(table, gap, own, solution.randomisations)[list(COLUMNS)]
    table["z_mcse"] = standard_scores(gap, table["mcse"].to_numpy(), own, solution.randomisations)
    table["verdict"] = [_row_verdict(row) for _, row in table.iterrows()]
    return table[list(COLUMNS)]


def _judge_networks(table: pd.DataFrame, gap: np.ndarray, own: np.ndarray, randomisations: int) -> pd.DataFrame:
    """The table of independent networks: their mean is as uncertain as the theory says that single networks scatter."""
    number, unknown = table["ess_bulk"].to_numpy(), table["expected_sd"].isna().to_numpy()
    table["mcse"] = (table["expected_sd"] / np.sqrt(number)).fillna(table["mcse"])
    scores = standard_scores(gap, table["mcse"].to_numpy(), own, randomisations)
    if unknown.any() and number[0] > 1:
        # Where no spread is predicted the error is that of few networks, with one degree of freedom less.
        few = standard_scores(gap, own, table["mcse"].to_numpy(), int(number[0]))
        scores = np.where(unknown, few, scores)
    table["z_mcse"] = scores
    # Of a single network nothing else says how far it may stray.
    lost = unknown & (number == 1) & (gap != 0)
    table["verdict"] = [
        UNRELIABLE if bad else _distance_verdict(row) for bad, (_, row) in zip(lost, table.iterrows(), strict=True)
    ]
    return table


def require_same_problem(posterior: xr.DataTree, solution: Solution) -> None:
    """Refuse a posterior and a theory that do not belong together.

    Raises:
        ValueError: as `compare`.
    """
    arguments.instance("solution", solution, Solution)
    network, unknown = network_of(posterior), names_with_priors(posterior)
    if unknown:
        raise ValueError(
            f"posterior has priors on {', '.join(unknown)}, a solution has values: it says nothing of their posterior"
        )
    if solution.task != task_of(posterior):
        raise ValueError("solution belongs to another task than the posterior; solve the posterior's own task")
    if solution.network.replace(width=network.width) != network:
        raise ValueError(
            f"solution belongs to {solution.network}, the posterior to {network}; they may differ in width only"
        )


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison.

    Attributes:
        status: "PASS" (gates pass, no row differs), "DIFFER" (gates pass, some rows differ) or "FAIL" (a gate fails:
            nothing below it can be trusted); "PLACED" for networks from outside, of which nothing was sampled: the
            message says where they lie, and that is no failure of theirs.
        message: one line.
        gates: every gate with its figure, failed ones first.
    """

    status: str
    message: str
    gates: list[Gate]


def judge(posterior: xr.DataTree, table: pd.DataFrame) -> Verdict:
    """The `Verdict` on a table of `compare` (or of `diagnostics.summarise`, where there is no theory)."""
    verdict = _judge(posterior, table)
    bias = posterior.attrs.get("bias")
    return replace(verdict, message=f"{verdict.message}; {bias}") if bias else verdict


def _judge(posterior: xr.DataTree, table: pd.DataFrame) -> Verdict:
    gates = sorted(check_gates(posterior, table), key=lambda gate: gate.passed)
    outside = from_outside(posterior)
    origin, passed = (gates[0].detail, PLACED) if outside else ("the sampler converged", "PASS")
    failed = [f"{gate.name}: {gate.detail}" for gate in gates if not gate.passed]
    if failed:
        return Verdict("FAIL", "the sampler did not converge: " + "; ".join(failed), gates)
    if table.empty:
        reason = "no input reaches any entry" if not task_of(posterior).has_input.any() else "no observables"
        return Verdict(passed, f"{origin}; {NOTHING}: {reason}", gates)
    if "verdict" not in table:
        return Verdict(passed, f"{origin}; no theory to compare with", gates)
    counts = table["verdict"].value_counts()
    agree, spread, differ = (int(counts.get(name, 0)) for name in (AGREE, SPREAD, DIFFER))
    error = "standard errors" if outside else "MCSE"
    message = f"{agree} of {len(table)} observables within {MCSE_LIMIT:g} {error} of the infinite-width theory"
    if outside:
        message = f"{origin}: {message}"
    if counts.get(UNRELIABLE, 0) and outside:
        message += "; a single network cannot be judged where the theory predicts no spread"
    if spread:
        message += f", {spread} more within {SPREAD_LIMIT:g} sd (finite-width bias)"
    if differ:
        worst = table.loc[table["verdict"] == DIFFER, "z_sd"].abs().idxmax()
        return Verdict(PLACED if outside else "DIFFER", f"{message}; {differ} differ, most of all {worst}", gates)
    return Verdict(passed, message, gates)


def _row_verdict(row: pd.Series) -> str:
    if not (row["r_hat"] <= R_HAT_LIMIT and min(row["ess_bulk"], row["ess_tail"]) >= ESS_LIMIT):
        return UNRELIABLE
    return _distance_verdict(row)


def _distance_verdict(row: pd.Series) -> str:
    if abs(row["z_mcse"]) <= MCSE_LIMIT:
        return AGREE
    return SPREAD if abs(row["z_sd"]) <= SPREAD_LIMIT else DIFFER


def theory_error(solution: Solution, observables: Sequence[Observable]) -> np.ndarray:
    """Error of each observable of a solution, (K,): from its values on the solution's repetitions, and from what it
    changes by if all kernel entries change together by the part of their ``standard_error`` that is no scatter."""
    task, kernels = solution.task, np.asarray(solution.repetitions)
    if len(kernels) == 0 or not observables:
        return np.zeros(len(observables))
    # Entries that count as following from earlier ones are off alike on all repetitions.
    scatter = error_of_repetitions(kernels, solution.randomisations)
    common = np.sqrt(np.maximum(np.asarray(solution.standard_error) ** 2 - scatter**2, 0))
    kernels = np.concatenate([kernels, solution.kernel[None], (solution.kernel + common)[None]])
    # float64 within this call only.
    with own_settings():
        model = solution.model
        means = np.stack([model.read_out(output_law(model, kernel).mean) for kernel in flat_of(kernels)])
        predictions = outputs_of(means, task)
    values = np.stack([o.evaluate(kernels, predictions) for o in observables], axis=1)
    *repeated, here, moved = values
    return np.hypot(error_of_repetitions(np.array(repeated), solution.randomisations), moved - here)


def standard_scores(gap: np.ndarray, mcse: np.ndarray, own: np.ndarray, randomisations: int) -> np.ndarray:
    """z of each gap between posterior and theory, both with an error: as unlikely under a normal law as the gap is.

    The posterior's error is well known, the theory's from few randomisations, one degree of freedom less. Their sum
    has as many as Welch and Satterthwaite give it, and the gap in units of it follows Student's law.

    Args:
        gap: posterior mean less theory, (K,).
        mcse: Monte Carlo standard error of the mean, (K,).
        own: the `theory_error`, (K,).
        randomisations: how many the latter is known from; 1 if there is nothing random about it.

    Source: Welch 1947.
    """
    total = np.hypot(mcse, own)
    ratio = _ratio(gap, total)
    if randomisations < 2:
        return ratio
    share = np.divide(own, total, out=np.zeros_like(total), where=total > 0)
    freedom = (randomisations - 1) / np.maximum(share, 1e-3) ** 4
    import scipy.stats  # not before it is needed: it takes a third of a second

    log_tail = scipy.stats.t.logsf(np.abs(ratio), freedom)
    # A tail that underflows belongs to many degrees of freedom.
    return np.sign(ratio) * np.where(np.isinf(log_tail), np.abs(ratio), -scipy.special.ndtri_exp(log_tail))


def _spread(draws: np.ndarray) -> np.ndarray:
    """Standard deviations (K,) of draws (S, K), whose squares may over- or underflow."""
    _, exponents = np.frexp(np.abs(draws).max(axis=0))
    return np.ldexp(np.ldexp(draws, -exponents).std(axis=0, ddof=1), exponents)


def _ratio(gap: np.ndarray, error: np.ndarray) -> np.ndarray:
    """A gap without an error bar is beyond all doubt, no gap is none."""
    with np.errstate(over="ignore"):
        ratio = gap / np.where(error > 0, error, np.finfo(float).tiny)
    return np.clip(np.where(gap == 0, 0.0, ratio), -1e9, 1e9)

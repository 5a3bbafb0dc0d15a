"""locate: how far networks that somebody trained are from the posterior and from the lazy limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
import xarray as xr

from bayesnet.comparison import SPREAD_LIMIT, require_same_problem
from bayesnet.diagnostics import evaluate_observables
from bayesnet.location_remarks import remarks, side_observables
from bayesnet.observables import Observable, check_observables, default_observables
from bayesnet.predicted_spread import lazy_draws, predicted_draws
from bayesnet.results import from_outside, network_of, recorded_neurons, task_of
from theory import arguments
from theory.display import html_table
from theory.finite_width import require_stable
from theory.lazy import nngp
from theory.solution import Solution

LEVEL = 1e-3  # how unlikely the furthest of all observables must be before it counts
DRAWS = 4000  # of single networks; the central 98% of a score follow their ranks
EDGE = 0.01  # beyond this share of the draws on either side a score goes on as a straight line
CHANCES = 20_000  # replicas of all scores together, for the law of the furthest
REPLICAS = 400  # means of as many networks, for the error of the share learned: it is known to 4%
TOLD = 0.5  # error of the share learned above which it tells nothing and is not given
POSTERIOR, NEAR, LAZY, BOTH, ELSEWHERE = "posterior", "near the posterior", "lazy limit", "both", "elsewhere"


@dataclass(frozen=True, eq=False, repr=False)
class Location:
    """Where networks from outside lie.

    Attributes:
        status: "posterior" (the observable furthest from the posterior is no further than chance explains, and the lazy
            limit is excluded), "near the posterior" (further than chance, but on average within 2 spreads of a single
            network in every observable), "lazy limit" (chance explains the distance from the lazy limit alone), "both"
            (neither is excluded) or "elsewhere".
        message: one line.
        remarks: what differs that can be acted on, a sentence each: whether the networks solve the task, weights of
            another size than the posterior's, a bias that the model has not.
        table: one row for each observable: ``mean`` over the networks; ``theory``, the saddle point's value, and
            ``expected_sd``, the spread of a single network; ``z_sd``, the mean of the scores, how far the networks are
            in units of that spread, and ``z_mean``, the same times the square root of the number of networks, how
            surely; ``lazy``, ``lazy_z_sd`` and ``lazy_z_mean`` for the lazy limit; ``learned``, (mean - lazy) /
            (theory - lazy): 0 at the lazy limit, 1 at the saddle point, NaN where these two are less than one spread
            apart; ``learned_error``, its standard error by the spread that the theory predicts.
        scores: of each network, dims (network, observable): standard normal for draws of the posterior.
        learned: the median of that column, and its standard error; None where the error exceeds .5, so that single
            networks of the posterior scatter too much for it.
        p_value: how likely draws of the posterior lie as far away, in their furthest observable, as these networks; at
            least 1/20001, the precision with which it is computed.
        lazy_p_value: the same for the lazy limit.
        sizes: of the weights of each kind, the root mean square over that of the prior: near 1 for W, U and b. Empty
            where weights are not known.
    """

    status: str
    message: str
    remarks: tuple[str, ...]
    table: pd.DataFrame
    scores: xr.DataArray
    learned: tuple[float, float] | None
    p_value: float
    lazy_p_value: float
    sizes: dict[str, float]

    def __repr__(self) -> str:
        return "\n".join([f"Location({self.status})", self.message, *self.remarks])

    def _repr_html_(self) -> str:
        rows = [("status", self.status), ("message", self.message), *(("remark", each) for each in self.remarks)]
        return html_table("Location", rows) + self.table.to_html(float_format="{:.4g}".format)


def locate(
    networks: xr.DataTree, solution: Solution, observables: Sequence[Observable] | None = None, seed: int = 0
) -> Location:
    r"""How far networks from outside are from the posterior and from the lazy limit, observable by observable.

    Each network gets a score in each observable, the normal quantile of its rank among draws of single networks of the
    width around the saddle point (beyond their central 98% a straight line). For draws of the posterior scores are
    standard normal up to O(1/sqrt(N)), the bias of finite width, whatever the law of the observable is. The lazy limit
    is represented by networks whose kernels are drawn from the prior and of which the readout alone has learned. All
    observables are judged together, by the furthest, with their correlations.

    Args:
        networks: of `from_weights` or `from_activations`.
        solution: `theory.solve` of the same network and task, a stable saddle point.
        observables: what to compare; `observables.default_observables` if not given. Choose invariants.
        seed: of the draws.

    Raises:
        ValueError: if ``networks`` are the draws of a sampler (`compare` judges those), if the solution is of another
            problem or no stable saddle point, and as in `compare`.
    """
    require_same_problem(networks, solution)
    if not from_outside(networks):
        raise ValueError("networks are draws of a sampler; compare them with bayesnet.compare")
    require_stable(solution)
    seed = arguments.seed("seed", seed)
    network, task = network_of(networks), task_of(networks)
    observables = default_observables(network, task) if observables is None else observables
    check_observables(observables)
    if not observables:
        raise ValueError("observables is empty; at least one is needed")
    neurons = recorded_neurons(networks)
    side = side_observables(network, task)
    drawn = predicted_draws(solution, network.width, neurons, [*observables, *side], DRAWS, seed)
    if drawn is None:
        raise ValueError("solution sits at a transition, where the theory predicts no spread to measure distances by")
    untrained = lazy_draws(solution, network.width, neurons, observables, DRAWS, seed)
    values, beside = (_values(networks, chosen, solution) for chosen in (observables, side))
    drawn, drawn_beside = np.split(drawn, [len(observables)], axis=1)
    scores, lazy_scores = normal_scores(values, drawn), normal_scores(values, untrained)
    p_value = _chance_of_furthest(scores, drawn, seed)
    lazy_p_value = _chance_of_furthest(lazy_scores, untrained, seed)
    table = _table(values, scores, lazy_scores, drawn, observables, solution)
    learned = _share(table, drawn, len(values), seed)
    sizes = _sizes(networks)
    status = _status(table, p_value, lazy_p_value)
    labels = [o.label for o in observables]
    labelled = xr.DataArray(
        scores, {"network": np.arange(len(scores)), "observable": labels}, ("network", "observable"), name="scores"
    )
    message = _message(status, table, len(values), network.width, p_value, lazy_p_value, learned)
    told = tuple(remarks(solution, network.width, sizes, beside, drawn_beside))
    return Location(status, message, told, table, labelled, learned, p_value, lazy_p_value, sizes)


def _values(networks: xr.DataTree, observables: Sequence[Observable], solution: Solution) -> np.ndarray:
    """Of each network, (networks, K)."""
    found = evaluate_observables(networks, observables, solution)
    return np.stack([found[o.label].ravel() for o in observables], axis=-1)


def normal_scores(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks of values (M, K) among draws (D, K), straight lines beyond their central part.

    Where all draws are equal (an entry that is fixed) a value scores 0 if it equals them up to rounding, else +-1e9.
    """
    number, scores = len(draws), np.empty(values.shape)
    for k in range(values.shape[1]):
        ordered, here = np.sort(draws[:, k]), values[:, k]
        spread = ordered.std(ddof=1)
        if spread <= 1e-12 * np.abs(ordered).max(initial=1e-300):
            gap = here - ordered.mean()
            scores[:, k] = np.where(np.abs(gap) <= 1e-9 * np.abs(ordered).max(initial=1.0), 0.0, np.sign(gap) * 1e9)
            continue
        middle = (np.arange(number) + 0.5) / number
        share = np.interp(here, ordered, middle)
        low, high = np.quantile(ordered, [EDGE, 1 - EDGE])
        edge = scipy.special.ndtri(1 - EDGE)
        inner = scipy.special.ndtri(np.clip(share, EDGE, 1 - EDGE))
        # The line has the slope of the tail, between the central part's edge and its middle.
        centre = np.median(ordered)
        above, below = (high - centre) / edge or spread, (centre - low) / edge or spread
        scores[:, k] = np.where(here > high, edge + (here - high) / above, inner)
        scores[:, k] = np.where(here < low, -edge - (low - here) / below, scores[:, k])
    return np.clip(scores, -1e9, 1e9)


def _chance_of_furthest(scores: np.ndarray, draws: np.ndarray, seed: int) -> float:
    """P( max_k |z_k| is at least that of the networks' mean scores ), z normal with the correlations of the draws."""
    correlation = np.atleast_2d(np.cov(normal_scores(draws, draws), rowvar=False))
    values, vectors = np.linalg.eigh(correlation)
    white = np.random.default_rng([seed, 5]).normal(size=(CHANCES, len(values)))
    replicas = np.abs((white * np.sqrt(np.maximum(values, 0))) @ vectors.T).max(axis=1)
    furthest = np.abs(scores.mean(axis=0)).max() * np.sqrt(len(scores))
    return float((1 + np.sum(replicas >= furthest)) / (1 + CHANCES))


def _table(
    values: np.ndarray,
    scores: np.ndarray,
    lazy_scores: np.ndarray,
    drawn: np.ndarray,
    observables: Sequence[Observable],
    solution: Solution,
) -> pd.DataFrame:
    both = (solution, nngp(solution.network, solution.task))
    theory, untrained = (np.array([float(o.evaluate(s.kernel, s.prediction)) for o in observables]) for s in both)
    spread, mean, root = drawn.std(axis=0, ddof=1), values.mean(axis=0), np.sqrt(len(values))
    apart = np.abs(theory - untrained) > spread
    learned = np.divide(mean - untrained, theory - untrained, out=np.full(len(mean), np.nan), where=apart)
    columns = {
        "mean": mean,
        "theory": theory,
        "expected_sd": spread,
        "z_sd": scores.mean(axis=0),
        "z_mean": scores.mean(axis=0) * root,
        "lazy": untrained,
        "lazy_z_sd": lazy_scores.mean(axis=0),
        "lazy_z_mean": lazy_scores.mean(axis=0) * root,
        "learned": learned,
        "learned_error": np.where(apart, spread / np.where(apart, np.abs(theory - untrained), 1.0) / root, np.nan),
    }
    return pd.DataFrame(columns, index=[o.label for o in observables])


def _share(table: pd.DataFrame, drawn: np.ndarray, number: int, seed: int) -> tuple[float, float] | None:
    """The median share learned, and the spread of that of as many networks of the posterior."""
    told = table["learned"].notna().to_numpy()
    if not told.any():
        return None
    lazy, theory = (table[name].to_numpy()[told] for name in ("lazy", "theory"))
    rng = np.random.default_rng([seed, 6])
    means = np.array([drawn[rng.integers(len(drawn), size=number)][:, told].mean(axis=0) for _ in range(REPLICAS)])
    error = float(np.median((means - lazy) / (theory - lazy), axis=1).std(ddof=1))
    return (float(table["learned"].median()), error) if error <= TOLD else None


def _sizes(networks: xr.DataTree) -> dict[str, float]:
    if "latents" not in networks.children:
        return {}
    latents = networks["latents"].to_dataset()
    return {str(name): float(np.sqrt(np.mean(values.to_numpy() ** 2))) for name, values in latents.items()}


def _status(table: pd.DataFrame, p_value: float, lazy_p_value: float) -> str:
    if p_value >= LEVEL:
        return BOTH if lazy_p_value >= LEVEL else POSTERIOR
    if lazy_p_value >= LEVEL:
        return LAZY
    return NEAR if table["z_sd"].abs().max() <= SPREAD_LIMIT else ELSEWHERE


def _message(
    status: str,
    table: pd.DataFrame,
    number: int,
    width: int,
    p_value: float,
    lazy_p_value: float,
    learned: tuple[float, float] | None,
) -> str:
    def furthest(column: str) -> str:
        distances = table[column].abs()
        return f"{distances.idxmax()} by {distances.max():.3g} spreads"

    opening = {
        POSTERIOR: "as draws of the posterior, and not at the lazy limit",
        BOTH: "as draws of the posterior, from which these observables cannot tell the lazy limit",
        LAZY: "as at the lazy limit, and not as draws of the posterior",
        NEAR: "near the posterior, within 2 spreads of one network on average, but further than chance explains",
        ELSEWHERE: "neither as draws of the posterior nor at the lazy limit",
    }[status]
    network = "1 network" if number == 1 else f"{number} networks"
    message = (
        f"{network} of width {width}: {opening}; furthest from the posterior {furthest('z_sd')} (p = {p_value:.2g}), "
        f"from the lazy limit {furthest('lazy_z_sd')} (p = {lazy_p_value:.2g})"
    )
    if learned is not None:
        share, error = learned
        message += f"; share of the way from the lazy limit to the saddle point {share:.2f} +- {error:.2f}"
        ways = table["learned"][table["learned_error"] <= TOLD]
        if len(ways) > 1:
            message += f" (median; {ways.min():.2f} of {ways.idxmin()} to {ways.max():.2f} of {ways.idxmax()})"
    return message

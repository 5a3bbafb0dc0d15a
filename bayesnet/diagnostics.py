"""Has the sampler converged? R-hat, ESS and MCSE of observables (ArviZ), and the gates that a run must pass.

Only invariants are judged: single weights permute between neurons, and signed overlaps flip between mirror modes,
so their R-hat is large where nothing is wrong. Of modes that are images of one another under a symmetry of the task all
draws are judged in one image (`bayesnet.task_images`).

Rank-normalised split R-hat, bulk and tail ESS: Vehtari et al. 2021; E-BFMI: Betancourt 2016.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesnet.chain_agreement import mirror_modes, name_disagreement, name_modes
from bayesnet.observables import Observable, check_observables, default_observables
from bayesnet.quiet_imports import arviz
from bayesnet.recorded_neurons import corrected
from bayesnet.results import from_outside, has_moments, names_with_priors, require_whole
from bayesnet.samplers.moments import Recorder
from bayesnet.sampling import network_of, task_of
from bayesnet.schema import MOMENTS_GROUP
from bayesnet.task_images import TurnedDraws, turned_draws
from theory.kernels import flat_of
from theory.solution import Solution

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
BFMI_LIMIT = 0.3
MOVING_LIMIT = 0.1  # share of proposals accepted
FEWEST_DRAWS = 4  # of each chain, for halves of it to be compared
SUMMARY = ("mean", "sd", "mcse", "r_hat", "ess_bulk", "ess_tail")
NOTHING = "nothing to observe"


@dataclass(frozen=True)
class Gate:
    """One condition on a run.

    Attributes:
        name: what is asked.
        passed: whether it holds.
        detail: the figure, and where it fails the observable or chain to blame.
    """

    name: str
    passed: bool
    detail: str


def evaluate_observables(
    posterior: xr.DataTree, observables: Sequence[Observable], toward: Solution | None = None
) -> dict[str, np.ndarray]:
    """Label -> draws (chain, draw), less the bias that recording few neurons makes (`bayesnet.from_activations`).

    Draws that break a symmetry of their task, a permutation of its patterns, are all looked at in one image
    (`bayesnet.task_images`).

    Args:
        posterior: what `sample` returned, or networks from outside.
        observables: what to evaluate.
        toward: the solution that networks from outside are compared with, and turned to.

    Raises:
        ValueError: if ``observables`` are anything else.
    """
    check_observables(observables)
    require_whole(posterior, "posterior")
    group, turned = posterior["posterior"], turned_draws(posterior, toward)
    if has_moments(posterior):
        return _recorded(group.to_dataset(), [observable.label for observable in observables], turned)
    kernel, prediction = group["kernel"].to_numpy(), group["prediction"].to_numpy()
    if turned is not None:
        kernel, prediction = turned.kernels(kernel), turned.outputs(prediction)
    values = {observable.label: (observable, observable.evaluate(kernel, prediction)) for observable in observables}
    return {label: corrected(posterior, observable, drawn, turned) for label, (observable, drawn) in values.items()}


def _recorded(group: xr.Dataset, labels: list[str], turned: TurnedDraws | None) -> dict[str, np.ndarray]:
    """Observables that were recorded of every draw in place of its kernel."""
    known = group["observable"].to_numpy().tolist()
    missing = [label for label in labels if label not in known]
    if missing:
        raise ValueError(
            f"observables has {', '.join(map(repr, missing[:3]))}{', ...' * (len(missing) > 3)}, of which posterior, "
            "with the moments of its kernels only, has no draws; give bayesnet.sample the argument kernels='every'"
        )
    values = group["observables"].to_numpy()
    if turned is not None:
        values, places = values.copy(), [known.index(label) for label in turned.labels]
        values[..., places] = turned.observables(values[..., places])
    return {label: values[..., known.index(label)] for label in labels}


def observables_of(posterior: xr.DataTree) -> list[Observable]:
    """The `default_observables` of a posterior of which it has draws."""
    observables = default_observables(network_of(posterior), task_of(posterior))
    if not has_moments(posterior):
        return observables
    known = set(posterior["posterior"]["observable"].to_numpy().tolist())
    return [observable for observable in observables if observable.label in known]


def summarise_kernel(posterior: xr.DataTree) -> xr.Dataset:
    """Mean, standard deviation, MCSE of the mean and R-hat of every entry of the kernel, and of the overlap.

    The same whether `bayesnet.sample` kept every kernel or their moments: from the mean and the variance of each chain
    (R-hat of Gelman and Rubin 1992, neither split nor of ranks: `summarise` is stricter) and batch means (MCSE). Signs
    of overlaps that differ between mirror modes make R-hat large where nothing is wrong, and so do modes that are
    images of one another under a symmetry of the task. Moments are those of all draws
    of a chain, whatever draws are selected.

    Args:
        posterior: what `sample` returned.

    Returns:
        ``kernel_mean``, ``kernel_sd``, ``kernel_mcse``, ``kernel_r_hat`` and the same of the overlap, with the dims
        (step, pattern, step_bis, pattern_bis) each. A constant has an R-hat of 1; that of a single chain is NaN.

    Raises:
        ValueError: if ``posterior`` is nothing that `sample` returned.
    """
    require_whole(posterior, "posterior")
    group = posterior["posterior"].to_dataset()
    number = group.sizes["draw"]
    if has_moments(posterior):
        moments = posterior[MOMENTS_GROUP].to_dataset()
        number = int(json.loads(posterior.attrs["settings"])["num_samples"])
    else:
        recorder = Recorder(network_of(posterior), task_of(posterior), number)
        found = recorder.finish([recorder.moments_of(kernel) for kernel in flat_of(group["kernel"].to_numpy())])
        like = group["kernel"].isel(draw=0, drop=True)
        moments = xr.Dataset({name: like.copy(data=values.reshape(like.shape)) for name, values in found.items()})
    table: dict[str, xr.DataArray] = {}
    for what in ("kernel", "overlap"):
        mean, sd, mcse = (moments[f"{what}_{name}"] for name in ("mean", "sd", "mcse"))
        chains = mean.sizes["chain"]
        within, between = (sd**2).mean("chain"), mean.var("chain", ddof=1) if chains > 1 else None
        scatter = ((mean - mean.mean("chain")) ** 2).sum("chain") * number
        table[f"{what}_mean"] = mean.mean("chain")
        table[f"{what}_sd"] = ((within * (number - 1) * chains + scatter) / max(1, number * chains - 1)) ** 0.5
        table[f"{what}_mcse"] = (mcse**2).sum("chain") ** 0.5 / chains
        if between is None:
            table[f"{what}_r_hat"] = xr.full_like(within, np.nan)
            continue
        # Chains that are constants of their own never agree.
        ratio = xr.where(within > 0, between / within.where(within > 0, 1), xr.where(between > 0, np.inf, 1 / number))
        table[f"{what}_r_hat"] = ((number - 1) / number + ratio) ** 0.5
    return xr.Dataset(table)


def summarise_draws(draws: dict[str, np.ndarray]) -> pd.DataFrame:
    """Mean, sd, MCSE of the mean, R-hat, bulk and tail ESS of each row of draws (chain, draw).

    A constant has no Monte Carlo error: mcse 0, R-hat 1, ESS the number of draws. NaN stands for what is not known: the
    R-hat of a single chain, and all but the mean of fewer than `FEWEST_DRAWS` draws of each chain.
    """
    if not draws:
        return pd.DataFrame({name: np.empty(0) for name in SUMMARY}, index=pd.Index([], dtype=str))
    stacked = np.stack(list(draws.values()), axis=-1)
    if stacked.shape[1] < FEWEST_DRAWS:
        table = pd.DataFrame(np.nan, index=list(draws), columns=list(SUMMARY))
        return table.assign(mean=stacked.mean(axis=(0, 1)))
    constant = np.ptp(stacked, axis=(0, 1)) == 0
    # In units of their own, powers of two so that nothing is rounded: ArviZ takes a range below 1e-15 for none at all.
    _, exponents = np.frexp(np.abs(stacked).max(axis=(0, 1)))
    stacked = np.ldexp(stacked, -exponents)
    # Constants are swapped for a ramp so that ArviZ has something to rank, and put back below.
    ramp = np.linspace(0, 1, stacked.shape[0] * stacked.shape[1]).reshape(stacked.shape[:2])
    data = xr.Dataset({"x": (("chain", "draw", "observable"), np.where(constant, ramp[..., None], stacked))})
    az = arviz()
    columns = {
        "mcse": az.mcse(data, method="mean"),
        "r_hat": az.rhat(data) if stacked.shape[0] > 1 else xr.full_like(data.isel(chain=0, draw=0), np.nan),
        "ess_bulk": az.ess(data, method="bulk"),
        "ess_tail": az.ess(data, method="tail"),
    }
    table = pd.DataFrame({name: values["x"].values for name, values in columns.items()}, index=list(draws))
    table.insert(0, "sd", stacked.std(axis=(0, 1), ddof=1))
    table.insert(0, "mean", stacked.mean(axis=(0, 1)))
    for name in ("mean", "sd", "mcse"):
        table[name] = np.ldexp(table[name], exponents)
    table.loc[constant, ["sd", "mcse", "r_hat", "ess_bulk", "ess_tail"]] = [0.0, 0.0, 1.0, ramp.size, ramp.size]
    return table


def summarise(
    posterior: xr.DataTree, observables: Sequence[Observable] | None = None, toward: Solution | None = None
) -> pd.DataFrame:
    """`summarise_draws` of a posterior's observables, by default `default_observables`; one row each.

    Numbers of the network that have priors (`bayesnet.sample`) come first where no observables are given.

    Networks from outside (`bayesnet.from_weights`) count as independent draws: R-hat 1, as many effective draws as
    networks, and of a single one sd and mcse 0. ``toward``: as in `evaluate_observables`.
    """
    draws = {}
    if observables is None:
        observables = observables_of(posterior)
        draws = {name: posterior["posterior"][name].to_numpy() for name in names_with_priors(posterior)}
    draws |= evaluate_observables(posterior, observables, toward)
    return _summarise_independent(draws) if from_outside(posterior) else summarise_draws(draws)


def _summarise_independent(draws: dict[str, np.ndarray]) -> pd.DataFrame:
    table = pd.DataFrame(index=pd.Index(list(draws), dtype=str), columns=list(SUMMARY), dtype=float)
    for label, values in draws.items():
        number = values.size
        spread = values.std(ddof=1) if number > 1 else 0.0
        table.loc[label] = [values.mean(), spread, spread / np.sqrt(number), 1.0, number, number]
    return table


def check_gates(posterior: xr.DataTree, table: pd.DataFrame | None = None) -> list[Gate]:
    """The gates of a run: R-hat <= 1.01, ESS >= 400, no frozen chain; by sampler divergences, tree depth, E-BFMI.

    A failed R-hat says which observable is worst and which chains stand apart in it. Two last entries always pass
    and are there where they tell something: the mirror mode of each chain where the sign symmetry holds, and the image
    in which it is looked at where draws break a symmetry of their task. Networks from outside have no sampler.

    Args:
        posterior: what `sample` returned.
        table: of `summarise` (or `compare`); computed where not given.
    """
    require_whole(posterior, "posterior", "sample_stats")
    if from_outside(posterior):
        number = posterior["posterior"].sizes["draw"] * posterior["posterior"].sizes["chain"]
        return [Gate("no sampler", True, f"{number} network(s) from outside, taken to be independent")]
    table = summarise(posterior) if table is None else table
    stats = posterior["sample_stats"]
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1)
    gates = [
        _r_hat_gate(posterior, table["r_hat"]),
        Gate(f"ESS >= {ESS_LIMIT}", *_extreme(-ess, -ESS_LIMIT, "smallest", ".0f")),
        _moving_gate(stats.to_dataset()),
    ]
    settings = json.loads(posterior.attrs["settings"])
    if "diverging" in stats:
        diverging = stats["diverging"].to_numpy().astype(bool).sum(axis=1)
        gates.append(Gate("no divergences", *_none(diverging, "divergent draws")))
    if settings["sampler"] == "nuts":
        saturated = (stats["n_steps"].to_numpy() >= 2 ** settings["max_tree_depth"] - 1).sum(axis=1)
        gates.append(Gate("no tree-depth saturation", *_none(saturated, "draws at the largest tree")))
    if "energy" in stats:
        bfmi = _bfmi(stats["energy"].to_numpy())
        detail = f"smallest {bfmi.min():.2f} (chain {int(bfmi.argmin())})"
        gates.append(Gate(f"E-BFMI >= {BFMI_LIMIT}", bool(bfmi.min() >= BFMI_LIMIT), detail))
    modes = mirror_modes(posterior)
    if modes is not None:
        gates.append(Gate("mirror modes", True, name_modes(modes)))
    turned = turned_draws(posterior)
    return gates if turned is None else [*gates, Gate("images of one mode", True, turned.in_words())]


def _r_hat_gate(posterior: xr.DataTree, r_hat: pd.Series) -> Gate:
    passed, detail = _extreme(r_hat, R_HAT_LIMIT, "largest", ".4f")
    worst = r_hat.fillna(np.inf).idxmax() if len(r_hat) else None
    known = {o.label: o for o in default_observables(network_of(posterior), task_of(posterior))}
    if not passed and worst in known and np.isfinite(r_hat[worst]):
        draws = evaluate_observables(posterior, [known[worst]])[str(worst)]
        log_likelihood = posterior["posterior"]["log_likelihood_marginal"].to_numpy()
        detail = f"{detail}: {name_disagreement(draws, log_likelihood)}"
    return Gate(f"R-hat <= {R_HAT_LIMIT}", passed, detail)


def _moving_gate(stats: xr.Dataset) -> Gate:
    # R-hat does not see a single frozen chain, nor chains that are frozen in the same place. Gauge moves change the log
    # density of the latents; there the sampler says whether it has moved itself.
    log_density = stats["lp"].to_numpy()
    if log_density.shape[1] < 2:
        moved = np.ones(len(log_density))
    elif "moved" in stats:
        moved = stats["moved"].to_numpy()[:, 1:].astype(bool).mean(axis=1)
    else:
        moved = (np.diff(log_density, axis=1) != 0).mean(axis=1)
    slowest = int(moved.argmin())
    detail = f"smallest share of draws that moved {moved[slowest]:.2f} (chain {slowest})"
    return Gate("every chain moves", bool(moved[slowest] >= MOVING_LIMIT), detail)


def _bfmi(energy: np.ndarray) -> np.ndarray:
    """Energy Bayesian fraction of missing information of each chain; infinite where the energy never changes."""
    spread = energy.var(axis=1, ddof=1) if energy.shape[1] > 1 else np.zeros(len(energy))
    change = np.mean(np.diff(energy, axis=1) ** 2, axis=1) if energy.shape[1] > 1 else np.zeros(len(energy))
    return np.divide(change, spread, out=np.full(len(energy), np.inf), where=spread > 0)


def _extreme(values: pd.Series, limit: float, which: str, form: str) -> tuple[bool, str]:
    if values.empty:
        return True, NOTHING
    # Too few draws leave R-hat or ESS undefined: that is a failure, not a pass.
    filled = values.fillna(np.inf)
    label = str(filled.idxmax())
    worst = abs(filled[label])
    shown = "undefined (too few chains or draws)" if np.isinf(worst) else format(worst, form if worst < 1e6 else ".0e")
    return bool(filled[label] <= limit), f"{which} {shown} ({label})"


def _none(counts: np.ndarray, what: str) -> tuple[bool, str]:
    if not counts.any():
        return True, f"0 {what}"
    return False, f"{int(counts.sum())} {what} (by chain: {', '.join(map(str, counts.tolist()))})"

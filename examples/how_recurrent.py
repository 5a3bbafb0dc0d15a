"""How recurrent is the network that the data ask for? The posterior of the degree of sharing.

Claim. Give the correlation rho of the recurrent weights between any two steps a flat prior from 0 (a network that
shares no W) to 1 (a recurrent one), and sample it with the network (`bayesnet.sample` with priors). Its posterior

    p(rho | y)  =  p(y | rho) p(rho) / p(y)

answers the question, and contains the Bayes factor of the two ends, whatever the prior (Savage and Dickey):

    ln BF  =  ln p(y | rho = 1) - ln p(y | rho = 0)  =  ln [ p(1 | y) / p(1) ] - ln [ p(0 | y) / p(0) ] .

The density at the ends is known without bins: given the white latent numbers x of a draw, the law of rho is
p(y | rho, x) p(rho) up to its integral over rho, and p(rho | y) is the average of it over draws. Where the ends differ
by more than four units, few draws come near the worse one; there the prior is tilted, exp(-c rho), which changes
nothing above.

Tasks: those of `architecture_evidence.py` (a chain above its critical signal, a rotation, the same in shuffled order,
the same target or alternating ones under a steady input), and twelve months of CO2, every third of them kept back.

Expected picture: the posterior of rho for each task: samples (histogram), the average over draws (line), the theory's
p(y | rho) with all terms that do not vanish at large width (dashed). Then ln BF by the density at the ends against that
by bridge sampling of the two networks, and the degrees of W, V and U where all three are sampled at once (medians, 90%
intervals; what has no inputs to share keeps its prior).

The verdict: both ways give the same ln BF; the posterior mean of rho lies above 1/2 for all tasks but the alternating
one, where it lies below; shuffled numbers want weights that are partly shared: the density at rho = 0.8 is above that
at either end.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from architecture_evidence import SHUFFLED
from experiment import COLOURS, MORE_COLOURS, Experiment, panels, points
from numpyro.infer.util import log_density

import bayesnet as bn
import theory

DEGREE = "shared.recurrent"
OTHERS = {"W": DEGREE, "V": "shared.readout", "U": "shared.input"}
CO2_NOISE_SD = 0.3  # in units of the anomalies' standard deviation
FAR = 4.0  # of ln BF: further apart, the worse end is reached by a tilted prior
NODES = 41  # of Simpson's rule over rho, denser at its ends
PARTLY = 0.8


class Curve(NamedTuple):
    """The posterior density of rho under a flat prior, averaged over draws.

    Attributes:
        rho: (NODES,).
        each: the density given each draw, up to one factor for all, (chain, draw, NODES).
        weights: of Simpson's rule, (NODES,).
    """

    rho: np.ndarray
    each: np.ndarray
    weights: np.ndarray

    @property
    def density(self) -> np.ndarray:
        """Normalised, (NODES,)."""
        mean = self.each.mean(axis=(0, 1))
        return mean / (self.weights @ mean)

    def log_ratio(self, one: int, other: int) -> tuple[float, float]:
        """ln of the density at a node over that at another one, and its Monte Carlo standard error."""
        above, below = (self.each[..., node] / self.each[..., node].mean() for node in (one, other))
        error = bn.diagnostics.summarise_draws({"gap": above - below})["mcse"].iloc[0]
        return float(np.log(self.density[one] / self.density[other])), float(error)


def tasks(quick: bool, width: int) -> dict[str, tuple[bn.Task, float]]:
    """Name -> task and noise kappa."""
    chain = {"chain": (bn.tasks.chain(3, 4.5), 0.1)}
    if quick:
        return chain
    rotation, held = bn.tasks.rotation(6, 8), np.ones((1, 3, 1))
    return {
        **chain,
        "rotation": (rotation, 0.03),
        "shuffled": (bn.Task(rotation.inputs, rotation.targets[:, SHUFFLED]), 0.03),
        "steady": (bn.Task(held, held), 0.03),
        "alternating": (bn.Task(held, held * [[[1], [-1], [1]]]), 0.03),
        "CO2": (bn.tasks.co2(windows=1, steps=12), width * CO2_NOISE_SD**2),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=32, width_help="width N")
    chosen = tasks(run.quick, run.width)
    figure, grid = panels(
        1 if run.quick else 2, 2 if run.quick else 4, 6.4 if run.quick else 12.4, 3.0 * (2 - run.quick)
    )
    cells, results = list(grid.flat), {}
    for axes, (name, (task, noise)) in zip(cells, chosen.items(), strict=False):
        results[name] = study(run, axes, name, task, bn.Network.rnn(run.width, noise=noise))
    cells[0].set_ylabel("posterior density")
    cells[0].legend(fontsize=7.5, frameon=False, loc="upper left")
    compare_factors(cells[len(chosen)], results)
    if not run.quick:
        grid[1, 0].set_ylabel("posterior density")
        all_degrees(run, cells[len(chosen) + 1], chosen, results)
    run.save(figure)
    return run.finish("the posterior of the degree of sharing has the Bayes factor at its ends", results)


def study(run: Experiment, axes, name: str, task: bn.Task, network: bn.Network) -> dict:
    """One task: the posterior of rho, its density, the theory's, and the Bayes factor in two ways."""
    rho = np.linspace(0, 1, 5 if run.quick else 41)
    predicted = np.array([evidence_at(network, task, value) for value in rho])
    expected = predicted[-1] - predicted[0]
    posterior = degrees(run, network, task, {DEGREE: dist.Uniform(0.0, 1.0)}, name)
    draws = posterior["posterior"][DEGREE].to_numpy()
    curve = density_of(posterior, network, task, 0.0)
    ends = curve
    if abs(expected) > FAR:
        scale = 1 / abs(expected)
        tilted = dist.TruncatedDistribution(dist.Laplace(float(expected < 0), scale), low=0.0, high=1.0)
        again = degrees(run, network, task, {DEGREE: tilted}, f"{name}, tilted prior")
        ends = density_of(again, network, task, expected)
    factor, error = ends.log_ratio(-1, 0)
    bridge, bridge_error = (expected, 0.0) if run.quick else bridged(run, network, task, name)
    run.agree(f"{name}: ln BF at the ends of the posterior of rho", factor, error, bridge, bridge_error)
    mean = bn.diagnostics.summarise_draws({"rho": draws}).loc["rho"]
    sign = -1 if name == "alternating" else 1
    run.exceed(f"{name}: mean of rho beyond 1/2", sign * mean["mean"], mean["mcse"], sign * 0.5)
    if name == "shuffled":
        near = int(np.argmin(np.abs(curve.rho - PARTLY)))
        for end in (0, -1):
            run.exceed(f"{name}: partly shared above rho = {-end}", *curve.log_ratio(near, end), 0.0)
    axes.hist(draws.ravel(), bins=25, range=(0, 1), density=True, color="0.82", label="samples")
    axes.plot(curve.rho, curve.density, color=COLOURS["RNN"], lw=1.6, label="averaged over draws")
    weight = np.exp(predicted - np.nanmax(predicted))
    known = np.isfinite(weight)
    weight = np.interp(rho, rho[known], weight[known])
    axes.plot(rho, weight / np.trapezoid(weight, rho), "k--", lw=1.1, label="theory")
    axes.set(xlabel=r"degree of sharing of W, $\rho$", xlim=(0, 1))
    axes.set_title(f"{name}, N = {network.width}", fontsize=9)
    return {
        "mean": mean["mean"],
        "mcse": mean["mcse"],
        "rho": curve.rho,
        "density": curve.density,
        "log_bayes_factor": (factor, error),
        "bridge": (bridge, bridge_error),
        "theory": expected,
    }


def evidence_at(network: bn.Network, task: bn.Task, rho: float) -> float:
    """The theory's ln p(y | rho); NaN at a transition, where it has none."""
    try:
        return theory.log_evidence(theory.solve(network.with_parameter(DEGREE, float(rho)), task)).log_evidence
    except ValueError:
        return np.nan


def degrees(run: Experiment, network: bn.Network, task: bn.Task, priors: dict, what: str) -> xr.DataTree:
    """Degrees of sharing sampled with the network, in kernel coordinates; they are among what has to converge."""
    run.say(what)
    settings = {"coordinates": "kernels", "priors": priors, "num_samples": 1500, "num_latents": 500}
    settings["target_accept"] = 0.95  # small steps: towards rho = 1 of a rotation the posterior narrows
    posterior, _ = run.converge(network, task, None, what, **settings)
    return posterior


def density_of(posterior: xr.DataTree, network: bn.Network, task: bn.Task, tilt: float) -> Curve:
    """p(rho | y) of a flat prior as an average over draws x of p(y | rho, x) p(rho) / int p(y | rho', x) p(rho').

    The draws are those under the prior exp(-tilt rho), whose factor is taken out at the end.
    """
    angle = np.linspace(0, np.pi, NODES)
    rho = (1 - np.cos(angle)) / 2
    simpson = np.where(np.arange(NODES) % 2, 4.0, 2.0)
    simpson[[0, -1]] = 1.0
    weights = simpson * np.sin(angle) / 2 * (angle[1] / 3)
    sites = ("bartlett_diagonal", "bartlett_lower")
    latents = {name: posterior["latents"][name].to_numpy() for name in sites}
    shape = latents[sites[0]].shape[:2]

    def log_joint(rho, row):
        return log_density(bn.models.kernels, (network, task), {"parameters": {DEGREE: rho}}, row)[0]

    with jax.enable_x64(True):
        rows = {name: values.reshape(-1, values.shape[-1]).astype(float) for name, values in latents.items()}
        over_rho = jax.vmap(log_joint, in_axes=(0, None))
        logs = np.asarray(jax.jit(lambda rows: jax.lax.map(lambda row: over_rho(rho, row), rows))(rows))
    logs = logs - tilt * rho
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    each = likelihood / (likelihood @ weights)[:, None] * np.exp(tilt * (rho - rho[np.argmax(tilt * rho)]))
    return Curve(rho, each.reshape(*shape, NODES), weights)


def bridged(run: Experiment, network: bn.Network, task: bn.Task, name: str) -> tuple[float, float]:
    """ln BF of rho = 1 against rho = 0 by bridge sampling of the two networks, and its standard error."""
    found = []
    for rho in (1.0, 0.0):
        there, label = network.with_parameter(DEGREE, rho), f"{name}, rho = {rho:g}"
        run.say(label)
        settings = {"coordinates": "kernels", "num_samples": 1500, "num_latents": 500}
        observables = bn.observables.default_observables(there, task)
        posterior, _ = run.converge(there, task, observables, label, **settings)
        found.append(bn.log_evidence(posterior, seed=run.seed()))
    return found[0].value - found[1].value, float(np.hypot(found[0].error, found[1].error))


def compare_factors(axes, results: dict) -> None:
    """ln BF by the posterior of rho against that by bridge sampling."""
    colours = (COLOURS["RNN"], COLOURS["DNN"], *MORE_COLOURS)
    for colour, (name, found) in zip(colours, results.items(), strict=False):
        (value, error), (bridge, bridge_error) = found["log_bayes_factor"], found["bridge"]
        points(axes, [bridge], [value], [error], xerr=2 * bridge_error, color=colour, label=name)
        axes.plot(found["theory"], found["theory"], "+", color=colour, ms=8)
    axes.axline((0, 0), slope=1, color="0.7", lw=0.8, zorder=0)
    axes.plot([], [], "k+", ms=8, label="theory")
    axes.set(xlabel="ln BF, bridge sampling", ylabel=r"ln BF from $p(\rho | y)$ at its ends")
    axes.legend(fontsize=7.5, frameon=False)


def all_degrees(run: Experiment, axes, chosen: dict, results: dict) -> None:
    """W, V and U at once: medians and 90% intervals for each task."""
    for row, (name, (task, noise)) in enumerate(chosen.items()):
        network = bn.Network.rnn(run.width, noise=noise)
        priors = {degree: dist.Uniform(0.0, 1.0) for degree in OTHERS.values()}
        posterior = degrees(run, network, task, priors, f"{name}, all degrees")["posterior"]
        for k, (weights, degree) in enumerate(OTHERS.items()):
            low, median, high = np.quantile(posterior[degree], [0.05, 0.5, 0.95])
            results[name][f"median and 90% of {weights}"] = (median, low, high)
            place, colour = row + 0.22 * (k - 1), MORE_COLOURS[k]
            axes.plot([low, high], [place, place], color=colour, lw=1.4)
            axes.plot(median, place, "o", ms=4.5, color=colour, label=weights if row == 0 else None)
    axes.set_yticks(range(len(chosen)), list(chosen), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="degree of sharing", xlim=(-0.02, 1.02))
    axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


if __name__ == "__main__":
    raise SystemExit(main())

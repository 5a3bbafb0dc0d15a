"""When do the data prefer shared weights? The log Bayes factor of RNN against DNN, in theory and from samples.

Claim. The evidence p(y) of a network is the probability that its prior, weights integrated out, gives to the targets.
To leading order its logarithm is -N F, so that ln BF = N (F_DNN - F_RNN), and the Gaussian fluctuations around the
saddle point add terms of order ln N and 1, among them ln 2 for a pair of mirror modes (`theory.log_evidence`). Asked at
the end of a chain only, data below the critical signal say nothing about sharing (F is the same for both); above it
they favour the RNN. Along a sequence they favour sharing where one rule made the sequence (a rotation) and oppose it
where the same numbers come in an order that no rule made.

Expected picture: ln BF per neuron against the signal, left on the chain, right on the two sequences. Solid: the leading
theory; dashed: with the corrections at the smaller width; points: bridge sampling in kernel coordinates
(`bayesnet.log_evidence`). Crosses: the difference of ArviZ's leave-one-out scores per neuron at the smaller width,
which answers another question (how well each target follows from the others) and is unreliable where its Pareto k
exceeds .7, as it does for strong signals.

The verdict: away from the transition the sampled ln p(y) and the corrected theory differ by c/N: extrapolated from two
widths the difference vanishes for each network, task and signal; the sampled ln BF at the larger width is positive on
the chain above the transition and on the rotation, and negative on the shuffled one.
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, COLOURS, MORE_COLOURS, Experiment, extrapolate, leave_one_out, panels, points

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
SHUFFLED = (3, 0, 5, 1, 4, 2)  # an order of the six steps
COLOUR_OF = {"chain": COLOURS["RNN"], "rotation": MORE_COLOURS[0], "shuffled": MORE_COLOURS[2]}


def tasks(quick: bool) -> dict[str, tuple[bn.Task, float, tuple[float, ...]]]:
    """Name -> task at signal 1, noise kappa, signals."""
    if quick:
        return {"chain": (bn.tasks.chain(3, 1.0), 0.1, (4.0,))}
    rotation = bn.tasks.rotation(6, 8)
    shuffled = bn.Task(rotation.inputs, rotation.targets[:, SHUFFLED])
    return {
        "chain": (bn.tasks.chain(3, 1.0), 0.1, (1.5, 2.2, 3.6, 4.5)),
        "rotation": (rotation, 0.03, (0.5, 1.0)),
        "shuffled": (shuffled, 0.03, (0.5, 1.0)),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=400, width_help="the wider of two widths; the other is a quarter")
    widths = np.array([run.width] if run.quick else [run.width // 4, run.width])
    figure, grid = panels(1, 1 if run.quick else 2, 9.6, 4.0)
    results = {}
    for name, (task, noise, signals) in tasks(run.quick).items():
        axes = grid[0, int(name != "chain")]
        found = [measure(run, name, task.scaled(signal), signal, noise, widths) for signal in signals]
        sign = {"chain": 1, "rotation": 1, "shuffled": -1}[name]
        critical = theory.critical_signal(bn.Network.rnn(64, noise=noise), task).instability if name == "chain" else 0.0
        for signal, row in zip(signals, found, strict=True):
            if signal > critical:
                factor, error = sign * row["bayes_factor"][-1], row["error"][-1]
                run.exceed(f"{name}, signal {signal}: ln BF has the claimed sign", factor, error, 0.0)
        show(run, axes, name, task, noise, signals, found, widths)
        results[name] = {"signals": signals, "widths": widths, "runs": found}
        if name == "chain":
            axes.axvline(critical, color="k", ls=":", lw=1)
    for axes in grid[0]:
        axes.axhline(0, color="0.7", lw=0.8)
        axes.set(xlabel=r"signal", ylabel="ln BF, RNN against DNN, per neuron")
        axes.legend(fontsize=7.5, frameon=False)
    titles = (f"chain, T = 3 (dotted: critical signal); {BARS}", "six steps, all told: one rule or none")
    for axes, title in zip(grid[0], titles, strict=False):
        axes.set_title(title, fontsize=9)
    run.save(figure)
    return run.finish("sharing is preferred above the transition and where one rule made the sequence", results)


def measure(run: Experiment, name: str, task: bn.Task, signal: float, noise: float, widths: np.ndarray) -> dict:
    """Sampled ln p(y) of both networks at each width; the claims that the corrected theory is its limit."""
    logs, errors, scores = {}, {}, {}
    for architecture, make in MAKERS.items():
        rows, score = [], []
        for width in map(int, widths):
            network = make(width, noise=noise)
            label = f"{name}, {architecture}, signal {signal}, N = {width}"
            run.say(label)
            posterior = run.sample(network, task, coordinates="kernels", num_samples=1500, num_latents=500)
            if run.quick:  # too few draws for an evidence
                return {"bayes_factor": [0.0], "error": [0.0], "loo": [0.0], "pareto_k": 0.0}
            run.measure(posterior, bn.observables.default_observables(network, task), label)
            rows.append((*bn.log_evidence(posterior, seed=run.seed()), corrected(network, task)))
            score.append(leave_one_out(posterior))
        sampled, error, predicted = np.array(rows).T
        gap, gap_error = extrapolate(widths, (sampled - predicted)[:, None], error[:, None])
        run.agree(f"{name}, {architecture}, signal {signal}: ln p(y) beyond the theory", gap[0], gap_error, 0.0)
        logs[architecture], errors[architecture], scores[architecture] = sampled, error, score
    return {
        "log_evidence": logs,
        "bayes_factor": logs["RNN"] - logs["DNN"],
        "error": np.hypot(errors["RNN"], errors["DNN"]),
        "loo": [rnn[0] - dnn[0] for rnn, dnn in zip(scores["RNN"], scores["DNN"], strict=True)],
        "pareto_k": max(k for rows in scores.values() for _, k in rows),
    }


def corrected(network: bn.Network, task: bn.Task) -> float:
    """The theory's ln p(y) at the network's width, up to O(1/N)."""
    return theory.log_evidence(theory.solve(network, task)).log_evidence


def show(run: Experiment, axes, name: str, task: bn.Task, noise: float, signals, found: list, widths) -> None:
    """Theory as lines, bridge sampling as points, leave-one-out as crosses."""
    colour = COLOUR_OF[name]
    fine = np.linspace(0.6 * signals[0], 1.05 * signals[-1], 3 if run.quick else 25)
    leading, full = [], []
    for signal in fine:
        rnn, dnn = (
            theory.solve(make(int(widths[0]), noise=noise), task.scaled(signal), starts=1) for make in MAKERS.values()
        )
        leading.append(dnn.free_energy - rnn.free_energy)
        full.append(theory.log_bayes_factor(rnn, dnn) / widths[0])
    axes.plot(fine, leading, "-", color=colour, lw=1.3, label=f"{name}: leading theory")
    axes.plot(fine, full, "--", color=colour, lw=1.1, label=f"{name}: corrected, N = {widths[0]}")
    for row, width in enumerate(widths):
        values = np.array([item["bayes_factor"][row] for item in found]) / width
        errors = np.array([item["error"][row] for item in found]) / width
        points(
            axes,
            signals,
            values,
            errors,
            color=colour,
            mfc="w" if row == 0 else colour,
            label=f"{name}: sampled, N = {width}",
        )
    scores = np.array([item["loo"][0] for item in found]) / widths[0]
    axes.plot(signals, scores, "x", color=colour, ms=6, label=f"{name}: leave-one-out, N = {widths[0]}")


if __name__ == "__main__":
    raise SystemExit(main())

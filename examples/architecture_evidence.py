"""When do the data prefer shared weights? The log Bayes factor of RNN against DNN, in theory and from samples.

Claim. The evidence p(y) of a network is the probability that its prior, weights integrated out, gives to the targets.
To leading order its logarithm is -N F, so that ln BF = N (F_DNN - F_RNN), and the Gaussian fluctuations around the
saddle point add terms of order ln N and 1, among them ln 2 for a pair of mirror modes (`theory.log_evidence`).

Where inputs come at the first step only, data never oppose sharing at order N: a kernel without correlations between
steps has the same F in both networks, and the DNN's best kernel is one, so that F_RNN <= F_DNN. Asked at the end of a
chain only, data below the critical signal say nothing (equality); above it they favour the RNN. Told at every step they
favour it at any signal, and no less where the numbers of a rotation come in a shuffled order: wide networks find a
linear rule for either. The data can oppose sharing where the inputs tie the steps together. Shown the same input at
every step, the RNN's answers are correlated a priori: targets that stay are likely, targets that alternate are not,
while the DNN, which answers each step anew, gives the same probability to both.

Expected picture: ln BF per neuron against the signal, for a chain, for sequences after one kick (rotation, shuffled)
and for sequences under a steady input (steady, alternating). Solid: the leading theory; dashed: with the corrections at
the smallest width; points: bridge sampling in kernel coordinates (`bayesnet.log_evidence`). Crosses: the difference of
ArviZ's leave-one-out scores per neuron at the smallest width, which answers another question (how well each target
follows from the others) and is unreliable where its Pareto k exceeds .7, as it does for strong signals.

The verdict: away from the transition the sampled ln p(y) and the corrected theory differ by c_1/N + c_2/N^2:
extrapolated from three widths the difference vanishes for each network, task and signal; the sampled ln BF at the
largest width is negative for alternating targets under a steady input, and positive in all other cases but the chain
below the transition. (The smallest width is 200: at 100 and signal 3.6 the chain's mirror modes still overlap.)
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, COLOURS, MORE_COLOURS, Experiment, extrapolate, leave_one_out, panels, points

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
SHUFFLED = (3, 0, 5, 1, 4, 2)  # an order of the six steps
PANELS = ("chain, T = 3 (dotted: critical signal)", "one kick, then six steps told", "steady input, three steps told")
PANEL_OF = {"chain": 0, "rotation": 1, "shuffled": 1, "steady": 2, "alternating": 2}
SIGN_OF = {"chain": 1, "rotation": 1, "shuffled": 1, "steady": 1, "alternating": -1}
COLOUR_OF = dict(zip(PANEL_OF, (COLOURS["RNN"], *MORE_COLOURS[:4]), strict=True))


def tasks(quick: bool) -> dict[str, tuple[bn.Task, float, tuple[float, ...]]]:
    """Name -> task at signal 1, noise kappa, signals."""
    if quick:
        return {"chain": (bn.tasks.chain(3, 1.0), 0.1, (4.0,))}
    rotation = bn.tasks.rotation(6, 8)
    shuffled = bn.Task(rotation.inputs, rotation.targets[:, SHUFFLED])
    held = np.ones((1, 3, 1))
    return {
        "chain": (bn.tasks.chain(3, 1.0), 0.1, (1.5, 2.2, 3.6, 4.5)),
        "rotation": (rotation, 0.03, (0.5, 1.0)),
        "shuffled": (shuffled, 0.03, (0.5, 1.0)),
        "steady": (bn.Task(held, held), 0.03, (0.5, 1.0)),
        "alternating": (bn.Task(held, held * [[[1], [-1], [1]]]), 0.03, (0.5, 1.0)),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=3200, width_help="the largest of three widths; the others: 1/4 and 1/16 of it"
    )
    widths = np.array([run.width] if run.quick else [run.width // 16, run.width // 4, run.width])
    figure, grid = panels(1, 1 if run.quick else 3, 4.8 if run.quick else 12.0, 4.0)
    results = {}
    critical = theory.critical_signal(bn.Network.rnn(64), bn.tasks.chain(3, 1.0)).instability
    for name, (task, noise, signals) in tasks(run.quick).items():
        found = [measure(run, name, task.scaled(signal), signal, noise, widths) for signal in signals]
        for signal, row in zip(signals, found, strict=True):
            if name != "chain" or signal > critical:
                factor, error = SIGN_OF[name] * row["bayes_factor"][-1], row["error"][-1]
                run.exceed(f"{name}, signal {signal}: ln BF has the claimed sign", factor, error, 0.0)
        show(run, grid[0, PANEL_OF[name]], name, task, noise, signals, found, widths)
        results[name] = {"signals": signals, "widths": widths, "runs": found}
    grid[0, 0].axvline(critical, color="k", ls=":", lw=1)
    explain(grid[0, 0], widths)
    for axes, title, place in zip(grid[0], PANELS, ("upper left", "upper left", "center right"), strict=False):
        axes.axhline(0, color="0.7", lw=0.8)
        axes.set_xlabel("signal")
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=8, framealpha=1, edgecolor="none", loc=place)
    grid[0, 0].set_ylabel(f"ln BF, RNN against DNN, per neuron\n({BARS})")
    run.save(figure)
    return run.finish(
        "data prefer sharing above the transition and along sequences, unless inputs tie the steps", results
    )


def measure(run: Experiment, name: str, task: bn.Task, signal: float, noise: float, widths: np.ndarray) -> dict:
    """Sampled ln p(y) of both networks at each width; the claims that the corrected theory is its limit."""
    logs, errors, scores = {}, {}, {}
    for architecture, make in MAKERS.items():
        rows, score = [], []
        for width in map(int, widths):
            network = make(width, noise=noise)
            label = f"{name}, {architecture}, signal {signal}, N = {width}"
            run.say(label)
            observables = bn.observables.default_observables(network, task)
            settings = {"coordinates": "kernels", "num_samples": 1500, "num_latents": 500}
            posterior, _ = run.converge(network, task, observables, label, **settings)
            if run.quick:  # too few draws for an evidence
                return {"bayes_factor": [0.0], "error": [0.0], "loo": [0.0], "pareto_k": 0.0}
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
    axes.plot(fine, leading, "-", color=colour, lw=1.3, label=name)
    axes.plot(fine, full, "--", color=colour, lw=1.1)
    for row in (0, -1):
        values = np.array([item["bayes_factor"][row] for item in found]) / widths[row]
        errors = np.array([item["error"][row] for item in found]) / widths[row]
        points(axes, signals, values, errors, color=colour, mfc="w" if row == 0 else colour)
    scores = np.array([item["loo"][0] for item in found]) / widths[0]
    axes.plot(signals, scores, "x", color=colour, ms=6)


def explain(axes, widths) -> None:
    """Legend entries for what all panels share."""
    for style, label in {
        "k-": "leading theory",
        "k--": f"corrected, N = {widths[0]}",
        "kx": f"leave-one-out, N = {widths[0]}",
        "ko": f"sampled, N = {widths[-1]}",
    }.items():
        axes.plot([], [], style, ms=5, lw=1.2, label=label)
    if len(widths) > 1:
        axes.plot([], [], "ko", ms=5, mfc="w", label=f"sampled, N = {widths[0]}")


if __name__ == "__main__":
    raise SystemExit(main())

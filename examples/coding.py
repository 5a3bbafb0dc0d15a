"""How single neurons code two classes: analog, redundant or sparse, in one layer, a deep and a recurrent network.

Claim. Two patterns are shown at the first step, and a target of +s is asked for the one, -s for the other, at the last.
The theory gives the law of a single neuron (`theory.Solution.sample_neurons`), and with it the code: how the difference
of its activities

    d  =  phi(h, class A) - phi(h, class B)

is distributed over neurons. In one layer the codes are those of van Meegen and Sompolinsky: analog for linear neurons
(d is Gaussian), redundant for tanh (neurons fall into clusters which all say the same, up to a sign), sparse for ReLU
(few neurons carry most of it). The kurtosis of d tells them apart: 3 for a Gaussian, 1 for two points, more than 3 for
a sparse code. Over several steps the schemes of the last step stay the same. What sharing the weights adds is that a
neuron keeps its code: where the steps of a recurrent network correlate, the d of a neuron at the last step correlates
with that at the step before. In a deep network every step has neurons of its own, and the correlation is zero.

Expected picture: activities of single neurons at the last step, class A against class B, coloured by the class that
they prefer (the clusters); columns: activation; rows: one layer, deep network, recurrent network. Last row: mean
activity difference of the two clusters, as they are at the last step, at all steps: zero before the last step in the
deep network (dashed), of one sign in the recurrent one.

The verdict: in one layer the kurtosis of d is that of sampled posteriors, extrapolated from two widths, for all three
activations; in all three networks it is 3 for linear neurons, below 3 for tanh and above 3 for ReLU; the correlation of
d between the last two steps is zero in the deep networks and positive in the linear and the tanh recurrent network.

Source: van Meegen and Sompolinsky, "Coding schemes in neural networks learning classification tasks", Nature
Communications 2025 (arXiv 2406.16689).
"""

from __future__ import annotations

import numpy as np
from experiment import COLOURS, Experiment, extrapolate, panels

import bayesnet as bn
import theory

ACTIVATIONS = ("linear", "tanh", "relu")
SIGNAL, DEEP_SIGNAL, NOISE, STEPS = 2.0, 3.0, 0.1, 3
NEURONS, BLOCKS, SHOWN = 200_000, 20, 1500
LENGTHS = {"one layer": 1, "DNN": STEPS, "RNN": STEPS}


def two_classes(steps: int, signal: float) -> bn.Task:
    """Two orthogonal patterns at the first step; +-signal at the last."""
    inputs, targets = np.zeros((2, steps, 2)), np.zeros((2, steps, 1))
    inputs[:, 0] = np.sqrt(2) * np.eye(2)
    targets[:, -1, 0] = signal, -signal
    supervised = np.zeros((2, steps), bool)
    supervised[:, -1] = True
    return bn.Task(inputs, targets, supervised)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=256, width_help="the larger of two widths of the samples")
    activations = ACTIVATIONS[:1] if run.quick else ACTIVATIONS
    kinds = {"one layer": 1} if run.quick else LENGTHS
    rows, columns = len(kinds) + (not run.quick), len(activations)
    figure, grid = panels(rows, columns, 3.6 * columns, 2.9 * rows)
    results: dict[str, dict] = {}
    for column, activation in enumerate(activations):
        for row, (kind, steps) in enumerate(kinds.items()):
            run.say(f"{activation}, {kind}")
            make = bn.Network.dnn if kind == "DNN" else bn.Network.rnn
            network = make(run.width, activation=activation, noise=NOISE)
            task = two_classes(steps, SIGNAL if steps == 1 else DEEP_SIGNAL)
            solution = theory.solve(network, task)
            activity = np.asarray(network.phi.function(solution.sample_neurons(NEURONS, seed=run.seed())))
            found = describe(activity)
            results[f"{activation}, {kind}"] = found
            judge(run, activation, kind, found)
            if kind == "one layer" and not run.quick:
                found["samples"] = sampled(run, network, task, found, activation)
            scatter(grid[row, column], activity[:, -1], f"{activation}, {kind}", found["kurtosis"][-1][0])
            if steps > 1:
                over_time(grid[-1, column], activity, kind)
    for row, axes in enumerate(grid[:, 0]):
        axes.set_ylabel(r"$\phi(h)$, class B" if row < len(kinds) else "mean d of a cluster")
    run.save(figure)
    return run.finish("linear neurons code analog, tanh redundantly, ReLU sparsely; sharing lets them keep it", results)


def describe(activity: np.ndarray) -> dict:
    """Kurtosis of d at each step and correlation of d with the step before, each with its standard error."""
    difference = activity[..., 0] - activity[..., 1]
    blocks = np.split(difference, BLOCKS)

    def estimate(function) -> tuple[float, float]:
        values = [function(block) for block in blocks]
        return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(BLOCKS))

    steps = difference.shape[1]
    return {
        "kurtosis": [estimate(lambda d, t=t: kurtosis(d[:, t])) for t in range(steps)],
        "correlation": [
            estimate(
                lambda d, t=t: (
                    np.mean(d[:, t] * d[:, t - 1]) / np.sqrt(np.mean(d[:, t] ** 2) * np.mean(d[:, t - 1] ** 2))
                )
            )
            for t in range(1, steps)
        ],
    }


def kurtosis(difference: np.ndarray) -> float:
    """<d^4> / <d^2>^2 along the last axis."""
    return np.mean(difference**4, axis=-1) / np.mean(difference**2, axis=-1) ** 2


def judge(run: Experiment, activation: str, kind: str, found: dict) -> None:
    """The claims about the theory's codes."""
    value, error = found["kurtosis"][-1]
    if activation == "linear":
        run.agree(f"{activation}, {kind}: kurtosis of d", value, error, 3.0)
    else:
        sign = -1 if activation == "tanh" else 1
        run.exceed(f"{activation}, {kind}: kurtosis of d beyond 3", sign * value, error, sign * 3.0)
    if kind == "DNN":
        run.agree(f"{activation}, DNN: the code of the step before", *found["correlation"][-1], 0.0)
    if kind == "RNN" and activation != "relu":
        run.exceed(f"{activation}, RNN: the code of the step before", *found["correlation"][-1], 0.0)


def sampled(run: Experiment, network: bn.Network, task: bn.Task, found: dict, activation: str) -> dict:
    """The kurtosis of d over the neurons of posterior draws at two widths, and its limit."""
    widths, means, errors = np.array([run.width // 4, run.width]), [], []
    for width in map(int, widths):
        run.say(f"{activation}, samples, N = {width}")
        there = network.replace(width=width)
        posterior = run.sample(there, task, coordinates="fields", sampler="hmc", num_samples=1000, num_latents=250)
        run.measure(posterior, bn.observables.default_observables(there, task), f"{activation}, N = {width}")
        sizes = posterior["latents"].sizes
        values = np.empty((sizes["chain"], sizes["latent_draw"]))
        for chain, draw in np.ndindex(values.shape):
            fields = bn.draw_fields(posterior, chain, draw)[0].T
            activity = np.asarray(network.phi.function(fields))
            values[chain, draw] = kurtosis(activity[:, 0] - activity[:, 1])
        row = bn.diagnostics.summarise_draws({"kurtosis": values}).iloc[0]
        means.append([row["mean"]])
        errors.append([row["mcse"]])
    limit, error = extrapolate(widths, np.array(means), np.array(errors))
    own = found["kurtosis"][-1]
    run.agree(f"{activation}, one layer: kurtosis of samples", limit[0, 0], error[0], own[0], own[1])
    return {"widths": widths, "kurtosis": means, "mcse": errors, "limit": (limit[0, 0], error[0])}


def scatter(axes, activity: np.ndarray, title: str, value: float) -> None:
    """Neurons in the plane of both classes, coloured by the class that they prefer."""
    shown = activity[:SHOWN]
    prefers = np.abs(shown[:, 0]) > np.abs(shown[:, 1]) if shown.min() >= 0 else shown[:, 0] > shown[:, 1]
    for which, colour in ((prefers, COLOURS["RNN"]), (~prefers, COLOURS["DNN"])):
        axes.plot(*shown[which].T, ".", ms=2.5, color=colour, alpha=0.5, rasterized=True)
    axes.set_title(f"{title}: kurtosis {value:.2f}", fontsize=9)
    axes.set_xlabel(r"$\phi(h)$, class A")


def over_time(axes, activity: np.ndarray, kind: str) -> None:
    """The mean d at each step of the neurons that prefer class A, or B, at the last step."""
    difference = activity[..., 0] - activity[..., 1]
    steps = np.arange(1, difference.shape[1] + 1)
    for sign, colour in ((1, COLOURS["RNN"]), (-1, COLOURS["DNN"])):
        chosen = difference[sign * difference[:, -1] > 0]
        label = kind if sign == 1 else None
        axes.plot(steps, chosen.mean(axis=0), "o-" if kind == "RNN" else "s--", ms=4, color=colour, label=label)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set(xlabel="step", xticks=steps)
    axes.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    raise SystemExit(main())

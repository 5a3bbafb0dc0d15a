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
with that at the step before. In a deep network every step has neurons of its own, and the correlation is zero. Taken
over all steps together, tanh neurons of a deep network fall into 2^T clusters, one for each choice of signs, and those
of a recurrent network into two.

Expected picture: activities of single neurons at the last step, class A against class B, coloured by the class that
they prefer; columns: activation; rows: one layer, deep network, recurrent network. Last row: mean activity difference,
at all steps, of the neurons that prefer either class at the last step: zero before the last step in the deep network
(dashed), of one sign in the recurrent one. For tanh, of each cluster over all steps together.

The verdict: in one layer the kurtosis of d is that of sampled posteriors, extrapolated from two widths, for all three
activations; in all three networks it is 3 for linear neurons, below 3 for tanh and above 3 for ReLU; the correlation of
d between the last two steps is zero in the deep networks and positive in the linear and the tanh recurrent network.
Over all steps together tanh neurons of the theory fall into eight clusters in the deep network and into two in the
recurrent one; so do those of sampled posteriors of the recurrent network, drawn as fields, and the share of neurons
that keep their code through all steps, extrapolated from two widths, is the theory's.

Source: van Meegen and Sompolinsky, "Coding schemes in neural networks learning classification tasks", Nature
Communications 2025 (arXiv 2406.16689).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from experiment import COLOURS, Experiment, extrapolate, panels

import bayesnet as bn
import theory
from theory.symmetry import mirror_signs, preferred_signs

ACTIVATIONS = ("linear", "tanh", "relu")
SIGNAL, DEEP_SIGNAL, NOISE, STEPS = 2.0, 3.0, 0.1, 3
NEURONS, BLOCKS, SHOWN = 200_000, 20, 1500
CODES = {"one layer": 2, "DNN": 2**STEPS, "RNN": 2}  # clusters of tanh neurons
FEW, LEAST = 1000, 0.03  # neurons that clusters are found from; share of them below which a mode is a stray neuron
WIDER = 1.3  # than the width by Scott's rule: with that, chance splits one cluster of nine
MOST_SHIFTS = 200  # of mean shift, which is slow where the density is flat
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
            groups = None
            if activation == "tanh":
                groups = clusters(activity, run.seed())
                found["clusters"] = vars(groups) | {"member": None}
                count = len(groups.share)
                run.require(count == CODES[kind], f"tanh, {kind}: {count} clusters, not {CODES[kind]}")
                if kind == "RNN":
                    found["samples"] = sampled_clusters(run, network, task, activity)
            if kind == "one layer" and not run.quick:
                found["samples"] = sampled(run, network, task, found, activation)
            scatter(grid[row, column], activity[:, -1], f"{activation}, {kind}", found["kurtosis"][-1][0])
            if steps > 1:
                over_time(grid[-1, column], activity, kind, groups)
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


@dataclass(frozen=True, eq=False)
class Clusters:
    """Modes of the density of the code d of neurons over all steps together.

    Attributes:
        centre: d at the modes, (clusters, steps), the largest cluster first.
        share: of the neurons, (clusters,).
        member: the cluster of each neuron, (neurons,).
    """

    centre: np.ndarray
    share: np.ndarray
    member: np.ndarray


def clusters(activity: np.ndarray, seed: int) -> Clusters:
    """Clusters of neurons, of activities (neurons, steps, classes), by their code d at all steps: where it is shifted.

    Each of a few neurons climbs the density of all of them, with a Gaussian kernel wider than by Scott's rule, to its
    mode; every other neuron belongs to the nearest mode.

    Source: Comaniciu and Meer 2002.
    """
    flat = activity[..., 0] - activity[..., 1]
    scale = flat.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    chosen = np.random.default_rng(seed).choice(len(flat), min(FEW, len(flat)), replace=False)
    points = flat[chosen] / scale
    width = WIDER * len(points) ** (-1 / (points.shape[1] + 4))
    places = points
    for _ in range(MOST_SHIFTS):
        distance = np.sum(places**2, axis=1)[:, None] + np.sum(points**2, axis=1) - 2 * places @ points.T
        weights = np.exp(-distance / (2 * width**2))
        before, places = places, weights @ points / weights.sum(axis=1, keepdims=True)
        if np.abs(places - before).max() < 1e-3 * width:
            break
    modes, counts = [], []
    for place in places:
        near = [k for k, mode in enumerate(modes) if np.linalg.norm(place - mode) < width]
        if near:
            counts[near[0]] += 1
        else:
            modes.append(place)
            counts.append(1)
    kept = [k for k in np.argsort(counts)[::-1] if counts[k] >= LEAST * len(points)]
    centres = np.array([modes[k] for k in kept])
    member = np.argmin(np.stack([np.sum((flat / scale - centre) ** 2, axis=1) for centre in centres]), axis=0)
    share = np.bincount(member, minlength=len(centres)) / len(member)
    return Clusters(centres * scale, share, member)


def kept_codes(difference: np.ndarray) -> np.ndarray:
    """The share of neurons whose d, (..., neurons, steps), has one sign at all steps."""
    return np.mean(np.abs(np.sum(np.sign(difference), axis=-1)) == difference.shape[-1], axis=-1)


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


def sampled_clusters(run: Experiment, network: bn.Network, task: bn.Task, theirs: np.ndarray) -> dict:
    """Clusters of the neurons of posterior draws, and the share that keep their code, at two widths and in the limit.

    Each draw is taken in the mirror image whose neighbouring steps correlate positively; ``theirs`` are the activities
    of neurons of the theory.
    """
    widths, means, errors, counts = np.array([run.width // 2, run.width]), [], [], []
    for width in map(int, widths):
        run.say(f"tanh, RNN, samples, N = {width}")
        there, signs = network.replace(width=width), mirror_signs(network, task)
        sampling = {"coordinates": "fields", "sampler": "hmc", "num_samples": 1500, "num_latents": 250}
        observables = bn.observables.default_observables(there, task)
        posterior, _ = run.converge(there, task, observables, f"tanh, RNN, N = {width}", **sampling)
        sizes = posterior["latents"].sizes
        values, drawn = np.empty((sizes["chain"], sizes["latent_draw"])), []
        for chain, draw in np.ndindex(values.shape):
            activity = np.asarray(network.phi.function(bn.draw_fields(posterior, chain, draw)))  # (steps, classes, N)
            turn = preferred_signs(np.einsum("tmi,sni->tmsn", activity, activity) / width, signs)
            drawn.append((activity * turn[:, None, None]).transpose(2, 0, 1))
            values[chain, draw] = kept_codes(drawn[-1][..., 0] - drawn[-1][..., 1])
        groups = clusters(np.concatenate(drawn), run.seed())
        counts.append(len(groups.share))
        row = bn.diagnostics.summarise_draws({"kept": values}).iloc[0]
        means.append([row["mean"]])
        errors.append([row["mcse"]])
    run.require(counts[-1] == CODES["RNN"], f"tanh, RNN: the draws have {counts[-1]} clusters, not {CODES['RNN']}")
    limit, error = extrapolate(widths, np.array(means), np.array(errors))
    blocks = [kept_codes(block) for block in np.split(theirs[..., 0] - theirs[..., 1], BLOCKS)]
    own = float(np.mean(blocks)), float(np.std(blocks, ddof=1) / np.sqrt(BLOCKS))
    run.agree("tanh, RNN: share of neurons that keep their code", limit[0, 0], error[0], own[0], own[1])
    return {"widths": widths, "clusters": counts, "kept": means, "mcse": errors, "theory": own}


def scatter(axes, activity: np.ndarray, title: str, value: float) -> None:
    """Neurons in the plane of both classes, coloured by the class that they prefer."""
    shown = activity[:SHOWN]
    prefers = np.abs(shown[:, 0]) > np.abs(shown[:, 1]) if shown.min() >= 0 else shown[:, 0] > shown[:, 1]
    for which, colour in ((prefers, COLOURS["RNN"]), (~prefers, COLOURS["DNN"])):
        axes.plot(*shown[which].T, ".", ms=2.5, color=colour, alpha=0.5, rasterized=True)
    axes.set_title(f"{title}: kurtosis {value:.2f}", fontsize=9)
    axes.set_xlabel(r"$\phi(h)$, class A")


def over_time(axes, activity: np.ndarray, kind: str, groups: Clusters | None) -> None:
    """The mean d at each step of every cluster; without clusters, of the neurons that prefer A, or B, at the end."""
    difference = activity[..., 0] - activity[..., 1]
    steps = np.arange(1, difference.shape[1] + 1)
    number = 2 if groups is None else len(groups.share)
    chosen = [difference[:, -1] > 0, difference[:, -1] < 0]
    if groups is not None:
        chosen = [groups.member == k for k in range(number)]
    label = kind if groups is None else f"{kind}, {number} clusters"
    for each in chosen:
        mean = difference[each].mean(axis=0)
        colour = COLOURS["RNN"] if mean[-1] > 0 else COLOURS["DNN"]
        axes.plot(steps, mean, "o-" if kind == "RNN" else "s--", ms=4, color=colour, label=label)
        label = None
    axes.axhline(0, color="0.7", lw=0.8)
    top = 1.5 * max(np.abs(line.get_ydata()).max() for line in axes.lines)  # room for the legend
    axes.set(xlabel="step", xticks=steps, ylim=(None, top))
    axes.legend(fontsize=8, frameon=False, loc="upper left")


if __name__ == "__main__":
    raise SystemExit(main())

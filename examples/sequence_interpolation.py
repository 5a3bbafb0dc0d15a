"""The RNN fills in the steps nobody supervised; a network that does not share its weights cannot.

Claim. A point on a circle is kicked off at step 1 and turns by 45 degrees a step; the target is its abscissa, told at
some of the steps only. The recurrent network learns the rotation and predicts the steps in between,

    f_* = gv^2 Phi_{*,sup} (kappa I + gv^2 Phi_sup)^{-1} y,

because kernels between steps are nonzero. Without a shared readout V the prediction is zero there by construction. With
V shared but W not, it is zero too, for another reason: h_t -> -h_t at an untold step, undone by the W on either side,
leaves everything else as it is, so no kernel connects that step with another. Neither can learn from more told steps,
then: of one sequence, partial sharing is worth as much as none. Several sequences are another matter, since at one step
patterns overlap and can learn from each other without any sharing. Of the eight ways of sharing W, U and V these four
are all there is to compare: input comes at step 1 only, where there is one U, shared or not. The rule becomes visible
in the weights: with a prior bulk of radius gw < 1, a pair of eigenvalues of W leaves it for the teacher's exp(+-2 pi i
/ 8). And when only every second step is told, the sign symmetry W -> -W leaves the signs of the others open: their size
is known, their common sign is not.

Expected picture: (a) linear networks, predictions at all steps, told steps filled; (b) every second step told: the
predictions of the four chains, equal up to the sign; (c) the same as (a) for tanh; sample efficiency of all four: error
(d) at untold steps of one sequence against the number of told ones, (e) at untold entries against the number of
sequences, half of the entries told, different ones in each; theory, and at some places the posterior; (f) eigenvalues
of W drawn from the posterior, theory as squares, the teacher's as crosses.

The verdict: predictions at untold steps, extrapolated from two widths, are the theory's for all networks, linear and
tanh (in (b): their squares); of one sequence the RNN's relative error there is below 1 and falls as more steps are
told, while the others' predictions are zero; of two sequences its error is below each of the others'; the outlying
eigenvalues sit where the theory says.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from experiment import BARS, COLOURS, MORE_COLOURS, Experiment, Ladder, expected, extrapolate, panels, points
from matplotlib.ticker import MaxNLocator

import bayesnet as bn
import theory

PERIOD = 8
NOISE = 0.01
TOLD = (0, 1, 3, 4, 6, 9, 11)
ORDER = (0, 3, 7, 10, 1, 5, 8, 11, 4, 6, 9, 2)  # in which steps are told, both parities from the second on
NETWORKS = {
    "RNN": {"shared": bn.Network.rnn(1).shared},
    "W unshared": {"shared": {"input", "readout"}},
    "V unshared": {"shared": {"recurrent", "input"}},
    "DNN": {"shared": ()},
}
TOLD_COUNTS = (2, 3, 4, 5, 6, 8, 10)
SEQUENCE_COUNTS = (1, 2, 3)
SAMPLED_TOLD, SAMPLED_SEQUENCES = (3, 6, 10), (2,)  # where the posterior is sampled in (d) and (e)
MASKS = 2  # choices of told entries in (e); sampled is the first of them
SHIFT_OF = dict(zip(NETWORKS, (0.0, -0.015, 0.0, 0.015), strict=True))  # of points that would cover each other
STYLE_OF = dict(zip(NETWORKS, ("-", "-", "--", ":"), strict=True))
COLOUR_OF = dict(zip(NETWORKS, (COLOURS["RNN"], MORE_COLOURS[0], MORE_COLOURS[1], COLOURS["DNN"]), strict=True))
MARKER_OF = dict(zip(NETWORKS, "oDs^", strict=True))


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=100_000, width_help="width of the linear networks; tanh: 1/200 of it"
    )
    figure, grid = panels(2, 3, 10.5, 6.6)
    (a, b, c), (d, e, f) = grid
    results = {
        "linear": fill_in(run, a, "linear", {}, widths_of(run)),
        "every second step": every_second(run, b),
    }
    if not run.quick:
        tanh = {"activation": "tanh", "recurrent_gain": 1.2}
        results["tanh"] = fill_in(run, c, "tanh", tanh, [run.width // 800, run.width // 200])
    results["number of told steps"] = told_steps(run, d)
    results["number of sequences"] = sequences(run, e)
    results["eigenvalues"] = eigenvalues(run, f)
    run.save(figure)
    return run.finish("the RNN, and only the RNN, predicts the steps it was never told, as the theory says", results)


def network_of(name: str, width: int, **settings) -> bn.Network:
    """One of `NETWORKS`."""
    return bn.Network(width, noise=NOISE, **NETWORKS[name], **settings)


def steps_of(run: Experiment) -> tuple[int, tuple[int, ...]]:
    """Number of steps and the told ones, counted from 0."""
    return (3, (1, 2)) if run.quick else (12, TOLD)


def widths_of(run: Experiment, name: str = "RNN") -> list[int]:
    """Those of the linear networks.

    With V unshared two phases are stable at six told steps, coherent and not: chains of 100 000 neurons stay where they
    are, and the gates say so. What it predicts, zero, is the same in both; narrow networks pass from one to the other.
    """
    width = run.width // 16 if name == "V unshared" else run.width
    return [run.width] if run.quick else [width // 4, width]


@dataclass(frozen=True)
class Comparison:
    """Posterior, extrapolated to infinite width, and theory of one network on a task; arrays (P, T).

    Attributes:
        mean, error: posterior mean of the predictions, and its standard error.
        exact: the theory's predictions.
        relative, relative_error: `relative_error` of the posterior mean, and its standard error.
        ladder: the posterior at each width.
    """

    mean: np.ndarray
    error: np.ndarray
    exact: np.ndarray
    relative: float
    relative_error: float
    ladder: Ladder


def relative_error(prediction: np.ndarray, task: bn.Task, error: np.ndarray | float = 0.0) -> tuple[float, float]:
    """|f - y| / |y| over the entries that were not told, and its standard error; prediction, error (P, T)."""
    untold = ~task.supervised
    gap, size = (prediction - task.targets[..., 0])[untold], np.linalg.norm(task.targets[..., 0][untold])
    spread = np.linalg.norm(gap * np.broadcast_to(error, untold.shape)[untold]) / np.linalg.norm(gap)
    return float(np.linalg.norm(gap) / size), float(spread / size)


def compare(
    run: Experiment, name: str, task: bn.Task, widths: list[int], label: str, settings: dict | None = None, **sampling
) -> Comparison:
    """Sample one of `NETWORKS` and solve the theory; the claim that they agree at untold entries."""
    network = network_of(name, widths[-1], **(settings or {}))
    entries = np.ndindex(task.patterns, task.steps)
    observables = [bn.observables.prediction_at(pattern, step, 0) for pattern, step in entries]
    ladder = run.climb(network, task, observables, widths, label, **sampling)
    shape, untold = task.supervised.shape, ~task.supervised
    mean, error = (column.reshape(shape) for column in ladder.limit())
    solution = theory.solve(network, task, **({"starts": 1} if network.activation == "linear" else {}))
    run.require(solution.converged, f"{label}: {solution.message}")
    exact = expected(solution, observables).reshape(shape)
    own = bn.comparison.theory_error(solution, observables).reshape(shape)
    numbers = mean[untold], error[untold], exact[untold], own[untold]
    run.agree(f"{label}, untold entry", *numbers, solution.randomisations)
    return Comparison(mean, error, exact, *relative_error(mean, task, error), ladder)


def judge_alone(run: Experiment, name: str, found: Comparison, task: bn.Task, label: str) -> None:
    """Claims of one sequence: the RNN predicts untold steps; the others' theory, which they agree with, is zero."""
    if name == "RNN":
        run.exceed(f"{label}: 1 - relative error at untold steps", 1 - found.relative, found.relative_error, 0.0)
    else:
        zero = np.allclose(found.exact[~task.supervised], 0, atol=1e-9)
        run.require(zero, f"{label}: the theory predicts something at untold steps")


def fill_in(run: Experiment, axes, kind: str, settings: dict, widths: list[int]) -> dict:
    """Panels (a) and (c): predictions at all steps, each network, beside the theory."""
    steps, told = steps_of(run)
    task = bn.tasks.rotation(steps, PERIOD, supervised=told)
    sampling = {"num_samples": 1000} if kind == "linear" else {"sampler": "hmc", "num_samples": 1500}
    names = ["RNN", "W unshared", "DNN"] if kind == "linear" else ["RNN"]
    record = {}
    for name in names:
        found = compare(run, name, task, widths, f"{kind} {name}", settings, **sampling)
        judge_alone(run, name, found, task, f"{kind} {name}")
        colour, t = COLOUR_OF[name], np.arange(1, steps + 1)
        axes.plot(t, found.exact[0], "-", color=colour, lw=1.2)
        label = f"{name}: error {found.relative:.3f}"
        points(axes, t, found.mean[0], found.error[0], color=colour, fmt=MARKER_OF[name], label=label)
        record[name] = vars(found)
    show_targets(axes, task)
    axes.set_title(f"({'a' if kind == 'linear' else 'c'}) {kind}\n{BARS}", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return record


def show_targets(axes, task: bn.Task) -> None:
    """Targets: filled where told, hollow where kept back."""
    t, told = np.arange(1, task.steps + 1), task.supervised[0]
    axes.plot(t[told], task.targets[0, told, 0], "ko", ms=9, mfc="none", mew=1.5, zorder=1)
    axes.plot(t[~told], task.targets[0, ~told, 0], "o", ms=9, mfc="none", mec="0.6", mew=1.2, zorder=1)
    axes.set(xlabel="step $t$", ylabel="prediction $f_t$", ylim=(-1.25, 1.9))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def every_second(run: Experiment, axes) -> dict:
    """Panel (b): only odd steps (counted from 1) told."""
    steps, _ = steps_of(run)
    task = bn.tasks.rotation(steps, PERIOD, supervised=range(0, steps, 2))
    network = network_of("RNN", run.width)
    untold = np.flatnonzero(~task.supervised[0])
    observables = [bn.observables.prediction_at(0, int(t), 0, squared=True) for t in untold]
    last = []
    ladder = run.climb(
        network, task, observables, widths_of(run), "every second step", keep=last.append, num_samples=1000
    )
    mean, error = ladder.limit()
    exact = expected(theory.solve(network, task), observables)
    run.agree("every second step told: squared prediction, untold step", mean, error, exact)
    chains = last[-1]["posterior"]["prediction"].mean("draw").to_numpy()[:, 0, :, 0]
    for chain, values in enumerate(chains):
        shift = 0.09 * (chain - 1.5)
        axes.plot(
            np.arange(1, steps + 1) + shift,
            values,
            ".-",
            ms=6,
            lw=0.8,
            color=MORE_COLOURS[chain],
            label=f"chain {chain + 1}",
        )
    show_targets(axes, task)
    axes.set_title("(b) every second step told\nRNN, mean of each chain", fontsize=9)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper right")
    return {"squared_prediction": mean, "mcse": error, "theory": exact, "mean_by_chain": chains}


def told_steps(run: Experiment, axes) -> dict:
    """Panel (d): error at untold steps against how many are told."""
    steps, _ = steps_of(run)
    order = [t for t in ORDER if t < steps]
    # Of three steps the last target is zero, and no error relative to it: one more is left untold.
    counts, sampled = ((1,), ()) if run.quick else (TOLD_COUNTS, SAMPLED_TOLD)
    tasks = {count: bn.tasks.rotation(steps, PERIOD, supervised=order[:count]) for count in counts}
    record = {}
    for name in NETWORKS:
        found = {}
        for count in sampled:
            label = f"{count} told steps, {name}"
            found[count] = compare(run, name, tasks[count], widths_of(run, name), label, num_samples=500)
            judge_alone(run, name, found[count], tasks[count], label)
        if name == "RNN":
            for fewer, more in itertools.pairwise(sampled):
                gain = found[fewer].relative - found[more].relative
                error = np.hypot(found[fewer].relative_error, found[more].relative_error)
                run.exceed(f"RNN: error at {fewer} told steps above that at {more}", gain, error, 0.0)
        run.say(f"told steps, {name}, theory")
        exact = np.array([[theory_error(run, name, task)] for task in tasks.values()])
        record[name] = draw_efficiency(axes, name, counts, exact, found)
    axes.set(xlabel=f"told steps, of {steps}", ylabel="relative error at untold steps", ylim=(0, None), xticks=counts)
    axes.set_title("(d) one sequence; lines: theory, points: posterior", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return record


def sequences(run: Experiment, axes) -> dict:
    """Panel (e): error at untold entries against the number of sequences, half of the entries told at random."""
    steps = 3 if run.quick else 8
    counts, masks = ((1,), 1) if run.quick else (SEQUENCE_COUNTS, MASKS)
    sampled = () if run.quick else SAMPLED_SEQUENCES
    rng = np.random.default_rng(0)  # the same tasks whatever the seed of the run
    tasks = {}
    for count in counts:
        for _ in range(masks):
            told = rng.permuted(np.tile(np.arange(steps) < steps // 2, (count, 1)), axis=1)
            tasks.setdefault(count, []).append(bn.tasks.rotation(steps, PERIOD, patterns=count, supervised=told))
    record, posterior = {}, {}
    for name in NETWORKS:
        found = {}
        for count in sampled:
            label = f"{count} sequences, {name}"
            # Near a second phase trajectories are long.
            sampling = {"num_samples": 500, "max_tree_depth": 12}
            found[count] = compare(run, name, tasks[count][0], widths_of(run, name), label, **sampling)
        run.say(f"sequences, {name}, theory")
        exact = np.array([[theory_error(run, name, task) for task in tasks[count]] for count in counts])
        record[name] = draw_efficiency(axes, name, counts, exact, found)
        posterior[name] = found
    for name in list(NETWORKS)[1:]:
        for count in sampled:
            ours, theirs = posterior["RNN"][count], posterior[name][count]
            error = np.hypot(ours.relative_error, theirs.relative_error)
            label = f"{count} sequences: error of {name} above the RNN's"
            run.exceed(label, theirs.relative - ours.relative, error, 0.0)
    axes.set(xlabel="sequences (phases)", ylabel="relative error at untold entries", ylim=(0, None), xticks=counts)
    axes.set_title(f"(e) T = {steps}, half told; dots: theory, {masks} choice{'s' * (masks > 1)}", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return record


def draw_efficiency(axes, name: str, counts: tuple, exact: np.ndarray, found: dict[int, Comparison]) -> dict:
    """Errors of one network: theory (counts, choices) as dots, their mean a line; posterior where found; a record."""
    shift = SHIFT_OF[name] * (counts[-1] - counts[0])
    x, colour = np.array(counts) + shift, COLOUR_OF[name]
    axes.plot(x, exact.mean(axis=1), STYLE_OF[name], lw=1.2, color=colour)
    axes.plot(x, exact, ".", ms=4, color=colour)
    values, errors = [one.relative for one in found.values()], [one.relative_error for one in found.values()]
    points(axes, np.array(list(found)) + shift, values, errors, color=colour, fmt=MARKER_OF[name], label=name)
    return {"counts": counts, "theory": exact, "sampled": list(found), "relative": values, "mcse": errors}


def theory_error(run: Experiment, name: str, task: bn.Task) -> float:
    """The theory's `relative_error`."""
    return relative_error(theory.solve(network_of(name, run.width), task, starts=1).prediction[..., 0], task)[0]


def eigenvalues(run: Experiment, axes) -> dict:
    """Panel (f): the teacher's rotation in the spectrum of W, whose prior bulk has radius .6."""
    steps, told = steps_of(run)
    task, gain = bn.tasks.rotation(steps, PERIOD, supervised=told), 0.6
    spectrum = theory.spectrum(theory.solve(network_of("RNN", 64, recurrent_gain=gain), task))
    predicted = spectrum.outliers[0]
    widths = [64] if run.quick else [128, 384]
    means, errors = [], []
    for width in widths:
        run.say(f"eigenvalues, N = {width}")
        network = network_of("RNN", width, recurrent_gain=gain)
        posterior = run.sample(network, task, num_samples=1000, num_latents=10)
        run.measure(
            posterior, [bn.observables.prediction_at(0, t, 0) for t in range(steps)], f"eigenvalues, N = {width}"
        )
        sizes = posterior["latents"].sizes
        spectra = [
            np.linalg.eigvals(np.asarray(bn.draw_weights(posterior, *index).recurrent[0]))
            for index in np.ndindex(sizes["chain"], sizes["latent_draw"])
        ]
        upper = np.array([values[np.argmax(np.abs(values) * (values.imag > 0))] for values in spectra])
        parts = np.stack([upper.real, upper.imag], axis=1)
        means.append(parts.mean(axis=0))
        errors.append(parts.std(axis=0, ddof=1) / np.sqrt(len(parts)))
    leading = predicted[np.argmax(np.abs(predicted) * (predicted.imag > 0))] if len(predicted) else np.nan
    if len(widths) > 1:
        coefficients, error = extrapolate(np.array(widths), np.array(means), np.array(errors))
        run.agree("leading eigenvalue of W, part", coefficients[0], error, [leading.real, leading.imag])
    bn.plots.spectrum(spectra[0], ax=axes, color=COLOURS["RNN"], label="posterior, one draw")
    bn.plots.spectrum(spectrum, ax=axes)
    teacher = np.exp(2j * np.pi / PERIOD * np.array([1, -1]))
    axes.plot(teacher.real, teacher.imag, "x", ms=8, color=COLOURS["DNN"], label="teacher's eigenvalues")
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.05, 1.9), aspect="equal", adjustable="box")
    axes.set_title(f"(f) eigenvalues of W, N = {widths[-1]}, $g_w$ = {gain}", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    parts = {"theory": [predicted.real, predicted.imag], "mean": means, "mcse": errors, "widths": widths}
    return parts | {"teacher": [teacher.real, teacher.imag]}


if __name__ == "__main__":
    raise SystemExit(main())

"""Above the critical signal the RNN's kernel fills up between time steps; the DNN's stays block diagonal.

Claim. The representational kernel Phi_{t mu, s nu} = h_t^mu . h_s^nu / N of an RNN and of a DNN on the same task is the
same below the critical signal: patterns talk to each other at equal times (blocks on the diagonal), different steps do
not. Above it the RNN's steps become coherent, also at offsets two and three, because one W serves them all; the DNN's
never do. The theory predicts every entry, and not only in the case where it can be solved by hand (one pattern, or
orthogonal ones, linear): also for patterns that are not orthogonal, and for a tanh network eight steps deep.

Expected picture: heat maps of the modulus of the overlap Phi_ij / sqrt(Phi_ii Phi_jj) over (step, pattern). Below each
diagonal the theory, above it the posterior (root mean square): the maps look symmetric where the two agree. Columns:
RNN and DNN below the transition, then above it (tanh: above only). Blocks off the diagonal are dark in all columns but
the third.

The verdict: for each task, network and signal, every entry of the overlap matrix, extrapolated from two widths, is the
theory's (squared where the sign symmetry W -> -W makes mirror modes); above, the RNN's squared overlap of the last two
steps along the targets exceeds the DNN's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from experiment import Experiment, expected, panels

import bayesnet as bn
import theory
from bayesnet.plots.maps import draw_map

Observable = bn.observables.Observable
MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
SIGNALS = {"below": 0.6, "above": 1.5}  # times the critical one


@dataclass(frozen=True)
class Case:
    """A row of the figure: a task at signal 1, the networks, and how to sample them."""

    title: str
    task: bn.Task
    network: dict
    widths: tuple[int, int]
    sampling: dict
    signals: tuple[str, ...] = ("below", "above")


def cases(width: int, quick: bool) -> list[Case]:
    """The rows of the figure; --quick keeps a chain of three steps."""
    wide = (width // 4, width)
    if quick:
        return [Case("linear, T = 3", bn.tasks.endpoint(3, 1.0, patterns=1), {}, (width,), {})]
    tanh = {"activation": "tanh", "recurrent_gain": 2**0.5}
    neurons = (max(32, width // 1000), max(64, width // 250))
    return [
        Case("linear, T = 4, orthogonal", bn.tasks.endpoint(4, 1.0, patterns=3), {}, wide, {"num_samples": 1000}),
        Case("linear, T = 4, overlapping", overlapping(4, 3, 0.5), {}, wide, {"num_samples": 1000}),
        Case("tanh, T = 8", bn.tasks.chain(8, 1.0), tanh, neurons, {"sampler": "hmc", "num_samples": 1500}, ("above",)),
    ]


def overlapping(steps: int, patterns: int, overlap: float) -> bn.Task:
    """An endpoint task whose inputs have x_mu . x_nu / D = overlap^|mu - nu|."""
    distance = np.abs(np.subtract.outer(np.arange(patterns), np.arange(patterns)))
    inputs = np.sqrt(patterns) * np.linalg.cholesky(overlap**distance)
    return bn.tasks.endpoint(steps, 1.0, inputs=inputs, patterns=patterns)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=100_000, width_help="width of the linear networks; tanh: 1/250 of it"
    )
    rows = cases(run.width, run.quick)
    columns = list(itertools.product(SIGNALS, MAKERS))
    figure, grid = panels(len(rows), len(columns), 9.6, 0.5 + 2.45 * len(rows))
    results = {}
    for row, case in enumerate(rows):
        rnn = bn.Network.rnn(case.widths[-1], **case.network)
        critical = theory.critical_signal(rnn, case.task)
        found = {}
        for column, (where, name) in enumerate(columns):
            if where not in case.signals:
                grid[row, column].set_axis_off()
                continue
            task = case.task.scaled(SIGNALS[where] * critical.instability)
            network = MAKERS[name](case.widths[-1], **case.network)
            label = f"{case.title}, {name} {where}"
            solution, mean, error = compare(run, network, task, case, label)
            image = heat_map(grid[row, column], solution, mean, task)
            grid[row, column].set_title(f"{case.title}\n{name}, {SIGNALS[where]} of the critical signal", fontsize=8.5)
            found[f"{name} {where}"] = {"overlap": mean, "error": error, "theory": overlaps_of(solution, task)}
        last = coherence_entry(case.task)
        rnn_last, dnn_last = (found[f"{name} above"] for name in MAKERS)
        gap = rnn_last["overlap"][last] - dnn_last["overlap"][last]
        error = np.hypot(rnn_last["error"][last], dnn_last["error"][last])
        run.exceed(f"{case.title}: RNN more coherent than DNN above", gap, error, 0.0)
        results[case.title] = {"critical_signal": critical.instability, "entries": entry_names(case.task), **found}
    figure.colorbar(image, ax=grid, shrink=0.5, label="|overlap|")
    figure.suptitle("lower triangles: theory; upper: posterior", fontsize=9)
    run.save(figure)
    return run.finish("every entry of the kernels is the theory's, and only the RNN above is coherent", results)


def compare(run: Experiment, network: bn.Network, task: bn.Task, case: Case, label: str):
    """The solution, and the posterior's overlaps and errors at infinite width, one for each pair of entries."""
    solution = theory.solve(network, task)
    run.require(solution.converged, f"{label}: {solution.message}")
    wanted = pair_overlaps(task)
    ladder = run.climb(network, task, wanted, case.widths, label, **case.sampling)
    mean, error = ladder.limit()
    own = bn.comparison.theory_error(solution, wanted)
    run.agree(f"{label}, pair", mean, error, expected(solution, wanted), own, solution.randomisations)
    return solution, mean, error


def pairs(task: bn.Task) -> list[tuple[int, int]]:
    """Pairs of flat entries (step-major) above the diagonal."""
    return list(itertools.combinations(range(task.entries), 2))


def entry_names(task: bn.Task) -> list[str]:
    """Names of the pairs, steps and patterns counted from 1."""
    names = [f"t={i // task.patterns + 1} mu={i % task.patterns + 1}" for i in range(task.entries)]
    return [f"{names[i]}, {names[j]}" for i, j in pairs(task)]


def is_odd(task: bn.Task, i: int, j: int) -> bool:
    """Whether the sign symmetry flips this entry of the kernel."""
    return (j // task.patterns - i // task.patterns) % 2 == 1


def pair_overlaps(task: bn.Task) -> list[Observable]:
    """Overlap of each pair, squared at odd offsets, which differ in sign between the RNN's mirror modes."""

    def evaluate(i: int, j: int):
        one, other = divmod(i, task.patterns), divmod(j, task.patterns)

        def value(kernel, prediction):
            norms = kernel[..., *one, *one] * kernel[..., *other, *other]
            overlap = kernel[..., *one, *other] / np.sqrt(norms)
            return overlap**2 if is_odd(task, i, j) else overlap

        return value

    return [Observable(name, evaluate(*pair)) for name, pair in zip(entry_names(task), pairs(task), strict=True)]


def overlaps_of(solution: theory.Solution, task: bn.Task) -> np.ndarray:
    """The theory's values of `pair_overlaps`."""
    return expected(solution, pair_overlaps(task))


def coherence_entry(task: bn.Task) -> int:
    """The pair that stands for coherence: the first pattern at the last two steps."""
    last = task.entries - task.patterns
    return pairs(task).index((last - task.patterns, last))


def heat_map(axes, solution: theory.Solution, mean: np.ndarray, task: bn.Task):
    """|overlap|: theory below the diagonal, posterior (root mean square at odd offsets) above it."""
    n = task.entries
    image = np.eye(n)
    theirs = overlaps_of(solution, task)
    for (i, j), ours, predicted in zip(pairs(task), mean, theirs, strict=True):
        root = np.sqrt if is_odd(task, i, j) else np.abs
        image[i, j], image[j, i] = root(max(ours, 0) if is_odd(task, i, j) else ours), root(predicted)
    axes.plot([-0.5, n - 0.5], [-0.5, n - 0.5], "w-", lw=0.8)
    axes.spines[["top", "right"]].set_visible(True)
    return draw_map(axes, image.reshape(task.steps, task.patterns, task.steps, task.patterns), task.steps, most=1.0)


if __name__ == "__main__":
    raise SystemExit(main())

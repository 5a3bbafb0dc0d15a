"""Which of the shared weights makes the difference? All eight networks between DNN and RNN, on two tasks.

Claim. Recurrent, input and readout weights (W, U, V) can each be shared over the steps or not. Asked for one answer at
the end (a chain of four steps above its critical signal), only W matters: with W shared the steps become coherent and
the free energy F = -ln p(y) / N falls; U and V enter at one step each, so sharing them changes nothing. Asked for
answers along the way (a rotation, some steps untold), prediction at untold steps needs W and V shared together: W
connects the hidden states of different steps, V reads them out alike. The free energy of theory and the posterior's
kernels and predictions show the same ranking.

Expected picture: a row for each network, naming the weights that it shares. Bars: theory; points: posterior. Chain: two
values of F and of the coherence, decided by W. Rotation: sharing V alone lowers F, one readout being learned from all
steps; sharing W lowers it further, but only together with V, and only then is the error at untold steps below 1.

The verdict: kernels (squared overlaps between neighbouring steps) and predictions of all sixteen posteriors,
extrapolated from two widths, are the theory's; on the chain the coherence is nonzero exactly where W is shared; on the
rotation the prediction at untold steps is nonzero exactly where W and V are.
"""

from __future__ import annotations

import itertools

import numpy as np
from experiment import COLOURS, Experiment, expected, panels
from matplotlib.ticker import MaxNLocator

import bayesnet as bn
import theory

WEIGHTS = {"W": "recurrent", "U": "input", "V": "readout"}
COMBINATIONS = list(itertools.product((True, False), repeat=3))


def tasks(quick: bool) -> dict[str, bn.Task]:
    """An endpoint task and a sequence task."""
    if quick:
        return {"chain": bn.tasks.chain(3, 4.0), "rotation": bn.tasks.rotation(3, 8, supervised=[1, 2])}
    return {"chain": bn.tasks.chain(4, 2.4), "rotation": bn.tasks.rotation(6, 8, supervised=[0, 1, 3, 4])}


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=100_000, width_help="the wider of two widths; the other is a quarter"
    )
    widths = [run.width] if run.quick else [run.width // 4, run.width]
    combinations = COMBINATIONS[::7] if run.quick else COMBINATIONS
    results = {}
    for (task_name, task), shared in itertools.product(tasks(run.quick).items(), combinations):
        names = {name for name, chosen in zip(WEIGHTS.values(), shared, strict=True) if chosen}
        noise = 0.1 if task_name == "chain" else 0.01
        network = bn.Network(run.width, shared=names, noise=noise)
        results[task_name, shared] = measure(run, network, task, widths, f"{task_name}, shared {label_of(shared)}")
    judge(run, results)
    run.save(draw(results, combinations))
    record = {f"{name}, shared: {label_of(shared)}": found for (name, shared), found in results.items()}
    return run.finish("W decides on the chain; W and V together on the rotation", record)


def label_of(shared: tuple[bool, ...]) -> str:
    """ "W V", or "none"."""
    return " ".join(name for name, chosen in zip(WEIGHTS, shared, strict=True) if chosen) or "none"


def measure(run: Experiment, network: bn.Network, task: bn.Task, widths: list[int], label: str) -> dict:
    """Theory and posterior of one network on one task; the claims that they agree."""
    neighbours = [bn.observables.overlap(t, t + 1, 0, squared=True) for t in range(task.steps - 1)]
    shown = np.flatnonzero(~task.supervised[0] & np.isfinite(task.targets[0, :, 0]))
    asked = shown if len(shown) else [task.steps - 1]
    observables = [*neighbours, *(bn.observables.prediction_at(0, int(t), 0) for t in asked)]
    solution = theory.solve(network, task)
    run.require(solution.converged, f"{label}: {solution.message}")
    mean, error = run.climb(network, task, observables, widths, label, num_samples=1000).limit()
    exact = expected(solution, observables)
    own = bn.comparison.theory_error(solution, observables)
    run.agree(f"{label}, observable", mean, error, exact, own, solution.randomisations)
    cut = len(neighbours)
    return {
        "free_energy": solution.free_energy,
        "coherence": {"theory": exact[cut - 1], "mean": mean[cut - 1], "error": error[cut - 1]},
        "error": relative_error(mean[cut:], error[cut:], exact[cut:], task.targets[0, asked, 0]),
        "labels": [o.label for o in observables],
        "mean": mean,
        "mcse": error,
        "theory": exact,
    }


def relative_error(mean: np.ndarray, error: np.ndarray, exact: np.ndarray, targets: np.ndarray) -> dict:
    """|f - y| / |y| of theory and posterior mean, with the latter's standard error to first order."""
    size = np.linalg.norm(targets)
    gap = mean - targets
    return {
        "theory": np.linalg.norm(exact - targets) / size,
        "mean": np.linalg.norm(gap) / size,
        "error": np.linalg.norm(gap * error) / np.linalg.norm(gap) / size,
    }


def judge(run: Experiment, results: dict) -> None:
    """Coherence where W is shared, prediction where W and V are; nothing elsewhere."""
    for (task, (w, u, v)), found in results.items():
        label = f"{task}, shared {label_of((w, u, v))}"
        if task == "chain":
            coherence = found["coherence"]
            (run.exceed if w else run.agree)(f"{label}: coherence", coherence["mean"], coherence["error"], 0.0)
        elif w and v:
            run.exceed(f"{label}: 1 - error at untold steps", 1 - found["error"]["mean"], found["error"]["error"], 0.0)
        else:
            untold = [i for i, name in enumerate(found["labels"]) if name.startswith("prediction")]
            run.agree(f"{label}: no prediction, untold step", found["mean"][untold], found["mcse"][untold], 0.0)


def draw(results: dict, combinations: list):
    """The figure of the module's docstring."""
    columns = [
        ("chain", "free_energy", "free energy F"),
        ("chain", "coherence", r"overlap$^2$, last two steps"),
        ("rotation", "free_energy", "free energy F"),
        ("rotation", "coherence", r"overlap$^2$, last two steps"),
        ("rotation", "error", "error at untold steps"),
    ]
    figure, grid = panels(1, len(columns), 10.5, 3.6, sharey=True)
    rows = np.arange(len(combinations))
    for axes, (task, what, label) in zip(grid[0], columns, strict=True):
        found = [results[task, shared][what] for shared in combinations]
        values = [item if isinstance(item, float) else item["theory"] for item in found]
        axes.barh(rows, values, height=0.6, color="0.82", label="theory")
        if what != "free_energy":
            mean, error = ([item[key] for item in found] for key in ("mean", "error"))
            axes.errorbar(
                mean,
                rows,
                xerr=2 * np.array(error),
                fmt="o",
                ms=4.5,
                capsize=2,
                color=COLOURS["RNN"],
                label="posterior",
            )
        axes.set_title(task, fontsize=10)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        # Whole numbers at the ticks: a common power of ten would stand on the label.
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter("{x:.2g}")
    names = [
        "  ".join(name if chosen else "·" for name, chosen in zip(WEIGHTS, shared, strict=True))
        for shared in combinations
    ]
    names[0], names[-1] = f"RNN   {names[0]}", f"DNN   {names[-1]}"
    grid[0, 0].set_yticks(rows, names, family="monospace")
    grid[0, 0].invert_yaxis()
    grid[0, 0].set_ylabel("shared weights")
    grid[0, 1].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    raise SystemExit(main())

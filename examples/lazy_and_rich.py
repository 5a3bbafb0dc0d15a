"""In muP scaling features are learned at any width; in standard scaling they freeze as the network grows.

Claim. With the readout divided by N and likelihood variance kappa/N (muP) the posterior's kernels tend to the saddle
point, which depends on the targets, and with the readout divided by sqrt(N) and variance kappa (standard) they tend to
the prior kernel (NNGP): what the data moves in the kernel is of order 1/N. The prediction follows its kernel,

    f_* = K_{*,sup} (kappa I + K_sup)^{-1} y,    K = gv^2 Phi:    Phi learned (muP), or that of the prior (standard):

Gaussian process regression with a kernel fixed in advance. Both limits are approached as 1/N.

Expected picture: against the width, from top to bottom, the last step's kernel along the targets, the squared overlap
of the last two steps, and the prediction for a pattern that was not told, linear network on the left, tanh on the
right. The rich network heads for the solid line (saddle point), the lazy one for the dashed line (prior).

The verdict: extrapolated to infinite width, all kernels along the targets, overlaps and predictions of either scaling
are those of its own theory, and the rich kernel differs from the prior's.
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, MORE_COLOURS, Experiment, expected, panels, points

import bayesnet as bn
import theory

SCALINGS = {"mup": (MORE_COLOURS[0], "-"), "standard": (MORE_COLOURS[1], "--")}
LADDER = (32, 96, 320, 1024, 10_000)  # widths below the largest
POINTS = 65536  # of the theory of tanh: with 16384 its squared overlap is known to .02 only
LEAST = 64  # width from which on the bias is 1/N and 1/N^2
TURN = np.pi / 6  # of the pattern that is not told, against the first


def task_of(steps: int, signal: float, untold: bool) -> bn.Task:
    """Two orthogonal patterns with opposite targets; a third between the first and the second's opposite, not told."""
    inputs = np.sqrt(2) * np.array([[1, 0], [0, 1], [np.cos(TURN), -np.sin(TURN)]])[: 2 + untold]
    whole = bn.tasks.endpoint(steps, signal, inputs=inputs, patterns=len(inputs))
    return bn.Task(whole.inputs, whole.targets, whole.supervised & (np.arange(len(inputs)) < 2)[:, None])


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=100_000, width_help="width of the linear networks; tanh: at most 1024"
    )
    cases = {
        "linear": (bn.Network.rnn(run.width), task_of(3, 2.6, True), {"num_samples": 1500}),
        "tanh": (
            bn.Network.rnn(min(run.width, 1024), activation="tanh", recurrent_gain=2**0.5),
            task_of(3, 2.0, True),
            {"sampler": "hmc", "num_samples": 4000},
        ),
    }
    if run.quick:
        cases = {"linear": (bn.Network.rnn(run.width), bn.tasks.chain(3, 4.0), {})}
    figure, grid = panels(3, len(cases), 9.6, 8.0, sharex="col")
    results = {}
    for column, (name, (network, task, sampling)) in enumerate(cases.items()):
        widths = [n for n in LADDER if n < network.width / 2] + [network.width]
        widths = widths[-1:] if run.quick else widths
        observables = choose_observables(task)
        found = {}
        for scaling in SCALINGS:
            scaled = network.replace(scaling=scaling)
            label = f"{name}, {scaling}"
            ladder = run.climb(scaled, task, observables, widths, label, **sampling)
            solution = theory.solve(scaled, task, points=None if scaled.phi.linear else POINTS)
            run.require(solution.converged, f"{label}: {solution.message}")
            exact = expected(solution, observables)
            if not run.quick:
                mean, error = ladder.limit(least=LEAST)
                own = bn.comparison.theory_error(solution, observables)
                run.agree(f"{label}, observable", mean, error, exact, own, solution.randomisations)
                if scaling == "mup":
                    lazy = expected(theory.nngp(scaled, task), observables)
                    moved = abs(mean - lazy)[:1]
                    run.exceed(f"{label}: the kernel of the last step moves", moved, error[:1], 0.0)
            show(grid[:, column], scaling, ladder, exact)
            found[scaling] = {"theory": exact, "posterior": ladder}
        grid[0, column].set_title(f"{name} RNN, T = {task.steps}; {BARS}", fontsize=9.5)
        grid[-1, column].set_xlabel("width N")
        results[name] = found
    for axes, label in zip(
        grid[:, 0],
        ("kernel along the targets, last step", r"overlap$^2$, last two steps", "prediction, untold pattern"),
        strict=True,
    ):
        axes.set_ylabel(label)
    grid[0, 0].legend(fontsize=8.5, frameon=False)
    run.save(figure)
    return run.finish("muP networks learn their kernels at any width, standard ones keep the prior's", results)


def choose_observables(task: bn.Task) -> list:
    """Three to draw (kernel and coherence along the targets, the untold prediction), and the told predictions."""
    last = task.steps - 1
    direction = bn.observables.target_direction(task)
    direction = np.ones(1) if direction is None else direction
    drawn = [
        bn.observables.directed_kernel(last, direction),
        bn.observables.directed_overlap(last - 1, last, direction, squared=True),
        bn.observables.prediction_at(task.patterns - 1, last, 0),
    ]
    return drawn + [bn.observables.prediction_at(mu, last, 0) for mu in range(task.patterns - 1)]


def show(column, scaling: str, ladder, exact: np.ndarray) -> None:
    """Points against the width and the theory's value as a line."""
    colour, style = SCALINGS[scaling]
    name = "muP" if scaling == "mup" else "standard"
    for k, axes in enumerate(column):
        limit = "saddle point" if scaling == "mup" else "prior kernel"
        axes.axhline(exact[k], color=colour, ls=style, lw=1.2, label=f"{name}, N → ∞: {limit}")
        points(axes, ladder.widths, ladder.mean[:, k], ladder.error[:, k], color=colour, label=f"{name}, posterior")
        axes.set_xscale("log")


if __name__ == "__main__":
    raise SystemExit(main())

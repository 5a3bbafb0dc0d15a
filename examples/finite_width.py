"""A network of N neurons differs from its infinite limit by a bias of order 1/N and spreads by 1/sqrt(N).

Claim. The theory is the limit of infinite width. At width N the posterior of the kernels is Gaussian around it, with

    E[Phi] = Phi_oo + a / N + O(1/N^2),        Cov[Phi] = (1/N) J (d^2F)^{-1} J^T + O(1/N^2),

F the free energy in coordinates of the noise and J the derivative of the kernel with respect to them; the covariance
does not depend on the coordinates (`theory.fluctuations`).
One pattern is carried over three steps with a signal above the critical one, so that nothing vanishes by symmetry.

Expected picture: left column, a linear network sampled in kernel coordinates up to a million neurons; right column, a
tanh network sampled in fields. Above, the distance of each posterior mean from the theory falls along the dotted lines
of slope -1 until it drowns in the Monte Carlo error; below, the posterior's standard deviation falls with slope -1/2 on
the predicted dashed lines. Small networks bend away: there 1/N is no small number.

The verdict: (1) for each invariant, c_0 + c_1/N + c_2/N^2 fits all widths from 256 (tanh: 64) on and c_0 is the
theory's value; (2) sqrt(N) sd is the predicted one: for the linear network at all widths from 10 000 on, for tanh,
where none is that wide, extrapolated in 1/N; (3) tanh: from the largest width but one to the largest, sd falls with
slope -1/2.
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, MORE_COLOURS, Experiment, Ladder, expected, extrapolate, panels, points

import bayesnet as bn
import theory

STEPS = 3
CASES = {
    "linear": {
        "signal": 4.3,
        "network": {},
        "widths": (16, 64, 256, 1024, 4096, 32768),
        "widest": 10**6,
        "least": 256,
        "sampling": {"num_samples": 1500},
    },
    "tanh": {
        "signal": 3.0,
        "network": {"activation": "tanh", "recurrent_gain": 2**0.5},
        "widths": (16, 64, 256, 1024),
        "widest": 4096,
        "least": 64,
        "sampling": {"sampler": "hmc", "num_samples": 3000},
    },
}
DRAWN = ("kernel[t=1, mu=1]", "kernel[t=3, mu=1]", "overlap^2[t=1,2, mu=1]", "overlap^2[t=2,3, mu=1]")
SPREAD_DRAWS, REPEATS = 20_000, 8
INFINITE = 10**8  # a width at which what is of order 1/N has gone
ASYMPTOTIC = 10_000  # width from which on the O(1/N) correction of the spread is below its Monte Carlo error


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=10**6, width_help="largest width of the linear network")
    figure, grid = panels(2, 1 if run.quick else len(CASES), 9.6, 7.0, sharex="col")
    results = {}
    cases = dict(list(CASES.items())[: 1 if run.quick else None])
    for column, (name, case) in enumerate(cases.items()):
        widest = min(case["widest"], run.width)
        network = bn.Network.rnn(widest, **case["network"])
        task = bn.tasks.chain(STEPS, case["signal"])
        widths = [n for n in case["widths"] if n < widest / 2 and not run.quick] + [widest]
        observables = bn.observables.default_observables(network, task)
        ladder = run.climb(network, task, observables, widths, name, **case["sampling"])
        solution = theory.solve(network.replace(width=INFINITE), task)
        run.require(solution.converged, f"{name}: {solution.message}")
        exact = expected(solution, observables)
        own = bn.comparison.theory_error(solution, observables), solution.randomisations
        spread = predict_spread(solution, observables, 2 if run.quick else REPEATS)
        judge(run, name, ladder, exact, own, spread, case["least"])
        draw(grid[:, column], name, case, ladder, exact, spread[0])
        results[name] = {"signal": case["signal"], "theory": (exact, own[0]), "sqrt_N_sd": spread, "posterior": ladder}
    grid[0, 0].set_ylabel("|posterior mean − theory| / theory")
    grid[1, 0].set_ylabel("posterior sd / theory")
    run.save(figure)
    return run.finish("the bias falls as 1/N, the spread as 1/sqrt(N), and the limit is the theory's", results)


def predict_spread(solution: theory.Solution, observables: list, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(N) times the standard deviation at large N, for what the kernel alone determines, and its standard error.

    NaN for predictions. The error is that of an average over ``repeats`` sets of kernels drawn and, where theory
    averages over neurons, of neurons.
    """
    nothing = np.full((SPREAD_DRAWS, 1, STEPS, 1), np.nan)
    spreads = []
    for seed in range(repeats):
        kernels = theory.fluctuations(solution, seed=seed).draw_kernels(SPREAD_DRAWS, seed=seed)
        spreads.append([o.evaluate(kernels, nothing).std() * np.sqrt(solution.network.width) for o in observables])
    return np.mean(spreads, axis=0), np.std(spreads, axis=0, ddof=1) / np.sqrt(repeats)


def judge(run: Experiment, name: str, ladder: Ladder, exact: np.ndarray, own: tuple, spread: tuple, least: int) -> None:
    """The claims of the module's docstring.

    ``exact`` is the theory, ``own`` its standard errors and the number of randomisations they are from, ``spread`` the
    predicted spread with its standard errors.
    """
    used = ladder.widths >= least
    widths, roots = ladder.widths[used], np.sqrt(ladder.widths[used])[:, None]
    if used.sum() < 3:
        return
    powers = widths[:, None] ** -np.arange(3.0)
    mean, error = ladder.mean[used], ladder.error[used]
    coefficients, limit_error = extrapolate(widths, mean, error, order=2)
    for k, label in enumerate(ladder.labels):
        limit = coefficients[0, k], limit_error[k]
        run.agree(f"{name}, {label}: limit of infinite width", *limit, exact[k], own[0][k], own[1])
        run.agree(f"{name}, {label}: fit in 1/N, width", mean[:, k], error[:, k], powers @ coefficients[:, k])
    known = np.isfinite(spread[0])
    predicted, spread_error = (column[known] for column in spread)
    scaled, scaled_error = (roots * column[used][:, known] for column in (ladder.sd, ladder.sd_error))
    if widths[-1] >= ASYMPTOTIC:
        for width, values, errors in zip(widths, scaled, scaled_error, strict=True):
            if width >= ASYMPTOTIC:
                label = f"{name}, N = {width}: sqrt(N) sd, invariant"
                run.agree(label, values, errors, predicted, spread_error, REPEATS)
    else:
        (limit, *_), limit_error = extrapolate(widths, scaled, scaled_error, order=2)
        label = f"{name}: limit of sqrt(N) sd, invariant"
        run.agree(label, limit, limit_error, predicted, spread_error, REPEATS)
        slope = np.log(ladder.sd[-1] / ladder.sd[-2]) / np.log(widths[-1] / widths[-2])
        error = np.hypot(*(ladder.sd_error[-2:] / ladder.sd[-2:])) / np.log(widths[-1] / widths[-2])
        run.agree(f"{name}: slope of the spread, invariant", slope, error, -0.5)


def draw(column, name: str, case: dict, ladder: Ladder, exact: np.ndarray, predicted) -> None:
    """Bias above, spread below, for the invariants in `DRAWN`."""
    bias_axes, spread_axes = column
    ends = ladder.widths[[0, -1]].astype(float)
    for label, colour in zip(DRAWN, MORE_COLOURS, strict=False):
        k = ladder.labels.index(label)
        scale = abs(exact[k])
        points(
            bias_axes,
            ladder.widths,
            abs(ladder.mean[:, k] - exact[k]) / scale,
            ladder.error[:, k] / scale,
            color=colour,
        )
        points(spread_axes, ladder.widths, ladder.sd[:, k] / scale, ladder.sd_error[:, k] / scale, color=colour)
        middle = len(ladder.widths) // 2
        slope = abs(ladder.mean[middle, k] - exact[k]) * ladder.widths[middle] / scale
        bias_axes.plot(ends, slope / ends, ":", color=colour, lw=1)
        spread_axes.plot(ends, predicted[k] / np.sqrt(ends) / scale, "--", color=colour, lw=1.2)
        spread_axes.plot([], [], "o", ms=4.5, color=colour, label=plain_label(label))
    for axes in column:
        axes.set(xscale="log", yscale="log")
    bias_axes.set_ylim(bottom=1e-6 if name == "linear" else 1e-5)
    spread_axes.set_xlabel("width N")
    spread_axes.plot([], [], "k--", label="theory, slope −1/2")
    spread_axes.legend(fontsize=8.5, frameon=False)
    bias_axes.plot([], [], "k:", label="slope −1")
    bias_axes.legend(fontsize=8.5, frameon=False)
    bias_axes.set_title(f"{name} RNN, T = {STEPS}, signal {case['signal']}; {BARS}", fontsize=9)


def plain_label(label: str) -> str:
    """ "overlap^2[t=1,2, mu=1]" -> overlap² of steps 1, 2."""
    kind, steps = label.removesuffix(", mu=1]").split("[t=")
    return rf"overlap$^2$, steps {steps.replace(',', ', ')}" if "overlap" in kind else f"kernel, step {steps}"


if __name__ == "__main__":
    raise SystemExit(main())

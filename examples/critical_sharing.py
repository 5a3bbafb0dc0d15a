"""Below a critical degree of sharing a network behaves as if it shared nothing.

Claim. Let the recurrent weights of two steps be neither the same (RNN) nor independent (DNN) but correlated to a degree
rho, on a chain of T steps above the RNN's critical signal. Then there is a critical degree. Below it the kernels at
infinite width are those of the DNN, which shares nothing: the steps do not correlate at all. Above it they do. For a
linear network it is where the tridiagonal matrix with T - 1 rows,

    diagonal 1 + (2r - 1) rho^2 (last entry: 1),  beside it -r rho,       r - 1 = |y|^2 K / (kappa + K)^2,
    K = gv^2 gu^2 gw^{2(T-1)} r^T,

loses its positive determinant: rho_c = 1 / (r - 1) for T = 3, .730 at |y| = 4.3. For other odd activations it is found
numerically (`theory.critical_sharing`). Below rho_c the squared overlap of a network of N neurons is of order 1/N, as
predicted by `theory.fluctuations`.

Weights that drift from step to step, with correlation exp(-|t - t'| / tau), have a critical tau in the same way. For
T = 3 only two recurrent matrices matter, so that drift is sharing to the degree exp(-1/tau).

Expected picture: top: squared overlap of the last two steps against rho, for T = 3, T = 4 and tanh; it leaves zero at
the dotted line, and the wider network shows it more sharply. Bottom: the same in the plane of signal and rho, with the
critical line in closed form; N times the squared overlap below rho_c, where all widths follow the predicted line;
squared overlap against tau.

The verdict: (1) critical degrees found numerically and in closed form are the same; (2) above rho_c the squared overlap
is positive, in theory and in the posterior, and the two agree, extrapolated from two widths; (3) below it the theory's
overlap is zero and so is the posterior's limit, N times its squared overlap, extrapolated, is what fluctuations
predict, so that it falls as 1/N, and the kernels of all steps are the DNN's; (4) the overlaps under drift are the
theory's, positive above the critical tau and zero below it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
from experiment import BARS, COLOURS, MORE_COLOURS, Experiment, expected, extrapolate, panels, points

import bayesnet as bn
import theory
from theory.closed_form import closed_form_instability, closed_form_sharing

SIGNAL = 4.3
BELOW, ABOVE = (0.4, 0.85), (1.15, 1.3)  # degrees of sharing, as multiples of the critical one
TANH_FACTORS = (0.6, 1.2)
TAUS = (1.0, 2.0, 6.0, 15.0)
EXACT = 1e-6  # relative: what numerical and closed-form critical degrees may differ by
ZERO = 1e-6  # squared overlap that counts as none: the solver's residual is 1e-9
TANH = {"activation": "tanh", "recurrent_gain": 2**0.5}


def shared(width: int, degree: Any, **settings: Any) -> bn.Network:
    """An RNN whose recurrent weights are shared to a degree."""
    return bn.Network.rnn(width, shared={"recurrent": degree}, **settings)


def squared_overlap(steps: int) -> bn.observables.Observable:
    """Of the last two steps."""
    return bn.observables.overlap(steps - 2, steps - 1, 0, squared=True)


def widths_of(run: Experiment) -> list[int]:
    """The widths of linear networks."""
    return [run.width] if run.quick else [max(run.width // 100, 16), run.width // 10, run.width]


def observables_of(steps: int) -> list:
    """Squared overlap of the last two steps; kernels of all steps."""
    return [squared_overlap(steps), *(bn.observables.diagonal_kernel(t, 0) for t in range(steps))]


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv,
        __file__,
        __doc__,
        width=100_000,
        width_help="the widest of three widths of linear networks, each a tenth of the next; tanh: at most 128",
    )
    figure, grid = panels(2, 3, 12.0, 7.2)
    results: dict[str, Any] = {}
    for axes, steps in zip(grid[0], (3,) if run.quick else (3, 4), strict=False):
        results[f"linear, T = {steps}"] = examine_linear(run, axes, grid[1, 1], steps)
    if not run.quick:
        results["tanh, T = 3"] = examine_tanh(run, grid[0, 2])
    results["diagram"] = draw_diagram(run, grid[1, 0])
    results["drift"] = examine_drift(run, grid[1, 2])
    grid[0, 0].set_ylabel(r"overlap$^2$, last two steps")
    grid[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    run.save(figure)
    return run.finish("below a critical degree of sharing a network behaves as if it shared nothing", results)


def examine_linear(run: Experiment, axes, below_axes, steps: int) -> dict:
    """Squared overlap against the degree of sharing; closed form; what is left below the critical one."""
    task, observables = bn.tasks.chain(steps, SIGNAL), observables_of(steps)
    label = f"linear, T = {steps}"
    closed = closed_form_sharing(shared(run.width, 1.0), task)
    critical = closed
    if not run.quick:
        critical = theory.critical_sharing(shared(run.width, 1.0), task).instability
        run.require(abs(critical / closed - 1) < EXACT, f"{label}: critical degree {critical} is not {closed}")
    degrees = critical * np.array(BELOW[1:] + ABOVE[:1] if run.quick else BELOW + ABOVE)
    widths = widths_of(run)
    unshared = expected(theory.solve(bn.Network.dnn(run.width), task), observables)
    ladders, exact = [], []
    for degree in degrees:
        told = f"{label}, degree {degree:.3f}"
        network = shared(run.width, degree)
        ladders.append(run.climb(network, task, observables, widths, told, num_samples=1000))
        exact.append(judge(run, network, task, observables, ladders[-1], told, degree > critical, unshared))
    fine = np.linspace(0, 1, 6 if run.quick else 101)
    curve = [expected(theory.solve(shared(run.width, degree), task, starts=1), observables)[0] for degree in fine]
    show(axes, fine, curve, degrees, ladders, critical)
    axes.set_title(rf"{label}, $|y|$ = {SIGNAL}, $\kappa$ = 0.1" + f"\n{BARS}", fontsize=9)
    under = critical * np.linspace(0.02, 0.93, 4 if run.quick else 40)
    predicted = [fluctuation(shared(run.width, degree), task) for degree in under]
    colour = MORE_COLOURS[steps - 3]
    below_axes.plot(under / critical, predicted, "-", color=colour, lw=1.2, label=f"T = {steps}, theory")
    low = degrees < critical
    for row, width in ends(widths):
        mean, error = (width * values[low] for values in first(ladders, row))
        filled, told = (colour if width == run.width else "w"), f"T = {steps}, N = {width}"
        points(below_axes, degrees[low] / critical, mean, error, color=colour, mfc=filled, label=told)
    below_axes.set(xlabel=r"$\rho / \rho_c$", ylabel=r"N overlap$^2$, last two steps", yscale="log")
    below_axes.set_title("below the critical degree; lines: fluctuations in theory", fontsize=9)
    below_axes.set_ylim(0.8, 200)  # room for the legend above the curves
    below_axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    return {
        "critical_degree": critical,
        "closed_form": closed,
        "degree": degrees,
        "posterior": ladders,
        "theory": exact,
        "DNN": unshared,
        "curve": {"degree": fine, "squared_overlap": curve},
    }


def judge(run, network, task, observables, ladder, label: str, above: bool, unshared: np.ndarray | None) -> np.ndarray:
    """The claims on one network; the theory's values of the observables. ``unshared``: those of the DNN, if claimed."""
    solution = theory.solve(network, task)
    run.require(solution.converged, f"{label}: {solution.message}")
    exact = expected(solution, observables)
    run.require((exact[0] > ZERO) == above, f"{label}: theory has the squared overlap {exact[0]:.2g}")
    least = ladder.widths[-2] if len(ladder.widths) > 1 else 0  # two widths determine the 1/N
    mean, error = ladder.limit(least=least)
    own = bn.comparison.theory_error(solution, observables)
    run.agree(f"{label}: observable", mean, error, exact, own, solution.randomisations)
    if above:
        run.exceed(f"{label}: squared overlap", mean[0], error[0], 0.0)
        return exact
    if unshared is not None:
        run.agree(f"{label}: kernel as in the DNN, step", mean[1:], error[1:], unshared[1:])
    scaled, scaled_error = (ladder.widths[-2:, None] * part[-2:, :1] for part in (ladder.mean, ladder.error))
    fit, fit_error = extrapolate(ladder.widths[-2:], scaled, scaled_error)
    run.agree(f"{label}: N overlap^2", fit[0][0], fit_error[0], fluctuation(network, task))
    run.exceed(f"{label}: N overlap^2", fit[0][0], fit_error[0], 0.0)
    return exact


def fluctuation(network: bn.Network, task: bn.Task) -> float:
    """N <overlap^2> of the last two steps to leading order, where the theory's overlap is zero."""
    solution = theory.solve(network, task, starts=1)
    covariance = theory.fluctuations(solution).kernel_cov
    one, other = task.steps - 2, task.steps - 1
    variance = covariance[one, 0, other, 0, one, 0, other, 0]
    return float(network.width * variance / (solution.kernel[one, 0, one, 0] * solution.kernel[other, 0, other, 0]))


def ends(widths) -> list[tuple[int, int]]:
    """Row and width of the smallest and the largest: what figures show."""
    return [(row, int(widths[row])) for row in sorted({0, len(widths) - 1})]


def examine_tanh(run: Experiment, axes) -> dict:
    """The same for tanh, at two degrees of sharing, the kernels being known numerically only."""
    task, observables, width = bn.tasks.chain(3, 3.0), observables_of(3), min(run.width, 128)
    run.say("tanh: critical degree of sharing")
    critical = theory.critical_sharing(shared(width, 1.0, **TANH), task).instability
    degrees = critical * np.array(TANH_FACTORS)
    ladders, exact = [], []
    for degree in degrees:
        network, told = shared(width, degree, **TANH), f"tanh, T = 3, degree {degree:.3f}"
        sampling = {"sampler": "hmc", "num_samples": 1500}
        ladders.append(run.climb(network, task, observables[:1], [width // 4, width], told, **sampling))
        exact.append(judge_tanh(run, network, task, observables[0], ladders[-1], told, degree > critical))
    above = np.linspace(1.01 * critical, 1.0, 5)
    run.say("tanh: curve")
    curve = [expected(theory.solve(shared(width, degree, **TANH), task), observables)[0] for degree in above]
    fine = np.concatenate([[0, critical], above])
    show(axes, fine, [0.0, 0.0, *curve], degrees, ladders, critical)
    axes.set_title(r"tanh, T = 3, $|y|$ = 3, $g_w^2$ = 2", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return {"critical_degree": critical, "degree": degrees, "posterior": ladders, "theory": exact}


def judge_tanh(run, network, task, observable, ladder, label: str, above: bool) -> float:
    """Above the critical degree coherent, in theory and samples; below it not, and the overlap falls as 1/N."""
    solution = theory.solve(network, task)
    run.require(solution.converged, f"{label}: {solution.message}")
    exact = expected(solution, [observable])[0]
    run.require((exact > ZERO) == above, f"{label}: theory has the squared overlap {exact:.2g}")
    if above:
        run.exceed(f"{label}: squared overlap, N", ladder.mean[:, 0], ladder.error[:, 0], 0.0)
    else:
        # At these widths N overlap^2 itself is off by O(1/N); that it falls at all is beyond doubt.
        fall, error = ladder.mean[0, 0] - ladder.mean[1, 0], np.hypot(*ladder.error[:, 0])
        run.exceed(f"{label}: fall of the squared overlap", fall, error, 0.0)
    return exact


def draw_diagram(run: Experiment, axes) -> dict:
    """Squared overlap in the plane of signal and degree, T = 3, and the closed-form line."""
    number = 5 if run.quick else 31
    signals, degrees = np.linspace(2.0, 8.0, number), np.linspace(0.3, 1.0, number)
    values = np.zeros((number, number))
    for row, degree in enumerate(degrees):
        for column, signal in enumerate(signals):
            solution = theory.solve(shared(run.width, degree), bn.tasks.chain(3, signal), starts=1)
            values[row, column] = expected(solution, [squared_overlap(3)])[0]
    image = axes.pcolormesh(signals, degrees, values, cmap="viridis", vmin=0, shading="nearest", rasterized=True)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(r"overlap$^2$, theory", fontsize=9)
    fine = np.linspace(0.3, 1.0, 200)
    line = [closed_form_instability(shared(run.width, degree), bn.tasks.chain(3, 1.0)) for degree in fine]
    line = np.array([np.nan if value is None else value for value in line])
    axes.plot(line, fine, "w-", lw=1.6, label=r"$\rho_c$, closed form")
    axes.set(xlabel=r"signal $|y|$", ylabel=r"degree of sharing $\rho$", xlim=(2, 8), ylim=(0.3, 1))
    axes.legend(fontsize=8, loc="lower left")
    axes.set_title("linear, T = 3", fontsize=9)
    # A point of the grid is coherent exactly where it lies above the line.
    critical = np.interp(signals, line[::-1], fine[::-1], left=np.inf)
    clear = abs(degrees[:, None] - critical) > 1e-3
    wrong = clear & ((values > ZERO) != (degrees[:, None] > critical))
    run.require(not wrong.any(), f"diagram: {wrong.sum()} points lie on the wrong side of the closed form")
    return {"signal": signals, "degree": degrees, "squared_overlap": values, "closed_form": line}


def examine_drift(run: Experiment, axes) -> dict:
    """Squared overlap against tau: theory, and the posterior for T = 4."""
    results = {}
    fine = np.geomspace(0.7, 30, 6 if run.quick else 80)
    for steps in (3, 4):
        task, observables = bn.tasks.chain(steps, SIGNAL), observables_of(steps)[:1]

        def coherence(tau, task=task, observables=observables):
            solution = theory.solve(shared(run.width, theory.Drift(float(tau))), task, starts=1)
            return expected(solution, observables)[0]

        # Close above the critical tau the squared overlap grows linearly from zero.
        critical = scipy.optimize.brentq(lambda tau: (coherence(tau) > ZERO) - 0.5, 0.7, 30, xtol=1e-4)
        if steps == 3:
            exact = -1 / np.log(closed_form_sharing(shared(run.width, 1.0), task))
            run.require(abs(critical / exact - 1) < 1e-3, f"drift, T = 3: critical tau {critical} is not {exact}")
        colour = MORE_COLOURS[steps - 3]
        axes.plot(fine, [coherence(tau) for tau in fine], "-", color=colour, lw=1.4, label=f"T = {steps}, theory")
        axes.axvline(critical, color=colour, ls=":", lw=1)
        results[f"T = {steps}"] = {"critical_tau": critical}
    widths = widths_of(run)
    taus = TAUS[1:3] if run.quick else TAUS
    ladders = []
    for tau in taus:
        network, told = shared(run.width, theory.Drift(tau)), f"drift, T = 4, tau {tau:g}"
        ladders.append(run.climb(network, task, observables, widths, told, num_samples=1000))
        judge(run, network, task, observables, ladders[-1], told, tau > critical, None)
    show_points(axes, taus, ladders, colour)
    axes.set(xscale="log", xlabel=r"drift time $\tau$ (steps)", ylabel=r"overlap$^2$, last two steps")
    axes.set_title(rf"drift: correlation $e^{{-|t-t'|/\tau}}$, $|y|$ = {SIGNAL}", fontsize=9)
    axes.set_ylim(top=1.1)  # room for the legend above the curves
    axes.legend(fontsize=8, framealpha=1, edgecolor="none", loc="upper left")
    return results | {"tau": taus, "posterior": ladders}


def first(ladders, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and errors of the first observable at one width."""
    return tuple(np.array([getattr(ladder, what)[row, 0] for ladder in ladders]) for what in ("mean", "error"))


def show(axes, fine, curve, degrees, ladders, critical: float) -> None:
    """Theory as a line, posterior as points, the critical degree dotted."""
    axes.plot(fine, curve, "-", color=COLOURS["RNN"], lw=1.4, label=r"theory, $N \to \infty$")
    show_points(axes, degrees, ladders, COLOURS["RNN"])
    axes.axvline(critical, color="k", ls=":", lw=1)
    axes.text(critical, axes.get_ylim()[1], rf"$\rho_c$ = {critical:.3f} ", va="top", ha="right", fontsize=9)
    axes.set_xlabel(r"degree of sharing $\rho$ of W")


def show_points(axes, x, ladders, colour: str) -> None:
    """Posterior means of the first observable, the widest filled."""
    for row, width in ends(ladders[0].widths):
        mean, error = first(ladders, row)
        filled = colour if row == len(ladders[0].widths) - 1 else "w"
        points(axes, x, mean, error, color=colour, mfc=filled, label=f"posterior, N = {width}")


if __name__ == "__main__":
    raise SystemExit(main())

"""Only the recurrent network correlates its time steps, and only above a critical signal.

Claim (Bauer, Fischer, Helias, Palmigiano, ICML 2026). A pattern is shown at step 1 and a target asked for at step T.
Raise the target's size, the signal. Below a critical signal the recurrent network (RNN, weights shared over steps) and
the deep one (DNN, a weight copy for each step) have the same kernels at infinite width. Above it the RNN's hidden
states at different steps correlate: sharing W breaks the symmetry W -> -W. The DNN's never do. For a linear network

    r_c = (T-1)/(T-2),  K_c = gv^2 gu^2 gw^{2(T-1)} r_c^T,  |y|_c = (kappa + K_c) / sqrt(K_c) * sqrt(r_c - 1),

and for other odd activations it is found numerically (`theory.critical_signal`).

At finite width the transition is rounded. Near a continuous one the overlap m of the last two steps has the law
exp(-x m^2 - m^4), in units that depend on N, as in the mean-field theory of magnets, so that

    U = <m^4> / <m^2>^2 = U*(x) + O(1/sqrt(N)),      x = s (|y|_c - |y|) sqrt(N),      U*(0) = 2.188,

is one curve for all widths and activations. Fitting |y|_c, the scale s and the O(1/sqrt(N)) correction, a parabola in
x, to the samples measures the critical signal with an error bar, without its prediction. From T = 5 on (at these gains)
the transition is of first order: the correlated phase wins before the other turns unstable. T = 6 is shown, not fitted.

Expected pictures: (1) linear, T = 3: squared overlap and kernel of the last step against the signal; RNN and DNN
coincide below the dotted line and separate above it, the wider network more sharply. The RNN's second branch there,
symmetric and unstable, is the DNN's dashed line. (2) The squared overlap for other depths and activations, with the
branch that has lost its stability as a dashed line above the transition; U of all continuous cases on one curve;
measured critical signals as multiples of the predicted ones.

The verdict: (1) at all signals further than a tenth from the critical one, squared overlap and kernel, extrapolated
from the two largest widths, are the theory's, and above it the RNN's squared overlap exceeds the DNN's; (2) U follows
the universal curve at all points, and the measured critical signals are the predicted ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import scipy.optimize
from experiment import BARS, COLOURS, MORE_COLOURS, Experiment, expected, panels, points

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
RELATIVE = (0.5, 0.75, 0.95, 1.05, 1.25, 1.5)  # signals, as multiples of the critical one
AWAY = 0.1  # from the critical signal, relative: further off, finite width adds a series in 1/N
WINDOW = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # of the finite-size scaling: (|y| / |y|_c - 1) sqrt(N)
SLOWER = 3  # times as many draws there: so close to the transition they are correlated


@dataclass(frozen=True)
class Case:
    """Networks on a chain task.

    Attributes:
        title: as in the figure.
        steps: T.
        network: settings of the networks.
        widths: ascending; the two largest are extrapolated.
        scaled: the widths to whose samples the critical signal is fitted; none where the transition is not continuous.
        sampling: settings of `bayesnet.sample`.
    """

    title: str
    steps: int
    network: dict
    widths: tuple[int, ...]
    scaled: tuple[int, ...] = ()
    sampling: dict = field(default_factory=lambda: {"num_samples": 800})

    @property
    def rnn(self) -> bn.Network:
        """The RNN at the largest width."""
        return bn.Network.rnn(self.widths[-1], **self.network)

    @property
    def is_linear(self) -> bool:
        """Whether theory is exact and quick."""
        return self.rnn.activation == "linear"

    def task(self, signal: float) -> bn.Task:
        """The chain with this signal."""
        return bn.tasks.chain(self.steps, float(signal))

    @property
    def observables(self) -> list:
        """Squared overlap of the last two steps; kernel of the last step."""
        last = self.steps - 1
        return [bn.observables.overlap(last - 1, last, 0, squared=True), bn.observables.diagonal_kernel(last, 0)]


def cases(width: int, quick: bool) -> list[Case]:
    """The first is that of picture (1)."""
    if quick:
        return [Case("linear, T = 3", 3, {}, (width,))]
    linear, fields, small = (width // 100, width // 10, width), (128, 512), (64, 256)
    tanh, erf = {"activation": "tanh", "recurrent_gain": 2**0.5}, {"activation": "erf"}
    hmc = {"sampler": "hmc", "num_samples": 2500}  # its draws are cheap and correlated
    return [
        Case("linear, T = 3", 3, {}, linear, linear[1:]),
        Case("linear, T = 4", 4, {}, linear[1:], linear[1:]),
        Case("linear, T = 6", 6, {}, linear[1:]),
        Case("tanh, T = 3", 3, tanh, fields, small, hmc),
        Case("erf, T = 3", 3, erf, fields, small, hmc),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=100_000, width_help="largest width of the linear networks")
    every = cases(run.width, run.quick)
    first, others = every[0], every[1:]
    critical = {case.title: theory.critical_signal(case.rnn, case.task(1.0)) for case in every}
    results = {
        case.title: {"critical_signal": thresholds(critical[case.title], case.is_linear and not run.quick)}
        for case in every
    }
    # Sampling leaves one of two cores idle for half of the time: the curves of picture (2) are computed meanwhile.
    pool = ThreadPoolExecutor(1)
    curves = {case.title: pool.submit(follow_signal, case, critical[case.title].instability) for case in others}
    relative = (0.7, 1.4) if run.quick else RELATIVE
    found = {name: sweep(run, first, name, critical[first.title].instability, relative) for name in MAKERS}
    results[first.title] |= found
    run.save(draw_first(run, first, critical[first.title].instability, found))
    if not run.quick:
        for rnn, dnn, factor in zip(found["RNN"]["limits"], found["DNN"]["limits"], relative, strict=True):
            if factor > 1 + AWAY:
                gap, error = rnn[0][0] - dnn[0][0], np.hypot(rnn[1][0], dnn[1][0])
                run.exceed(f"{first.title}, {factor} of the critical signal: RNN above DNN", gap, error, 0.0)
        for case in others:
            results[case.title]["RNN"] = sweep(run, case, "RNN", critical[case.title].instability, relative[1:5])
            results[case.title]["curves"] = curves[case.title].result()
        fits = {case.title: scale(run, case, critical[case.title].instability) for case in every if case.scaled}
        for title, fit in fits.items():
            results[title]["scaling"] = fit
        run.save(draw_others(others, critical, results, fits), "_cases")
    return run.finish(
        "the RNN, and only the RNN, is coherent above the critical signal, which the samples put where it is predicted",
        results,
    )


def thresholds(critical: theory.CriticalPoint, follow: bool) -> dict:
    """For results.json; ``follow``: also those that need the broken branch followed, which is quick if linear."""
    names = ("instability", "instability_error") + (("crossing", "spinodal", "order") if follow else ())
    return {name: getattr(critical, name) for name in names}


def sweep(run: Experiment, case: Case, name: str, critical: float, relative: tuple[float, ...]) -> dict:
    """Posterior and theory at multiples of the critical signal; the claims that they agree away from it."""
    network = MAKERS[name](case.widths[-1], **case.network)
    ladders, limits, exact = [], [], []
    for factor in relative:
        task, label = case.task(factor * critical), f"{case.title}, {name}, {factor} of the critical signal"
        ladder = run.climb(network, task, case.observables, case.widths, label, **case.sampling)
        mean, error = ladder.limit(least=case.widths[max(len(case.widths) - 2, 0)])
        solution = theory.solve(network, task)
        ours = expected(solution, case.observables)
        if abs(factor - 1) > AWAY:
            run.require(solution.converged, f"{label}: {solution.message}")
            own = bn.comparison.theory_error(solution, case.observables)
            run.agree(f"{label}, observable", mean, error, ours, own, solution.randomisations)
        ladders.append(ladder)
        limits.append((mean, error))
        exact.append(ours)
    return {"signal": critical * np.array(relative), "posterior": ladders, "limits": limits, "theory": exact}


def scale(run: Experiment, case: Case, critical: float) -> dict:
    """U near the transition, and the fit of critical signal, scale and corrections to it."""
    signals, widths, values, errors = [], [], [], []
    overlap = case.observables[:1]
    sampling = case.sampling | {"num_samples": SLOWER * case.sampling["num_samples"]}
    for width in case.scaled:
        for signal in critical * (1 + WINDOW / np.sqrt(width)):
            label = f"{case.title}, N = {width}, signal {signal:.4f}"
            run.say(f"scaling: {label}")
            network = case.rnn.replace(width=width)
            posterior, _ = run.converge(network, case.task(signal), overlap, label, **sampling)
            value, error = moment_ratio(bn.diagnostics.evaluate_observables(posterior, overlap)[overlap[0].label])
            for column, entry in zip((signals, widths, values, errors), (signal, width, value, error), strict=True):
                column.append(entry)
    signals, widths, values, errors = map(np.array, (signals, widths, values, errors))

    def predict(parameters):
        at, slope, *correction = parameters
        x = slope * (at - signals) * np.sqrt(widths)
        return universal(x) + np.polyval(correction, x) / np.sqrt(widths)

    start = [signals.mean(), 1 / critical, 0.0, 0.0, 0.0]
    fit = scipy.optimize.least_squares(lambda p: (values - predict(p)) / errors, start, x_scale=[0.01, 0.1, 1, 1, 1])
    measured, slope, *correction = fit.x
    error = float(np.sqrt(np.linalg.inv(fit.jac.T @ fit.jac)[0, 0]))
    run.agree(f"{case.title}: critical signal", measured, error, critical)
    run.agree(f"{case.title}: moment ratio on the universal curve, point", values, errors, predict(fit.x))
    x = slope * (measured - signals) * np.sqrt(widths)
    corrected = values - np.polyval(correction, x) / np.sqrt(widths)
    record = {
        "signal": signals,
        "width": widths,
        "moment_ratio": values,
        "mcse": errors,
        "corrected": corrected,
        "x": x,
    }
    return record | {"critical_signal": measured, "standard_error": error, "predicted": critical, "fit": fit.x}


def moment_ratio(squares: np.ndarray) -> tuple[float, float]:
    """<m^4> / <m^2>^2 from draws of m^2 (chain, draw), and its MCSE to first order."""
    second, fourth = squares.mean(), (squares**2).mean()
    value = fourth / second**2
    linear = squares**2 / second**2 - 2 * value * squares / second
    return float(value), float(bn.diagnostics.summarise_draws({"U": linear})["mcse"].iloc[0])


def universal(x: np.ndarray) -> np.ndarray:
    """U* = <m^4> / <m^2>^2 under exp(-x m^2 - m^4)."""
    m = np.linspace(0, 6, 2001)
    exponent = -np.asarray(x)[..., None] * m**2 - m**4
    weights = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    zeroth, second, fourth = (np.trapezoid(weights * m**k, m) for k in (0, 2, 4))
    return fourth * zeroth / second**2


def theory_curves(network: bn.Network, case: Case, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observables of the solution, (signals, 2), and of its unstable symmetric companion (NaN where there is none)."""
    best, other = [], []
    for signal in signals:
        solution = theory.solve(network, case.task(signal), starts=1)
        unstable = [expected(b, case.observables) for b in solution.branches if not b.stable]
        best.append(expected(solution, case.observables) if solution.converged else np.full(2, np.nan))
        other.append(unstable[0] if unstable else np.full(2, np.nan))
    return np.array(best), np.array(other)


def follow_signal(case: Case, critical: float) -> dict:
    """The `theory_curves` of the RNN around the critical signal; above it a nonlinear one takes seconds a signal."""
    below, above = (28, 28) if case.is_linear else (3, 8)
    signals = critical * np.concatenate([np.linspace(0.7, 0.995, below), np.linspace(1.01, 1.3, above)])
    return {"signal": signals} | dict(zip(("stable", "unstable"), theory_curves(case.rnn, case, signals), strict=True))


def draw_first(run: Experiment, case: Case, critical: float, found: dict):
    """Picture (1) of the module's docstring."""
    figure, grid = panels(2, 1, 6.4, 6.0, sharex=True)
    signals = found["RNN"]["signal"]
    fine = np.linspace(signals[0], signals[-1], 5 if run.quick else 60)
    for name, colour in COLOURS.items():
        curves, _ = theory_curves(MAKERS[name](case.widths[-1], **case.network), case, fine)
        for k, axes in enumerate(grid[:, 0]):
            axes.plot(fine, curves[:, k], "-" if name == "RNN" else "--", color=colour, label=f"{name}, theory")
            for row in {0, len(case.widths) - 1}:
                mean = [ladder.mean[row, k] for ladder in found[name]["posterior"]]
                error = [ladder.error[row, k] for ladder in found[name]["posterior"]]
                style = {"mfc": "w" if row == 0 else colour, "label": f"{name}, N = {case.widths[row]}"}
                points(axes, signals, mean, error, color=colour, **style)
    for axes, label in zip(
        grid[:, 0],
        (rf"overlap$^2$ of steps {case.steps - 1}, {case.steps}", rf"kernel $\Phi_{{{case.steps}{case.steps}}}$"),
        strict=True,
    ):
        axes.axvline(critical, color="k", ls=":", lw=1)
        axes.set_ylabel(label)
    grid[0, 0].text(critical, grid[0, 0].get_ylim()[1], " critical signal", va="top", fontsize=9)
    grid[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    grid[1, 0].set_xlabel(r"signal $|y|$")
    grid[0, 0].set_title(rf"{case.title}, $\kappa$ = 0.1; {BARS}", fontsize=10)
    return figure


def draw_others(others: list[Case], critical: dict, results: dict, fits: dict):
    """Picture (2) of the module's docstring."""
    figure, grid = panels(2, 3, 10.5, 6.4)
    for case, axes in zip(others, grid.flat, strict=False):
        found, at = results[case.title]["RNN"], critical[case.title].instability
        curves = results[case.title]["curves"]
        fine = curves["signal"] / at
        axes.plot(fine, curves["stable"][:, 0], "-", color=COLOURS["RNN"], lw=1.4, label="theory")
        axes.plot(fine, curves["unstable"][:, 0], "--", color="0.5", lw=1.2, label="unstable branch")
        for row, width in enumerate(case.widths[-2:], start=len(case.widths) - 2):
            mean, error = (
                [getattr(ladder, what)[row, 0] for ladder in found["posterior"]] for what in ("mean", "error")
            )
            filled = "w" if width != case.widths[-1] else COLOURS["RNN"]
            points(axes, found["signal"] / at, mean, error, color=COLOURS["RNN"], mfc=filled, label=f"N = {width}")
        axes.axvline(1.0, color="k", ls=":", lw=1)
        axes.set(xlabel="signal / predicted critical signal", ylabel=r"overlap$^2$, last two steps")
        order = f": {critical[case.title].order}" if case.is_linear else ""
        axes.set_title(f"RNN, {case.title}{order}", fontsize=9)
        axes.legend(fontsize=8, frameon=False)
    collapse, measured = grid.flat[len(others) :]
    line = np.linspace(-4, 4, 200)
    collapse.plot(line, universal(line), "k-", lw=1, label="universal curve")
    for row, (title, fit) in enumerate(fits.items()):
        points(collapse, fit["x"], fit["corrected"], fit["mcse"], color=MORE_COLOURS[row], label=title, ms=4)
        ratio, error = fit["critical_signal"] / fit["predicted"], fit["standard_error"] / fit["predicted"]
        measured.errorbar(ratio, row, xerr=2 * error, fmt="o", ms=5, capsize=3, color=MORE_COLOURS[row])
        note = f"{fit['critical_signal']:.4f} ± {fit['standard_error']:.4f} (predicted {fit['predicted']:.4f})"
        inside = measured.get_yaxis_transform()  # x from 0 to 1 over the panel
        measured.text(0.5, row - 0.25, note, fontsize=8, ha="center", backgroundcolor="w", transform=inside)
    collapse.set(xlabel=r"$x = s\,(|y|_c - |y|)\sqrt{N}$", ylabel=r"$\langle m^4\rangle / \langle m^2\rangle^2$")
    collapse.set_title("finite-size scaling, two widths each", fontsize=9)
    collapse.legend(fontsize=8, frameon=False)
    measured.axvline(1.0, color="k", ls=":", lw=1)
    measured.set_yticks(range(len(fits)), list(fits))
    measured.set(xlabel="measured / predicted critical signal", ylim=(len(fits) - 0.5, -0.8))
    measured.locator_params(axis="x", nbins=4)
    measured.set_title("bars: 2 standard errors", fontsize=9)
    return figure


if __name__ == "__main__":
    raise SystemExit(main())

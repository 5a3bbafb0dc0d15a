"""Asked at the last step only, the recurrent and the deep network say the same of new patterns, at another scale.

Claim. Several patterns are shown at step 1 and told apart at step T. Below the critical signal the RNN and the DNN have
the same kernels between equal steps, so that they predict the same. Above it the RNN's steps correlate, and its
predictions on new patterns are those of the DNN times a number above one,

    f_RNN(x) = s f_DNN(x),    s > 1,

to a good approximation: what the correlation adds to the last step's kernel lies along the targets, as what both have
learned does. Where the patterns shown are orthogonal and the network is linear it is exact. The scale is nearest to 1
where the noise is small, both networks then saying what they are told; here the noise is large.

Expected picture, a row for each task, random patterns and handwritten digits: left, predictions of the RNN on new
patterns against those of the DNN, on a straight line steeper than the diagonal; right, the slope s of that line against
the signal, 1 up to the critical signal and above 1 beyond it.

The verdict: the slopes of the posteriors, extrapolated from two widths, are the theory's, 1 below the critical signal
and larger than 1 above it, and the correlation over new patterns between the mean predictions of the two exceeds .99,
in theory and in both posteriors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from experiment import COLOURS, Experiment, extrapolate, panels, points

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
STEPS, PATTERNS, DIMENSIONS = 3, 4, 8
CORRELATION = 0.99
BLOCKS = 20  # of the jackknife of the correlation


@dataclass(frozen=True)
class Case:
    """A task at several signals.

    Attributes:
        title: as in the figure.
        noise: kappa.
        below, above: signals on either side of the critical one, at which is sampled.
        largest: signal up to which the theory is drawn.
        new_patterns: how many.
    """

    title: str
    noise: float
    below: float
    above: float
    largest: float
    new_patterns: int = 48

    def tasks(self, signal: float) -> tuple[bn.Task, bn.Task]:
        """What is trained on, and new patterns."""
        if self.title == "digits":
            settings = {"classes": (3, 8), "patterns": PATTERNS, "steps": STEPS, "signal": signal}
            return bn.tasks.digits(**settings), bn.tasks.digits_test(**settings, test_patterns=self.new_patterns)
        drawn = np.random.default_rng(5).normal(size=(PATTERNS + self.new_patterns, DIMENSIONS))
        shown = drawn * np.sqrt(DIMENSIONS) / np.linalg.norm(drawn, axis=1, keepdims=True)
        told = bn.tasks.endpoint(STEPS, signal, patterns=PATTERNS, inputs=shown[:PATTERNS])
        # The targets of new patterns do not matter: their predictions are not scored.
        return told, bn.tasks.endpoint(STEPS, signal, patterns=self.new_patterns, inputs=shown[PATTERNS:])

    def network(self, name: str, width: int) -> bn.Network:
        """RNN or DNN."""
        return MAKERS[name](width, noise=self.noise)


CASES = [Case("random patterns", 8.0, 1.8, 4.0, 7.0), Case("digits", 16.0, 3.5, 5.5, 9.0)]


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=512, width_help="the wider of two widths; the other is a quarter")
    cases = CASES[:1] if run.quick else CASES
    figure, grid = panels(len(cases), 2, 9.6, 4.0 * len(cases))
    results = {case.title: examine(run, row, case) for row, case in zip(grid, cases, strict=True)}
    run.save(figure)
    return run.finish(
        "RNN and DNN predict the same of new patterns, at another scale above the critical signal", results
    )


def examine(run: Experiment, axes_row, case: Case) -> dict:
    """Both panels of a task, and its claims."""
    critical = theory.critical_signal(case.network("RNN", run.width), case.tasks(1.0)[0]).instability
    signals = np.linspace(critical / 2, case.largest, 4 if run.quick else 16)
    curve = [compare(*(predict(case, name, signal) for name in MAKERS)) for signal in signals]
    run.require(
        case.below < critical < case.above,
        f"{case.title}: the critical signal {critical:.3g} is not between those sampled",
    )
    sampled = {}
    for signal in (case.above,) if run.quick else (case.below, case.above):
        sampled[signal] = measure(run, case, signal, signal > critical)
    draw_predictions(axes_row[0], case, sampled[case.above])
    axes = axes_row[1]
    axes.plot(
        signals, [slope for slope, _ in curve], "-", color=COLOURS["RNN"], lw=1.4, label=r"theory, $N \to \infty$"
    )
    for signal, found in sampled.items():
        told = r"posterior, $N \to \infty$" if signal == case.above else None
        points(axes, signal, found["slope"], found["slope_error"], color=COLOURS["RNN"], label=told)
    axes.axhline(1, color="0.6", lw=0.9)
    axes.axvline(critical, color="k", ls=":", lw=1, label="critical signal")
    axes.set(xlabel=r"signal: size of the targets $|y_\mu|$", ylabel="slope s of RNN on DNN, new patterns")
    axes.set_title("bars: 2 Monte Carlo standard errors", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return {
        "critical_signal": critical,
        "curve": {"signal": signals, "slope_and_correlation": curve},
        "sampled": sampled,
    }


def predict(case: Case, name: str, signal: float) -> np.ndarray:
    """The theory's predictions on new patterns at the last step."""
    task, new = case.tasks(signal)
    return theory.predict(theory.solve(case.network(name, 1), task, starts=1), new).mean[:, -1, 0]


def compare(rnn: np.ndarray, dnn: np.ndarray) -> tuple[float, float]:
    """Slope of the regression of one on the other, through zero, and their correlation."""
    return float(rnn @ dnn / (dnn @ dnn)), float(np.corrcoef(rnn, dnn)[0, 1])


def measure(run: Experiment, case: Case, signal: float, above: bool) -> dict:
    """Theory and posteriors at one signal; the claims of the verdict.

    Regressing one noisy mean on another is biased. So both are regressed on the theory's DNN; s is the ratio.
    """
    task, new = case.tasks(signal)
    exact = {name: predict(case, name, signal) for name in MAKERS}
    slope, correlation = compare(exact["RNN"], exact["DNN"])
    label = f"{case.title}, signal {signal:g}"
    run.require(correlation > CORRELATION, f"{label}: the correlation is {correlation:.4f} in theory")
    widths = [run.width] if run.quick else [run.width // 4, run.width]
    scales: dict[str, list] = {name: [] for name in MAKERS}
    correlations, means = [], {}
    for width in widths:
        draws = {}
        for name in MAKERS:
            told = f"{label}, {name}, N = {width}"
            run.say(told)
            draws[name] = sample_predictions(run, case.network(name, width), task, new, told)
            scale = draws[name] @ exact["DNN"] / (exact["DNN"] @ exact["DNN"])
            table = bn.diagnostics.summarise_draws({"scale": scale})
            scales[name].append((table["mean"].iloc[0], table["mcse"].iloc[0]))
            means[name] = summary(draws[name])
        value, error = jackknife(draws["RNN"], draws["DNN"])
        run.exceed(f"{label}, N = {width}: correlation of RNN and DNN", value, error, CORRELATION)
        correlations.append((value, error))
    limit = {}
    for name, found in scales.items():
        mean, error = (np.array(column)[:, None] for column in zip(*found, strict=True))
        fit, fit_error = extrapolate(np.array(widths), mean, error)
        limit[name] = float(fit[0][0]), float(fit_error[0])
    (rnn, rnn_error), (dnn, dnn_error) = limit["RNN"], limit["DNN"]
    ratio, error = rnn / dnn, rnn / dnn * np.hypot(rnn_error / rnn, dnn_error / dnn)
    run.agree(f"{label}: slope", ratio, error, slope)
    if above:
        run.exceed(f"{label}: slope", ratio, error, 1.0)
    else:
        run.require(abs(slope - 1) < 1e-6, f"{label}: the theory's slope is {slope:.6f} below the critical signal")
    return {
        "slope": ratio,
        "slope_error": error,
        "slope_in_theory": slope,
        "correlation_in_theory": correlation,
        "widths": widths,
        "scale_on_DNN_in_theory": scales,
        "correlation": correlations,
        "theory": exact,
        "posterior": means,
        "width": widths[-1],
    }


def sample_predictions(run: Experiment, network: bn.Network, task: bn.Task, new: bn.Task, label: str) -> np.ndarray:
    """Predictions on new patterns at the last step, (chain, draw, pattern), of networks drawn from the posterior."""
    direction = bn.observables.target_direction(task)
    observables = [bn.observables.directed_kernel(STEPS - 1, direction)]
    posterior, _ = run.converge(network, task, observables, label, num_samples=600, num_latents=150)
    return bn.predict(posterior, new, seed=run.seed())["prediction"].to_numpy()[..., -1, 0]


def summary(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and MCSE for each pattern."""
    table = bn.diagnostics.summarise_draws({str(k): draws[..., k] for k in range(draws.shape[-1])})
    return table["mean"].to_numpy(), table["mcse"].to_numpy()


def jackknife(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Correlation over patterns of two means over draws, and its standard error, blocks of draws left out in turn.

    The noise of both means lowers it.
    """
    flat = [draws.reshape(-1, draws.shape[-1]) for draws in (one, other)]
    blocks = [np.array_split(np.arange(len(draws)), min(BLOCKS, len(draws))) for draws in flat]
    value = compare(*(draws.mean(axis=0) for draws in flat))[1]
    left = [
        compare(
            *(np.delete(draws, gone[number], axis=0).mean(axis=0) for draws, gone in zip(flat, blocks, strict=True))
        )[1]
        for number in range(len(blocks[0]))
    ]
    return value, float(np.sqrt((len(left) - 1) * np.var(left)))


def draw_predictions(axes, case: Case, found: dict) -> None:
    """RNN against DNN: theory and posterior means at the largest width."""
    (dnn, dnn_error), (rnn, rnn_error) = found["posterior"]["DNN"], found["posterior"]["RNN"]
    span = np.array([-1, 1]) * 1.05 * abs(found["theory"]["RNN"]).max()
    axes.plot(span, span, "-", color="0.6", lw=0.9, label="the same scale")
    axes.plot(
        span,
        found["slope_in_theory"] * span,
        "--",
        color="k",
        lw=1,
        label=f"theory: s = {found['slope_in_theory']:.3f}",
    )
    axes.plot(found["theory"]["DNN"], found["theory"]["RNN"], "x", ms=5, color="k", mew=0.9, label="theory")
    style = {"color": COLOURS["RNN"], "xerr": 2 * dnn_error, "ms": 3.5, "capsize": 0, "mfc": "w"}
    points(axes, dnn, rnn, rnn_error, label=f"posterior, N = {found['width']}", **style)
    axes.set(xlabel="DNN's prediction of a new pattern", ylabel="RNN's prediction of it")
    axes.set_title(
        rf"{case.title}: P = {PATTERNS}, T = {STEPS}, $|y_\mu|$ = {case.above:g}, $\kappa$ = {case.noise:g}", fontsize=9
    )
    axes.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    raise SystemExit(main())

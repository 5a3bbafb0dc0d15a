"""A learned eigenvalue leaves the bulk of the recurrent weights: only in the RNN, and later than coherence sets in.

Claim. Given the neurons, W is its conditional mean, of rank at most T - 1 for one pattern, plus prior noise that fills
the disc of radius gw. For a chain of T = 4 linear steps (kappa = .1, unit gains) the RNN's steps become coherent at
signal 1.62, but an eigenvalue of W leaves the disc only at 2.25: that of gw^2 C^{-1} <h_{t-1} h_t^T> of modulus above
gw. The DNN's matrices W_2, W_3, W_4 never have one: each maps one representation on another that is uncorrelated with
it. Singular values do not tell the two apart: learning stretches W in the DNN too, and with theta^2 the eigenvalues of
gw^2 - gw^4 Phi_pre (C^{-1} - C^{-1} <h h^T> C^{-1}), an outlier appears where theta^2 > 2 gw^2, at sigma^2 = theta^4 /
(theta^2 - gw^2) (`theory.spectrum`).

Expected picture: above, all eigenvalues of W drawn from the posterior at three signals, the bulk circle, the predicted
outliers as squares. Below, the largest modulus of an eigenvalue and the largest singular value against the signal,
theory as lines, draws at two widths as points, prior matrices in grey; dotted, the signal at which coherence sets in.
At these widths the edge of the bulk is soft: where the theory has no outlier, points lie above the grey lines, less so
for the wider network. One reason: below the transition the learned part of W carries step t on to step t+1 and nothing
back, a nilpotent matrix, and fluctuations of order 1/sqrt(N) move its eigenvalues by as much as N^{-1/(2T-2)}.

The verdict: (1) the learned part alone, whose eigenvalues follow from the kernels at any width: the sum of lambda^2,
which is smooth in the kernels, extrapolated from two large widths, is the theory's at all signals, for both networks.
(2) Whole matrices: where the outlier predicted lies beyond all that prior matrices of the smaller width have, the mean
over draws, extrapolated from two widths, is where the theory says, for eigenvalues and singular values. (3) At the
strongest signal the RNN's largest eigenvalue exceeds the DNN's, and the DNN's largest singular value that of prior
matrices.
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, COLOURS, Experiment, extrapolate, points
from matplotlib.figure import Figure

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
STEPS = 4
SIGNALS = (1.0, 1.9, 3.0, 9.0)
LEARNED_WIDTHS = (25_000, 100_000)
SHOWN = (0, 1, 3)  # of the signals, for the clouds


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=180, width_help="the wider of two widths; the other is a third of it"
    )
    steps, signals, shown = (3, (4.6,), (0,)) if run.quick else (STEPS, SIGNALS, SHOWN)
    widths = [run.width] if run.quick else [run.width // 3, run.width]
    draws = 4 if run.quick else 48
    prior = {width: prior_extremes(width, draws, run.seed()) for width in widths}
    drawn, clouds, predicted = {}, {}, {}
    for name, make in MAKERS.items():
        for signal in signals:
            task = bn.tasks.chain(steps, signal)
            predicted[name, signal] = theory.spectrum(theory.solve(make(run.width), task))
            for width in widths:
                what = f"{name}, N = {width}, signal {signal}"
                run.say(what)
                # At the largest signal a step of the usual size diverges now and then.
                settings = {"num_samples": 1000, "num_latents": draws // 4, "target_accept": 0.95}
                posterior = run.sample(make(width), task, **settings)
                run.measure(posterior, bn.observables.default_observables(make(width), task), what)
                matrices = draw_matrices(posterior, run.seed())
                drawn[name, signal, width] = np.array([largest(matrix) for matrix in matrices])
                clouds[name, signal] = np.linalg.eigvals(matrices[0])
    learned = {} if run.quick else {key: check_learned(run, *key, steps, predicted[key]) for key in predicted}
    judge(run, drawn, predicted, prior, signals, widths)
    run.save(draw(run, drawn, clouds, predicted, prior, [signals[i] for i in shown], steps))
    record = {f"{name}, signal {s}, N = {n}": values for (name, s, n), values in drawn.items()}
    return run.finish(
        "an eigenvalue leaves the bulk in the RNN only, and later than coherence; it sits where the theory says",
        {
            "largest_eigenvalue_and_singular_value": record,
            "prior": prior,
            "learned": {f"{name}, signal {signal}": found for (name, signal), found in learned.items()},
        },
    )


def check_learned(run: Experiment, name: str, signal: float, steps: int, spectrum: theory.Spectrum) -> dict:
    """Claim (1): the sum of lambda^2 of E[W | H], of unshared matrices the last."""
    observable = bn.observables.Observable("learned", lambda kernel, _: learned_squares(kernel, name == "RNN"))
    task, network = bn.tasks.chain(steps, signal), MAKERS[name](LEARNED_WIDTHS[-1])
    label = f"{name}, signal {signal}: sum of squared learned eigenvalues"
    mean, error = run.climb(network, task, [observable], LEARNED_WIDTHS, label).limit()
    exact = float(np.sum(spectrum.eigenvalues[-1] ** 2).real)
    run.agree(label, mean, error, exact)
    return {"mean": mean, "mcse": error, "theory": exact}


def learned_squares(kernel: np.ndarray, shared: bool) -> np.ndarray:
    """Sum of lambda^2 of C^{-1} <h_{t-1} h_s> over steps 2..T, kernels (..., T, 1, T, 1); unshared: step T alone."""
    kernel = kernel[..., 0, :, 0]
    # C over steps 2..T is the kernel one step earlier; the input at step 1 is uncorrelated with it.
    before, crossed = kernel[..., :-1, :-1], kernel[..., :-1, 1:]
    if not shared:
        return (crossed[..., -1, -1] / before[..., -1, -1]) ** 2
    learned = np.linalg.solve(before, crossed)
    return np.einsum("...ij,...ji->...", learned, learned)


def draw_matrices(posterior, seed: int) -> list[np.ndarray]:
    """W of every draw whose latents were kept; of unshared ones the last, into step T."""
    sizes = posterior["latents"].sizes
    kept = np.ndindex(sizes["chain"], sizes["latent_draw"])
    return [np.asarray(bn.draw_weights(posterior, *index, seed).recurrent[-1]) for index in kept]


def prior_extremes(width: int, draws: int, seed: int) -> np.ndarray:
    """`largest` of prior matrices, entries N(0, 1/N), (draws, 2)."""
    rng = np.random.default_rng(seed)
    return np.array([largest(rng.normal(size=(width, width)) / np.sqrt(width)) for _ in range(draws)])


def largest(matrix: np.ndarray) -> tuple[float, float]:
    """Largest modulus of an eigenvalue, and largest singular value."""
    return float(np.abs(np.linalg.eigvals(matrix)).max()), float(np.linalg.norm(matrix, 2))


def outliers(spectrum: theory.Spectrum) -> tuple[float, float]:
    """The theory's largest eigenvalue outside the bulk and singular value outlier of the last W; 0 where none."""
    moduli = np.abs(spectrum.outliers[-1])
    return float(moduli.max(initial=0.0)), float(spectrum.singular_values[-1].max(initial=0.0))


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over independent draws (draws, 2): means and standard errors, (2,)."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def judge(run: Experiment, drawn: dict, predicted: dict, prior: dict, signals, widths: list[int]) -> None:
    """The claims of the module's docstring."""
    if len(widths) < 2:
        return
    beyond = prior[widths[0]].max(axis=0)
    for name, signal in predicted:
        rows = [mean_and_error(drawn[name, signal, width]) for width in widths]
        mean, error = (np.array(column) for column in zip(*rows, strict=True))
        coefficients, limit_error = extrapolate(np.array(widths), mean, error)
        for k, (what, theirs) in enumerate(
            zip(("eigenvalue", "singular value"), outliers(predicted[name, signal]), strict=True)
        ):
            label = f"{name}, signal {signal}: largest {what}"
            if theirs > beyond[k]:
                run.agree(f"{label}, outlier", coefficients[0, k], limit_error[k], theirs)
    rnn, dnn = (drawn[name, signals[-1], widths[-1]] for name in MAKERS)
    (rnn_mean, rnn_error), (dnn_mean, dnn_error) = mean_and_error(rnn), mean_and_error(dnn)
    error = np.hypot(rnn_error, dnn_error)[0]
    run.exceed("largest eigenvalue, RNN above DNN, strongest signal", rnn_mean[0] - dnn_mean[0], error, 0.0)
    dnn_stretch = dnn_mean[1] - prior[widths[-1]][:, 1].mean()
    run.exceed("largest singular value, DNN above the bulk, strongest signal", dnn_stretch, dnn_error[1], 0.0)


def draw(run: Experiment, drawn, clouds, predicted, prior, shown, steps: int):
    """The figure of the module's docstring."""
    figure = Figure((9.6, 8.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.55, 1))
    for axes_row, name in zip(top.subplots(2, len(shown), squeeze=False), MAKERS, strict=True):
        for axes, signal in zip(axes_row, shown, strict=True):
            bn.plots.spectrum(clouds[name, signal], ax=axes, color=COLOURS[name], label="posterior")
            bn.plots.spectrum(predicted[name, signal], ax=axes)
            axes.get_legend().remove()
            axes.set(xlim=(-2.1, 2.1), ylim=(-1.35, 1.35), aspect="equal", adjustable="box")
            axes.set_title(f"{name}, signal {signal}", fontsize=9)
            axes.set_ylabel(axes.get_ylabel() if signal == shown[0] else "")
            axes.set_xlabel(axes.get_xlabel() if name == "DNN" else "")
    signals = sorted({signal for _, signal, _ in drawn})
    widths = sorted({width for _, _, width in drawn})
    fine = np.geomspace(0.8 * signals[0], 1.1 * signals[-1], 3 if run.quick else 40)
    critical = theory.critical_signal(bn.Network.rnn(64), bn.tasks.chain(steps, 1.0)).instability
    axes_pair = bottom.subplots(1, 2)
    for name, make in MAKERS.items():
        curves = np.array([outliers(theory.spectrum(theory.solve(make(64), bn.tasks.chain(steps, s)))) for s in fine])
        for k, axes in enumerate(axes_pair):
            edge = (1.0, 2.0)[k]
            style = {"color": COLOURS[name], "lw": 1.4, "ls": "-" if name == "RNN" else "--"}
            axes.plot(fine, np.maximum(curves[:, k], edge), **style, label=f"{name}, theory")
            for width, filled in zip(widths, ("white", COLOURS[name])[-len(widths) :], strict=True):
                rows = [mean_and_error(drawn[name, signal, width]) for signal in signals]
                mean, error = np.array([r[0][k] for r in rows]), np.array([r[1][k] for r in rows])
                points(axes, signals, mean, error, color=COLOURS[name], mfc=filled, label=f"{name}, N = {width}")
    for k, axes in enumerate(axes_pair):
        for width, style in zip(widths, ("-.", "-"), strict=False):
            axes.axhline(prior[width][:, k].mean(), color="0.6", ls=style, lw=0.9, label=f"prior, N = {width}")
        axes.axvline(critical, color="k", ls=":", lw=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlabel=r"signal $|y|$", xscale="log")
        axes.set_xticks(signals, [f"{signal:g}" for signal in signals])
        axes.minorticks_off()
    axes_pair[0].set_ylabel(r"largest $|\lambda|$ of W")
    axes_pair[1].set_ylabel("largest singular value of W")
    axes_pair[0].legend(fontsize=8, frameon=False)
    bottom.suptitle(f"dotted: critical signal; {BARS} of {len(next(iter(drawn.values())))} draws", fontsize=9)
    return figure


if __name__ == "__main__":
    raise SystemExit(main())

"""Handwritten digits: the same transition on real data, and what it is worth on digits the network has not seen.

Claim. Zeros and ones are shown at step 1 and told apart at step T = 3. Real images are neither orthogonal nor of one
size, yet the linear RNN's steps become coherent at the signal that the theory computes from their Gram matrix, along
the direction of the targets, and the DNN's do not. What does coherence buy? On this task, with one question at the end,
nothing is asked of the steps in between, and the two networks generalise alike; both learn from more images.

Expected picture: left, squared overlap of the last two steps along the targets against the signal, theory as lines,
posterior points on them, the critical signal dotted. Middle, learning curve of tanh networks on a harder pair of
classes (3 and 8): root mean square error of the posterior mean on new digits, as a fraction of the signal, against the
number of images learned; right, the fraction of new digits on the wrong side of zero.

The verdict: overlaps and kernels along the targets, extrapolated from two widths, are the theory's at every signal; the
error on new digits falls from the smallest to the largest number of images, for both networks, and is then below that
of answering zero. Whether sharing helps is reported, not claimed.
"""

from __future__ import annotations

import numpy as np
from experiment import BARS, COLOURS, Experiment, expected, panels, points

import bayesnet as bn
import theory

MAKERS = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
STEPS = 3
RELATIVE = (0.7, 1.2, 1.5)  # signals, as multiples of the critical one
PATTERNS = 4  # of the transition
HARD = {"classes": (3, 8), "steps": STEPS, "signal": 2.0}


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(
        argv, __file__, __doc__, width=100_000, width_help="width of the linear networks; tanh: at most 128"
    )
    figure, grid = panels(1, 3, 10.5, 3.6)
    transition_axes, error_axes, wrong_axes = grid[0]
    results = {"transition": transition(run, transition_axes), "learning": learning(run, error_axes, wrong_axes)}
    run.save(figure)
    return run.finish("the digits' critical signal is the predicted one, and new digits are told apart", results)


def transition(run: Experiment, axes) -> dict:
    """Coherence against the signal."""
    patterns, relative = (1, (1.4,)) if run.quick else (PATTERNS, RELATIVE)
    unit = bn.tasks.digits(patterns=patterns, steps=STEPS, signal=1.0)
    critical = theory.critical_signal(bn.Network.rnn(run.width), unit).instability
    direction = bn.observables.target_direction(unit)
    direction = np.ones(1) if direction is None else direction
    observables = [bn.observables.directed_overlap(STEPS - 2, STEPS - 1, direction, squared=True)]
    observables += [bn.observables.directed_kernel(t, direction) for t in range(STEPS)]
    widths = [run.width] if run.quick else [run.width // 4, run.width]
    fine = critical * np.linspace(0.5, 1.5, 3 if run.quick else 40)
    record = {"critical_signal": critical, "labels": [o.label for o in observables]}
    for name, make in MAKERS.items():
        network = make(run.width)
        curve = [expected(theory.solve(network, unit.scaled(s), starts=1), observables)[0] for s in fine]
        axes.plot(fine, curve, "-" if name == "RNN" else "--", color=COLOURS[name], lw=1.4, label=f"{name}, theory")
        means, errors = [], []
        for factor in relative:
            task = unit.scaled(factor * critical)
            label = f"digits, {name}, signal {factor} of the critical one"
            mean, error = run.climb(network, task, observables, widths, label, num_samples=1000).limit()
            run.agree(f"{label}, observable", mean, error, expected(theory.solve(network, task), observables))
            means.append(mean)
            errors.append(error)
        first = np.array([[mean[0], error[0]] for mean, error in zip(means, errors, strict=True)])
        points(axes, critical * np.array(relative), *first.T, color=COLOURS[name], label=f"{name}, posterior")
        record[name] = {"signal": critical * np.array(relative), "mean": means, "mcse": errors}
    axes.axvline(critical, color="k", ls=":", lw=1)
    axes.set(xlabel="signal", ylabel=r"overlap$^2$ along the targets, last two steps")
    axes.set_title(f"zeros and ones, linear; {BARS}", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return record


def learning(run: Experiment, error_axes, wrong_axes) -> dict:
    """Predictive error on new digits against the number learned."""
    counts, width = ((1,), 64) if run.quick else ((2, 4, 8, 16), min(run.width, 128))
    tests = 64
    record = {}
    for name, make in MAKERS.items():
        network = make(width, activation="tanh", recurrent_gain=2**0.5)
        rows = []
        for count in counts:
            label = f"digits 3 and 8, {name}, {count} images"
            run.say(label)
            told, new = (
                bn.tasks.digits(patterns=count, **HARD),
                bn.tasks.digits_test(patterns=count, **HARD, test_patterns=tests),
            )
            posterior = run.sample(network, told, sampler="hmc", num_samples=600, num_latents=25)
            observables = [bn.observables.prediction_at(mu, STEPS - 1, 0) for mu in range(count)]
            run.measure(posterior, observables, label)
            answers = bn.predict(posterior, new, seed=run.seed())["prediction"].to_numpy()[..., -1, 0]
            rows.append(score(answers.reshape(-1, tests), new.targets[:, -1, 0]))
        error, its_error, wrong = np.array(rows).T
        points(error_axes, counts, error, its_error, color=COLOURS[name], fmt="o-", label=name)
        wrong_axes.plot(counts, wrong, "o-", ms=4.5, color=COLOURS[name], label=name)
        record[name] = {"images": counts, "relative_error": error, "standard_error": its_error, "wrong": wrong}
        if not run.quick:
            run.exceed(
                f"{name}: error falls with the images", error[0] - error[-1], np.hypot(its_error[0], its_error[-1]), 0.0
            )
            run.exceed(f"{name}: better than answering zero", 1 - error[-1], its_error[-1], 0.0)
    for axes, label in (
        (error_axes, "rms error on new digits / signal"),
        (wrong_axes, "fraction of new digits told wrong"),
    ):
        axes.set(xlabel="images learned", ylabel=label, ylim=(0, None), xscale="log")
        axes.set_xticks(counts, counts, minor=False)
        axes.minorticks_off()
    error_axes.axhline(1, color="0.6", lw=0.9, ls=":")
    error_axes.set_title(f"3 against 8, tanh, N = {width}", fontsize=9)
    wrong_axes.set_title(f"{tests} new digits, posterior mean", fontsize=9)
    error_axes.legend(fontsize=8, frameon=False)
    return record


def score(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Error |mean f - y| / |y| of draws (draws, tests), its standard error to first order, and the fraction wrong."""
    mean = answers.mean(axis=0)
    gap = (mean - truth) / np.linalg.norm(truth)
    size = np.linalg.norm(gap)
    along = answers @ gap / size / np.linalg.norm(truth)
    return size, along.std(ddof=1) / np.sqrt(len(answers)), float(np.mean(np.sign(mean) != np.sign(truth)))


if __name__ == "__main__":
    raise SystemExit(main())

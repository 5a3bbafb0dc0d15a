"""Training by noisy gradient descent is inference: it ends in the posterior, kernels at the saddle point's values.

Claim. Langevin dynamics on the weights, gradient descent on the squared loss with weight decay and noise of temperature
kappa/N,

    z  <-  z - eps grad U(z) + sqrt(2 eps) xi,        U = |z|^2 / 2 - ln p(y | z),

has the posterior as its stationary law for eps -> 0, so the network at the end of training is a draw from it: its
kernels fluctuate by 1/sqrt(N) around the saddle point of the theory. At a finite step its means are off by O(eps). And
training has three speeds: the loss falls within tenths of a unit of training time (that in which weight decay alone
forgets a weight), the kernels of single steps are learned within one, and the coherence between steps, a broken
symmetry, takes many.

Expected picture, RNN of three steps: above the critical signal, from left to right, loss, kernels and squared overlap
of the last two steps against training time, thin lines single trainings from a prior draw, dashed the saddle point.
Last panel, below the critical signal, where everything is quick: means of two step sizes against the step, extrapolated
to zero, beside NUTS at the same width.

The verdict: (0) below the critical signal the four networks at the end of training, put in by their weights alone
(`bayesnet.from_weights`), lie no further from the posterior than chance explains (`bayesnet.locate`), and beyond chance
from the lazy limit; (1) below the critical signal, means of the single-time kernels, of the prediction and of the loss,
extrapolated linearly from two steps to eps = 0, are those of NUTS on the same posterior; (2) above it the loss at the
end of training has fallen below a tenth of the first one recorded, and the kernel of the last step has grown to more
than twice its prior value, 1.

--paper-width runs all of it at the paper's width, 2048, which takes about 16 times as long.
"""

from __future__ import annotations

import numpy as np
from experiment import MORE_COLOURS, Experiment, expected, extrapolate, panels, points
from matplotlib.ticker import NullFormatter

import bayesnet as bn
import theory

STEPS, NOISE = 3, 1.0
ABOVE, BELOW = 1.4, 0.7  # signals, as multiples of the critical one
PAPER_WIDTH = 2048
STEP_SIZES = (0.04, 0.02)
SHOWN_STEP = 0.01
TRANSIENT = 10.0  # training time left out of the means
LENGTH, SHOWN_LENGTH = 200.0, 30.0  # training time of the means, of the picture
RECORD, SHOWN_RECORD = 0.2, 0.02  # training time between records


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    help_text = f"the paper's width, {PAPER_WIDTH}, in place of --width"
    options = {"--paper-width": {"action": "store_true", "help": help_text}}
    run = Experiment(argv, __file__, __doc__, width=512, width_help="width N", options=options)
    network = bn.Network.rnn(PAPER_WIDTH if run.arguments.paper_width else run.width, noise=NOISE)
    critical = theory.critical_signal(network, bn.tasks.chain(STEPS, 1.0)).instability
    figure, grid = panels(1, 4, 12.0, 3.3)
    results = {
        "above": watch(run, grid[0, :3], network, bn.tasks.chain(STEPS, ABOVE * critical)),
        "below": equilibrate(run, grid[0, 3], network, bn.tasks.chain(STEPS, BELOW * critical)),
    }
    run.save(figure)
    return run.finish("training ends in the posterior, and the posterior's kernels are the theory's", results)


def train(run: Experiment, network: bn.Network, task: bn.Task, step_size: float, length: float, record: float):
    """Four trainings from prior draws; ``length`` and time between records in units of training time."""
    every = 1 if run.quick else round(record / step_size)
    draws = 5 if run.quick else round(length / (every * step_size))
    settings = {"num_warmup": 0, "num_samples": draws, "num_latents": 1, "precision": "float32", "seed": run.seed()}
    run.say(f"Langevin, step {step_size}, {draws * every} steps")
    return bn.sample(
        network, task, "weights", sampler="langevin", step_size=step_size, steps_per_draw=every, **settings
    )


def loss_on(task: bn.Task) -> bn.observables.Observable:
    """(y - f)^2 / 2 at the one target."""
    target = task.targets[0, -1, 0]
    return bn.observables.Observable("loss", lambda _, prediction: (prediction[..., 0, -1, 0] - target) ** 2 / 2)


def watch(run: Experiment, axes_row, network: bn.Network, task: bn.Task) -> dict:
    """The first three panels: loss, kernels, coherence against training time, above the critical signal."""
    posterior = train(run, network, task, SHOWN_STEP, SHOWN_LENGTH, SHOWN_RECORD)
    time = posterior["sample_stats"]["training_time"].to_numpy()[0]
    last = STEPS - 1
    kernels = [bn.observables.diagonal_kernel(t, 0) for t in range(STEPS)]
    overlap = bn.observables.overlap(last - 1, last, 0, squared=True)
    loss = loss_on(task)
    draws = bn.diagnostics.evaluate_observables(posterior, [*kernels, overlap, loss])
    solution = theory.solve(network, task)
    loss_axes, kernel_axes, overlap_axes = axes_row
    loss_axes.plot(time, draws[loss.label].T, color="0.5", lw=0.5, rasterized=True)
    loss_axes.axhline(expected(solution, [loss])[0], color="k", ls="--", lw=1.2)
    loss_axes.set(ylabel=r"loss $(y - f)^2 / 2$", yscale="log")
    for t, observable in enumerate(kernels):
        kernel_axes.plot(time, draws[observable.label].T, color=MORE_COLOURS[t], lw=0.6, rasterized=True)
        kernel_axes.axhline(
            expected(solution, [observable])[0], color=MORE_COLOURS[t], ls="--", lw=1.2, label=f"step {t + 1}"
        )
    kernel_axes.set(ylabel=r"kernel $\Phi_{tt}$")
    kernel_axes.legend(fontsize=8, frameon=False, loc="center right", title="saddle point", title_fontsize=8)
    overlap_axes.plot(time, draws[overlap.label].T, color=MORE_COLOURS[3], lw=0.6, rasterized=True)
    overlap_axes.axhline(expected(solution, [overlap])[0], color="k", ls="--", lw=1.2)
    overlap_axes.set(ylabel=rf"overlap$^2$ of steps {last}, {STEPS}")
    for axes in axes_row:
        axes.set(xlabel="training time", xscale="log")
        axes.xaxis.set_minor_formatter(NullFormatter())  # of a short run its labels would overlap
    kernel_axes.set_title(f"N = {network.width}, {ABOVE} of the critical signal: four trainings", fontsize=9)
    if not run.quick:
        end = {observable.label: draws[observable.label][:, len(time) // 2 :] for observable in (loss, kernels[last])}
        summary = bn.diagnostics.summarise_draws(end)
        mean, error = summary["mean"].to_numpy(), summary["mcse"].to_numpy()
        first = draws[loss.label][:, 0].mean()
        run.exceed("a tenth of the first loss, above the last one", first / 10 - mean[0], error[0], 0.0)
        run.exceed("the last step's kernel has grown", mean[1], error[1], 2.0)
    return {"time": time, **{label: values for label, values in draws.items()}}


def equilibrate(run: Experiment, axes, network: bn.Network, task: bn.Task) -> dict:
    """The last panel: stationary means at two step sizes, their limit, and NUTS."""
    observables = [bn.observables.diagonal_kernel(t, 0) for t in range(STEPS)]
    observables += [bn.observables.prediction_at(0, STEPS - 1, 0), loss_on(task)]
    means, errors = [], []
    for step_size in STEP_SIZES[:1] if run.quick else STEP_SIZES:
        posterior = train(run, network, task, step_size, LENGTH, RECORD)
        draws = bn.diagnostics.evaluate_observables(posterior, observables)
        skipped = 0 if run.quick else round(TRANSIENT / RECORD)
        table = bn.diagnostics.summarise_draws({label: values[:, skipped:] for label, values in draws.items()})
        # Langevin has neither divergences nor trees; what is left to ask is whether its chains agree.
        worst = table["r_hat"].max()
        run.require(worst <= bn.diagnostics.R_HAT_LIMIT, f"Langevin, step {step_size}: R-hat is {worst:.3f}")
        means.append(table["mean"].to_numpy())
        errors.append(table["mcse"].to_numpy())
    solution = theory.solve(network, task)
    trained = bn.from_weights(network, task, [bn.draw_weights(posterior, chain) for chain in range(4)])
    location = bn.locate(trained, solution)
    run.say(location.message)
    run.require(run.quick or location.status == "posterior", f"trained networks: {location.message}")
    inverse = 1 / np.array(STEP_SIZES[: len(means)])
    coefficients, limit_error = extrapolate(inverse, np.array(means), np.array(errors))
    reference = run.measure(run.sample(network, task, num_samples=1500), observables, "NUTS")
    exact = expected(solution, observables)
    total = np.hypot(limit_error, reference["mcse"].to_numpy())
    run.agree("Langevin at step 0 against NUTS, observable", coefficients[0], total, reference["mean"].to_numpy())
    for k in range(STEPS + 1):  # the loss, whose mean is known to 1% only, would hide the others
        name = rf"$\Phi_{{{k + 1}{k + 1}}}$" if k < STEPS else r"$f$"
        scale, colour = reference["mean"].iloc[k], MORE_COLOURS[k]
        shift = 6e-4 * (k - 1.5)
        steps = 1 / inverse + shift
        points(axes, steps, np.array(means)[:, k] / scale, np.array(errors)[:, k] / scale, color=colour, label=name)
        points(axes, shift, coefficients[0, k] / scale, limit_error[k] / scale, color=colour, mfc="w")
        axes.plot(-0.006, exact[k] / scale, "_", ms=10, mew=2, color=colour)
    axes.axhline(1, color="k", lw=0.9, ls=":")
    axes.set(xlabel=r"step size $\epsilon$", ylabel="mean / mean by NUTS")
    axes.set_title(f"{BELOW} of the critical signal", fontsize=9)
    axes.legend(fontsize=8, frameon=False, title="bars: 2 MCSE", title_fontsize=8)
    return {
        "labels": [observable.label for observable in observables],
        "step_sizes": STEP_SIZES,
        "langevin": means,
        "langevin_mcse": errors,
        "limit": coefficients[0],
        "limit_error": limit_error,
        "nuts": reference["mean"].to_numpy(),
        "nuts_mcse": reference["mcse"].to_numpy(),
        "saddle_point": exact,
        "trained": location.message,
    }


if __name__ == "__main__":
    raise SystemExit(main())

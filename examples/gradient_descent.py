"""Where gradient descent lands: ordinary tanh RNNs, trained in plain JAX without decay, with decay, and with noise.

Claim. Sixteen networks of N tanh neurons are trained on the squared loss by full gradient descent, in three ways:

    z  <-  z - eps grad L(z)                                          no decay
    z  <-  z - eps grad L(z) - eps z                                  weight decay
    z  <-  z - eps grad L(z) - eps z + sqrt(2 eps) xi                 weight decay and noise

    L = N/kappa sum (y - f)^2 / 2,        W = z_W / sqrt(N),  U = z_U / sqrt(D),  V = z_V,  f = V phi(h) / N

from weights drawn at random, z ~ N(0, 1). Their weights alone are then placed beside the theory
(`bayesnet.from_weights`, `bayesnet.locate`). Only the last of the three is inference. Without decay a network stops as
soon as the loss is small, still with the random recurrent weights it began with: its steps do not correlate. With decay
but no noise all weights that the data do not need vanish. W keeps one singular value or two: one where it maps each
hidden state to a multiple of itself, and the steps are fully coherent, two where it takes them through directions of
their own. Which minimum a network ends in depends on where it began. The posterior is something else: noise keeps the
bulk of W at the size that the prior gives it, and the steps correlate in part, in every network.

Expected picture, against training time (its unit is the time in which decay alone forgets a weight): loss, kernel of
the last step, squared overlap of the last two steps, size of W relative to the prior. Lines: medians of 16 networks,
shaded: all of them; dashed: the saddle point; dotted: the lazy limit.

The verdict: networks trained with decay and noise lie where the posterior does, and the two other kinds do not; without
decay the squared overlap is below the saddle point's; with decay alone the size of W is below half of the prior's and
its effective rank, (sum s^2)^2 / sum s^4 over its singular values, below 3 (N/2 in the prior).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from experiment import COLOURS, MORE_COLOURS, Experiment, expected, panels

import bayesnet as bn
import theory

STEPS, NOISE, ABOVE = 3, 1.0, 1.4  # time steps, kappa, signal in units of the critical one
NETWORKS = 16
STEP_SIZE, LENGTH, RECORDS = 0.02, 40.0, 100  # of training time
KINDS = {  # decay, noise
    "no decay": (0.0, 0.0),
    "decay": (1.0, 0.0),
    "decay and noise": (1.0, 1.0),
}
COLOUR_OF = dict(zip(KINDS, (MORE_COLOURS[2], COLOURS["DNN"], COLOURS["RNN"]), strict=True))


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=128, width_help="width N")
    network = bn.Network.rnn(run.width, activation="linear" if run.quick else "tanh", noise=NOISE)
    critical = theory.critical_signal(network, bn.tasks.chain(STEPS, 1.0)).instability
    task = bn.tasks.chain(STEPS, ABOVE * critical)
    run.say(f"theory, signal {ABOVE * critical:.3f}")
    solution, lazy = theory.solve(network, task), theory.nngp(network, task)
    last, overlap = (
        bn.observables.diagonal_kernel(STEPS - 1, 0),
        bn.observables.overlap(STEPS - 2, STEPS - 1, 0, squared=True),
    )
    figure, grid = panels(1, 4, 12.4, 3.2)
    results = {}
    for kind, (decay, noise) in KINDS.items():
        run.say(kind)
        times, history = train(run, network, task, decay, noise)
        found = [at(network, task, weights) for weights in history]
        curves = {
            "loss": np.array([one["sample_stats"]["loss"].to_numpy().ravel() for one in found]),
            "kernel": np.array([bn.diagnostics.evaluate_observables(one, [last])[last.label].ravel() for one in found]),
            "overlap": np.array(
                [bn.diagnostics.evaluate_observables(one, [overlap])[overlap.label].ravel() for one in found]
            ),
            "size": np.array([np.sqrt(np.mean(weights["recurrent"] ** 2, axis=(1, 2))) for weights in history]),
        }
        for axes, values in zip(grid[0], curves.values(), strict=True):
            axes.plot(times, np.median(values, axis=1), color=COLOUR_OF[kind], lw=1.5, label=kind)
            axes.fill_between(times, values.min(axis=1), values.max(axis=1), color=COLOUR_OF[kind], alpha=0.2, lw=0)
        location = bn.locate(found[-1], solution)
        run.say(location.message)
        squares = np.linalg.svd(history[-1]["recurrent"], compute_uv=False) ** 2
        rank = squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1)
        results[kind] = {"times": times, "location": location.message, "rank": rank, **curves}
        judge(run, kind, location, curves, rank, float(expected(solution, [overlap])[0]))
    for axes, observable in zip(grid[0, 1:3], (last, overlap), strict=True):
        for which, style in ((solution, "--"), (lazy, ":")):
            axes.axhline(expected(which, [observable])[0], color="k", ls=style, lw=1.1)
    grid[0, 3].axhline(1.0, color="k", ls=":", lw=1.1)
    labels = (r"loss $\sum (y - f)^2 / 2$", rf"kernel $\Phi_{{{STEPS}{STEPS}}}$", rf"overlap$^2$ of steps 2, {STEPS}")
    for axes, label in zip(grid[0], (*labels, "size of W / prior"), strict=True):
        axes.set(xlabel="training time", ylabel=label, xscale="log")
    grid[0, 0].set_yscale("log")
    grid[0, 3].legend(fontsize=8, frameon=False)
    run.save(figure)
    return run.finish("only decay and noise together end in the posterior", results)


def judge(run: Experiment, kind: str, location, curves: dict, rank: np.ndarray, saddle: float) -> None:
    """The claims of the module's docstring about networks at the end of training."""
    inference = kind == "decay and noise"
    run.require(run.quick or (location.status == "posterior") == inference, f"{kind}: {location.message}")
    if inference:
        return

    def beyond(label: str, values: np.ndarray, sign: int, bound: float) -> None:
        error = max(values.std(ddof=1), 1e-12) / np.sqrt(len(values))
        run.exceed(f"{kind}: {label}", sign * values.mean(), error, sign * bound)

    if kind == "no decay":
        beyond("squared overlap below the saddle point's", curves["overlap"][-1], -1, saddle)
    else:
        beyond("size of W below half of the prior's", curves["size"][-1], -1, 0.5)
        beyond("effective rank of W below 3", rank, -1, 3.0)


def outputs(z: dict, inputs: jax.Array, phi) -> jax.Array:
    """f at the last step, (P,), of one network with white weights z."""
    width, dim = z["input"].shape
    h = jnp.zeros((width, inputs.shape[0]))
    for step in range(inputs.shape[1]):
        current = z["input"] @ inputs[:, step].T / jnp.sqrt(dim)
        if step:
            current = current + z["recurrent"] @ phi(h) / jnp.sqrt(width)
        h = current
    return (z["readout"] @ phi(h))[0] / width


@partial(jax.jit, static_argnames="phi")
def descend(z: dict, key: jax.Array, inputs, targets, noise, decay, temperature, first, end, phi) -> dict:
    """The steps from ``first`` to ``end`` of all networks (M, ...)."""

    def cost(z: dict) -> jax.Array:
        width = z["input"].shape[0]
        return width / noise * jnp.sum((targets - outputs(z, inputs, phi)) ** 2) / 2

    def step(number: jax.Array, z: dict) -> dict:
        slopes = jax.vmap(jax.grad(cost))(z)
        keys = dict(zip(z, jax.random.split(jax.random.fold_in(key, number), len(z)), strict=True))

        def moved(name: str) -> jax.Array:
            white = jax.random.normal(keys[name], z[name].shape)
            forgotten = decay * STEP_SIZE * z[name]
            return z[name] - STEP_SIZE * slopes[name] - forgotten + temperature * jnp.sqrt(2 * STEP_SIZE) * white

        return {name: moved(name) for name in z}

    return jax.lax.fori_loop(first, end, step, z)


def train(run: Experiment, network: bn.Network, task: bn.Task, decay: float, noise: float):
    """Training times (R,) and the white weights of all networks at each of them."""
    width, dim, number = network.width, task.input_dim, 4 if run.quick else NETWORKS
    key = jax.random.key(run.seed())
    *keys, key = jax.random.split(key, 4)
    shapes = {"recurrent": (number, width, width), "input": (number, width, dim), "readout": (number, 1, width)}
    z = {name: jax.random.normal(one, shape) for one, (name, shape) in zip(keys, shapes.items(), strict=True)}
    inputs, targets = jnp.asarray(task.inputs, float), jnp.asarray(task.targets[:, -1, 0], float)
    steps = 200 if run.quick else round(LENGTH / STEP_SIZE)
    ends = np.unique(np.round(np.geomspace(2, steps, 8 if run.quick else RECORDS)).astype(int))
    history, done = [], 0
    for end in ends:
        z = descend(z, key, inputs, targets, NOISE, decay, noise, done, end, network.phi.function)
        done = end
        history.append({name: np.asarray(values) for name, values in z.items()})
    return ends * STEP_SIZE, history


def at(network: bn.Network, task: bn.Task, z: dict):
    """The networks beside the theory: weights as `bayesnet.from_weights` takes them."""
    width, dim = network.width, task.input_dim
    scales = {"recurrent": np.sqrt(width), "input": np.sqrt(dim), "readout": 1.0}
    return bn.from_weights(network, task, {name: values[:, None] / scales[name] for name, values in z.items()})


if __name__ == "__main__":
    raise SystemExit(main())

"""Effective draws per second and per 1000 gradients: our coordinates beside what one would write today.

Four ways to the same posterior, the chain task of the tests above its transition, in one run:

- default: `bayesnet.sample`, coordinates "auto" (kernels for linear networks, else fields);
- fields: `bayesnet.sample` in field coordinates;
- plain NUTS: the network as a plain NumPyro model with its weights as sites, MCMC(NUTS(model)) with NumPyro's defaults;
- Langevin: noisy gradient descent on the weights, w <- w - dt dU/dw + sqrt(2 dt) xi, without a Metropolis test, the
  way wide networks are sampled in the literature; started from a prior draw, or at zero for comparison.

ESS is the smallest bulk ESS (ArviZ) over the invariants: log diagonal kernels, squared overlaps, predictions where the
target is. R-hat stands beside each row: above 1.01 the ESS means little, and the row counts as not converged.
Ours and Langevin get about --seconds of sampling, warm-up included; plain NUTS needs its 500 warm-up and --plain-draws
draws whatever they take (fewer, and its step size has not settled). Compilation is timed apart. The contestants in
weights run in float32, JAX's default; ours in float64, our own.

    python benchmarks/coordinates.py --out coordinates.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import bayesnet as bn

CHAINS = 4
WARMUP = 500
NOISE = 0.1
SIGNAL = 4.3
LANGEVIN_STEPS = (0.0005, 0.002)  # every weight whitened, prior N(0, 1); .005 is past the edge of stability
PHI = {"linear": lambda x: x, "tanh": jnp.tanh, "relu": jax.nn.relu}


def weights_model(width, steps, activation, target):
    """What a user would write: W, U, V as sites, the recurrence, a normal likelihood."""
    w = numpyro.sample("w", dist.Normal(0, 1 / np.sqrt(width)).expand([width, width]).to_event(2))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([width]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([width]).to_event(1))
    activity = run_recurrence(w, u, steps, PHI[activation])
    f = activity @ v / width
    numpyro.deterministic("kernel", activity @ activity.T / width)
    numpyro.deterministic("prediction", f)
    numpyro.sample("y", dist.Normal(f[-1], np.sqrt(NOISE / width)), obs=target)


def run_recurrence(w, u, steps, phi):
    """phi(h_1), ..., phi(h_T) of the chain task, (T, N): x_1 = 1 and nothing after."""
    activity = [phi(u)]
    for _ in range(steps - 1):
        activity.append(phi(w @ activity[-1]))
    return jnp.stack(activity)


def invariants(kernel, prediction):
    """Dict of draws (chain, draw) from kernels (chain, draw, T, T) and the prediction at the last step."""
    steps = kernel.shape[-1]
    diagonal = np.einsum("cdtt->cdt", kernel)
    draws = {f"log k{t + 1}": np.log(diagonal[..., t]) for t in range(steps)}
    for t in range(steps):
        for s in range(t):
            draws[f"rho{s + 1}{t + 1}^2"] = kernel[..., s, t] ** 2 / (diagonal[..., s] * diagonal[..., t])
    return {**draws, "f": prediction}


def measure(name, kernel, prediction, gradients, seconds, compile_seconds):
    """One row of the table."""
    draws = invariants(np.asarray(kernel, float), np.asarray(prediction, float))
    ess = {label: float(az.ess(values, method="bulk")) for label, values in draws.items()}
    r_hat = max(float(az.rhat(values)) for values in draws.values())
    slowest = min(ess, key=lambda label: ess[label] if np.isfinite(ess[label]) else -1)
    smallest = ess[slowest] if np.isfinite(ess[slowest]) else 0.0
    return {
        "name": name,
        "ess": smallest,
        "slowest": slowest,
        "r_hat": r_hat,
        "status": "converged" if r_hat <= 1.01 else "NOT CONVERGED",
        "draws": int(kernel.shape[0] * kernel.shape[1]),
        "gradients": int(gradients),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "ess_per_1000_gradients": 1000 * smallest / gradients,
        "ess_per_second": smallest / seconds,
        "ess_per_second_with_compile": smallest / (seconds + compile_seconds),
        "means": {label: float(values.mean()) for label, values in draws.items()},
    }


def run_ours(name, coordinates, options):
    """`bayesnet.sample`: a first run that compiles, a short one to set the length, and the one that counts."""
    network = bn.Network.rnn(options.width, activation=options.activation, noise=NOISE)
    task = bn.tasks.chain(options.steps, SIGNAL)
    settings = {"num_warmup": WARMUP, "num_chains": CHAINS, "progress": False}

    def timed(num_samples, seed):
        started = time.perf_counter()
        tree = bn.sample(network, task, coordinates, num_samples=num_samples, seed=seed, **settings)
        return tree, time.perf_counter() - started

    first = timed(100, 1)[1]
    short = timed(100, 2)[1]
    number = int(np.clip(100 * (options.seconds / short - 1) * 3, 500, 20_000))
    tree, seconds = timed(number, 3)
    kernel = tree["posterior"]["kernel"].values[:, :, :, 0, :, 0]
    prediction = tree["posterior"]["prediction"].values[:, :, 0, -1, 0]
    # Warm-up counts in the time, so its gradients count as well, at the rate of the draws that were kept.
    gradients = tree["sample_stats"]["n_steps"].values.sum() * (1 + WARMUP / number)
    return measure(name, kernel, prediction, gradients, seconds, max(first - short, 0.0))


def run_plain_nuts(options):
    """NumPyro with its defaults, the warm-up as long as ours."""
    model = (options.width, options.steps, options.activation, SIGNAL)

    def run(warmup, samples, chains, seed):
        mcmc = MCMC(
            NUTS(weights_model),
            num_warmup=warmup,
            num_samples=samples,
            num_chains=chains,
            chain_method="sequential",
            progress_bar=False,
        )
        started = time.perf_counter()
        mcmc.run(jax.random.key(seed), *model, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        return mcmc, time.perf_counter() - started

    # NumPyro compiles at every call, so the shortest possible run tells the time of a compilation.
    compile_seconds = run(1, 1, 1, 0)[1]
    mcmc, total = run(WARMUP, options.plain_draws, CHAINS, 1)
    draws = mcmc.get_samples(group_by_chain=True)
    steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
    gradients = steps.sum() * (1 + WARMUP / options.plain_draws)
    seconds = max(total - compile_seconds, 1e-3)
    return measure(
        "plain NUTS, weights", draws["kernel"], draws["prediction"][..., -1], gradients, seconds, compile_seconds
    )


def run_langevin(step_size, options):
    """Noisy gradient descent on whitened weights from a prior draw; the first third is thrown away."""
    width, phi, every = options.width, PHI[options.activation], 10

    def potential(z):
        activity = run_recurrence(z["w"] / np.sqrt(width), z["u"], options.steps, phi)
        f = activity[-1] @ z["v"] / width
        prior = sum(jnp.sum(part**2) for part in z.values()) / 2
        return prior + width * (SIGNAL - f) ** 2 / (2 * NOISE)

    def one_step(_, carry):
        z, key = carry
        key, *keys = jax.random.split(key, 4)
        slope = jax.grad(potential)(z)
        noise = {name: jax.random.normal(k, z[name].shape) for name, k in zip(z, keys, strict=True)}
        moved = {name: z[name] - step_size * slope[name] + np.sqrt(2 * step_size) * noise[name] for name in z}
        return moved, key

    def observe(z):
        activity = run_recurrence(z["w"] / np.sqrt(width), z["u"], options.steps, phi)
        return activity @ activity.T / width, activity[-1] @ z["v"] / width

    @jax.jit
    @jax.vmap
    def block(carry):
        def record(carry, _):
            carry = jax.lax.fori_loop(0, every, one_step, carry)
            return carry, observe(carry[0])

        return jax.lax.scan(record, carry, None, length=20)

    def start(key):
        shapes = {"w": (width, width), "u": (width,), "v": (width,)}
        parts = jax.random.split(key, 4)
        return {n: jax.random.normal(k, s) for (n, s), k in zip(shapes.items(), parts[:3], strict=True)}, parts[3]

    carry = jax.vmap(start)(jax.random.split(jax.random.key(0), CHAINS))
    started = time.perf_counter()
    compiled = block.lower(carry).compile()
    compile_seconds = time.perf_counter() - started
    kernels, predictions = [], []
    started = time.perf_counter()
    while time.perf_counter() - started < options.seconds and (not kernels or np.isfinite(kernels[-1]).all()):
        carry, (kernel, prediction) = compiled(carry)
        kernels.append(np.asarray(kernel))
        predictions.append(np.asarray(prediction))
    seconds = time.perf_counter() - started
    kernel, prediction = np.concatenate(kernels, 1), np.concatenate(predictions, 1)
    name = f"Langevin, weights, dt = {step_size:g}"
    gradients = CHAINS * every * kernel.shape[1]
    if not np.isfinite(kernel).all():
        row = dict.fromkeys(("ess", "ess_per_1000_gradients", "ess_per_second", "ess_per_second_with_compile"), 0.0)
        told = {"slowest": "", "r_hat": float("inf"), "status": "DIVERGED", "draws": 0, "gradients": gradients}
        return {"name": name, **row, **told, "seconds": seconds, "compile_seconds": compile_seconds, "means": {}}
    kept = kernel.shape[1] // 3
    return measure(name, kernel[:, kept:], prediction[:, kept:], gradients, seconds, compile_seconds)


def machine_name():
    """Processor, cores this process may use, and the device of JAX."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.exists())
        else []
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else model}, {cores} core(s), {jax.devices()[0].device_kind}, JAX {jax.__version__}"


def print_table(rows):
    """ESS per second beside R-hat, and the gain of our default over each row."""
    best = rows[0]
    head = ("", "ESS/s", "with compile", "ESS/1000 grad", "default is", "with compile", "draws", "R-hat", "status")
    print(f"{head[0]:32}" + "".join(f"{title:>15}" for title in head[1:]))
    for row in rows:
        ratios = [
            f"{best[key] / row[key]:.3g}x" if row[key] > 0 else "-"
            for key in ("ess_per_second", "ess_per_second_with_compile")
        ]
        figures = [f"{row[key]:.3g}" for key in ("ess_per_second", "ess_per_second_with_compile")]
        figures += [f"{row['ess_per_1000_gradients']:.3g}", *ratios, str(row["draws"]), f"{row['r_hat']:.3f}"]
        print(f"{row['name']:32}" + "".join(f"{figure:>15}" for figure in figures) + f"  {row['status']}")
    print("\nmeans of the invariants (they agree where the row has converged)")
    for row in rows:
        print(f"{row['name']:32}" + "  ".join(f"{label} {value:.4f}" for label, value in row["means"].items()))


def main(arguments=None):
    """Run all contestants, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--activation", choices=sorted(PHI), default="linear")
    parser.add_argument("--seconds", type=float, default=60.0, help="sampling time of ours and of Langevin, each")
    parser.add_argument("--plain-draws", type=int, default=1000, help="draws of each of plain NUTS's chains")
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args(arguments)
    machine = machine_name()
    print(f"{machine}\nRNN, {options.activation}, N = {options.width}, T = {options.steps}, chain at y = {SIGNAL}\n")
    contestants = [
        lambda: run_ours("default (auto)", "auto", options),
        lambda: run_ours("fields", "fields", options),
        lambda: run_plain_nuts(options),
        *(partial(run_langevin, step_size, options) for step_size in LANGEVIN_STEPS),
    ]
    rows = []
    for contestant in contestants:
        rows.append(contestant())
        print(f"{rows[-1]['name']}: {rows[-1]['ess_per_second']:.3g} ESS/s", file=sys.stderr, flush=True)
    print_table(rows)
    if options.out:
        settings = {key: str(value) for key, value in vars(options).items()}
        options.out.write_text(json.dumps({"machine": machine, "options": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

"""Who takes part in the benchmarks, and how each is measured; `coordinates.py` and `sampling.py` are the scripts.

Every contestant samples the chain task of T steps (x_1 = 1, y_T = 4.3, kappa = .1) with four chains for about
``options.seconds`` and returns one row. ESS is the smallest bulk ESS (ArviZ) over the invariants: log diagonal kernels,
squared overlaps, the prediction where the target is. Compilation is timed apart; warm-up counts as sampling.
Contestants in weights run in float32, JAX's default; those in our coordinates in float64, our own.

``options`` has width, steps, activation, seconds, plain_draws (of plain NUTS, which takes as long as they need), and
clock: "wall", or "cpu", the processor time of this process, which other users of the machine do not stretch.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import bayesnet as bn
from bayesnet.models.coordinates import build_coordinates
from theory.model import build_model

CHAINS = 4
WARMUP = 500
NOISE = 0.1
SIGNAL = 4.3
LANGEVIN_STEPS = (0.0005, 0.002)  # every weight whitened, prior N(0, 1); .005 is past the edge of stability
PHI = {"linear": lambda x: x, "tanh": jnp.tanh, "relu": jax.nn.relu}
ADJUSTED_ACCEPTANCE = 0.9  # what BlackJAX recommends for its adjusted MCLMC
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


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


def chain_problem(options):
    """The network and the task."""
    network = bn.Network.rnn(options.width, activation=options.activation, noise=NOISE)
    return network, bn.tasks.chain(options.steps, SIGNAL)


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
    kernel, prediction = np.asarray(kernel, float), np.asarray(prediction, float)
    if not np.isfinite(kernel).all():
        return _row(name, 0.0, "", np.inf, "DIVERGED", 0, gradients, seconds, compile_seconds, {})
    draws = invariants(kernel, prediction)
    ess = {label: float(az.ess(values, method="bulk")) for label, values in draws.items()}
    r_hat = max(float(az.rhat(values)) for values in draws.values())
    slowest = min(ess, key=lambda label: ess[label] if np.isfinite(ess[label]) else -1)
    smallest = ess[slowest] if np.isfinite(ess[slowest]) else 0.0
    status = "converged" if r_hat <= 1.01 else "NOT CONVERGED"
    means = {label: float(values.mean()) for label, values in draws.items()}
    number = kernel.shape[0] * kernel.shape[1]
    return _row(name, smallest, slowest, r_hat, status, number, gradients, seconds, compile_seconds, means)


def _row(name, ess, slowest, r_hat, status, draws, gradients, seconds, compile_seconds, means):
    return {
        "name": name,
        "ess": ess,
        "slowest": slowest,
        "r_hat": r_hat,
        "status": status,
        "draws": int(draws),
        "gradients": int(gradients),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "ess_per_1000_gradients": 1000 * ess / gradients,
        "ess_per_second": ess / seconds,
        "ess_per_second_with_compile": ess / (seconds + compile_seconds),
        "means": means,
    }


def run_ours(name, coordinates, options, sampler="nuts", seed=1):
    """`bayesnet.sample`: a first run that compiles, a short one to set the length, and the one that counts."""
    network, task = chain_problem(options)
    clock = CLOCKS[options.clock]
    settings = {"num_warmup": WARMUP, "num_chains": CHAINS, "sampler": sampler, "progress": False}

    def timed(num_samples, seed):
        started = clock()
        tree = bn.sample(network, task, coordinates, num_samples=num_samples, seed=seed, **settings)
        return tree, clock() - started

    first = timed(100, 3 * seed)[1]
    short = timed(100, 3 * seed + 1)[1]
    number = int(np.clip(100 * (options.seconds / short - 1) * 3, 500, 20_000))
    tree, seconds = timed(number, 3 * seed + 2)
    kernel = tree["posterior"]["kernel"].values[:, :, :, 0, :, 0]
    prediction = tree["posterior"]["prediction"].values[:, :, 0, -1, 0]
    # Warm-up counts in the time, so its gradients count as well, at the rate of the draws that were kept.
    gradients = tree["sample_stats"]["n_steps"].values.sum() * (1 + WARMUP / number)
    return measure(name, kernel, prediction, gradients, seconds, max(first - short, 0.0))


def run_plain_nuts(options, seed=1):
    """NumPyro with its defaults, the warm-up as long as ours, ``options.plain_draws`` draws of each chain."""
    model = (options.width, options.steps, options.activation, SIGNAL)
    clock = CLOCKS[options.clock]

    def run(warmup, samples, chains, seed):
        mcmc = MCMC(
            NUTS(weights_model),
            num_warmup=warmup,
            num_samples=samples,
            num_chains=chains,
            chain_method="sequential",
            progress_bar=False,
        )
        started = clock()
        mcmc.run(jax.random.key(seed), *model, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        return mcmc, clock() - started

    # NumPyro compiles at every call, so the shortest possible run tells the time of a compilation.
    compile_seconds = run(1, 1, 1, 0)[1]
    mcmc, total = run(WARMUP, options.plain_draws, CHAINS, seed)
    draws = mcmc.get_samples(group_by_chain=True)
    steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
    gradients = steps.sum() * (1 + WARMUP / options.plain_draws)
    seconds = max(total - compile_seconds, 1e-3)
    return measure(
        "plain NUTS, weights", draws["kernel"], draws["prediction"][..., -1], gradients, seconds, compile_seconds
    )


def run_langevin(step_size, options, seed=0):
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

    clock = CLOCKS[options.clock]
    carry = jax.vmap(start)(jax.random.split(jax.random.key(seed), CHAINS))
    started = clock()
    compiled = block.lower(carry).compile()
    compile_seconds = clock() - started
    kernels, predictions = [], []
    started = clock()
    while clock() - started < options.seconds and (not kernels or np.isfinite(kernels[-1]).all()):
        carry, (kernel, prediction) = compiled(carry)
        kernels.append(np.asarray(kernel))
        predictions.append(np.asarray(prediction))
    seconds = clock() - started
    kernel, prediction = np.concatenate(kernels, 1), np.concatenate(predictions, 1)
    name = f"Langevin, weights, dt = {step_size:g}"
    gradients = CHAINS * every * kernel.shape[1]
    kept = kernel.shape[1] // 3
    return measure(name, kernel[:, kept:], prediction[:, kept:], gradients, seconds, compile_seconds)


def run_blackjax(algorithm, coordinates, options, seed=0):
    """BlackJAX on the log density of our weights or fields: its own warm-up takes about a third of the time.

    "nuts" and "hmc" (10 leapfrogs) with window adaptation of step size and diagonal mass; "mclmc" with its own tuning,
    unadjusted, every 10th step kept; "adjusted_mclmc" the same with a Metropolis test after each trajectory, whose
    length is random.
    """
    import blackjax

    network, task = chain_problem(options)
    clock = CLOCKS[options.clock]
    space = build_coordinates(coordinates, network, task)
    adjusted = algorithm == "adjusted_mclmc"
    every = 10 if algorithm == "mclmc" else 1
    extra = {"num_integration_steps": 10} if algorithm == "hmc" else {}
    with jax.enable_x64(coordinates != "weights"):
        model = build_model(network, task).on_device()

        def logdensity(latents):
            return log_density(space.model, (model,), {}, latents)[0]

        def start(key):
            sites = numpyro.handlers.trace(numpyro.handlers.seed(space.model, key)).get_trace(model)
            return {
                name: site["value"]
                for name, site in sites.items()
                if site["type"] == "sample" and not site["is_observed"]
            }

        kernel = _adjusted_kernel(blackjax) if adjusted else getattr(blackjax, algorithm).build_kernel()

        def warm(key, number):
            start_key, key = jax.random.split(key)
            position = start(start_key)
            if algorithm == "mclmc":
                state = blackjax.mclmc.init(position, logdensity, key)
                # A tenth of its steps for each of its three phases.
                state, tuned, _ = blackjax.mclmc_find_L_and_step_size(
                    mclmc_kernel=kernel, num_steps=number * 10 // 3, state=state, rng_key=key, logdensity_fn=logdensity
                )
                return state, (tuned.inverse_mass_matrix, tuned.L, tuned.step_size)
            if adjusted:
                state = blackjax.mcmc.adjusted_mclmc_dynamic.init(position, logdensity, key)
                state, tuned, _ = blackjax.adjusted_mclmc_find_L_and_step_size(
                    kernel, logdensity, num_steps=5 * number, state=state, rng_key=key, target=ADJUSTED_ACCEPTANCE
                )  # a tenth of the steps for each of its two phases
                return state, (tuned.step_size, tuned.inverse_mass_matrix, tuned.L / tuned.step_size)
            adaptation = blackjax.window_adaptation(
                getattr(blackjax, algorithm),
                logdensity,
                adaptation_info_fn=blackjax.adaptation.base.get_filter_adapt_info_fn(),
                **extra,
            )
            (state, tuned), _ = adaptation.run(key, position, num_steps=number)
            return state, (tuned["step_size"], tuned["inverse_mass_matrix"])

        def one_step(state, key, tuned):
            if algorithm == "mclmc":
                state, _ = kernel(key, state, logdensity, *tuned)
                return state, 2  # gradients of its integrator
            if adjusted:
                step_size, inverse_mass, length = tuned
                state, info = kernel(
                    key,
                    state,
                    logdensity,
                    step_size,
                    inverse_mass_matrix=inverse_mass,
                    integration_steps_params=(length,),
                )
                return state, 2 * info.num_integration_steps
            state, info = kernel(key, state, logdensity, *tuned, *extra.values())
            return state, info.num_integration_steps

        @jax.jit
        def block(state, tuned, key):
            def record(carry, key):
                def step(index, carry):
                    state, gradients = carry
                    state, more = one_step(state, jax.random.fold_in(key, index), tuned)
                    return state, gradients + more

                state, gradients = jax.lax.fori_loop(0, every, step, carry)
                seen = space.observe(model, state.position, key)
                return (state, gradients), (seen["kernel"], seen["prediction"][-1, 0])

            zero = jnp.zeros((), jnp.result_type(int))
            (state, gradients), seen = jax.lax.scan(record, (state, zero), jax.random.split(key, 10))
            return state, gradients, seen

        started = clock()
        keys = jax.random.split(jax.random.key(seed), CHAINS + 2)
        trial = jax.jit(warm, static_argnums=1)
        state, tuned = jax.block_until_ready(trial(keys[-1], 40))
        block(state, tuned, keys[-1])[1].block_until_ready()
        compile_seconds = clock() - started
        started = clock()
        jax.block_until_ready(trial(keys[-2], 40))
        per_step = max((clock() - started) / 40, 1e-6)
        number = int(np.clip(options.seconds / 3 / CHAINS / per_step, 40, 1000))
        started = clock()
        compiled = trial.lower(keys[0], number).compile()
        compile_seconds = max(compile_seconds - 40 * per_step, clock() - started)
        started = clock()
        chains = [compiled(key) for key in keys[:CHAINS]]
        jax.block_until_ready(chains)
        warm_seconds = clock() - started
        kernels, predictions, gradients, rounds = [[] for _ in chains], [[] for _ in chains], 0, 0
        while clock() - started < options.seconds or rounds < 4:
            for index, (state, tuned) in enumerate(chains):
                key = jax.random.fold_in(keys[index], rounds)
                state, more, (kernel_draws, prediction) = block(state, tuned, key)
                chains[index] = state, tuned
                kernels[index].append(np.asarray(kernel_draws))
                predictions[index].append(np.asarray(prediction))
                gradients += int(more)
            rounds += 1
        seconds = clock() - started
    stacked = [np.stack([np.concatenate(chain) for chain in parts]) for parts in (kernels, predictions)]
    # Warm-up counts in the time, so its gradients count as well, at the rate of the draws that were kept.
    gradients *= 1 + warm_seconds / (seconds - warm_seconds)
    return measure(f"BlackJAX {algorithm}, {coordinates}", *stacked, gradients, seconds, compile_seconds)


def _adjusted_kernel(blackjax):
    """Of adjusted MCLMC: the number of steps of a trajectory is uniform, with the mean that tuning has found."""
    rescale = blackjax.mcmc.adjusted_mclmc.rescale

    def number_of_steps(key, mean):
        return jnp.clip(jnp.round(jax.random.uniform(key) * rescale(mean) + 0.5), min=1).astype(int)

    return blackjax.mcmc.adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=number_of_steps)


def machine_name():
    """Processor, cores this process may use, and the device of JAX."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else model}, {cores} core(s), {jax.devices()[0].device_kind}, JAX {jax.__version__}"


def print_table(rows):
    """ESS per second beside R-hat, and the gain of the first row over each."""
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

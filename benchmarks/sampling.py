"""Our samplers beside everybody else's, in one run: effective draws per second and per 1000 gradients, and targets.

1. The chain task above its transition: our default, our fields with NUTS and HMC, plain NumPyro NUTS on the weights,
   BlackJAX (NUTS, HMC, MCLMC) on the log densities of our weights and fields, Langevin on the weights. `contestants.py`
   says how each is measured. Contestants in our coordinates run --repeats times with different seeds, the slow ones in
   weights once; the table shows the run with the median ESS per second.
2. The wide nonlinear case, T = 5, P = 8, tanh: HMC against NUTS in fields.
3. What a leapfrog step costs against a bare value_and_grad of the same log density, alone and with its share of all
   that `sample` does with a draw: on the chain, where a gradient takes 10 us and a draw four of them, random numbers
   and invariants weigh as much. The steps of "nuts" are NumPyro's.

The targets stand below the tables, each with the figure that was reached. BlackJAX is optional: without it its rows are
left out, with a word.

    python benchmarks/sampling.py --out sampling.json
    python benchmarks/sampling.py --parts wide leapfrog     # some of the parts
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from contestants import (
    CHAINS,
    CLOCKS,
    LANGEVIN_STEPS,
    PHI,
    chain_problem,
    machine_name,
    print_table,
    run_blackjax,
    run_langevin,
    run_ours,
    run_plain_nuts,
)
from numpyro.infer.util import log_density

import bayesnet as bn
from bayesnet.diagnostics import summarise
from bayesnet.models.coordinates import build_coordinates
from theory.model import build_model

TARGETS = {
    "default over plain NUTS, ESS/s": 500.0,
    "default over plain NUTS, ESS 4000 with compilation": 50.0,
    "hmc over nuts, ESS/s, T=5 P=8": 3.0,
    "hmc over nuts, ESS per 1000 gradients, T=5 P=8": 3.0,
}
WANTED_ESS = 4000
PARTS = ("chain", "wide", "leapfrog")
LEAPFROG = 1.4  # bare gradients that a leapfrog step may cost
ACCEPTANCES = (0.8, 0.97)  # the default, and one that makes trajectories about twice as long


def median_run(contestant, repeats, key="ess_per_second"):
    """The row of the run with the median ``key``, out of ``repeats`` with seeds 1, 2, ..."""
    rows = sorted((contestant(seed=seed) for seed in range(1, repeats + 1)), key=lambda row: row[key])
    spread = [row[key] for row in rows]
    # Only the first run compiles; the others find the program.
    compile_seconds = max(row["compile_seconds"] for row in rows)
    row = {**rows[(len(rows) - 1) // 2], "runs": spread, "compile_seconds": compile_seconds}
    row["ess_per_second_with_compile"] = row["ess"] / (row["seconds"] + compile_seconds)
    return row


def run_chain_task(options):
    """Rows of all contestants, our default first."""
    few, once = options.repeats, 1
    contestants = [
        (partial(run_ours, "default (auto, nuts)", "auto", options), few),
        (partial(run_ours, "fields, nuts", "fields", options), few),
        (partial(run_ours, "fields, hmc", "fields", options, sampler="hmc"), few),
    ]
    if importlib.util.find_spec("blackjax"):
        for coordinates, repeats in (("fields", few), ("weights", once)):
            for algorithm in ("nuts", "hmc", "mclmc", "adjusted_mclmc"):
                contestants.append((partial(run_blackjax, algorithm, coordinates, options), repeats))
    else:
        print("blackjax is not installed: its rows are left out\n")
    contestants.append((partial(run_plain_nuts, options), once))
    contestants += [(partial(run_langevin, step_size, options), once) for step_size in LANGEVIN_STEPS]
    rows = []
    for contestant, repeats in contestants:
        rows.append(median_run(contestant, repeats))
        print(f"{rows[-1]['name']}: {rows[-1]['ess_per_second']:.3g} ESS/s", file=sys.stderr, flush=True)
    return rows


def time_to(row, ess):
    """Seconds to an effective sample size, compilation included."""
    return row["compile_seconds"] + ess / row["ess_per_second"] if row["ess_per_second"] else float("inf")


def run_wide_task(options):
    """Fields of a tanh RNN on eight orthogonal patterns over five steps: the median run of each sampler."""
    network, task = bn.Network.rnn(options.width, activation="tanh"), bn.tasks.endpoint(5, 1.0, patterns=8)
    clock, draws = CLOCKS[options.clock], options.wide_draws

    def run(sampler, seed):
        settings = {"coordinates": "fields", "sampler": sampler, "num_chains": CHAINS, "progress": False}
        started = clock()
        bn.sample(network, task, num_warmup=2, num_samples=2, **settings)
        compile_seconds = clock() - started
        started = clock()
        tree = bn.sample(network, task, num_warmup=300, num_samples=draws, seed=seed, **settings)
        seconds = clock() - started
        table, steps = summarise(tree), tree["sample_stats"]["n_steps"].values.sum()
        ess = float(table["ess_bulk"].min())
        return {
            "name": sampler,
            "ess": ess,
            "seconds": seconds,
            "compile_seconds": compile_seconds,
            "ess_per_1000_gradients": 1000 * ess / steps,
            "ess_per_second": ess / seconds,
            "r_hat": float(table["r_hat"].max()),
            "steps_per_draw": steps / (CHAINS * draws),
            "means": table["mean"].to_dict(),
            "mcse": table["mcse"].to_dict(),
        }

    rows = [median_run(partial(run, sampler), options.repeats) for sampler in ("nuts", "hmc")]
    gap = max(
        abs(rows[0]["means"][label] - rows[1]["means"][label])
        / np.hypot(rows[0]["mcse"][label], rows[1]["mcse"][label])
        for label in rows[0]["means"]
    )
    print(f"\nRNN, tanh, N = {options.width}, T = 5, P = 8, fields (largest |z| between the means: {gap:.1f})")
    for row in rows:
        print(
            f"{row['name']:6} {row['ess_per_1000_gradients']:8.3g} ESS/1000 gradients {row['ess_per_second']:8.3g} "
            f"ESS/s {row['steps_per_draw']:6.1f} steps per draw  R-hat {row['r_hat']:.3f}  "
            f"ESS/s of all runs {', '.join(f'{rate:.3g}' for rate in row['runs'])}"
        )
    return rows


def leapfrog_overhead(network, task, coordinates, sampler, options, rounds=5):
    """What a leapfrog step of `sample` costs after warm-up, in bare gradients: medians of (alone, with its draw).

    Two acceptance rates make trajectories of two lengths. The steps they differ by give a step alone; at the default
    rate, all that is done with a draw (momenta, invariants, storage) included, a step and its share of the draw.
    Gradients and draws run inside compiled loops, in turn.
    """
    clock = CLOCKS[options.clock]
    space = build_coordinates(coordinates, network, task)
    gradients = 400
    settings = {"num_warmup": 200, "num_chains": 1, "num_latents": 1, "sampler": sampler, "progress": False}

    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        site = bn.sample(network, task, coordinates, num_samples=1, **settings)["latents"]
        latents = {str(name): jnp.asarray(values.values[0, 0]) for name, values in site.data_vars.items()}
        bare = jax.value_and_grad(lambda z, model: log_density(space.model, (model,), {}, z)[0])

        @jax.jit
        def loop(z, model):
            # The result moves the next point by nothing that matters, so that the loop cannot be skipped.
            def one(_, z):
                value, slope = bare(z, model)
                return jax.tree.map(lambda z, g: z + 1e-30 * g + 0 * value, z, slope)

            return jax.lax.fori_loop(0, gradients, one, z)

        jax.block_until_ready(loop(latents, model))

    def bare_time():
        with jax.enable_x64(True):
            started = clock()
            jax.block_until_ready(loop(latents, model))
            return (clock() - started) / gradients

    def run(number, seed, accept):
        started = clock()
        changed = {**settings, "target_accept": accept}
        tree = bn.sample(network, task, coordinates, num_samples=number, seed=seed, **changed)
        return np.array([clock() - started, tree["sample_stats"]["n_steps"].values.sum()])

    def sampling(draws, seed, accept):
        """Seconds and steps: the same seed with fewer draws is the same run cut short, its warm-up the same."""
        return run(draws, seed, accept) - run(draws // 10, seed, accept)

    for accept in ACCEPTANCES:
        run(2, 0, accept)  # compiles
    # A trajectory has about ten steps; some seconds of them, whatever a step takes.
    draws = int(np.clip(2 / (10 * bare_time()), 100, 10_000))
    found = []
    for seed in range(rounds):
        before = bare_time()
        short, long = (sampling(draws, seed, accept) for accept in ACCEPTANCES)
        gradient = (before + bare_time()) / 2
        (seconds, steps), (more_seconds, more_steps) = short, long - short
        found.append([more_seconds / more_steps / gradient, seconds / steps / gradient])
        print(f"{coordinates}, {sampler}: {found[-1][0]:.2f} alone, {found[-1][1]:.2f}", file=sys.stderr, flush=True)
    return np.median(found, axis=0).tolist(), found


def leapfrog_problems(options):
    """Name -> network, task, coordinates, sampler."""
    wide = bn.Network.rnn(options.width, activation="tanh"), bn.tasks.endpoint(5, 1.0, patterns=8), "fields"
    chain = chain_problem(options)
    return {
        "chain, kernels, nuts": (*chain, "kernels", "nuts"),
        "chain, fields, nuts": (*chain, "fields", "nuts"),
        "chain, fields, hmc": (*chain, "fields", "hmc"),
        "T=5 P=8 tanh, fields, nuts": (*wide, "nuts"),
        "T=5 P=8 tanh, fields, hmc": (*wide, "hmc"),
    }


def main(arguments=None):
    """Run everything, print the tables and the targets, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--activation", choices=sorted(PHI), default="linear")
    parser.add_argument("--seconds", type=float, default=60.0, help="sampling time of each contestant but plain NUTS")
    parser.add_argument("--plain-draws", type=int, default=500, help="draws of each of plain NUTS's chains")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each in our coordinates; the median counts")
    parser.add_argument("--wide-draws", type=int, default=1000, help="draws of each chain at T = 5, P = 8")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which of the three to run")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: for a machine shared with others")
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    options = parser.parse_args(arguments)
    machine = machine_name()
    print(f"{machine}; {options.clock} time")
    print(f"RNN, {options.activation}, N = {options.width}, T = {options.steps}, chain task\n")
    rows, wide, overheads, reached = [], [], {}, {}
    if "chain" in options.parts:
        rows = run_chain_task(options)
        print_table(rows)
        plain = next(row for row in rows if row["name"].startswith("plain NUTS"))
        reached |= {
            "default over plain NUTS, ESS/s": rows[0]["ess_per_second"] / plain["ess_per_second"],
            "default over plain NUTS, ESS 4000 with compilation": time_to(plain, WANTED_ESS)
            / time_to(rows[0], WANTED_ESS),
        }
        if plain["status"] != "converged":
            print("plain NUTS has not converged: its ESS means little, and the ratios to it are estimates")
    if "wide" in options.parts:
        wide = run_wide_task(options)
        for name, key in (("ESS/s", "ess_per_second"), ("ESS per 1000 gradients", "ess_per_1000_gradients")):
            reached[f"hmc over nuts, {name}, T=5 P=8"] = wide[1][key] / wide[0][key]
    if "leapfrog" in options.parts:
        overheads = {name: leapfrog_overhead(*problem, options) for name, problem in leapfrog_problems(options).items()}
        print("\nleapfrog over bare value_and_grad: alone, and with its share of the draw")
        for name, ((alone, whole), _) in overheads.items():
            print(f"{name:32}{alone:8.2f}{whole:8.2f}")
            reached[f"leapfrog, {name}"] = alone
            reached[f"leapfrog with its share of the draw, {name}"] = whole
    print("\ntargets")
    for name, figure in reached.items():
        cost = name.startswith("leapfrog")
        target = LEAPFROG if cost else TARGETS[name]
        met = figure <= target if cost else figure >= target
        bound = "at most" if cost else "at least"
        print(f"{name:68} {bound} {target:5g}, reached {figure:8.3g}  {'met' if met else 'MISSED'}")
    if options.out:
        settings = {key: str(value) for key, value in vars(options).items()}
        figures = {"rows": rows, "wide": wide, "overheads": overheads, "reached": reached}
        options.out.write_text(json.dumps({"machine": machine, "options": settings, **figures}, indent=1))


if __name__ == "__main__":
    main()

"""How the cost grows: gradients in fields with width and entries, compilation with steps, kernels up to width 10^6.

1. Seconds per value_and_grad of the field log density, for widths N at fixed n = T P and for entries n at fixed width,
   beside the model a + b N n^2 + c n^3 fitted to all of them. "cost/model" near 1 everywhere shows O(N n^2 + n^3).
2. Seconds to compile it, for T steps: flat.
3. Kernel coordinates: effective draws per second for widths from n to 10^6, several n: flat in N.

Every time is the median of several, measured in turn, so that a busy machine disturbs all of them alike.

    python benchmarks/scaling.py --out scaling.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np
import scipy.optimize
from contestants import CLOCKS, machine_name
from numpyro.infer.util import log_density

import bayesnet as bn
from bayesnet.diagnostics import summarise
from bayesnet.models.coordinates import build_coordinates
from theory.model import build_model

SIZES = [(64, 4, 6), (256, 4, 6), (1024, 4, 6), (4096, 4, 6), (16384, 4, 6)]  # (N, T, P): n = 24
SIZES += [(512, 4, patterns) for patterns in (2, 4, 8, 16, 32)]  # n = 8 ... 128
SIZES += [(64, 4, patterns) for patterns in (8, 16, 32, 64)]  # n > N/2: the n^3 part
STEPS = (2, 5, 10, 20, 40, 80)
ENTRIES = {6: (3, 2), 24: (3, 8), 40: (5, 8)}  # n -> (T, P)
WIDTHS = (None, 1000, 10_000, 100_000, 1_000_000)  # None: N = n, the smallest there is


def gradient_program(width, steps, patterns, activation="tanh"):
    """A compiled loop of `value_and_grad` in fields, its arguments, and how often it evaluates them."""
    network, task = bn.Network.rnn(width, activation=activation), bn.tasks.endpoint(steps, 1.0, patterns=patterns)
    space = build_coordinates("fields", network, task)
    model = build_model(network, task).on_device()
    z = {"z": jax.random.normal(jax.random.key(0), (steps, patterns, width))}
    bare = jax.value_and_grad(lambda z, model: log_density(space.model, (model,), {}, z)[0])

    @jax.jit
    def loop(z, model, number):
        # The result moves the next point by nothing that matters, so that the loop cannot be skipped.
        def one(_, z):
            value, slope = bare(z, model)
            return jax.tree.map(lambda z, g: z + 1e-30 * g + 0 * value, z, slope)

        return jax.lax.fori_loop(0, number, one, z)

    return loop, z, model


def gradient_costs(options):
    """Sizes (N, T, P) and the seconds per gradient at each."""
    clock = CLOCKS[options.clock]
    sizes = SIZES[:3] if options.quick else SIZES
    programs = []
    for size in sizes:
        program, *inputs = gradient_program(*size)
        jax.block_until_ready(program(*inputs, 2))
        started = clock()
        jax.block_until_ready(program(*inputs, 5))
        number = int(np.clip(options.seconds_each / max((clock() - started) / 5, 1e-6), 5, 5000))
        programs.append((program, inputs, number))
    times = np.zeros((options.rounds, len(sizes)))
    for row in times:
        for index, (program, inputs, number) in enumerate(programs):
            started = clock()
            jax.block_until_ready(program(*inputs, number))
            row[index] = (clock() - started) / number
    return sizes, np.median(times, axis=0)


def fit_cost(sizes, seconds):
    """Non-negative (a T, b, c) of a T + b N n^2 + c n^3, and the predicted seconds; relative errors count."""
    table = np.array([[steps, width * (steps * p) ** 2, (steps * p) ** 3] for width, steps, p in sizes], float)
    coefficients, _ = scipy.optimize.nnls(table / seconds[:, None], np.ones(len(seconds)))
    return coefficients, table @ coefficients


def print_gradients(options):
    """Table 1."""
    sizes, seconds = gradient_costs(options)
    coefficients, model = fit_cost(sizes, seconds)
    print(
        "1. a gradient in fields, tanh: a T + b N n^2 + c n^3, a = {:.2g} s, b = {:.2g} s, c = {:.2g} s".format(
            *coefficients
        )
    )
    print(f"{'N':>8}{'n':>6}{'ms':>10}{'ns/(N n^2)':>12}{'cost/model':>12}")
    for (width, steps, patterns), each, fitted in zip(sizes, seconds, model, strict=True):
        n = steps * patterns
        print(f"{width:8}{n:6}{1e3 * each:10.3f}{1e9 * each / (width * n**2):12.3f}{each / fitted:12.2f}")
    return [
        {"size": size, "seconds": each, "model": fit} for size, each, fit in zip(sizes, seconds, model, strict=True)
    ]


def print_compilation(options):
    """Table 2."""
    clock = CLOCKS[options.clock]
    print("\n2. compiling a gradient in fields, P = 1, N = 256")
    rows = []
    for steps in STEPS[:2] if options.quick else STEPS:
        program, *inputs = gradient_program(256, steps, 1)
        started = clock()
        program.lower(*inputs, 2).compile()
        rows.append({"steps": steps, "seconds": clock() - started})
        print(f"T = {steps:3}  {rows[-1]['seconds']:.2f} s")
    return rows


def print_kernels(options):
    """Table 3: effective draws per second of sampling, compilation and warm-up excluded."""
    clock = CLOCKS[options.clock]
    print("\n3. kernels (linear RNN, endpoint task at signal 3): smallest ESS over all invariants")
    print(f"{'n':>4}{'N':>10}{'ESS/s':>10}{'ESS/1000 grad':>15}{'us/grad':>10}{'R-hat':>8}")
    rows = []
    for n, (steps, patterns) in list(ENTRIES.items())[: 1 if options.quick else None]:
        task = bn.tasks.endpoint(steps, 3.0, patterns=patterns)
        for width in WIDTHS:
            network = bn.Network.rnn(width or n)
            settings = {"coordinates": "kernels", "num_warmup": 400, "progress": False}
            bn.sample(network, task, num_samples=1, seed=1, **settings)  # compiles
            started = clock()
            bn.sample(network, task, num_samples=1, seed=1, **settings)
            warm = clock() - started
            started = clock()
            tree = bn.sample(network, task, num_samples=200 if options.quick else options.draws, seed=1, **settings)
            seconds = max(clock() - started - warm, 1e-9)
            table, gradients = summarise(tree), int(tree["sample_stats"]["n_steps"].sum())
            ess, r_hat = float(table["ess_bulk"].min()), float(table["r_hat"].max())
            rows.append({"n": n, "width": width or n, "ess_per_second": ess / seconds, "r_hat": r_hat})
            print(
                f"{n:4}{width or n:10}{ess / seconds:10.0f}{1000 * ess / gradients:15.1f}"
                f"{1e6 * seconds / gradients:10.1f}{r_hat:8.3f}",
                flush=True,
            )
    return rows


def main(arguments=None):
    """Print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each gradient is timed")
    parser.add_argument("--seconds-each", type=float, default=0.5, help="length of one timing")
    parser.add_argument("--draws", type=int, default=2000, help="draws of each chain in kernels")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: for a machine shared with others")
    parser.add_argument("--quick", action="store_true", help="a few sizes only")
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    options = parser.parse_args(arguments)
    print(f"{machine_name()}; {options.clock} time\n")
    with jax.enable_x64(True):
        gradients, compilation = print_gradients(options), print_compilation(options)
    figures = {"gradients": gradients, "compilation": compilation, "kernels": print_kernels(options)}
    if options.out:
        options.out.write_text(json.dumps({"machine": machine_name(), **figures}, indent=1))


if __name__ == "__main__":
    main()

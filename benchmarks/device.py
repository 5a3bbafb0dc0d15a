"""What a device does: draws and gradients per second over widths, chains, precisions and samplers.

One row for each combination, all of them with `bayesnet.sample` as a user calls it: in lockstep ("vectorized") on an
accelerator, in threads on a CPU. Fields of a tanh RNN on the endpoint task (T = 3, P = 4, n = 12) at widths 256 to
8192, and the weights themselves at 1024 and more, where an accelerator pays most. A gradient counts once for each
chain. NUTS in lockstep waits for its longest tree, fixed-length HMC hardly does.

    python benchmarks/device.py --out device.json
    python benchmarks/device.py --quick          # a few small rows, any machine
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import jax
import numpy as np
from contestants import machine_name

import bayesnet as bn

WIDTHS = (256, 1024, 2048, 4096, 8192)
CHAINS = (4, 16, 64)
WEIGHT_WIDTHS = (1024, 2048, 4096)
QUICK = {"widths": (64, 256), "chains": (4,), "weight_widths": (64,)}
COLUMNS = ("coordinates", "width", "chains", "precision", "sampler")
ROUNDS = 3  # of which the median counts
POSITIONS = 2**30  # bytes that the positions of all chains may take; a trajectory needs ten times as much


def measure(coordinates, width, chains, precision, sampler, draws):
    """Draws and gradients per second after compilation and warm-up; or why there are none."""
    network, task = bn.Network.rnn(width, activation="tanh"), bn.tasks.endpoint(3, 1.0, patterns=4)
    settings = {
        "coordinates": coordinates,
        "num_warmup": 50,
        "num_chains": chains,
        "precision": precision,
        "sampler": sampler,
        "max_tree_depth": 7,
        "num_latents": 1,
        "progress": False,
    }

    def run(number, seed):
        started = time.perf_counter()
        tree = bn.sample(network, task, num_samples=number, seed=seed, **settings)
        return time.perf_counter() - started, tree["sample_stats"]["n_steps"].to_numpy()

    try:
        first = run(1, 0)[0]
        # The same seed with fewer draws is the same run cut short: the difference is sampling alone.
        pairs = [(run(1, seed), run(draws + 1, seed)) for seed in range(1, 1 + ROUNDS)]
    except Exception as error:  # out of memory is a result: the row says so
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    seconds = float(np.median([long[0] - short[0] for short, long in pairs]))
    if seconds <= 0:
        return {"error": "too short to time on a busy machine; raise --draws"}
    steps = np.concatenate([long[1][:, 1:] for _, long in pairs])
    return {
        "compile_seconds": max(first - float(np.median([short[0] for short, _ in pairs])), 0.0),
        "draws_per_second": chains * draws / seconds,
        "gradients_per_second": float(steps.sum()) / ROUNDS / seconds,
        "steps_per_draw": float(steps.mean()),
    }


def rows_of(options):
    """All combinations, narrow and few first."""
    sizes = QUICK if options.quick else {"widths": WIDTHS, "chains": CHAINS, "weight_widths": WEIGHT_WIDTHS}
    for coordinates, widths in (("fields", sizes["widths"]), ("weights", sizes["weight_widths"])):
        for row in product(widths, sizes["chains"], ("float64", "float32"), ("nuts", "hmc")):
            width, chains, precision, _ = row
            numbers = width * width if coordinates == "weights" else 12 * width
            if chains * numbers * (8 if precision == "float64" else 4) <= POSITIONS:
                yield (coordinates, *row)


def main(arguments=None):
    """Print the table with the device's name, row by row; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="draws of each chain that are timed")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further row after this long")
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args(arguments)
    print(f"{machine_name()}, {len(jax.devices())} device(s) of kind {jax.devices()[0].device_kind}\n")
    print(f"{'coordinates':12}{'N':>6}{'chains':>7}{'precision':>10}{'sampler':>8}", end="")
    print(f"{'draws/s':>11}{'gradients/s':>13}{'steps/draw':>11}{'compile s':>10}")
    started, rows = time.perf_counter(), []
    for key in rows_of(options):
        if time.perf_counter() - started > options.seconds:
            print("out of time: the remaining rows are left out")
            break
        figures = measure(*key, options.draws)
        rows.append({**dict(zip(COLUMNS, key, strict=True)), **figures})
        print(f"{key[0]:12}{key[1]:6}{key[2]:7}{key[3]:>10}{key[4]:>8}", end="")
        if "error" in figures:
            print(f"  {figures['error']}", flush=True)
            continue
        rates = [figures[name] for name in ("draws_per_second", "gradients_per_second", "steps_per_draw")]
        print(f"{rates[0]:11.4g}{rates[1]:13.4g}{rates[2]:11.1f}{figures['compile_seconds']:10.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

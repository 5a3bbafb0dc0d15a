"""What an accelerator does, and the CPU beside it: one prepared script, of at most eight minutes by default.

    python benchmarks/device.py --out device.json
    python benchmarks/device.py --quick                 # a few small rows, any machine

Two processes work through one list of rows, one on JAX's default device, one on the CPU (which is then the same list
where there is no accelerator, and is run once). The rows that tell most come first, and none is begun after the time is
up. Then the tests for a GPU run (`pytest -m gpu`), where there is one.

- "fields" and "weights" sample the posterior of a tanh RNN on the endpoint task (T = 3, P = 4, n = 12) with
  `bayesnet.sample` as a user calls it: in lockstep on an accelerator, in threads on a CPU. The same seed with fewer
  draws is the same run cut short, so that the difference of two runs times the draws alone. NUTS in lockstep waits for
  its longest tree, fixed-length HMC hardly does.
- "solve" is `theory.solve` of a tanh RNN with n tied entries, and says what it came to within its time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import jax
import numpy as np
from contestants import machine_name

import bayesnet as bn
import theory

STEPS, PATTERNS = 3, 4
SOLVE_STEPS = {60: (12, 5), 240: (12, 20), 12: (3, 4)}  # entries -> steps and patterns
SOLVE_SECONDS = 60.0
POSITIONS = 2**31  # bytes that the positions of all chains may take; a trajectory needs ten times as much


def rows_of(quick):
    """What is measured: kind, size, chains, precision, sampler."""
    if quick:
        return [("fields", 64, 4, "float64", "hmc"), ("weights", 64, 4, "float32", "nuts"), ("solve", 12, 0, "", "")]
    rows = [("fields", width, 16, "float32", "hmc") for width in (4096, 512, 16384)]
    rows += [("weights", width, 4, "float32", "hmc") for width in (1024, 2048)]
    rows += [("fields", 4096, 16, "float64", "hmc"), ("fields", 4096, 16, "float32", "nuts")]
    rows += [("solve", 60, 0, "", ""), ("solve", 240, 0, "", "")]
    rows += [("weights", width, 4, "float64", "hmc") for width in (1024, 2048)]
    rest = product((512, 1024, 4096, 16384), (4, 16, 64), ("float32", "float64"), ("hmc", "nuts"))
    rows += [("fields", *row) for row in rest if ("fields", *row) not in rows]
    return [row for row in rows if row[0] == "solve" or _fits(*row[:4])]


def _fits(kind, width, chains, precision):
    numbers = width * width if kind == "weights" else STEPS * PATTERNS * width
    return chains * numbers * (8 if precision == "float64" else 4) <= POSITIONS


def measure_sampling(kind, width, chains, precision, sampler, draws):
    """Draws, gradients and effective draws per second after compilation and warm-up."""
    network, task = bn.Network.rnn(width, activation="tanh"), bn.tasks.endpoint(STEPS, 1.0, patterns=PATTERNS)
    settings = {
        "coordinates": kind,
        "num_warmup": 50,
        "num_chains": chains,
        "precision": precision,
        "sampler": sampler,
        "num_latents": 1,
        "progress": False,
        **({"max_tree_depth": 7} if sampler == "nuts" else {}),
    }

    def run(number):
        started = time.perf_counter()
        tree = bn.sample(network, task, num_samples=number, seed=1, **settings)
        return time.perf_counter() - started, tree

    compiling, (short, _), (long, tree) = run(1)[0], run(1), run(draws + 1)
    seconds = long - short
    if seconds <= 0:
        return {"error": "too short to time on a busy machine; raise --draws"}
    steps = tree["sample_stats"]["n_steps"].to_numpy()[:, 1:]
    return {
        "draws_per_second": chains * draws / seconds,
        "gradients_per_second": float(steps.sum()) / seconds,
        "effective_per_second": float(bn.diagnostics.summarise(tree)["ess_bulk"].min()) / seconds,
        "steps_per_draw": float(steps.mean()),
        "compile_seconds": max(compiling - short, 0.0),
    }


def measure_solving(entries):
    """Seconds that `theory.solve` takes, and what it comes to."""
    steps, patterns = SOLVE_STEPS[entries]
    rng = np.random.default_rng(0)
    inputs, targets = np.zeros((patterns, steps, patterns)), np.full((patterns, steps), np.nan)
    inputs[:, 0], targets[:, -1] = np.sqrt(patterns) * np.eye(patterns), rng.normal(size=patterns)
    started = time.perf_counter()
    network = bn.Network.rnn(100, activation="tanh", recurrent_gain=1.2)
    solution = theory.solve(network, bn.Task(inputs, targets), time_limit=SOLVE_SECONDS)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "status": solution.status, "relative_error": solution.relative_error}


def measure(row, draws):
    """The figures of a row, with the device's peak memory so far; or why there are none."""
    try:
        figures = measure_solving(row[1]) if row[0] == "solve" else measure_sampling(*row, draws)
    except Exception as error:  # out of memory is a result: the row says so
        figures = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    memory = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        figures["peak_gib"] = memory["peak_bytes_in_use"] / 2**30
    return figures


def run_rows(options):
    """One process's part: its rows as lines of JSON on the standard output."""
    started = time.perf_counter()
    device = jax.devices()[0].device_kind
    for row in rows_of(options.quick):
        if time.perf_counter() - started > options.seconds:
            break
        print(json.dumps({"device": device, "row": row, **measure(row, options.draws)}), flush=True)


def main(arguments=None):
    """Both processes side by side, their rows as they come, and the tests; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="draws of each chain that are timed")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--seconds", type=float, default=390.0, help="start no further row after this long")
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rows:
        run_rows(options)
        return
    # Otherwise this process reserves most of the device's memory, which those that measure need.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    print(f"{machine_name()}, {len(jax.devices())} device(s) of kind {jax.devices()[0].device_kind}\n", flush=True)
    accelerated = jax.default_backend() != "cpu"
    command = [sys.executable, __file__, "--rows", "--draws", str(options.draws), "--seconds", str(options.seconds)]
    command += ["--quick"] if options.quick else []
    on_cpu = {**os.environ, "JAX_PLATFORMS": "cpu"}
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for environment in ([dict(os.environ), on_cpu] if accelerated else [on_cpu])
    ]
    rows = []
    for worker in workers:
        assert worker.stdout is not None
        for line in worker.stdout:
            rows.append(json.loads(line))
            print_row(rows[-1])
        worker.wait()
    result = {"machine": machine_name(), "rows": rows}
    if accelerated and not options.quick:
        tests = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu"]
        done = subprocess.run(tests, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        result["tests"] = done.stdout.strip().splitlines()[-1]
        print(f"pytest -m gpu: {result['tests']}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


def print_row(found):
    """One line of the table."""
    kind, size, chains, precision, sampler = found["row"]
    print(f"{found['device'][:16]:17}{kind:8}{size:6}{chains or '':>4} {precision:8}{sampler:5}", end="")
    if "error" in found:
        print(found["error"], flush=True)
        return
    shown = {
        "draws_per_second": "{:.4g} draws/s",
        "gradients_per_second": "{:.4g} gradients/s",
        "effective_per_second": "{:.4g} ESS/s",
        "compile_seconds": "compiled in {:.1f} s",
        "seconds": "{:.1f} s",
        "status": "{}",
        "relative_error": "error {:.1e}",
        "peak_gib": "peak {:.2f} GiB",
    }
    print(", ".join(text.format(found[name]) for name, text in shown.items() if name in found), flush=True)


if __name__ == "__main__":
    main()

"""How fast a sweep is: a phase diagram of 400 theory points, and 64 posteriors over two processes against one.

- theory: the order parameter of the linear chain of four steps over 20 x 20 values of signal and noise, started from
  nothing, start of the processes and compilation included; target: under 60 s on two cores.
- posteriors: the same 64 posteriors (linear chain of three steps, kernels, four chains) by one worker process and by
  two, each held to one core of its own; target: two at least 1.6 times as fast as one, and the same numbers.

    python benchmarks/sweep.py --out sweep.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import xarray as xr

import bayesnet as bn
from bayesnet.sweeping.executors import LocalProcesses

CORES = sorted(os.sched_getaffinity(0))[:2]
FACTORS, NOISES = np.linspace(0.3, 6.0, 20), np.linspace(0.5, 10.0, 20)


def time_theory(processes: int) -> dict:
    """400 solutions by that many processes."""
    started = time.perf_counter()
    with LocalProcesses(processes, CORES[:processes]) as executor:
        swept = bn.sweep(
            bn.Network.rnn(1000), bn.tasks.chain(4, 1.0), {"noise": NOISES, "factor": FACTORS}, executor=executor
        )
    return {
        "processes": processes,
        "seconds": time.perf_counter() - started,
        "median_solve": float(swept["seconds"].median()),
        "converged": int(swept["converged"].sum()),
        "points": int(swept["converged"].size),
    }


def time_posteriors(processes: int, number: int, draws: int) -> tuple[dict, xr.Dataset]:
    """Posteriors by that many processes, each on one core."""
    started, used = time.perf_counter(), _seconds_of_children()
    grid = {"noise": np.linspace(0.1, 1.0, number // 8), "factor": np.linspace(1.0, 4.0, 8)}
    sampling = {"num_warmup": draws // 2, "num_samples": draws}
    with LocalProcesses(processes, CORES[:processes]) as executor:
        swept = bn.sweep(
            bn.Network.rnn(512), bn.tasks.chain(3, 1.0), grid, "posterior", executor=executor, sampling=sampling
        )
    row = {
        "processes": processes,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": _seconds_of_children() - used,
        "done": int((swept["outcome"] == "done").sum()),
        "median_posterior": float(swept["seconds"].median()),
    }
    return row, swept.drop_vars("seconds")


def _seconds_of_children() -> float:
    """CPU time of all worker processes that have ended: what a busy machine does not stretch."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriors", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--draws", type=int, default=2000, help="of each of the four chains")
    parser.add_argument("--repeats", type=int, default=1, help="of one process and two, in turn")
    parser.add_argument("--out", type=Path, help="write the figures to a JSON file")
    options = parser.parse_args(argv)
    if len(CORES) < 2:
        parser.error("this benchmark needs two cores")
    theory = time_theory(2)
    print(
        f"theory: {theory['converged']} of {theory['points']} converged, {theory['seconds']:.1f} s over two processes, "
        f"median solve {1e3 * theory['median_solve']:.0f} ms",
        flush=True,
    )
    rows, ratios = [], []
    for _ in range(options.repeats):
        (one, single), (two, double) = (time_posteriors(n, options.posteriors, options.draws) for n in (1, 2))
        xr.testing.assert_identical(single, double)
        rows += [one, two]
        ratios.append(one["seconds"] / two["seconds"])
        for row in (one, two):
            print(
                f"posteriors: {row['seconds']:.1f} s by {row['processes']}, CPU {row['cpu_seconds']:.1f} s", flush=True
            )
        print(f"two processes: {ratios[-1]:.2f} times as fast as one", flush=True)
    met = {"theory under 60 s": theory["seconds"] < 60, "two processes 1.6 times one": float(np.median(ratios)) >= 1.6}
    for target, reached in met.items():
        print(f"{'met' if reached else 'MISSED'}: {target}")
    results = {"theory": theory, "posteriors": rows, "ratios": ratios, "met": met, "machine": platform.machine()}
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    return int(not all(met.values()))


if __name__ == "__main__":
    raise SystemExit(main())

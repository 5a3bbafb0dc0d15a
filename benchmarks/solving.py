"""How long theory.solve takes, and how large its statistical error is.

Three problems with a target each: linear, n = 12, under 50 ms; tanh, n = 12, to a standard error of 1e-3 in 10 s; tanh,
n = 30, to 3e-3 in 60 s. All are chains of T = n steps with one pattern, signal 1, kappa = .1, unit gains (tanh:
gw^2 = 2). The error asked for is passed as ``tolerance``, and solve chooses the points. "cold" is the first call,
compilation included; "warm" the median of the next calls, each with another seed, "slowest" the longest of them.
Standard errors are relative to sqrt(Phi_ii Phi_jj): the largest over the kernel entries and calls, which the target is
held against, and their root mean square.

Rows 4 to 6 run where ``--only`` asks for them: linear networks on many patterns, shown at step 1 and told apart at the
last, 8 in 12 steps (n = 96), 20 in 12 (n = 240), 25 in 20 (n = 500). The inputs have as many dimensions as there are
patterns, twice as many in row 6: 25 random inputs of 25 dimensions are so nearly dependent that searches over 20 steps
creep along valleys. Run on an idle machine:

    python benchmarks/solving.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass

import numpy as np

import theory
from bayesnet import tasks


@dataclass(frozen=True)
class Target:
    """A problem, how it is solved, and what is asked of it: seconds (warm) and standard error."""

    activation: str
    steps: int
    seconds: float
    error: float | None
    patterns: int = 1
    dimensions: int = 1


TARGETS = (
    Target("linear", 12, 0.05, None),
    Target("tanh", 12, 10.0, 1e-3),
    Target("tanh", 30, 60.0, 3e-3),
    Target("linear", 12, 2.0, None, patterns=8, dimensions=8),
    Target("linear", 12, 20.0, None, patterns=20, dimensions=20),
    Target("linear", 20, 120.0, None, patterns=25, dimensions=50),
)
ALWAYS = 3  # rows that run where none are asked for


def measure(target: Target, repetitions: int) -> dict:
    """Seconds cold and warm, the largest errors and residuals met, and whether all calls converged."""
    gain = 1.0 if target.activation == "linear" else 2**0.5
    network = theory.Network.rnn(1, activation=target.activation, recurrent_gain=gain)
    task = tasks.chain(target.steps, 1.0)
    if target.patterns > 1:
        inputs = np.random.default_rng(0).normal(size=(target.patterns, target.dimensions))
        task = tasks.endpoint(target.steps, 1.0, target.patterns, inputs)
    n = task.entries
    settings = {} if target.error is None else {"tolerance": target.error}
    times, solutions = [], []
    for seed in range(1 + repetitions):
        start = time.perf_counter()
        solutions.append(theory.solve(network, task, seed=seed, **settings))
        times.append(time.perf_counter() - start)
    relative = [
        solution.standard_error.reshape(n, n) / np.sqrt(np.outer(diagonal, diagonal))
        for solution in solutions
        for diagonal in [np.diagonal(solution.kernel.reshape(n, n))]
    ]
    return {
        "cold": times[0],
        "warm": statistics.median(times[1:]),
        "slowest": max(times[1:]),
        "largest": max(solution.relative_error for solution in solutions),
        "rms": float(np.sqrt(np.mean(np.square(relative)))),
        "residual": max(solution.residual for solution in solutions),
        "converged": all(solution.converged for solution in solutions),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table; exit status 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="warm calls")
    parser.add_argument("--only", type=int, nargs="*", help="rows, counted from 1")
    arguments = parser.parse_args(argv)
    chosen = [TARGETS[number - 1] for number in arguments.only] if arguments.only else TARGETS[:ALWAYS]
    print(f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    print("| problem | cold | warm | slowest | target | standard error max / rms | target | residual | met |")
    print("|---|---|---|---|---|---|---|---|---|")
    missed = False
    for target in chosen:
        row = measure(target, arguments.repetitions)
        met = row["converged"] and row["warm"] <= target.seconds
        met = met and (target.error is None or row["largest"] <= target.error)
        missed |= not met
        errors = "exact" if target.error is None else f"{row['largest']:.1e} / {row['rms']:.1e}"
        asked = "" if target.error is None else f"{target.error:.0e}"
        print(
            f"| {target.activation}, n = {target.steps * target.patterns} | {row['cold']:.2f} s | {row['warm']:.3f} s "
            f"| {row['slowest']:.3f} s | {target.seconds:g} s | {errors} "
            f"| {asked} | {row['residual']:.0e} | {'yes' if met else 'NO'} |",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())

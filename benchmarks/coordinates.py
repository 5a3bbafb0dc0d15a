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
import sys
from functools import partial
from pathlib import Path

from contestants import (
    CLOCKS,
    LANGEVIN_STEPS,
    PHI,
    SIGNAL,
    machine_name,
    print_table,
    run_langevin,
    run_ours,
    run_plain_nuts,
)


def main(arguments=None):
    """Run all contestants, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--activation", choices=sorted(PHI), default="linear")
    parser.add_argument("--seconds", type=float, default=60.0, help="sampling time of ours and of Langevin, each")
    parser.add_argument("--plain-draws", type=int, default=1000, help="draws of each of plain NUTS's chains")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: for a machine shared with others")
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

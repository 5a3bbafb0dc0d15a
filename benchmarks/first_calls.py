"""How long the first five minutes take: importing, solving and sampling, in new processes and again in the same one.

    python benchmarks/first_calls.py

Each row is run in new processes, one after another, and the median is printed: "cold" is the first call of a process
that compiles everything itself, "cached" that of a process that finds compiled programs on disk
(`bayesnet.program_cache`, which the command line uses), "warm" the second call in the same process. Times are those of
the wall and of the processor, which a busy machine does not stretch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

CASES = {
    "import bayesnet": ("", "import bayesnet", 1.2),
    "linear solve, T = 4": ("import theory", "theory.solve(theory.Network.rnn(1), bn.tasks.chain(4, 2.0))", 1.5),
    "tanh solve, T = 4": (
        "import theory",
        "theory.solve(theory.Network.rnn(1, activation='tanh', recurrent_gain=1.5), bn.tasks.chain(4, 2.0))",
        5.0,
    ),
    "sample in kernels, T = 4": (
        "",
        "bn.sample(bn.Network.rnn(256), bn.tasks.chain(4, 2.0), num_warmup=100, num_samples=100, progress=False)",
        4.0,
    ),
    "sample in fields, T = 4": (
        "",
        "bn.sample(bn.Network.rnn(64, activation='tanh'), bn.tasks.chain(4, 2.0), num_warmup=100, num_samples=100, "
        "progress=False)",
        4.0,
    ),
}
PROCESS = """
import json, sys, time
def timed(code):
    wall, processor = time.perf_counter(), time.process_time()
    exec(code, globals())
    return time.perf_counter() - wall, time.process_time() - processor
before, code, cached = json.loads(sys.argv[1])
if not code.startswith("import"):
    import bayesnet as bn
exec(before, globals())
if cached:
    from bayesnet.program_cache import kept_programs
    with kept_programs():
        first = timed(code)
else:
    first = timed(code)
print(json.dumps([first, timed(code)]))
"""


def measure(before: str, code: str, cache: str | None) -> tuple[list[float], list[float]]:
    """(wall, processor) seconds of the first and of the second call in a new process."""
    environment = os.environ | ({} if cache is None else {"BAYESNET_CACHE": cache})
    argument = json.dumps([before, code, cache is not None])
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, argument], env=environment, capture_output=True, text=True, check=True
    )
    first, second = json.loads(done.stdout.splitlines()[-1])
    return first, second


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="new processes for each cell")
    arguments = parser.parse_args(argv)
    print(f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}; seconds of the wall / of the processor")
    print("| call | cold | cached | warm | asked of the first |\n|---|---|---|---|---|")
    for name, (before, code, asked) in CASES.items():
        with tempfile.TemporaryDirectory() as cache:
            measure(before, code, cache)  # fills the cache
            cold = [measure(before, code, None) for _ in range(arguments.repetitions)]
            cached = [measure(before, code, cache) for _ in range(arguments.repetitions)]
        cells = []
        for runs in ([first for first, _ in cold], [first for first, _ in cached], [second for _, second in cold]):
            cells.append(" / ".join(f"{statistics.median(times):.2f}" for times in zip(*runs, strict=True)))
        print(f"| {name} | {' | '.join(cells)} | {asked:g} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How many faults the fast tests catch: random mutants of both packages, one at a time.

    python benchmarks/mutants.py --number 50 --seed 0

A mutant is one small change in a line that computes: an operator, a comparison, a constant, a bound of a slice, a
transpose, a sum for a mean. Messages, type hints, docstrings, checks of arguments, defaults, constants of modules,
figures, reports, the looks of plots and the command line are left out, and no two mutants share a line. Each is written
into a temporary copy of the tree, so that a run that is killed leaves none behind, and meets the tests that execute its
line, those of its module first, then the quickest, up to `--seconds` of them. What records which these are is
`benchmarks/choice_of_tests.py`; without a record they are chosen by names. What the tests do not catch is reported with
its diff: not executed by any fast test, or survived, which is to say equivalent to the original, caught by a file that
was not run, or missed. Mutants that take more than twice the time, as endless loops do, are counted apart.
"""

import argparse
import ast
import contextlib
import difflib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from choice_of_tests import ROOT, copy_of_the_tree, named_tests, recorded_tests

MEMORY = 12 * 2**30  # bytes of addresses: what asks for more ends with an error
LEFT_OUT = re.compile(r"figures|report|__init__|__main__|cli\.py|commands\.py|config\.py|arguments\.py|style\.py")
# Arguments that compute nothing: a check of zip, and how figures look.
LOOKS = {"strict", "linewidth", "markersize", "fontsize", "alpha", "zorder", "capsize", "figsize", "dpi", "pad"}
# What stands in the source, and what takes its place.
SWAPS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*")}
SWAPS |= {ast.Mod: ("%", "//"), ast.FloorDiv: ("//", "%"), ast.And: ("and", "or"), ast.Or: ("or", "and")}
SWAPS |= {ast.Lt: ("<", ">="), ast.GtE: (">=", "<"), ast.Gt: (">", "<="), ast.LtE: ("<=", ">"), ast.Eq: ("==", "!=")}
SWAPS |= {ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not")}
FUNCTIONS = {"sum": "mean", "mean": "sum", "max": "min", "min": "max", "any": "all", "all": "any", "sqrt": "square"}
FUNCTIONS |= {"argmax": "argmin", "argmin": "argmax", "zeros": "ones", "exp": "log", "maximum": "minimum"}
BUILTINS = {"max", "min", "any", "all"}


class Mutant(NamedTuple):
    """A stretch of the text of a file, and what takes its place."""

    path: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions of a tree that compute something."""
    skipped = ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_check = isinstance(child, ast.Call) and ast.unparse(child.func).startswith(("arguments.", "isinstance"))
            told = field in ("annotation", "returns", "decorator_list", "bases", "defaults", "kw_defaults")
            told |= isinstance(child, ast.keyword) and child.arg in LOOKS
            told |= isinstance(child, ast.AnnAssign) and isinstance(node, ast.ClassDef)
            if isinstance(child, ast.AST) and not (told or is_check or isinstance(child, skipped)):
                yield child
                yield from computing(child)


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    source = path.read_text()
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def place(node) -> tuple[int, int]:
        return offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset

    def of(node) -> str:
        return source[slice(*place(node))]

    replaced = partial(Mutant, str(path.relative_to(ROOT)))

    tree = ast.parse(source)
    # Constants of a module steer algorithms: another value may be as good.
    tree.body = [part for part in tree.body if not isinstance(part, ast.Assign | ast.AnnAssign)]
    for node in computing(tree):
        sides = None
        if isinstance(node, ast.BinOp):
            sides = node.left, node.op, node.right
        elif isinstance(node, ast.Compare):
            sides = node.left, node.ops[0], node.comparators[0]
        elif isinstance(node, ast.BoolOp):
            sides = node.values[0], node.op, node.values[1]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield replaced(*place(node), of(node.operand))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = node.value
            more = 1 if isinstance(value, int) else value / 2 or 1.0
            changed = not value if isinstance(value, bool) else value + more
            yield replaced(*place(node), str(changed))
        elif isinstance(node, ast.IfExp):
            yield replaced(*place(node), f"{of(node.orelse)} if {of(node.test)} else {of(node.body)}")
        elif isinstance(node, ast.Slice):
            yield from (replaced(*place(bound), f"{of(bound)} + 1") for bound in (node.lower, node.upper) if bound)
        elif isinstance(node, ast.Attribute) and node.attr == "T":
            yield replaced(*place(node), of(node.value))
        elif isinstance(node, ast.Call):
            end, (before, _, name) = place(node.func)[1], of(node.func).rpartition(".")
            # What stands alone is a builtin, and neither the builtins nor math know all of these names.
            if name in FUNCTIONS and (before != "math" or name == "exp") and (before or name in BUILTINS):
                yield replaced(end - len(name), end, FUNCTIONS[name])
        if sides and type(sides[1]) in SWAPS:
            old, new = SWAPS[type(sides[1])]
            at = source.find(old, place(sides[0])[1], place(sides[2])[0])
            if at >= 0:
                yield replaced(at, at + len(old), new)


def sample(number: int, seed: int, only: str) -> list[Mutant]:
    """Random mutants of valid syntax, at most one for each line."""
    found: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted([*ROOT.glob("theory/**/*.py"), *ROOT.glob("bayesnet/**/*.py")]):
        if LEFT_OUT.search(str(path.relative_to(ROOT))) or only not in str(path):
            continue
        source = path.read_text()
        for mutant in mutants_of(path):
            try:
                ast.parse(mutant.apply(source))
            except SyntaxError:
                continue
            found.setdefault((mutant.path, source.count("\n", 0, mutant.start)), []).append(mutant)
    rng = random.Random(seed)
    return [rng.choice(found[line]) for line in rng.sample(sorted(found), len(found))][:number]


def verdict_of(tests: list[str], tree: Path, environment: dict[str, str], seconds: float) -> tuple[str, list[str]]:
    """Whether tests catch what has been changed in a tree, and which one did."""
    environment = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",
        **environment,
    }  # programs are read, none is kept
    command = [sys.executable, "-m", "pytest", "-n0", "-qx", "-p", "no:cacheprovider", "-p", "choice_of_tests", *tests]
    running = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    try:
        told = running.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return "out of time", []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # with the processes that tests have started
        running.wait()
    if running.returncode > 2:  # not the mutant's fault
        sys.exit(told)
    return "caught" if running.returncode else "survived", re.findall(r"^(?:FAILED|ERROR) (\S+)", told, re.M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=20, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="go on from this one")
    parser.add_argument("--only", default="", help="part of the path of the modules to change")
    parser.add_argument("--seconds", type=float, default=300, help="of tests for each mutant")
    parser.add_argument("--all", action="store_true", help="where nothing is recorded: all that mention the module")
    options = parser.parse_args()
    counts = {"caught": 0, "survived": 0, "not executed": 0, "out of time": 0}
    with tempfile.TemporaryDirectory() as work:
        tree, environment = copy_of_the_tree(work)
        mutants = sample(options.number, options.seed, options.only)
        for number, mutant in list(enumerate(mutants))[options.first :]:
            before, started = (ROOT / mutant.path).read_text(), time.monotonic()
            after = mutant.apply(before)
            tests = recorded_tests(mutant.path, before.count("\n", 0, mutant.start) + 1, options.seconds)
            if tests is None:
                tests = named_tests(mutant.path, options.all)
            (tree / mutant.path).write_text(after)
            verdict, by = verdict_of(tests, tree, environment, 2 * options.seconds) if tests else ("not executed", [])
            (tree / mutant.path).write_text(before)
            counts[verdict] += 1
            diff = [*difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)][2:]
            told = f"{number}: {mutant.path}: {verdict} {' '.join(by)} ({time.monotonic() - started:.0f} s)"
            print(told, *diff, sep="\n  ", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main()

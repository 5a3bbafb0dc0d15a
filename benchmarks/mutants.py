"""How many faults the fast tests catch: random mutants of both packages, one at a time.

    python benchmarks/mutants.py --number 50 --seed 0

A mutant is one small change in a line that computes: an operator, a comparison, a constant, a bound of a slice, a
transpose, a sum for a mean. Messages, type hints, docstrings, checks of arguments, defaults, constants of modules,
figures, reports and the command line are left out, and no two mutants share a line. Each is written into a temporary
copy of the tree, so that a run that is killed leaves none behind, and meets the test files that are most likely to see
it: those of its module's own name or that import it, those that mention its public names or those of modules that
import it, and the generic cases. What these do not catch is reported as survived, with its diff: equivalent to the
original, caught by a test file that was not run (--all runs all that mention the module), or missed. Mutants that run
out of time are counted apart.
"""

import argparse
import ast
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = re.compile(r"figures|report|__init__|__main__|cli\.py|commands\.py|config\.py|arguments\.py|style\.py")
SLOW_TO_START = {"test_examples.py", "test_gpu.py", "test_imports.py", "test_documentation.py", "test_dask.py"}
GENERIC = {"theory": ["tests/theory/test_generic_case.py", "tests/bayesnet/test_generic_posteriors.py"]}
GENERIC["bayesnet"] = GENERIC["theory"][1:]
MENTIONED = 4  # test files besides the generic ones
# What stands in the source, and what takes its place.
SWAPS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*")}
SWAPS |= {ast.Mod: ("%", "//"), ast.FloorDiv: ("//", "%"), ast.And: ("and", "or"), ast.Or: ("or", "and")}
SWAPS |= {ast.Lt: ("<", ">="), ast.GtE: (">=", "<"), ast.Gt: (">", "<="), ast.LtE: ("<=", ">"), ast.Eq: ("==", "!=")}
SWAPS |= {ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not")}
SWAPS |= {ast.IsNot: ("is not", "is")}
FUNCTIONS = {"sum": "mean", "mean": "sum", "max": "min", "min": "max", "any": "all", "all": "any", "sqrt": "square"}
FUNCTIONS |= {"argmax": "argmin", "argmin": "argmax", "zeros": "ones", "exp": "log", "maximum": "minimum"}


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
            told = told or (isinstance(child, ast.keyword) and child.arg == "strict")
            told = told or (isinstance(child, ast.AnnAssign) and isinstance(node, ast.ClassDef))
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
        start, end = offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset
        return start, end

    def of(node) -> str:
        return source[slice(*place(node))]

    def replaced(start: int, end: int, text: str) -> Mutant:
        return Mutant(str(path.relative_to(ROOT)), start, end, text)

    tree = ast.parse(source)
    # Constants of a module steer algorithms: another value is as good, or a matter of taste.
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
        elif isinstance(node, ast.Call) and of(node.func).split(".")[-1] in FUNCTIONS:
            end, name = place(node.func)[1], of(node.func).split(".")[-1]
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


def tests_for(module: str, everything: bool) -> list[str]:
    """The test files that may see a mutant of a module, the most specific one first, then the generic cases."""
    dotted = "from " + module.removesuffix(".py").replace("/", ".") + " import"
    sources = [*ROOT.glob("theory/**/*.py"), *ROOT.glob("bayesnet/**/*.py")]
    names = public_names(ROOT / module)
    indirect = {name for path in sources if dotted in path.read_text() for name in public_names(path)}
    scores = {}
    for path in ROOT.glob("tests/**/test_*.py"):
        words, own = re.findall(r"\w+", path.read_text()), path.stem == f"test_{Path(module).stem}"
        mentions = sum(word in names for word in words) + 0.1 * sum(word in indirect for word in words)
        scores[str(path.relative_to(ROOT))] = 1000 * (own + (dotted in path.read_text())) + mentions
    generic = GENERIC[module.split("/")[0]]
    ranked = sorted((name for name in scores if scores[name] > 0), key=lambda name: (-scores[name], name))
    special = [name for name in ranked if name not in generic and Path(name).name not in SLOW_TO_START]
    return [*special[:1], *generic, *special[1 : None if everything else MENTIONED]]


def public_names(path: Path) -> set[str]:
    body = ast.parse(path.read_text()).body
    return {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=20, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="go on from this one")
    parser.add_argument("--only", default="", help="part of the path of the modules to change")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for each mutant")
    parser.add_argument("--all", action="store_true", help="run every test file that mentions the module")
    options = parser.parse_args()
    counts = {"caught": 0, "survived": 0, "out of time": 0}
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".pytest_cache", "__pycache__"))
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))
        mutants = sample(options.number, options.seed, options.only)
        for number, mutant in list(enumerate(mutants))[options.first :]:
            before, started, by = (ROOT / mutant.path).read_text(), time.monotonic(), []
            after = mutant.apply(before)
            (tree / mutant.path).write_text(after)
            command = [sys.executable, "-m", "pytest", "-n", "0", "-qx", "-p", "no:cacheprovider"]
            command += tests_for(mutant.path, options.all)
            how = {"cwd": tree, "env": environment, "timeout": options.timeout, "stdout": subprocess.PIPE, "text": True}
            try:
                ended = subprocess.run(command, **how)
                # 2: a test file could not even be imported, by 4 and 5 the script itself is at fault.
                if ended.returncode > 2:
                    sys.exit(ended.stdout)
                verdict = "caught" if ended.returncode else "survived"
                by = re.findall(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.M)
            except subprocess.TimeoutExpired:
                verdict = "out of time"
            (tree / mutant.path).write_text(before)
            counts[verdict] += 1
            diff = [*difflib.unified_diff(before.splitlines(), after.splitlines(), mutant.path, "", lineterm="", n=0)]
            print(f"{number}: {mutant.path}: {verdict} {' '.join(by)} ({time.monotonic() - started:.0f} s)")
            print(*diff[2:], sep="\n  ", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main()

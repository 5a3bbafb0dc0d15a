"""Which tests a mutant meets (`benchmarks/mutants.py`): those that execute its line, or those that name its module.

    PYTHONPATH=DIRECTORY_OF_COVERAGE python benchmarks/choice_of_tests.py

records which fast tests execute which lines: each test file in a process of its own, since what JAX has traced once
within a process, no later test traces again. This takes as long as the fast tests on one core, a little more than
half an hour, needs the package `coverage`, and leaves `.pytest_cache/covered.json`. Files whose tests fail in the copy
of the tree that mutants are tested in are left out. Where a module has changed since, or nothing is recorded, tests are
chosen by names: of the module, of what is public in it, and of what is public in those that import it.

As a plugin of pytest (`-p choice_of_tests`) this module keeps tests in the order in which the command names them.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / ".pytest_cache" / "covered.json"
SLOW_TO_START = {"test_examples.py", "test_gpu.py", "test_imports.py", "test_documentation.py", "test_dask.py"}
THEORY, POSTERIORS = "tests/theory/test_generic_case.py", "tests/bayesnet/test_generic_posteriors.py"
GENERIC = {"theory": [THEORY, POSTERIORS], "bayesnet": [POSTERIORS]}
MENTIONED = 4  # test files besides the generic ones


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items, config) -> None:
    order = config.args
    items.sort(key=lambda item: next((n for n, named in enumerate(order) if item.nodeid.startswith(named)), len(order)))


def copy_of_the_tree(work: str) -> tuple[Path, dict[str, str]]:
    """A copy that may be changed, and the environment in which its tests run."""
    tree = Path(work, "tree")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".pytest_cache", "__pycache__"))
    paths = [str(tree), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))
    return tree, environment


def digest(module: str) -> str:
    return hashlib.sha256((ROOT / module).read_bytes()).hexdigest()


def add_executed(lines: dict[str, dict[int, dict[str, list[str]]]], name: str, data: Path, tree: Path) -> None:
    """Add the lines that the tests of one file execute: by module and line, the file and those of its tests."""
    import coverage

    known = {f"test_{test}" for test in re.findall(r"^def test_(\w+)", (tree / name).read_text(), re.M)}
    for file in data.glob("covered*"):
        covered = coverage.CoverageData(str(file))
        try:
            covered.read()
        except coverage.exceptions.DataError:  # of a process that a test has killed
            continue
        for module in covered.measured_files():
            of_module = lines.setdefault(str(Path(module).relative_to(tree)), {})
            for line, contexts in covered.contexts_by_lineno(module).items():
                tests = of_module.setdefault(line, {}).setdefault(name, [])
                tests += sorted(known.intersection(context.split(".")[-1] for context in contexts) - {*tests})


def record() -> None:
    """Run each test file once, and write down which of its tests execute which lines."""
    lines: dict[str, dict[int, dict[str, list[str]]]] = {}
    seconds = {}
    with tempfile.TemporaryDirectory() as work:
        tree, environment = copy_of_the_tree(work)
        settings = Path(work, "settings")
        started_with = Path(work, "start", "sitecustomize.py")
        started_with.parent.mkdir()
        started_with.write_text("import coverage\ncoverage.process_startup()\n")
        environment["PYTHONPATH"] += os.pathsep + str(started_with.parent)
        environment["COVERAGE_PROCESS_START"] = str(settings)
        for path in sorted(tree.glob("tests/**/test_*.py")):
            name = str(path.relative_to(tree))
            data = Path(work, "data", path.stem)
            data.mkdir(parents=True)
            settings.write_text(
                f"[run]\nsource = {tree}/theory\n  {tree}/bayesnet\nparallel = true\ndata_file = {data}/covered\n"
                "dynamic_context = test_function\n"
                "disable_warnings = no-data-collected,module-not-measured,module-not-imported\n"
            )
            started = time.monotonic()
            command = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", name]
            ended = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)
            print(f"{name}: {ended.stdout.strip().splitlines()[-1]}", flush=True)
            if ended.returncode:
                continue
            seconds[name] = time.monotonic() - started
            add_executed(lines, name, data, tree)
    RECORD.write_text(
        json.dumps({"seconds": seconds, "lines": lines, "digests": {name: digest(name) for name in lines}})
    )


def recorded_tests(module: str, line: int, budget: float) -> list[str] | None:
    """The tests that execute a line, of files that take `budget` seconds together, or None without a record.

    Files of the module's own name come first, then those of its subpackage, then the quickest ones; within a file those
    tests that execute the line, then the others, as a test may run what an earlier one has traced.
    """
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"digests": {}}
    if record["digests"].get(module) != digest(module):
        return None
    lines = record["lines"][module]
    owner = dict.fromkeys(range(line + 1), 0)  # the first line of the innermost statement that a line belongs to
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.stmt):
            owner |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), node.lineno)  # type: ignore[operator]
    of_statement = [str(other) for other in owner if owner[other] == owner[line]]
    found: dict[str, list[str]] = {}
    for executed in [str(line)] if str(line) in lines else of_statement:
        for file, tests in lines.get(executed, {}).items():
            found[file] = [*found.get(file, []), *tests]
    name, folder = f"test_{Path(module).stem}.py", Path("tests", module).parent
    folders = [folder] if len(folder.parts) > 2 else []  # those of a package as a whole are many

    def rank(file: str) -> tuple[bool, bool, float]:
        return Path(file).name != name, Path(file).parent not in folders, record["seconds"][file]

    chosen, spent = [], 0.0
    for file in sorted(found, key=rank):
        spent += record["seconds"][file]
        if chosen and spent > budget:
            break
        chosen.append(file)
    return [name for file in chosen for name in [*dict.fromkeys(f"{file}::{test}" for test in found[file]), file]]


def named_tests(module: str, everything: bool) -> list[str]:
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


if __name__ == "__main__":
    record()

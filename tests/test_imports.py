"""Importing the packages touches neither the device nor global settings, and theory stands on its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import sys
from pathlib import Path
import jax
from jax._src import xla_bridge

settings = dict(jax.config.values)
import {package}
assert not xla_bridge.backends_are_initialized(), "a backend was initialised"
changed = [name for name, value in jax.config.values.items() if settings.get(name, value) != value]
assert not changed, changed
loaded = {{name.partition(".")[0] for name in sys.modules}} & {forbidden!r}
assert not loaded, loaded
assert jax.live_arrays() == []
"""

REFUSALS = """
import numpy as np
from jax._src import xla_bridge
from theory import Network, Task

bad_networks = [{"noise": -1}, {"shared": "all"}, {"activation": "swish"}, {"scaling": "ntk"}]
bad_networks += [{"activation": "math:sin"}, {"width": 0}]
bad_targets = [np.ones((1, 2)), np.full((1, 3), np.nan), np.full((1, 3), np.inf), np.ones((1, 3), complex)]
makers = [lambda b=b: Network(**{"width": 8, **b}) for b in bad_networks]
makers += [lambda b=b: Task(np.ones((1, 3, 1)), b) for b in bad_targets]
Network(8, activation="tanh")
Task(np.ones((1, 3, 1)), np.ones((1, 3))).input_kernel
for make in makers:
    try:
        make()
    except ValueError:
        continue
    raise AssertionError("not refused")
assert not xla_bridge.backends_are_initialized(), "a backend was initialised"
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("theory", {"numpyro", "arviz", "bayesnet"}),
        ("bayesnet.tasks", {"sklearn", "statsmodels", "arviz", "matplotlib"}),
    ],
)
def test_import_has_no_side_effect(package, forbidden):
    run(CHECK.format(package=package, forbidden=forbidden))


def test_public_names_are_what_dir_shows():
    import bayesnet
    import theory

    assert bayesnet.theory is theory
    assert dir(bayesnet) == sorted(bayesnet.__all__)
    assert dir(theory) == sorted(theory.__all__)


def test_a_foreign_theory_is_named(tmp_path):
    """A file theory.py beside a user's script hides the package."""
    (tmp_path / "theory.py").write_text("answer = 42\n")
    (tmp_path / "script.py").write_text("import bayesnet\n")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: bayesnet comes with a package theory, but `import theory` finds ")
    assert str(tmp_path / "theory.py") in message


def test_refusals_come_before_anything_compiles():
    run(REFUSALS)


def test_no_script_stands_for_a_package():
    """A script's own folder comes first on the path: benchmarks/theory.py would be what `import theory` finds."""
    root = Path(__file__).parents[1]
    names = {path.stem for folder in ("benchmarks", "examples") for path in (root / folder).glob("*.py")}
    assert names
    assert not names & ({"theory", "bayesnet"} | set(sys.stdlib_module_names))

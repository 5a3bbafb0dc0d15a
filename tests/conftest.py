"""Compiled programs are kept in pytest's cache, for both workers, the processes that tests start, and the next run.

Most of the time of these tests is compilation. `rm -r .pytest_cache` starts afresh.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


# Numbers that no library but JAX makes: continuous integration checks them on one version of Python.
NUMERICS = (
    "theory/gaussian",
    "theory/laws",
    "theory/search",
    "theory/test_causal.py",
    "theory/test_continuation.py",
    "theory/test_evidence.py",
    "theory/test_finite_width.py",
    "theory/test_general_model.py",
    "theory/test_generic_case.py",
    "theory/test_predictor.py",
    "theory/test_saddle.py",
    "theory/test_sensitivity.py",
    "theory/test_transition.py",
    "theory/test_weight_spectrum.py",
    "bayesnet/test_architectures.py",
    "bayesnet/test_bridge_sampling.py",
    "bayesnet/test_generic_posteriors.py",
    "bayesnet/test_location.py",
    "bayesnet/test_recorded_neurons.py",
    "test_examples.py",
    "test_invariance.py",
)


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).as_posix().startswith(NUMERICS):
            item.add_marker(pytest.mark.numerics)


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """The slow tests of several files in one process would need more memory maps than there are."""
    from bayesnet.memory_maps import make_room  # not before the environment is set

    make_room()

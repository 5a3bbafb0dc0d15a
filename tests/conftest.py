"""Compiled programs are kept in pytest's cache, for both workers, the processes that tests start, and the next run.

Most of the time of these tests is compilation. `rm -r .pytest_cache` starts afresh.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """The slow tests of several files in one process would need more memory maps than there are."""
    from bayesnet.memory_maps import make_room  # not before the environment is set

    make_room()

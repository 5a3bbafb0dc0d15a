"""Compiled programs are kept in pytest's cache, for both workers, the processes that tests start, and the next run.

Most of the time of these tests is compilation. `rm -r .pytest_cache` starts afresh.
"""

import os
from pathlib import Path

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

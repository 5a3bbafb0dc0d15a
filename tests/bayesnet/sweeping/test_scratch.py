"""Temporary directories: gone at the end, and those of killed processes gone at the next start."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bayesnet.sweeping.scratch import Scratch
from theory import files

KILLED = """
import os, signal
from bayesnet.sweeping.scratch import Scratch
scratch = Scratch("ours-")
open(scratch.name + "/program", "w").close()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    left = list(tmp_path.iterdir())
    assert len(left) == 1, "a killed process leaves its directory"
    for name, age in (("ours-old", 2 * files.LONG_DEAD), ("ours-new", 0), ("other", 2 * files.LONG_DEAD)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / "ours-link").symlink_to(tmp_path / "other")
    first = Scratch("ours-")
    assert not left[0].exists()
    second = Scratch("ours-")
    kept = {"ours-new", "ours-link", "other"}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, Path(first.name).name, Path(second.name).name}
    for scratch in (first, second, first):
        scratch.cleanup()
    assert {path.name for path in tmp_path.iterdir()} == kept

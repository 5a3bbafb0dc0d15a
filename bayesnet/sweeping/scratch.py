"""A temporary directory of this process; what killed processes have left of theirs goes first."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from theory import files

LOCK = "in-use"


class Scratch:
    """A directory for as long as this process needs it.

    Args:
        prefix: of its name, by which those of killed processes are known.

    Attributes:
        name: its path.
    """

    def __init__(self, prefix: str):
        for place in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # another user's
                _remove_if_abandoned(place)
        self._directory = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        self.name = self._directory.name
        self._lock = open(Path(self.name) / LOCK, "wb")  # noqa: SIM115  # held until `cleanup`
        files.hold(self._lock)

    def cleanup(self) -> None:
        """Remove it; again is no error."""
        self._lock.close()
        self._directory.cleanup()


def _remove_if_abandoned(place: Path) -> None:
    if place.is_symlink() or not place.is_dir():
        return
    lock = place / LOCK
    if lock.exists():
        abandoned = files.remove_if_abandoned(lock)
    else:  # just being made, or by version 0.1.0
        abandoned = time.time() - place.stat().st_mtime > files.LONG_DEAD
    if abandoned:
        shutil.rmtree(place, ignore_errors=True)

"""Compiled programs kept from one run of the command line to the next, in the user's cache directory.

Compiling takes most of a short run. JAX stores what it has compiled, by the program, its own version and the processor,
so that a second run of the same kind reads it back. The library changes no setting of JAX: only the command line keeps
programs. Whoever wants it in scripts sets JAX's own ``JAX_COMPILATION_CACHE_DIR``, which comes before everything here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "BAYESNET_CACHE"  # another directory; empty for none
LARGEST = 2**30  # bytes, some thousand programs; the oldest go first
WORTH_KEEPING = 0.1  # seconds that a program takes to compile; reading it back takes about a hundredth


def cache_directory() -> Path | None:
    """Where programs are kept: ``BAYESNET_CACHE``, or bayesnet/compiled where the system keeps caches; or nowhere."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    home = os.path.expanduser("~")
    places = {"darwin": os.path.join(home, "Library", "Caches"), "win32": os.environ.get("LOCALAPPDATA", "")}
    place = places.get(sys.platform, os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"))
    # Without a home there is no path that is the user's own.
    return Path(place, "bayesnet", "compiled") if os.path.isabs(place) else None


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Keep compiled programs within this block, where that is safe; JAX's settings are as before after it.

    Programs are run as they are read. A directory that others may write to is therefore not used, and neither is one
    that cannot be written; the block runs all the same.
    """
    directory = cache_directory()
    if jax.config.values["jax_compilation_cache_dir"] or directory is None or not _own(directory):
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": WORTH_KEEPING,
    }
    before = {name: jax.config.values[name] for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX looks at its settings once
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        _trim(directory)


def _own(directory: Path) -> bool:
    """Whether a directory, made where there is none, can be written by this user and by nobody else."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or not os.access(directory, os.W_OK):
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & others)


def _trim(directory: Path, most: int = LARGEST) -> None:
    """Remove the oldest programs where all together take more than ``most`` bytes."""
    with contextlib.suppress(OSError):  # another process is trimming too
        known = sorted(((each.stat(), each) for each in directory.iterdir()), key=lambda each: -each[0].st_mtime)
        total = 0
        for status, path in known:
            total += status.st_size
            if total > most:
                path.unlink(missing_ok=True)

"""Compiled programs that are dropped before the operating system has no room for more.

A nonlinear problem of a new shape takes some 2000 memory maps for its programs, and Linux allows a process 65530. With
none left XLA fails, or ends the process with a segmentation fault: a sweep over many shapes would never finish.
"""

from __future__ import annotations

import jax

MOST_MAPS = 40_000


def make_room() -> None:
    """Drop JAX's compiled programs if they take most of what a process may have; elsewhere than on Linux do nothing."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            count = sum(1 for _ in maps)
    except OSError:
        return
    if count > MOST_MAPS:
        jax.clear_caches()

"""Memory: what this process may use of it, and refusing before any work what cannot fit."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Where Linux tells what a container may use, in its two versions of control groups.
CONTROL_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_limit() -> float:
    """The bytes that this process may use: of the machine, its container and its user limit; infinite if unknown."""
    limits = [float("inf")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for path in CONTROL_GROUPS:
        try:
            limits.append(float(Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            limits.append(float(most))
    return min(limit for limit in limits if limit > 0)


def require_memory(what: str, needed: float, advice: str, limit: float | None = None) -> None:
    """Refuse what takes more memory than there is.

    Args:
        what: what is asked for, with the arguments that decide its size.
        needed: a lower bound on its bytes.
        advice: what would take less.
        limit: how many there are; those of `memory_limit` where not given.

    Raises:
        ValueError: naming what is asked for, what it takes, what there is, and the advice.
    """
    limit = memory_limit() if limit is None else limit
    if needed > limit:
        raise ValueError(
            f"{what} takes at least {in_words(needed)} of memory, and there are {in_words(limit)}; {advice}"
        )


def in_words(number: float) -> str:
    """Bytes with a unit."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB")
    place = max(place for place in range(len(units)) if place == 0 or number >= 1000**place)
    return f"{number / 1000**place:.3g} {units[place]}"

"""How long a search may take, and where it stands: what the loops of a search look at, and report to.

A search asks `time_is_up` between its steps. Where that is so, every loop ends as if it could get no further, and what
has been reached is returned, with its residual and its error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from theory import arguments
from theory.progress import progress_line, watched

Progress = bool | Callable[[str], None] | None
PATIENCE = 10.0  # seconds before, and between, lines that nobody has asked for: by then one wonders


class Clock:
    """Of one search.

    Attributes:
        time_limit: seconds that it may take; None for as many as it needs.
        ran_out: whether a loop has ended because the time was up.
    """

    def __init__(self, time_limit: float | None, progress: Progress) -> None:
        self.time_limit, self.ran_out = time_limit, False
        self._asked = progress is not None
        shown = watched() if progress is None else bool(progress)
        self._say = progress if callable(progress) else (progress_line() if shown else None)
        self._begin = time.monotonic()
        self._next = 0.0 if self._asked else PATIENCE

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._begin

    def is_up(self) -> bool:
        """Whether the time is up; remembers that somebody was told so."""
        up = self.time_limit is not None and self.elapsed > self.time_limit
        self.ran_out = self.ran_out or up
        return up

    def report(self, stage: str) -> None:
        """Say where the search stands."""
        if self._say is not None and self.elapsed >= self._next:
            self._say(f"{self.elapsed:7.1f} s  {stage}")
            self._next = 0.0 if self._asked else self.elapsed + PATIENCE


_CURRENT: ContextVar[Clock | None] = ContextVar("clock of the search", default=None)


@contextmanager
def timed(time_limit: float | None = None, progress: Progress = False) -> Iterator[Clock]:
    """A `Clock` for the searches within; those within a search that has one keep to that."""
    outer = _CURRENT.get()
    clock = Clock(time_limit, progress) if outer is None else outer
    token = _CURRENT.set(clock)
    try:
        yield clock
    finally:
        _CURRENT.reset(token)


def time_is_up() -> bool:
    """Whether the search that runs has used up its time."""
    clock = _CURRENT.get()
    return clock is not None and clock.is_up()


def report(stage: str) -> None:
    """Say where the search that runs stands, if anybody listens."""
    clock = _CURRENT.get()
    if clock is not None:
        clock.report(stage)


def ran_out() -> float | None:
    """The time limit of the search that runs, if that has cut it short."""
    clock = _CURRENT.get()
    return clock.time_limit if clock is not None and clock.ran_out else None


def check(time_limit: Any, progress: Any) -> tuple[float | None, Progress]:
    """The arguments of `timed`, checked.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    limit = None if time_limit is None else arguments.real("time_limit", time_limit)
    if limit is not None and limit <= 0:
        raise ValueError(f"time_limit is {time_limit!r}; it must be a positive, finite number of seconds, or None")
    if progress is not None and not callable(progress):
        return limit, arguments.flag("progress", progress)
    return limit, progress

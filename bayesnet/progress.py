"""Whether to show progress where the user has not said so."""

from __future__ import annotations

import sys


def progress_shown(asked: bool | None) -> bool:
    """What the user asked for; by default where somebody watches: a terminal, or a notebook."""
    return (sys.stderr.isatty() or in_notebook()) if asked is None else asked


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"

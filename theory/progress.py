"""Where progress is shown: as widgets in a notebook that has ipywidgets, as text elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def widgets_shown() -> bool:
    """Whether this runs in a notebook that has ipywidgets."""
    return in_notebook() and importlib.util.find_spec("ipywidgets") is not None


def watched() -> bool:
    """Whether somebody watches: the standard error is a terminal, or this is a notebook."""
    # Programs without a console have no standard error.
    return (sys.stderr is not None and sys.stderr.isatty()) or in_notebook()


def progress_line() -> Callable[[str], None]:
    """A function that shows a line of text: printed to the standard error one below the other, or a widget in a
    notebook, which shows the last one."""
    if not widgets_shown():
        return lambda line: print(line, file=sys.stderr, flush=True)
    labels: list = []  # a widget, from the first line on

    def show(line: str) -> None:
        import ipywidgets
        from IPython.display import display

        if not labels:
            labels.append(ipywidgets.Label())
            display(labels[0])
        labels[0].value = line

    return show

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


def progress_line() -> Callable[[str], None]:
    """A function that shows a line of text: printed to the standard error one below the other, or a widget in a
    notebook, which shows the last one."""
    if not widgets_shown():
        return lambda line: print(line, file=sys.stderr, flush=True)
    import ipywidgets
    from IPython.display import display

    label = ipywidgets.Label()
    display(label)

    def show(line: str) -> None:
        label.value = line

    return show

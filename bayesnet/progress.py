"""When progress is shown, and the bar that shows it."""

from __future__ import annotations

from typing import Any

import tqdm

from theory.progress import watched, widgets_shown


def progress_shown(asked: bool | None) -> bool:
    """What the user asked for; by default where somebody watches: a terminal, or a notebook."""
    return watched() if asked is None else asked


def progress_bar(**options: Any) -> tqdm.tqdm:
    """A bar of tqdm with its options: a widget in a notebook that has ipywidgets, a line of text elsewhere."""
    if widgets_shown() and not options.get("disable"):
        from tqdm import notebook

        return notebook.tqdm(**options)
    return tqdm.tqdm(**options)

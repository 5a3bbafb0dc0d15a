"""Libraries that warn at their import, imported such that a user meets no warning that asks for nothing.

tqdm warns in notebooks without ipywidgets (NumPyro imports that part of it). ArviZ 0.23 announces its successor; it
brings matplotlib along, and is imported where it is first used.
"""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"IProgress not found")
    import tqdm.auto  # noqa: F401


def arviz() -> Any:
    """The module of ArviZ."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)
        import arviz
    return arviz

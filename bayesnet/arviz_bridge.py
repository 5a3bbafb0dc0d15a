"""The one place where ArviZ 0.23 and 1.x differ: 1.x reads a DataTree as it is, 0.23 wants InferenceData."""

from __future__ import annotations

from typing import Any

import arviz as az
import xarray as xr

GROUPS = ("posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data")


def to_arviz(posterior: xr.DataTree) -> Any:
    """A posterior as the installed ArviZ wants it, for ``az.summary``, ``az.loo``, ``az.compare`` and the plots.

    Returns:
        The DataTree of the ArviZ groups (ArviZ 1.x) or an ``InferenceData`` (0.23).
    """
    datasets = {name: posterior[name].to_dataset() for name in GROUPS}
    if int(az.__version__.split(".")[0]) >= 1:
        return xr.DataTree.from_dict(datasets)
    return az.InferenceData(attrs=dict(posterior.attrs), **datasets)  # type: ignore[arg-type]

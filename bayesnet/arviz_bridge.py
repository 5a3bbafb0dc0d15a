"""The one place where ArviZ 0.23 and 1.x differ: 1.x reads a DataTree as it is, 0.23 wants InferenceData."""

from __future__ import annotations

from typing import Any

import xarray as xr

from bayesnet.quiet_imports import arviz
from bayesnet.results import network_of

GROUPS = (
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "log_likelihood",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
)


def to_arviz(posterior: xr.DataTree, prior: xr.DataTree | None = None) -> Any:
    """A posterior as the installed ArviZ wants it, for ``az.summary``, ``az.loo``, ``az.compare`` and the plots.

    Args:
        posterior: what `sample` returned.
        prior: what `sample_prior` returned, to go with it.

    Returns:
        The DataTree of the ArviZ groups (ArviZ 1.x) or an ``InferenceData`` (0.23).
    """
    network_of(posterior)  # refuses what is no posterior
    trees = [posterior] if prior is None else [prior, posterior]
    found = {name: tree[name].to_dataset() for tree in trees for name in GROUPS if name in tree.children}
    datasets = {name: found[name] for name in GROUPS if name in found}
    az = arviz()
    if int(az.__version__.split(".")[0]) >= 1:
        return xr.DataTree.from_dict(datasets)
    return az.InferenceData(attrs=dict(posterior.attrs), **datasets)  # type: ignore[arg-type]

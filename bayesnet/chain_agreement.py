"""Do the chains agree? Which chain stands apart, and in what; and which mirror mode each chain is in."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesnet.quiet_imports import arviz
from bayesnet.results import has_moments
from bayesnet.sampling import network_of, task_of
from theory.kernels import flat_of
from theory.symmetry import mirror_signs

APART = 4.0  # standard errors between groups of chains
RESIDENT = 0.99  # share of its draws with one sign that makes a chain resident in a mirror mode
COEXISTENCE = "two phases seem to coexist: bayesnet.weigh_phases tells what each weighs"
MODE_DRAWS = 400  # enough to find the direction between two mirror modes


def name_disagreement(draws: np.ndarray, log_likelihood: np.ndarray) -> str:
    """Which chains stand apart in draws (chain, draw) of an observable, in words.

    The chains are split at the widest gap between their means. The smaller group is named where the gap exceeds 4
    standard errors, with its log likelihood (chain, draw) against the others'; else no chain is to blame. The error is
    that of the median chain: one that has just left the others' phase has a large error of its own.
    """
    if len(draws) == 1:
        return "the only chain has not settled"
    means, errors = draws.mean(axis=1), np.array([_standard_error(chain) for chain in draws])
    order = np.argsort(means)
    cut = int(np.diff(means[order]).argmax()) + 1
    below, above = order[:cut], order[cut:]
    gap = means[above[0]] - means[below[-1]]
    if not gap > APART * np.sqrt(2) * np.median(errors):
        return "no chain stands apart: draw more"
    apart, others = (below, above) if len(below) <= len(above) else (above, below)
    lift = log_likelihood[apart].mean() - log_likelihood[others].mean()
    # Odd chains warm up from beyond the signal, even ones from below it. Frozen ones are in no phase.
    two_sides = len(set(apart % 2)) == len(set(others % 2)) == 1 and len(draws) > 2 and errors.all()
    return (
        f"{_chains(apart)} at {means[apart].mean():.3g}, {_chains(others)} at {means[others].mean():.3g}; "
        f"log likelihood of the former {'higher' if lift > 0 else 'lower'} by {abs(lift):.1f}"
    ) + (f"; {COEXISTENCE}" if two_sides else "")


def mirror_modes(posterior: xr.DataTree) -> xr.DataArray | None:
    """The mirror mode of each draw, +1 or -1, dims (chain, draw); None where there is no sign symmetry, or where the
    posterior holds the moments of its kernels only.

    Under W -> -W all odd-offset overlaps change sign. A draw's mode is the sign of the overlaps that change, along
    their leading direction over all draws, oriented so that neighbouring steps overlap positively in mode +1. Below the
    transition there is one mode only, and the sign changes from draw to draw.
    """
    network, task = network_of(posterior), task_of(posterior)
    images = mirror_signs(network, task)
    if not len(images) or has_moments(posterior):
        return None
    overlap = posterior["posterior"]["overlap"]
    signs = np.repeat(images[0], task.patterns)
    rows, columns = np.nonzero(np.triu(signs[:, None] != signs))
    flat = flat_of(overlap.to_numpy()).reshape(-1, len(signs), len(signs))[:, rows, columns]
    thinned = flat[:: -(-len(flat) // MODE_DRAWS)]
    direction = np.linalg.svd(thinned, full_matrices=False)[2][0]
    neighbours = (columns - rows) == task.patterns
    orientation = direction[neighbours].sum() or 1.0
    sign = np.where(flat @ direction * orientation >= 0, 1, -1)
    coords = {name: overlap[name] for name in ("chain", "draw")}
    return xr.DataArray(sign.reshape(overlap.shape[:2]), coords, ("chain", "draw"), "mirror_mode")


def name_modes(modes: xr.DataArray) -> str:
    """Where the chains of `mirror_modes` live, in words."""
    share = (modes.to_numpy() > 0).mean(axis=1)
    homes = np.select([share >= RESIDENT, share <= 1 - RESIDENT], ["+", "-"], "both")
    groups = [(home, np.flatnonzero(homes == home)) for home in ("+", "-", "both")]
    return "; ".join(f"{_chains(members)} in {home}" for home, members in groups if len(members))


def _standard_error(chain: np.ndarray) -> float:
    """Of a chain's mean; zero if it is frozen, infinite if it is too short to tell."""
    spread = chain.std()
    if spread == 0:
        return 0.0
    size = float(arviz().ess(chain[None], method="mean")) if len(chain) >= 4 else np.nan
    return float(spread / np.sqrt(size)) if size > 0 else np.inf


def _chains(members: np.ndarray) -> str:
    return f"chain{'s' if len(members) > 1 else ''} {', '.join(map(str, sorted(members.tolist())))}"

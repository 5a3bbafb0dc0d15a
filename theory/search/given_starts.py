"""What a user gives a search to start from: kernels, solutions, posteriors."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from theory.arrays import real_array
from theory.kernels import flat_of, scale_of
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

SAME = 0.1  # of sqrt(Phi_ii Phi_jj): mean kernels of chains that differ by less make one phase
ROUNDING = 1e-6  # relative: asymmetry, or a negative eigenvalue, that a kernel may have


def start_kernels(start: Any, network: Network, task: Task) -> tuple[np.ndarray, ...]:
    """The kernels (n, n) of ``start``: a `Solution`, an array (S, P, S, P), a posterior, or a list of such.

    Of a posterior (anything with a group "posterior", or itself, whose variable "kernel" has dims "chain" and "draw")
    the mean of each chain, chains of one phase once.

    Raises:
        ValueError: if something is of another kind, of another shape than the task has, or no kernel.
    """
    if start is None:
        return ()
    if isinstance(start, (list, tuple)):
        parts = [start_kernels(one, network, task) for one in start]
        return tuple(kernel for part in parts for kernel in part)
    sites = task.steps * network.layers
    shape = (sites, task.patterns, sites, task.patterns)
    if isinstance(start, Solution):
        return (_kernel(start.kernel, shape),)
    if isinstance(start, (xr.DataTree, xr.Dataset)):
        return _phases(_of_chains(start, shape))
    return (_kernel(real_array("start", start, "of a kernel, (sites, patterns, sites, patterns)", ranks=(4,)), shape),)


def _of_chains(posterior: xr.DataTree | xr.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """The mean kernel of each chain, (chains, n, n)."""
    whole: Any = posterior
    group = whole.get("posterior", whole)
    if "kernel" not in group or not {"chain", "draw"} <= set(group["kernel"].dims):
        raise ValueError(
            'start is a posterior without the kernels of its draws; it must have a variable "kernel" with dims "chain" '
            'and "draw"'
        )
    return np.array([_kernel(chain, shape) for chain in group["kernel"].mean("draw").to_numpy()])


def _phases(kernels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each of them that is no other's, (n, n)."""
    phases: list[np.ndarray] = []
    for kernel in kernels:
        scale = scale_of(kernel)
        if all(np.max(np.abs(kernel - phase) / np.outer(scale, scale)) > SAME for phase in phases):
            phases.append(kernel)
    return tuple(phases)


def _kernel(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel that was given, flat, (n, n)."""
    if kernel.shape != shape:
        raise ValueError(
            f"start has a kernel of shape {kernel.shape}; network and task have kernels of shape {shape}: sites (the "
            "steps, or (step, layer) of several layers), patterns, and both once more"
        )
    flat = flat_of(kernel)
    if not np.isfinite(flat).all():
        raise ValueError("start has a kernel with entries that are not finite; all must be")
    scale = scale_of(flat)
    relative = flat / np.outer(scale, scale)
    lowest = float(np.linalg.eigvalsh((relative + relative.T) / 2)[0])
    if np.max(np.abs(relative - relative.T)) > ROUNDING or lowest < -ROUNDING * len(flat):
        raise ValueError(
            f"start has a kernel that is no covariance: relative to sqrt(Phi_ii Phi_jj) its lowest eigenvalue is "
            f"{lowest:.2g}; it must be symmetric and positive semidefinite"
        )
    return (flat + flat.T) / 2

"""Kernels as arrays: their shapes and labels, the scale of their entries, errors relative to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.task import Task

KERNEL_DIMS = ("step", "pattern", "step_bis", "pattern_bis")
SITE_DIMS = ("site", "pattern", "site_bis", "pattern_bis")  # of several layers
OUTPUT_DIMS = ("pattern", "step", "output")
SILENT = 1e-14  # variance, relative to the largest, of an entry that no input has reached


def kernel_of(flat: np.ndarray, task: Task) -> np.ndarray:
    """Flat kernels (..., n, n) -> (..., S, P, S, P), S sites: the steps, or with several layers (step, layer)."""
    flat = np.asarray(flat)
    shape = (flat.shape[-1] // task.patterns, task.patterns)
    return flat.reshape(*flat.shape[:-2], *shape, *shape)


def flat_of(kernel: Any) -> np.ndarray:
    """The inverse of `kernel_of`."""
    kernel = np.asarray(kernel)
    n = kernel.shape[-1] * kernel.shape[-2]
    return kernel.reshape(*kernel.shape[:-4], n, n)


def outputs_of(flat: np.ndarray, task: Task) -> np.ndarray:
    """Rows by (step, pattern) (..., T P, O) -> (..., P, T, O)."""
    flat = np.asarray(flat)
    return flat.reshape(*flat.shape[:-2], task.steps, task.patterns, flat.shape[-1]).swapaxes(-3, -2)


def entry_coords(task: Task) -> dict[str, np.ndarray]:
    """Labels t = 1..T, mu = 1..P and o = 1..O for arrays with dims `OUTPUT_DIMS`."""
    sizes = {"step": task.steps, "pattern": task.patterns, "output": task.output_dim}
    return {name: np.arange(1, size + 1) for name, size in sizes.items()}


def kernel_labels(task: Task, sites: int) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Dims and coordinates of kernels (S, P, S, P): `KERNEL_DIMS`; of several layers "site" takes the place of "step".

    The step and the layer of each site are coordinates of it, counted from 1.
    """
    labels: dict[str, Any] = {}
    if sites == task.steps:
        dims = KERNEL_DIMS
        labels = {name: np.arange(1, sites + 1) for name in ("step", "step_bis")}
    else:
        dims = SITE_DIMS
        step, layer = np.divmod(np.arange(sites), sites // task.steps)
        for bis in ("", "_bis"):
            labels[f"site{bis}"] = np.arange(1, sites + 1)
            labels[f"site_step{bis}"] = (f"site{bis}", step + 1)
            labels[f"site_layer{bis}"] = (f"site{bis}", layer + 1)
    patterns = np.arange(1, task.patterns + 1)
    return dims, {**labels, "pattern": patterns, "pattern_bis": patterns}


def scale_of(kernel: np.ndarray) -> np.ndarray:
    """sqrt(Phi_ii) of kernels (..., n, n), ones where that vanishes up to rounding, (..., n)."""
    variances = np.diagonal(kernel, axis1=-2, axis2=-1)
    silent = ~(variances > SILENT * variances.max(axis=-1, keepdims=True, initial=0.0))
    return np.sqrt(np.where(silent, 1.0, variances))


def largest_relative(error: np.ndarray, kernel: np.ndarray) -> float:
    """The largest of errors (n, n) of a kernel, relative to sqrt(Phi_ii Phi_jj)."""
    scale = scale_of(kernel)
    return float(np.max(error / np.outer(scale, scale)))

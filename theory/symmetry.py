"""The sign symmetry W -> -W, under which every odd-offset cross-time kernel changes sign."""

from __future__ import annotations

import numpy as np

from theory.covariance import Array
from theory.network import Network
from theory.task import Task


def has_sign_symmetry(network: Network, task: Task) -> bool:
    """Whether W -> -W leaves the posterior as it is.

    It turns h_t into (-1)^t h_t up to a common sign, so it needs an odd activation, a shared W, inputs at steps of
    one parity (unless U is unshared, which then flips along) and supervised steps of one parity (unless V is
    unshared). Then the posterior has mirror modes and only invariants may be compared: diagonal blocks, even
    offsets, squared odd-offset overlaps, predictions.
    """
    if "recurrent" not in network.shared or not network.phi.odd:
        return False
    input_steps = np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2)))
    supervised_steps = np.flatnonzero(task.supervised.any(axis=0))
    return ("input" not in network.shared or _one_parity(input_steps)) and (
        "readout" not in network.shared or _one_parity(supervised_steps)
    )


def flip_sign(kernel: Array) -> Array:
    """The mirror image of a kernel (T, P, T, P): entry (t, s) times (-1)^(t-s)."""
    signs = (-1.0) ** np.arange(kernel.shape[0])
    return kernel * signs[:, None, None, None] * signs[None, None, :, None]


def _one_parity(steps: np.ndarray) -> bool:
    return len(set(steps % 2)) <= 1

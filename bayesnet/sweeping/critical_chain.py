r"""The critical signal in closed form.

For a linear network, input at the first step only and targets at the last only, T >= 3, the targets along an
eigenvector of the input Gram matrix with eigenvalue X:

    r_c = (T-1)/(T-2),   K_c = gv^2 gu^2 gw^{2(T-1)} X r_c^T,   |y|_c = (kappa + K_c)/sqrt(K_c) sqrt(r_c - 1),

the signal at which the symmetric solution turns unstable. Elsewhere `theory.critical_signal` finds it numerically.

Source: Bauer et al. 2026 (arXiv 2602.15593); DESIGN.md section 3.
"""

from __future__ import annotations

import math

import numpy as np

from theory.network import Network
from theory.task import Task


def closed_form_instability(network: Network, task: Task) -> float | None:
    """The factor of the task's targets at which the symmetric solution turns unstable; None where no formula holds."""
    steps = task.steps
    shown_first = not np.any(task.inputs[:, 1:])
    asked_last = task.supervised[:, -1].all() and not task.supervised[:, :-1].any()
    simple = network.activation == "linear" and network.scaling == "mup" and "recurrent" in network.shared
    if not (simple and shown_first and asked_last and steps >= 3 and task.output_dim == 1):
        return None
    targets = task.targets[:, -1, 0]
    signal = float(np.linalg.norm(targets))
    if signal == 0:
        return None
    direction = targets / signal
    gram = task.inputs[:, 0] @ task.inputs[:, 0].T / task.input_dim
    eigenvalue = float(direction @ gram @ direction)
    if eigenvalue <= 0 or not np.allclose(gram @ direction, eigenvalue * direction, rtol=1e-9, atol=1e-12):
        return None
    ratio = (steps - 1) / (steps - 2)
    gain = network.readout_gain * network.input_gain * network.recurrent_gain ** (steps - 1)
    kernel = gain**2 * eigenvalue * ratio**steps
    if network.noise >= (2 * steps - 1) * kernel:
        return None  # the symmetric branch folds before it turns unstable
    return (network.noise + kernel) / math.sqrt(kernel) * math.sqrt(ratio - 1) / signal

r"""The instability of a linear chain in closed form: its critical signal and its critical degree of sharing.

For a linear network, input at the first step only and targets at the last only, T >= 3, the targets along an
eigenvector of the input Gram matrix with eigenvalue X. Below the transition all kernels are r times those of the prior,

    r - 1 = |y|^2 K / (kappa + K)^2,        K = gv^2 gu^2 gw^{2(T-1)} X r^T,

and with W shared to a degree rho the kernels between neighbouring steps turn unstable where the tridiagonal matrix of
T - 1 rows with the diagonal 1 + (2r - 1) rho^2 (the last entry: 1) and -r rho beside it loses its positive
determinant. For rho = 1 that is r_c = (T-1) / (T-2); for T = 3, rho_c = 1 / (r - 1). Elsewhere `theory.critical_point`
finds it.

Source: Bauer et al. 2026 (arXiv 2602.15593) for rho = 1.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.optimize

from theory.network import Network
from theory.task import Task

ON_THE_WAY = 1001  # values of r at which the way of the symmetric branch is looked at
LARGEST_RATIO = 1e6  # of r: beyond it a degree of sharing counts as having no critical signal


def closed_form_instability(network: Network, task: Task) -> float | None:
    """The factor of the task's targets at which the symmetric solution turns unstable.

    None where no formula holds: elsewhere, and where the symmetric branch folds before it turns unstable.
    """
    chain = _chain(network, task)
    degree = network.degree("recurrent")
    if chain is None or not isinstance(degree, float) or degree == 0:
        return None
    signal, gain, steps = chain
    ratio = critical_ratio(steps, degree)
    if _folds_before(ratio, gain, network.noise, steps):
        return None
    kernel = gain * ratio**steps
    return (network.noise + kernel) / math.sqrt(kernel) * math.sqrt(ratio - 1) / signal


def closed_form_sharing(network: Network, task: Task) -> float | None:
    """The degree of sharing of W at which the symmetric solution turns unstable; infinite if at none.

    None where no formula holds: elsewhere, and where the symmetric branch folds before. What the degree of the
    network's own W is does not matter.
    """
    chain = _chain(network, task)
    if chain is None:
        return None
    signal, gain, steps = chain

    def excess(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        kernel = gain * ratio**steps
        return ratio - 1 - signal**2 * kernel / (network.noise + kernel) ** 2

    # The smallest root is that of the branch which leaves the prior.
    grid = np.linspace(0, math.log(2 + signal**2 / gain), 4001)
    beyond = np.flatnonzero([excess(at) >= 0 for at in grid[1:]])
    ratio = math.exp(scipy.optimize.brentq(excess, *grid[beyond[0] : beyond[0] + 2]))
    if _folds_before(ratio, gain, network.noise, steps):
        return None
    if _least_eigenvalue(steps, ratio, 1.0) > 0:
        return math.inf
    return scipy.optimize.brentq(lambda rho: _least_eigenvalue(steps, ratio, rho), 0.0, 1.0)


def critical_ratio(steps: int, degree: float) -> float:
    """r_c at which the symmetric solution of a chain turns unstable, W shared to a degree above 0 and at most 1."""
    if degree == 1:
        return (steps - 1) / (steps - 2)
    above = 2.0
    while _least_eigenvalue(steps, above, degree) > 0:
        above *= 2
        if above > LARGEST_RATIO:
            return math.inf
    return scipy.optimize.brentq(lambda ratio: _least_eigenvalue(steps, ratio, degree), 1.0, above)


def _folds_before(ratio: float, gain: float, noise: float, steps: int) -> bool:
    """Whether the signal falls again somewhere on the way of the symmetric branch from r = 1 to r = ``ratio``.

    With |y|^2 = (r - 1) (kappa + K)^2 / K it rises as long as r / (r - 1) + T (K - kappa) / (K + kappa) > 0.
    """
    r = np.linspace(1, ratio, ON_THE_WAY)[1:]
    kernel = gain * r**steps
    return bool(np.any(r / (r - 1) + steps * (kernel - noise) / (kernel + noise) <= 0))


def _least_eigenvalue(steps: int, ratio: float, degree: float) -> float:
    """The lowest curvature of the free energy against kernels between neighbouring steps, up to a positive factor."""
    diagonal = np.full(steps - 1, 1 + (2 * ratio - 1) * degree**2)
    diagonal[-1] = 1
    beside = np.full(steps - 2, -ratio * degree)
    return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[0])


def _chain(network: Network, task: Task) -> tuple[float, float, int] | None:
    """|y|, K at r = 1, and T of a linear chain; None for any other problem."""
    steps = task.steps
    shown_first = not np.any(task.inputs[:, 1:])
    asked_last = task.supervised[:, -1].all() and not task.supervised[:, :-1].any()
    plain = {"activation": "linear", "scaling": "mup", "layers": 1, "delay": 1, "leak": 1.0, "connections": None}
    simple = all(getattr(network, name) == value for name, value in plain.items())
    simple = simple and not (network.has_bias or network.process_noise or network.residual)
    simple = simple and isinstance(network.degree("recurrent"), float)
    if not (simple and shown_first and asked_last and steps >= 3 and task.output_dim == 1):
        return None
    targets = task.targets[:, -1, 0]
    signal = float(np.linalg.norm(targets))
    if signal == 0:
        return None
    direction = targets / signal
    gram = task.inputs[:, 0] @ task.inputs[:, 0].T / task.input_dim
    eigenvalue = float(direction @ gram @ direction)
    if eigenvalue <= 0 or not np.allclose(gram @ direction, eigenvalue * direction, rtol=1e-9, atol=1e-12 * eigenvalue):
        return None
    gain = network.readout_gain * network.input_gain * network.recurrent_gain ** (steps - 1)
    return signal, gain**2 * eigenvalue, steps

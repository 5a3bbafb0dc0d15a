"""Two symmetries that change the sign of correlations between steps of odd offset: W -> -W, and a relabelling."""

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
    return network.phi.odd and _odd_offsets_are_free(network, task)


def flip_sign(kernel: Array) -> Array:
    """The mirror image of a kernel (T, P, T, P): entry (t, s) times (-1)^(t-s)."""
    signs = (-1.0) ** np.arange(kernel.shape[0])
    return kernel * signs[:, None, None, None] * signs[None, None, :, None]


def alternating_relabelling(network: Network, task: Task) -> np.ndarray | None:
    r"""A permutation pi of the patterns, made at every other step, that maps saddle points to saddle points.

        Phi'_{ts}^{mu nu} = Phi_{ts}^{pi^t mu, pi^s nu},        y_{pi mu} = -y_mu,  x_{pi mu} . x_{pi nu} = x_mu . x_nu

    It exchanges patterns of opposite targets. If a kernel is unchanged when all steps are relabelled, so is C[Phi] when
    every other one is, under the conditions of the sign symmetry but for the activation, which may be any: a ReLU
    network on targets of both signs has mirror images as well. Unlike W -> -W this is a symmetry of the saddle point
    equations only; at finite width the two images weigh alike up to a factor of order one.

    Returns:
        pi, (P,) with pi[pi] = 1..P, or None where there is none but the identity, or W is not shared.
    """
    if task.steps < 2 or not _odd_offsets_are_free(network, task) or not task.targets[task.supervised].any():
        return None
    kernels = task.input_kernel.transpose(0, 2, 1, 3).reshape(-1, task.patterns, task.patterns)
    tolerance = 1e-9 * np.abs(kernels).max(initial=1.0)
    partner = np.full(task.patterns, -1)

    def fits(one: int, other: int) -> bool:
        opposite = np.array_equal(task.supervised[one], task.supervised[other]) and np.allclose(
            task.targets[one][task.supervised[one]], -task.targets[other][task.supervised[other]], rtol=1e-9
        )
        known = np.flatnonzero(partner >= 0)
        images = partner[known]
        return opposite and all(
            np.allclose(kernels[:, a][:, seen], kernels[:, b][:, image], rtol=0, atol=tolerance)
            for a, b in ((one, other), (other, one))
            for seen, image in ((known, images), ([one, other], [other, one]))
        )

    def complete() -> bool:
        free = np.flatnonzero(partner < 0)
        if not free.size:
            return True
        for other in free:
            if fits(int(free[0]), int(other)):
                partner[[free[0], other]] = other, free[0]
                if complete():
                    return True
                partner[[free[0], other]] = -1
        return False

    return partner if complete() else None


def relabel(kernel: Array, permutation: np.ndarray) -> Array:
    """A kernel (..., T, P, T, P) with the patterns of steps 2, 4, ... permuted."""
    steps = kernel.shape[-4]
    at = np.array([permutation if step % 2 else np.arange(len(permutation)) for step in range(steps)])
    rows = kernel[..., np.arange(steps)[:, None], at, :, :]
    return rows[..., np.arange(steps)[:, None], at]


def _odd_offsets_are_free(network: Network, task: Task) -> bool:
    """Whether nothing but W ties steps of odd offset."""
    if "recurrent" not in network.shared:
        return False
    input_steps = np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2)))
    supervised_steps = np.flatnonzero(task.supervised.any(axis=0))
    return ("input" not in network.shared or _one_parity(input_steps)) and (
        "readout" not in network.shared or _one_parity(supervised_steps)
    )


def _one_parity(steps: np.ndarray) -> bool:
    return len(set(steps % 2)) <= 1

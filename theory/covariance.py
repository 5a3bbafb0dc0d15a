r"""The covariances of the model as functions of the kernel: C[Phi], and the law of the targets.

    C[Phi]_{t,s} = gw^2 Mw_{ts} Phi_{t-1,s-1} + gu^2 Mu_{ts} x_t . x_s / D        (pre-activations)
    A[Phi]       = kappa I + gv^2 (Mv o Phi), supervised entries                  (targets, times their scale)

with M_ts = 1 where that weight is shared over the steps and delta_ts where it is not: an RNN and a DNN differ in
nothing else. Kernels are flat here, (n, n) with n = T P, entry t P + mu being pattern mu at step t. The sampler
and the theory both call these functions.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.network import Network
from theory.task import Task

Array = Any  # a NumPy or a JAX array
SILENT = 1e-14  # variance, relative to the largest, of an entry that no input has reached


class Terms(NamedTuple):
    """A network on a task, reduced to the arrays that the posterior depends on.

    A pytree: pass it to compiled functions as an argument, and RNN and DNN share one compilation.

    Attributes:
        recurrent: gw^2 Mw, (n, n).
        drive: gu^2 Mu o x_t . x_s / D, (n, n).
        readout: gv^2 Mv, (n, n).
        noise: kappa.
        scale: 1/N (muP) or 1 (standard): the targets have covariance ``scale`` times A.
        targets: supervised targets, (number supervised, O).
        supervised: their flat entries, (number supervised,).
    """

    recurrent: Array
    drive: Array
    readout: Array
    noise: Array
    scale: Array
    targets: Array
    supervised: Array


def covariance_terms(network: Network, task: Task) -> Terms:
    """The `Terms` of a network on a task, as NumPy arrays."""
    same_step = np.kron(np.eye(task.steps), np.ones((task.patterns, task.patterns)))

    def mask(name: str) -> np.ndarray:
        return np.ones_like(same_step) if name in network.shared else same_step

    input_kernel = task.input_kernel.reshape(task.entries, task.entries)
    return Terms(
        recurrent=network.recurrent_gain**2 * mask("recurrent"),
        drive=network.input_gain**2 * mask("input") * input_kernel,
        readout=network.readout_gain**2 * mask("readout"),
        noise=np.asarray(network.noise),
        scale=np.asarray(network.target_variance_scale),
        targets=task.supervised_targets,
        supervised=task.supervised_entries.astype(np.int32),  # the same in and out of 64-bit mode
    )


def shift_later(kernel: Array, patterns: int) -> Array:
    """Phi_{t-1,s-1} at block (t, s); zero where a step before the first is asked for."""
    n = kernel.shape[-1]
    return jnp.pad(kernel, ((patterns, 0), (patterns, 0)))[:n, :n]


def shift_earlier(matrix: Array, patterns: int) -> Array:
    """The adjoint of `shift_later`: block (t+1, s+1) at (t, s), zero at the last step."""
    return jnp.pad(matrix[patterns:, patterns:], ((0, patterns), (0, patterns)))


def scale_of(kernel: np.ndarray) -> np.ndarray:
    """sqrt(Phi_ii) of a kernel (n, n), ones where that vanishes up to rounding, (n,)."""
    variances = np.diagonal(kernel)
    silent = ~(variances > SILENT * variances.max(initial=0.0))
    return np.sqrt(np.where(silent, 1.0, variances))


@partial(jax.jit, static_argnums=2)
def preactivation_cov(terms: Terms, kernel: Array, patterns: int) -> Array:
    """C[Phi], the covariance (n, n) of the pre-activations given the kernel (n, n) of the activities."""
    return terms.recurrent * shift_later(kernel, patterns) + terms.drive


def target_cov(terms: Terms, kernel: Array) -> Array:
    """A[Phi] = kappa I + gv^2 (Mv o Phi) on the supervised entries; PD because kappa > 0."""
    rows = terms.supervised
    readout = (terms.readout * kernel)[rows][:, rows]
    return readout + terms.noise * jnp.eye(rows.shape[0], dtype=readout.dtype)

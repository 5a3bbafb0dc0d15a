r"""The mean-field Langevin flow: M neurons that descend the free energy together, and where they come to rest.

Written over the law of the white noise z, with H = L z the causal construction (`theory.causal`), the free energy is

    F[q_z] = KL( q_z || N(0, I) ) + 1/2 sum_o y_o^T A[Phi]^{-1} y_o,        Phi = Phi[q_z],

and its gradient flow with noise is the Langevin dynamics of M particles in the potential 1/2 |z|^2 + M x data term: the
posterior in field coordinates at width M. It needs no inverse of C, handles kinks and any sharing, and cannot diverge
the way an iteration of the kernels does. A pull towards a given kernel, which ends before the flow settles, leads to
the saddle point that is downhill from there. Kernels come out with errors O(M^{-1/2}) and O(step^2): a start. So does
the response of F to the covariance, from the adjoint of the construction at fixed z,

    Q = 2 d(data term) / dC,        equal to C^{-1} - C^{-1} <h h^T> C^{-1} at the saddle point,

which is linear in the forces: Stein's form <d psi> - <psi psi^T> of noisy neurons squares its noise at every step
back, and that diverges over some thirty of them.

Source: Hu, Ren, Siska, Szpruch 2021 (mean-field Langevin dynamics).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from theory.causal import kernel_of_noise
from theory.model import Array, Model, data_term


class Pull(NamedTuple):
    """Of a flow towards a kernel, (n, n): its scale sqrt(Phi_ii), (n,), and the strength at first."""

    kernel: Array
    scale: Array
    strength: Array


def no_pull(entries: int) -> Pull:
    """Towards nothing."""
    return Pull(jnp.zeros((entries, entries)), jnp.ones(entries), jnp.zeros(()))


@partial(jax.jit, static_argnums=(3, 4))
def flow(
    model: Model,
    noise: Array,
    key: Array,
    phi: Callable,
    steps: int,
    step_size: float,
    first: float,
    pull: Pull,
    friction: float = 1.0,
) -> tuple[Array, Array]:
    """Run the flow from noise z (n, M).

    In the first quarter of the steps the targets go from ``first`` times theirs to theirs, and the pull ceases: that of
    M strength/4 times the squared distance to its kernel, relative to the scale.

    Returns:
        The kernel and the response Q, (n, n), averaged over the last quarter of the steps.
    """
    width = noise.shape[1]
    ramp, settled = steps // 4, 3 * steps // 4
    cosine, sine = jnp.cos(step_size / 2), jnp.sin(step_size / 2)
    keep = jnp.exp(-friction * step_size)

    def potential(z, drive, targets, strength):
        kernel = kernel_of_noise(model.replace(drive=drive), z, phi, width)
        away = (kernel - pull.kernel) / pull.scale[:, None] / pull.scale
        cost = data_term(model.replace(targets=targets), kernel) + strength * jnp.sum(away**2) / 4
        return width * cost, kernel

    def rotate(z, p):
        # The exact motion under the Gaussian part 1/2 |z|^2.
        return cosine * z + sine * p, cosine * p - sine * z

    def one_step(index, carry):
        z, p, key, kernel, response = carry
        key, fresh = jax.random.split(key)
        z, p = rotate(z, p)
        ramped = jnp.minimum(1.0, (index + 1) / ramp)
        targets = model.targets * (first + (1 - first) * ramped)
        strength = pull.strength * (1 - ramped)
        (slope, by_drive), now = jax.grad(potential, (0, 1), has_aux=True)(z, model.drive, targets, strength)
        p = p - step_size * slope
        kept = jnp.where(index >= settled, 1.0, 0.0)
        kernel, response = kernel + kept * now, response + kept * by_drive * 2 / width
        z, p = rotate(z, p)
        # float32 is precise enough for noise, and twice as fast.
        p = keep * p + jnp.sqrt(1 - keep**2) * jax.random.normal(fresh, p.shape, jnp.float32)
        return z, p, key, kernel, response

    key, fresh = jax.random.split(key)
    momentum = jax.random.normal(fresh, noise.shape, noise.dtype)
    square = jnp.zeros((noise.shape[0],) * 2, noise.dtype)
    _, _, _, kernel, response = jax.lax.fori_loop(0, steps, one_step, (noise, momentum, key, square, square))
    return kernel / (steps - settled), response / (steps - settled)

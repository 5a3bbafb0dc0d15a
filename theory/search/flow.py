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

from theory.causal import kernel_by_site, kernel_of_noise
from theory.model import Array, Model, data_term


class Pull(NamedTuple):
    """Of a flow towards a kernel, (n, n): its scale sqrt(Phi_ii), (n,), and the strength at first."""

    kernel: Array
    scale: Array
    strength: Array


def no_pull(entries: int) -> Pull:
    """Towards nothing."""
    return Pull(jnp.zeros((entries, entries)), jnp.ones(entries), jnp.zeros(()))


class Course(NamedTuple):
    """How a flow runs: M neurons for some steps.

    In the first ``ramp`` steps the targets go from ``first`` times theirs to theirs, and the pull ceases: that of
    M strength/4 times the squared distance to its kernel, relative to the scale. What comes from step ``settled`` on is
    summed.
    """

    ramp: int
    settled: int
    step_size: float
    first: float
    pull: Pull
    friction: float


class Ensemble(NamedTuple):
    """Neurons on their way: noise z and momentum p (n, M), a key, and the sums of the kernel and of Q, (n, n)."""

    noise: Array
    momentum: Array
    key: Array
    kernel: Array
    response: Array


@jax.jit
def ensemble_of(noise: Array, key: Array) -> Ensemble:
    """Neurons of noise z (n, M) with fresh momenta."""
    key, fresh = jax.random.split(key)
    momentum = jax.random.normal(fresh, noise.shape, noise.dtype)
    square = jnp.zeros((noise.shape[0],) * 2, noise.dtype)
    return Ensemble(noise, momentum, key, square, square)


@partial(jax.jit, static_argnums=(5, 6))
def advance(
    model: Model, ensemble: Ensemble, begin: int, end: int, course: Course, phi: Callable, by_site: bool = False
) -> Ensemble:
    """The neurons after the steps from ``begin`` to ``end`` of a course; ``by_site`` where no two sites are tied."""
    width = ensemble.noise.shape[1]
    construct = kernel_by_site if by_site else kernel_of_noise
    step_size, pull = course.step_size, course.pull
    cosine, sine = jnp.cos(step_size / 2), jnp.sin(step_size / 2)
    keep = jnp.exp(-course.friction * step_size)

    def potential(z, drive, targets, strength):
        kernel = construct(model.replace(drive=drive), z, phi, width)
        away = (kernel - pull.kernel) / pull.scale[:, None] / pull.scale
        cost = data_term(model.replace(targets=targets), kernel) + strength * jnp.sum(away**2) / 4
        return width * cost, kernel

    def rotate(z, p):
        # The exact motion under the Gaussian part 1/2 |z|^2.
        return cosine * z + sine * p, cosine * p - sine * z

    def one_step(index, ensemble):
        z, p, key, kernel, response = ensemble
        key, fresh = jax.random.split(key)
        z, p = rotate(z, p)
        ramped = jnp.minimum(1.0, (index + 1) / course.ramp)
        targets = model.targets * (course.first + (1 - course.first) * ramped)
        strength = pull.strength * (1 - ramped)
        (slope, by_drive), now = jax.grad(potential, (0, 1), has_aux=True)(z, model.drive, targets, strength)
        p = p - step_size * slope
        kept = jnp.where(index >= course.settled, 1.0, 0.0)
        kernel, response = kernel + kept * now, response + kept * by_drive * 2 / width
        z, p = rotate(z, p)
        # float32 is precise enough for noise, and twice as fast.
        p = keep * p + jnp.sqrt(1 - keep**2) * jax.random.normal(fresh, p.shape, jnp.float32)
        return Ensemble(z, p, key, kernel, response)

    return jax.lax.fori_loop(begin, end, one_step, ensemble)


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
    """Run the flow from noise z (n, M), with a ramp of a quarter of the steps.

    Returns:
        The kernel and the response Q, (n, n), averaged over the last quarter of the steps.
    """
    course = Course(steps // 4, 3 * steps // 4, step_size, first, pull, friction)
    end = advance(model, ensemble_of(noise, key), 0, steps, course, phi)
    return end.kernel / (steps - course.settled), end.response / (steps - course.settled)

r"""Independent draws of neurons from the law q at fixed C and Phihat, and points made of them.

Hamiltonian Monte Carlo in z, h = F z, one chain per neuron, accepted or rejected neuron by neuron:

    -ln q(z) = 1/2 |z|^2 + 1/2 phi(F z)^T Phihat phi(F z) + const,

with the Gaussian part solved exactly (Beskos et al. 2011). Exact in any dimension and for any phi.

The draws then get weights that make Stein's identities hold exactly, < div v - v . g > = 0 with g the gradient of
-ln q and v = phi_i e_j: the exponential tilt of least entropy. It takes out most of the statistical error of the
kernels (measured at n = 12: a factor of five), as control variates would, and keeps all weights positive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular

from theory.covariance import Array
from theory.neuron import derivatives, range_of

LEAPFROG_STEPS = 5
FIRST_STEP = 0.45
ACCEPTANCE = 0.8
POINTS_PER_FIELD = 12
TILT_STEPS = 8


@partial(jax.jit, static_argnums=(5, 6))
def _moves(noise, key, spread, conjugate, step_size, phi, count):
    """``count`` moves of every neuron; noise (r, M). Returns the noise and the mean acceptance."""

    def potential(z):
        activity = phi(spread @ z)
        return jnp.sum(activity * (conjugate @ activity), axis=0) / 2

    def gradient(z):
        activity, pullback = jax.vjp(phi, spread @ z)
        return spread.T @ pullback(conjugate @ activity)[0]

    def hamiltonian(z, p):
        return jnp.sum(z**2 + p**2, axis=0) / 2 + potential(z)

    def move(carry, key):
        z, accepted = carry
        keys = jax.random.split(key, 3)
        p = jax.random.normal(keys[0], z.shape, z.dtype)
        # A random step for each neuron keeps trajectories from closing on themselves.
        step = step_size * jax.random.uniform(keys[1], (1, z.shape[1]), z.dtype, 0.5, 1.5)
        cosine, sine = jnp.cos(step), jnp.sin(step)

        def leapfrog(_, state):
            z, p = state
            p = p - step / 2 * gradient(z)
            z, p = cosine * z + sine * p, cosine * p - sine * z
            return z, p - step / 2 * gradient(z)

        end, end_momentum = jax.lax.fori_loop(0, LEAPFROG_STEPS, leapfrog, (z, p))
        log_ratio = hamiltonian(z, p) - hamiltonian(end, end_momentum)
        accept = jnp.log(jax.random.uniform(keys[2], log_ratio.shape, z.dtype)) < log_ratio
        return (jnp.where(accept, end, z), accepted + jnp.mean(accept)), None

    (noise, accepted), _ = jax.lax.scan(move, (noise, jnp.zeros((), noise.dtype)), jax.random.split(key, count))
    return noise, accepted / count


def draw(
    noise: Array, key: Array, cov: Array, conjugate: Array, phi: Callable, live: tuple[int, ...], moves: int
) -> Array:
    """Move draws z (M, r) from some law towards, then within, the law of C and Phihat (n, n).

    The step size is halved until most moves are accepted.
    """
    space = range_of(jnp.asarray(cov), live)
    spread, conjugate = space.spread @ space.pivot, jnp.asarray(conjugate)
    noise, step_size = jnp.asarray(noise).T, FIRST_STEP
    while True:
        key, fresh = jax.random.split(key)
        trial, accepted = _moves(noise, fresh, spread, conjugate, step_size, phi, moves)
        if accepted >= ACCEPTANCE or step_size < FIRST_STEP / 100:
            return trial.T
        step_size /= 2


@partial(jax.jit, static_argnums=(4, 5))
def _stein_features(noise, cov, conjugate, directions, phi, live):
    """div v - v . g at each point for v = (b_i . phi) E b_j, b the columns of ``directions`` (r, k); (M, k^2)."""
    space = range_of(cov, live)
    index = np.asarray(live, dtype=int)
    activity, slope, _ = derivatives(phi, noise @ (space.spread @ space.pivot).T, kinks=True)
    gradient = solve_triangular(space.pivot, noise.T, lower=True, trans="T").T
    gradient = gradient + (slope * (activity @ conjugate)) @ space.spread
    divergence = jnp.einsum("mi,ia,ib->mab", slope[:, index], directions, directions)
    product = (activity[:, index] @ directions)[:, :, None] * (gradient @ directions)[:, None, :]
    return (divergence - product).reshape(noise.shape[0], -1)


@jax.jit
def _tilted_moments(features, multipliers):
    log_weights = features @ multipliers
    weights = jax.nn.softmax(log_weights)
    return weights @ features, (features * weights[:, None]).T @ features


def stein_tilt(noise: Array, cov: Array, conjugate: Array, phi: Callable, live: tuple[int, ...]) -> Array:
    """Log weights (M,) under which Stein's identities hold exactly at the draws z (M, r).

    With many entries only the leading directions of the pre-activations are used, so that there are at least
    `POINTS_PER_FIELD` points to an identity.
    """
    count, rank = noise.shape
    directions = np.eye(rank)
    most = int(np.sqrt(count / POINTS_PER_FIELD))
    if rank > most:
        space = range_of(jnp.asarray(cov), live)
        h = np.asarray(noise @ space.pivot.T)
        directions = np.linalg.eigh(h.T @ h)[1][:, -most:]
    features = _stein_features(noise, cov, conjugate, jnp.asarray(directions), phi, live)
    features = features / jnp.sqrt(jnp.mean(features**2, axis=0) + 1e-300)
    multipliers = jnp.zeros(features.shape[1], features.dtype)
    for _ in range(TILT_STEPS):
        mean, gram = map(np.asarray, _tilted_moments(features, multipliers))
        if np.max(np.abs(mean)) < 1e-9:
            break
        ridge = 1e-10 * np.trace(gram) / len(gram) * np.eye(len(gram))
        multipliers = multipliers - scipy.linalg.solve(gram + ridge, mean, assume_a="pos")
    return features @ multipliers

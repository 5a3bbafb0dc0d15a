r"""ln Z of the single-neuron law relative to the prior, and with it the free energy.

    Z = < exp(-V(z)) >_{z ~ N(0, I)},    V = 1/2 phi^T Phihat phi,       KL( q || N(0, C) ) = -ln Z - < V >_q

by bridge sampling between weighted draws of q and a Gaussian of the same second moment (Meng and Wong 1996): its error
is small because the two overlap. On a grid the sum is direct.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from theory.covariance import Array
from theory.nonlinear.neuron import Points, energy, range_of, weighted

BRIDGE_STEPS = 30


@partial(jax.jit, static_argnums=(3, 4))
def _energy_of_noise(noise, cov, conjugate, phi, live):
    space = range_of(cov, live)
    return energy(phi(noise @ (space.spread @ space.pivot).T), conjugate)


def divergence(
    points: Points,
    cov: Array,
    conjugate: Array,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    sampled: bool,
    seed: int,
) -> float:
    """KL( q || N(0, C) ) of one group (arguments as for `theory.nonlinear.neuron.moments`).

    Args:
        sampled: whether the points are draws; a grid's base weights carry its volume element instead.
        seed: of the Gaussian draws.
    """
    noise, _, logs, potential = map(np.asarray, weighted(points, cov, conjugate, phi, live, kinks))
    weights = np.exp(logs)
    mean_energy = float(weights @ potential)
    if not sampled:
        # The same grid under the prior alone normalises it.
        raw = np.asarray(points.log_base) - np.sum(noise**2, axis=1) / 2
        return float(np.logaddexp.reduce(raw) - np.logaddexp.reduce(raw - potential)) - mean_energy
    count, rank = noise.shape
    second = (noise * weights[:, None]).T @ noise
    factor = np.linalg.cholesky((second + second.T) / 2)
    gaussian = np.random.default_rng(seed).normal(size=(count, rank))
    proposals = gaussian @ factor.T
    half_log_det = float(np.sum(np.log(np.diagonal(factor))))

    def log_ratio(z, energies):
        # ln of exp(-1/2 z^2 - V) against the normalised Gaussian; the factors of 2 pi cancel.
        white = np.linalg.solve(factor, z.T)
        return -np.sum(z**2, axis=1) / 2 - energies + np.sum(white**2, axis=0) / 2 + half_log_det

    from_q = log_ratio(noise, potential)
    proposal_energy = np.asarray(_energy_of_noise(jnp.asarray(proposals), cov, conjugate, phi, live))
    from_gaussian = log_ratio(proposals, proposal_energy)
    log_z = float(np.median(from_q))
    for _ in range(BRIDGE_STEPS):
        above = np.logaddexp.reduce(-np.logaddexp(0, log_z - from_gaussian)) - np.log(count)
        below = np.logaddexp.reduce(logs - np.logaddexp(log_z, from_q))
        log_z = above - below
    return -log_z - mean_energy

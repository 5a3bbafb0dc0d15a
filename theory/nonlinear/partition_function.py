r"""ln Z of the single-neuron law relative to the prior, and with it the free energy.

    Z = < exp(-V(z)) >_{z ~ N(0, I)},    V = 1/2 phi^T Phihat phi,       KL( q || N(0, C) ) = -ln Z - < V >_q

by bridge sampling between weighted draws of q and a Gaussian of the same second moment (Meng and Wong 1996): its error
is small because the two overlap. The `theory.nonlinear.neuron_chain.stein_features` are control variates of all
averages over q. Gaussian and coefficients come from one half of the draws and serve the other, and the other way round:
fitted to the same draws, the Gaussian alone would be wrong by r (r + 1) / (4 M) in ln Z (Overstall and Forster 2010).
So would the tilt of the draws, which is left out. On a grid the sum is direct.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.special

from theory.model import Array
from theory.nonlinear.neuron import Points, energy, range_of, weighted
from theory.nonlinear.neuron_chain import gram_factor, stein_features

BRIDGE_STEPS = 30
BRIDGED = 1e-10  # the last change of ln Z
PROPOSALS = 2  # of the Gaussian for each draw of q


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
    if not sampled:
        noise, _, logs, potential = map(np.asarray, weighted(points, cov, conjugate, phi, live, kinks))
        # The same grid under the prior alone normalises it.
        raw = np.asarray(points.log_base) - np.sum(noise**2, axis=1) / 2
        log_z = np.logaddexp.reduce(raw - potential) - np.logaddexp.reduce(raw)
        return float(-log_z - np.exp(logs) @ potential)
    law = weighted(points._replace(tilt=jnp.zeros_like(points.tilt)), cov, conjugate, phi, live, kinks)
    features = stein_features(law.noise, cov, conjugate, phi, live, kinks)
    columns = (np.asarray(law.noise), np.asarray(law.log_weights), np.asarray(law.energy), features)
    first, second = (_Draws(*(column[half::2] for column in columns)) for half in (0, 1))

    def energy_of(z: np.ndarray) -> np.ndarray:
        return np.asarray(_energy_of_noise(jnp.asarray(z), cov, conjugate, phi, live))

    rng = np.random.default_rng(seed)
    return (_divergence(first, second, energy_of, rng) + _divergence(second, first, energy_of, rng)) / 2


class _Draws:
    """Draws of q: z (M, r), normalised weights (M,), V (M,) and what averages to zero, (M, p)."""

    def __init__(self, noise: np.ndarray, logs: np.ndarray, energies: np.ndarray, features: np.ndarray) -> None:
        self.noise, self.energies, self.features = noise, energies, features
        self.weights = np.exp(logs - np.logaddexp.reduce(logs))

    def control(self, others: _Draws) -> np.ndarray:
        """c (M',) such that - sum_m c_m f(z'_m) over others takes errors out of the mean of any f over these draws.

        The regression of f on the features, on the others, times the mean of the features here, which ought to vanish:
        c = w' o (G - w' . G), G = F' <F'^T F'>^{-1} <F>.
        """
        mean = self.weights @ self.features
        along = others.features @ scipy.linalg.cho_solve(gram_factor(others.features, others.weights), mean)
        return others.weights * (along - others.weights @ along)


def _divergence(draws: _Draws, others: _Draws, energy_of: Callable, rng: np.random.Generator) -> float:
    """-ln Z - <V> from draws, with the Gaussian and the coefficients of the control variates that others give."""
    rank = draws.noise.shape[1]
    second = (others.noise * others.weights[:, None]).T @ others.noise
    factor = np.linalg.cholesky((second + second.T) / 2)
    proposals = rng.normal(size=(PROPOSALS * len(draws.noise), rank)) @ factor.T
    half_log_det = float(np.sum(np.log(np.diagonal(factor))))
    control = draws.control(others)

    def log_ratio(z, energies):
        # ln of exp(-1/2 z^2 - V) against the normalised Gaussian; the factors of 2 pi cancel.
        white = scipy.linalg.solve_triangular(factor, z.T, lower=True)
        return -np.sum(z**2, axis=1) / 2 - energies + np.sum(white**2, axis=0) / 2 + half_log_det

    from_gaussian = log_ratio(proposals, energy_of(proposals))
    from_q, from_others = (log_ratio(part.noise, part.energies) for part in (draws, others))
    log_z = float(np.median(from_q))
    for _ in range(BRIDGE_STEPS):
        above = np.mean(scipy.special.expit(from_gaussian - log_z))
        overlap = draws.weights @ scipy.special.expit(log_z - from_q)
        below = overlap - control @ scipy.special.expit(log_z - from_others)
        if not below > 0:  # where the two hardly overlap control variates may overshoot
            below = overlap
        change = float(np.log(above / below))
        log_z += change
        if abs(change) < BRIDGED:
            break
    return -log_z - (draws.weights @ draws.energies - control @ others.energies)

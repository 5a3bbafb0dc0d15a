r"""ln Z of the single-neuron law relative to the prior, and with it the free energy.

    Z = < exp(-V(z)) >_{z ~ N(0, I)},    V = 1/2 phi^T Phihat phi,       KL( q || N(0, C) ) = -ln Z - < V >_q

by bridge sampling between weighted draws of q and a Gaussian of the same second moment (Meng and Wong 1996): its error
is small because the two overlap. The `theory.laws.stein.stein_features` are control variates of all
averages over q. Gaussian and coefficients come from one half of the draws and serve the other, and the other way round:
fitted to the same draws, the Gaussian alone would be wrong by r (r + 1) / (4 M) in ln Z (Overstall and Forster 2010).
So would the tilt of the draws, which is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.special

from theory.display import ShortRepr
from theory.laws.law import range_of
from theory.laws.points import PointLaw, energy
from theory.laws.stein import TiltSettings, gram_factor, stein_features
from theory.model import Array


@dataclass(frozen=True, repr=False)
class BridgeSettings(ShortRepr):
    """How the normaliser of a law is found from draws.

    Attributes:
        steps: of the iteration for ln Z, at most; it converges geometrically.
        precision: the last change of ln Z: far below its statistical error.
        proposals: of the Gaussian for each draw of q: they cost less than the draws, whose share of the error is left.
    """

    steps: int = 30
    precision: float = 1e-10
    proposals: int = 2


@partial(jax.jit, static_argnums=(3, 4))
def _energy_of_noise(noise, cov, conjugate, phi, live):
    space = range_of(cov, live)
    return energy(phi(noise @ (space.spread @ space.pivot).T), conjugate)


def divergence_of_draws(
    law: PointLaw,
    cov: Array,
    conjugate: Array,
    seed: int,
    settings: BridgeSettings = BridgeSettings(),
    tilt: TiltSettings = TiltSettings(),
) -> float:
    """KL( q || N(0, C) ) of a law on draws, at C and Phihat (n, n).

    Args:
        law: the draws; their tilt is left out.
        cov, conjugate: C and Phihat.
        seed: of the Gaussian draws.
        settings: of the bridge.
        tilt: of the control variates.
    """
    points = replace(law, tilt=jnp.zeros_like(law.tilt)).weighted(cov, conjugate)
    features = stein_features(points.noise, cov, conjugate, law.phi, law.live, law.kinks, tilt)
    noise, logs, energies = map(np.asarray, (points.noise, points.log_weights, points.energy))
    halves = [slice(half, None, 2) for half in (0, 1)]
    first, second = (_Draws(noise[half], logs[half], energies[half], features[half], tilt) for half in halves)

    def energy_of(z: np.ndarray) -> np.ndarray:
        return np.asarray(_energy_of_noise(jnp.asarray(z), cov, conjugate, law.phi, law.live))

    rng = np.random.default_rng(seed)
    both = ((first, second), (second, first))
    return sum(_divergence(*pair, energy_of, rng, settings) for pair in both) / 2


class _Draws:
    """Draws of q: z (M, r), normalised weights (M,), V (M,) and what averages to zero, (M, p)."""

    def __init__(
        self, noise: np.ndarray, logs: np.ndarray, energies: np.ndarray, features: np.ndarray, tilt: TiltSettings
    ) -> None:
        self.noise, self.energies, self.features, self._tilt = noise, energies, features, tilt
        self.weights = np.exp(logs - np.logaddexp.reduce(logs))

    def control(self, others: _Draws) -> np.ndarray:
        """c (M',) such that - sum_m c_m f(z'_m) over others takes errors out of the mean of any f over these draws.

        The regression of f on the features, on the others, times the mean of the features here, which ought to vanish:
        c = w' o (G - w' . G), G = F' <F'^T F'>^{-1} <F>.
        """
        mean = self.weights @ self.features
        along = others.features @ scipy.linalg.cho_solve(gram_factor(others.features, others.weights, self._tilt), mean)
        return others.weights * (along - others.weights @ along)


def _divergence(
    draws: _Draws, others: _Draws, energy_of: Callable, rng: np.random.Generator, settings: BridgeSettings
) -> float:
    """-ln Z - <V> from draws, with the Gaussian and the coefficients of the control variates that others give."""
    rank = draws.noise.shape[1]
    second = (others.noise * others.weights[:, None]).T @ others.noise
    factor = np.linalg.cholesky((second + second.T) / 2)
    proposals = rng.normal(size=(settings.proposals * len(draws.noise), rank)) @ factor.T
    half_log_det = float(np.sum(np.log(np.diagonal(factor))))
    control = draws.control(others)

    def log_ratio(z, energies):
        # ln of exp(-1/2 z^2 - V) against the normalised Gaussian; the factors of 2 pi cancel.
        white = scipy.linalg.solve_triangular(factor, z.T, lower=True)
        return -np.sum(z**2, axis=1) / 2 - energies + np.sum(white**2, axis=0) / 2 + half_log_det

    from_gaussian = log_ratio(proposals, energy_of(proposals))
    from_q, from_others = (log_ratio(part.noise, part.energies) for part in (draws, others))
    log_z = float(np.median(from_q))
    for _ in range(settings.steps):
        above = np.mean(scipy.special.expit(from_gaussian - log_z))
        overlap = draws.weights @ scipy.special.expit(log_z - from_q)
        below = overlap - control @ scipy.special.expit(log_z - from_others)
        if not below > 0:  # where the two hardly overlap control variates may overshoot
            below = overlap
        change = float(np.log(above / below))
        log_z += change
        if abs(change) < settings.precision:
            break
    return -log_z - (draws.weights @ draws.energies - control @ others.energies)

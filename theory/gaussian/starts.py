"""Where searches for the saddle points of linear networks begin."""

from __future__ import annotations

import numpy as np

from theory.causal import PIVOT_FLOOR
from theory.gaussian.kernel_energy import Points
from theory.gaussian.reduced import Reduced
from theory.gaussian.settings import GaussianSettings
from theory.gaussian.trust_region import descend
from theory.gaussian.white_numbers import causal_factor


def coherent_starts(reduced: Reduced, settings: GaussianSettings, symmetric: bool) -> np.ndarray:
    """Where a broken branch is likely that the symmetric one, being stable, does not lead to: steps that correlate.

    As they are, and as they come to rest under stronger targets, where broken branches have no rival: kernels
    (2, m, m), or none where the correlated one is no kernel or signs are no symmetry.
    """
    none = np.empty((0, reduced.entries, reduced.entries))
    if not symmetric:
        return none
    live, factor = causal_factor(reduced.expand(reduced.lazy_kernel()), PIVOT_FLOOR["float64"])
    site, within = np.divmod(live, reduced.maps.directions)
    coherent = np.where(site[:, None] == site, 1.0, settings.coherence) * (within[:, None] == within)
    start = Points(reduced, reduced.contract(factor @ coherent @ factor.T)[None])
    if not np.isfinite(start.value).all():
        return none
    stronger = Points(reduced.with_targets(settings.stronger), start.kernel)
    end = descend(stronger, settings.trust_region, settings.trust_region.rough)
    return np.concatenate([start.kernel, end.kernel])


def random_starts(reduced: Reduced, number: int, seed: int, settings: GaussianSettings) -> np.ndarray:
    """Kernels (number, m, m) of random weights of white noise, ever further from the lazy limit."""
    m, rng = reduced.entries, np.random.default_rng(seed)
    root = np.linalg.cholesky(reduced.lazy_kernel())
    amplitudes = np.linspace(*settings.amplitudes, number) * (settings.as_few / m) ** 0.5
    white = np.tril(rng.normal(size=(number, m, m))) * amplitudes[:, None, None]
    diagonal = np.arange(m)
    white[:, diagonal, diagonal] = np.exp(white[:, diagonal, diagonal])
    factors = root @ white
    return factors @ factors.swapaxes(1, 2)

"""A law by draws, for any number of independent entries: with a statistical error that independent sets show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from theory.display import ShortRepr
from theory.laws.bridge import BridgeSettings, divergence_of_draws
from theory.laws.law import Law, range_of
from theory.laws.points import DATA, META, PointLaw, energy
from theory.laws.sequential import PopulationSettings, draw
from theory.laws.stein import TiltSettings, stein_tilt
from theory.model import Array


@dataclass(frozen=True, repr=False)
class DrawSettings(ShortRepr):
    """How laws are drawn from.

    Attributes:
        population: of the sequential Monte Carlo.
        tilt: of the weights that make averages precise.
        bridge: of the normaliser.
    """

    population: PopulationSettings = PopulationSettings()
    tilt: TiltSettings = TiltSettings()
    bridge: BridgeSettings = BridgeSettings()


@partial(jax.tree_util.register_dataclass, data_fields=DATA, meta_fields=[*META, "settings"])
@dataclass(frozen=True, eq=False)
class DrawnLaw(PointLaw):
    """A law on draws: all weights but the tilt are equal at the C and Phihat that they were drawn at.

    Attributes:
        settings: of the draws.
    """

    settings: DrawSettings = DrawSettings()
    exact: ClassVar[bool] = False

    def divergence(self, cov: Array, conjugate: Array, seed: int) -> float:
        return divergence_of_draws(self, cov, conjugate, seed, self.settings.bridge, self.settings.tilt)

    def fewer(self, count: int) -> Law:
        first = slice(count)
        return replace(self, coordinates=self.coordinates[first], log_base=self.log_base[first], tilt=self.tilt[first])


def drawn_law(
    count: int,
    seed: int,
    cov: np.ndarray,
    conjugate: np.ndarray,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    settings: DrawSettings = DrawSettings(),
) -> DrawnLaw:
    """Draws from the law of C and Phihat, tilted.

    Args:
        count: how many.
        seed: of the draws.
        cov, conjugate: C and Phihat, (n, n).
        phi: the activation.
        live: the pivots of C.
        kinks: whether phi has kinks.
        settings: of the draws.

    Raises:
        ValueError: if there is no such law (`theory.laws.sequential.draw`).
    """
    noise = draw(count, seed, cov, conjugate, phi, live, settings.population)
    tilt = stein_tilt(noise, cov, conjugate, phi, live, kinks, settings.tilt)
    return frozen(noise, cov, conjugate, phi, live, kinks, tilt, settings)


def frozen(
    noise: np.ndarray,
    cov: Array,
    conjugate: Array,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    tilt: Array | None = None,
    settings: DrawSettings = DrawSettings(),
) -> DrawnLaw:
    """The law on given draws z (M, r) of C and Phihat; arguments as for `drawn_law`."""
    coordinates, base = _frozen(noise, cov, conjugate, phi, live, kinks)
    return DrawnLaw(coordinates, base, jnp.zeros_like(base) if tilt is None else tilt, phi, live, kinks, settings)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _frozen(noise, cov, conjugate, phi, live, kinks):
    space = range_of(cov, live)
    h = noise @ (space.spread @ space.pivot).T
    base = jnp.sum(noise**2, axis=1) / 2 + energy(phi(h), conjugate)
    return (h[:, np.asarray(live, dtype=int)] if kinks else noise), base

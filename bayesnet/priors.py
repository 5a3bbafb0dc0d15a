r"""Priors on the numbers of a network: gains, noise, leak and degrees of sharing that are sampled with the network.

A parameter theta with a prior p on an interval is sampled as w, real and of the scale one,

    theta = T(m + s w),        p(w) = p(theta) |d theta / d w|,

T being the bijection from the real line onto the support (exp for positive numbers, the logistic function for the unit
interval), m and s the median and the quartile deviation of T^{-1}(theta) under the prior. Whatever m and s are the law
is exact; they make a sampler that expects white latents fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

from theory.jax_settings import own_settings
from theory.model import Array
from theory.network import Network
from theory.parameters import Parameters, network_at
from theory.seeds import key_of
from theory.sharing import SHARED
from theory.task import Task

LATENT = ".white"  # ends the names of the latent sites
END = 40.0  # where a bijection has come to the ends of its support
DRAWS = 4001  # from which median and quartiles of a prior are known well enough
PROBABILITIES = np.linspace(0.0025, 0.9975, 200)  # of the quantiles that are stored
QUARTILE = 0.6744897501960817  # of a standard normal


class WhitePrior(dist.Distribution):
    """The law of w when theta = T(m + s w) follows a prior.

    Args:
        prior: a scalar, continuous NumPyro distribution.
        centre: m.
        spread: s.
    """

    support = dist.constraints.real

    def __init__(self, prior: dist.Distribution, centre: float, spread: float):
        self.prior, self.centre, self.spread = prior, centre, spread
        self.bijection = dist.biject_to(prior.support)
        super().__init__()

    def value(self, white: Array) -> Array:
        """theta."""
        return self.bijection(self.centre + self.spread * white)

    def sample(self, key, sample_shape=()):
        """Draws of w."""
        return (self.bijection.inv(self.prior.sample(key, sample_shape)) - self.centre) / self.spread

    def log_prob(self, value):
        """ln p(w)."""
        real = self.centre + self.spread * value
        theta = self.bijection(real)
        return self.prior.log_prob(theta) + self.bijection.log_abs_det_jacobian(real, theta) + np.log(self.spread)


class Priors:
    """Checked priors of some parameters of a network on a task; hashed by what they are.

    Args:
        network, task: whose parameters they are.
        priors: from names to scalar NumPyro distributions.

    Attributes:
        names: of the parameters.
        laws: their `WhitePrior`.
        medians: of the priors.
        network: the network with the medians as its values.

    Raises:
        ValueError: naming the prior, what was wrong with it and what is allowed.
    """

    def __init__(self, network: Network, task: Task, priors: Mapping[str, Any]) -> None:
        if not isinstance(priors, Mapping) or not priors:
            raise ValueError(
                f"priors is {priors!r}; it must map names of parameters, 'noise' say, to NumPyro distributions"
            )
        try:
            Parameters(network, task, tuple(map(str, priors)))
        except ValueError as error:
            raise ValueError(f"priors: {error}") from None
        self.names = tuple(sorted(map(str, priors)))
        self.laws: dict[str, WhitePrior] = {}
        self.medians: dict[str, float] = {}
        self._quantiles: dict[str, np.ndarray] = {}
        # float64 within this call only.
        with own_settings():
            for number, name in enumerate(self.names):
                self._add(name, priors[name], number)
        self._key = tuple((name, _fingerprint(priors[name])) for name in self.names)
        self.network = network_at(network, self.medians)

    def _add(self, name: str, prior: Any, number: int) -> None:
        if not isinstance(prior, dist.Distribution):
            raise ValueError(f"priors[{name!r}] is {type(prior).__name__}; it must be a NumPyro distribution")
        if prior.batch_shape or prior.event_shape or prior.is_discrete:
            raise ValueError(f"priors[{name!r}] is {describe(prior)}; it must be continuous and of a single number")
        try:
            bijection = dist.biject_to(prior.support)
            low, high = (float(bijection(jnp.asarray(end, float))) for end in (-END, END))
        except NotImplementedError:
            raise ValueError(f"priors[{name!r}] is {describe(prior)}, whose support is no interval") from None
        unit = name == "leak" or name.startswith(SHARED)
        if not (low >= 0 and (high <= 1 or not unit)):
            allowed = "from 0 to 1" if unit else "greater than zero"
            raise ValueError(
                f"priors[{name!r}] is {describe(prior)}, with values from {low:.3g} to {high:.3g}; it must be {allowed}"
            )
        draws = np.asarray(bijection.inv(prior.sample(jax.random.fold_in(key_of(0), number), (DRAWS,))))
        draws = draws[np.isfinite(draws)]
        lower, centre, upper = np.quantile(draws, [0.25, 0.5, 0.75]) if draws.size else (np.nan,) * 3
        spread = (upper - lower) / (2 * QUARTILE)
        if not (np.isfinite(centre) and spread > 0):
            raise ValueError(f"priors[{name!r}] is {describe(prior)}; it must be spread over an interval")
        self.laws[name] = WhitePrior(prior, float(centre), float(spread))
        self.medians[name] = float(bijection(centre))
        self._quantiles[name] = np.asarray(bijection(jnp.asarray(np.quantile(draws, PROBABILITIES))))

    def describe(self) -> dict[str, str]:
        """The priors in words, by name."""
        return {name: describe(law.prior) for name, law in self.laws.items()}

    def fingerprints(self) -> dict[str, str]:
        """What tells priors apart, by name."""
        return {name: str(key) for name, key in self._key}

    def quantiles(self) -> xr.Dataset:
        """The priors as quantiles of their draws, (probability,) by name: for pictures."""
        values = {name: ("probability", drawn) for name, drawn in self._quantiles.items()}
        return xr.Dataset(values, {"probability": PROBABILITIES})

    def sample_values(self) -> dict[str, Array]:
        """Sites of a NumPyro model: latent w, and theta deterministic under the name of the parameter."""
        return {
            name: numpyro.deterministic(name, law.value(numpyro.sample(name + LATENT, law)))
            for name, law in self.laws.items()
        }

    def values_of(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        """theta from the latents of a draw."""
        return {name: law.value(latents[name + LATENT]) for name, law in self.laws.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Priors) and self._key == other._key and self.network == other.network

    def __hash__(self) -> int:
        return hash(self._key)


def describe(prior: Any) -> str:
    """A distribution in words: its name and its arguments."""
    shown = []
    for name in getattr(prior, "arg_constraints", {}):
        try:
            shown.append(f"{name}={float(getattr(prior, name)):g}")
        except (AttributeError, TypeError, ValueError):
            continue
    return f"{type(prior).__name__}({', '.join(shown)})"


def _fingerprint(prior: dist.Distribution) -> tuple:
    """What a distribution is: its structure and the bytes of its numbers."""
    leaves, structure = jax.tree.flatten(prior)
    return (str(structure), tuple(np.asarray(leaf, float).tobytes().hex() for leaf in leaves))

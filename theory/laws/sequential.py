r"""Independent draws of neurons from the law q at fixed C and Phihat: sequential Monte Carlo from the prior.

Neurons z ~ N(0, I), h = F z, follow the laws

    -ln q_l(z) = 1/2 |z|^2 + l V(z) + const,        V = 1/2 phi(F z)^T Phihat phi(F z),

from l = 0 to q at l = 1. At each rise of l they are weighted, resampled and moved by Hamiltonian Monte Carlo with the
Gaussian part solved exactly (Beskos et al. 2011), accepted or rejected neuron by neuron. Where q has wells that no
chain crosses between (strong signals, several outputs, periodic phi), each holds the neurons that it weighs, up to a
scatter that independent sets show.

Source: Del Moral, Doucet and Jasra 2006 (sequential Monte Carlo samplers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.display import ShortRepr
from theory.laws.law import range_of
from theory.model import Array
from theory.seeds import key_of, part


@dataclass(frozen=True, repr=False)
class PopulationSettings(ShortRepr):
    """How neurons are carried from the prior to their law.

    Attributes:
        leapfrog_steps: of a move; with steps near 0.45 a neuron turns by a third of a circle, and forgets most of where
            it was.
        first_step, least_step: of the leapfrog: the largest whose moves are mostly accepted at weak signals, halved
            while they are not, and a hundredth of it, where the search for a step ends.
        acceptance: share of moves to be accepted; near the optimum of Hamiltonian Monte Carlo.
        moves: after each rise of l.
        last_moves: times as many at l = 1, so that resampled copies of a neuron part.
        kept: effective sample size, as a share, that a rise of l leaves: half is usual.
        bisections: for the rise that leaves it; thirty give nine digits.
        most_rises: beyond which there is no law within reach; strong signals need some twenty.
        runaway: prior standard deviations beyond which a neuron has no law: V is not bounded below.
        least_neurons: in a population, fewer being asked for or not: fewer would not show how large a rise may be.
    """

    leapfrog_steps: int = 5
    first_step: float = 0.45
    least_step: float = 0.0045
    acceptance: float = 0.8
    moves: int = 4
    last_moves: int = 3
    kept: float = 0.5
    bisections: int = 30
    most_rises: int = 100
    runaway: float = 1e3
    least_neurons: int = 4096


class Population(NamedTuple):
    """Neurons z (r, M) and the energy V of each, (M,)."""

    noise: Array
    energies: Array


@partial(jax.jit, static_argnums=(3, 4))
def _prior(key, spread, conjugate, phi, count):
    """A `Population` of the prior."""
    noise = jax.random.normal(key, (spread.shape[1], count), spread.dtype)
    return Population(noise, _energies(noise, spread, conjugate, phi))


@partial(jax.jit, static_argnums=(7, 8, 9))
def _moves(noise, chosen, key, level, spread, conjugate, step_size, phi, moves, leapfrog_steps):
    """The `Population` of the chosen neurons after some moves at l = ``level``, and the mean acceptance."""

    def gradient(z):
        activity, pullback = jax.vjp(phi, spread @ z)
        return level * spread.T @ pullback(conjugate @ activity)[0]

    def hamiltonian(z, p, energies):
        return jnp.sum(z**2 + p**2, axis=0) / 2 + level * energies

    def move(carry, key):
        (z, energies), accepted = carry
        keys = jax.random.split(key, 3)
        p = jax.random.normal(keys[0], z.shape, z.dtype)
        # A random step for each neuron keeps trajectories from closing on themselves.
        step = step_size * jax.random.uniform(keys[1], (1, z.shape[1]), z.dtype, 0.5, 1.5)
        cosine, sine = jnp.cos(step), jnp.sin(step)

        def leapfrog(_, state):
            # The second half kick of a step and the first of the next are one.
            z, p = state
            z, p = cosine * z + sine * p, cosine * p - sine * z
            return z, p - step * gradient(z)

        end, end_momentum = jax.lax.fori_loop(0, leapfrog_steps, leapfrog, (z, p - step / 2 * gradient(z)))
        end_momentum = end_momentum + step / 2 * gradient(end)
        end_energies = _energies(end, spread, conjugate, phi)
        log_ratio = hamiltonian(z, p, energies) - hamiltonian(end, end_momentum, end_energies)
        accept = jnp.log(jax.random.uniform(keys[2], log_ratio.shape, z.dtype)) < log_ratio
        moved = Population(jnp.where(accept, end, z), jnp.where(accept, end_energies, energies))
        return (moved, accepted + jnp.mean(accept)), None

    noise = noise[:, chosen]
    start = Population(noise, _energies(noise, spread, conjugate, phi)), jnp.zeros((), noise.dtype)
    (population, accepted), _ = jax.lax.scan(move, start, jax.random.split(key, moves))
    return population, accepted / moves


def _energies(noise, spread, conjugate, phi):
    """V of every neuron, (M,); noise (r, M)."""
    activity = phi(spread @ noise)
    return jnp.sum(activity * (conjugate @ activity), axis=0) / 2


def draw(
    count: int,
    seed: int,
    cov: Array,
    conjugate: Array,
    phi: Callable,
    live: tuple[int, ...],
    settings: PopulationSettings = PopulationSettings(),
) -> np.ndarray:
    """Draws z (count, r) from the law of C and Phihat (n, n), whose pivots are ``live``.

    Raises:
        ValueError: if there is no such law, or none that can be drawn from: its density cannot be normalised, or V is
            not finite.
    """
    space = range_of(jnp.asarray(cov), live)
    spread, conjugate = np.asarray(space.spread) @ np.asarray(space.pivot), jnp.asarray(conjugate)
    size, rng = max(count, settings.least_neurons), np.random.default_rng(part(seed, 0))
    everyone = np.arange(size)
    population, level, step_size = _prior(_new_key(rng), spread, conjugate, phi, size), 0.0, settings.first_step
    for _ in range(settings.most_rises):
        noise, energies = map(np.asarray, population)
        if not np.isfinite(energies).all() or not np.max(np.abs(noise), initial=0.0) < settings.runaway:
            raise ValueError("no neurons can be drawn: some run away to infinity")
        rise = _bearable_rise(energies, 1 - level, settings)
        chosen, level = _resampled(-rise * energies, rng), level + rise
        for _ in range(settings.last_moves if level >= 1 else 1):
            while True:  # until most moves are accepted
                at = population.noise, chosen, _new_key(rng), level, spread, conjugate, step_size
                trial, accepted = _moves(*at, phi, settings.moves, settings.leapfrog_steps)
                if accepted >= settings.acceptance or step_size < settings.least_step:
                    break
                step_size /= 2
            population, chosen = trial, everyone
        if level >= 1:
            picked = rng.choice(size, count, replace=False) if count < size else everyone
            return np.asarray(population.noise)[:, picked].T
    raise ValueError(
        f"no neurons can be drawn: after {settings.most_rises} rises the law is reached to {level:.0%} only"
    )


def _new_key(rng: np.random.Generator) -> Array:
    return key_of(int(rng.integers(2**32)))


def _bearable_rise(energies: np.ndarray, most: float, settings: PopulationSettings) -> float:
    """By how much l may rise, ``most`` at most, for the effective sample size to be kept."""

    def kept(rise: float) -> float:
        weights = np.exp(rise * (energies.min() - energies))
        return np.sum(weights) ** 2 / (len(weights) * np.sum(weights**2))

    if kept(most) >= settings.kept:
        return most
    low, high = 0.0, most
    for _ in range(settings.bisections):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) >= settings.kept else (low, middle)
    return low


def _resampled(log_weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which neurons go on, by systematic resampling (Kitagawa 1996)."""
    weights = np.exp(log_weights - log_weights.max())
    ladder = np.cumsum(weights) / np.sum(weights)
    ladder[-1] = 1.0
    return np.searchsorted(ladder, (np.arange(len(weights)) + rng.random()) / len(weights))

"""Draws of single neurons from the law q of a solved network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from theory.laws.law import live_entries, range_of
from theory.laws.sequential import draw
from theory.laws.smoothness import has_kinks
from theory.laws.stein import stein_tilt
from theory.model import Model
from theory.response import NEGLIGIBLE, factorise
from theory.seeds import part
from theory.ties import tied_entries


class Neurons(NamedTuple):
    """Draws h (M, n) of neurons and the weights (M,) with which averages over them are taken; they add up to 1."""

    preactivation: np.ndarray
    weights: np.ndarray


def draw_neurons(
    model: Model, cov: np.ndarray, conjugate: np.ndarray, phi: Callable, num: int, seed: int, tilted: bool = False
) -> Neurons:
    """Pre-activations h of independent neurons.

    Args:
        model: the network on the task; neurons factorise over the groups of entries that shared weights tie together.
        cov, conjugate: C and Phihat, (n, n).
        phi: the activation.
        num: how many.
        seed: of the draws.
        tilted: whether they get the weights of `theory.laws.stein.stein_tilt`, with which averages are
            precise; else all weigh the same.
    """
    neurons, logs = np.zeros((num, len(cov))), np.zeros(num)
    for number, entries in enumerate(tied_entries(model)):
        index = np.ix_(entries, entries)
        live = live_entries(factorise(cov[index], NEGLIGIBLE))
        if live:
            law = cov[index], conjugate[index], phi, live
            noise = draw(num, part(seed, number), *law)
            space = range_of(jnp.asarray(cov[index]), live)
            neurons[:, entries] = np.asarray(noise @ (space.spread @ space.pivot).T)
            if tilted:
                logs += np.asarray(stein_tilt(noise, *law, has_kinks(phi)))
    weights = np.exp(logs - logs.max())
    return Neurons(neurons, weights / weights.sum())

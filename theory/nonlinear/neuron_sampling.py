"""Draws of single neurons from the law q of a solved network."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from theory.causal_reach import connected_entries
from theory.covariance import Terms
from theory.nonlinear.neuron import live_entries, range_of
from theory.nonlinear.neuron_chain import draw
from theory.response import NEGLIGIBLE, factorise

MOVES_FROM_PRIOR = 60


def draw_neurons(
    terms: Terms, cov: np.ndarray, conjugate: np.ndarray, phi: Callable, num: int, seed: int
) -> np.ndarray:
    """Pre-activations h of independent neurons, (num, n): one Markov chain each, started from the prior N(0, C).

    Args:
        terms: the network on the task; neurons factorise over the groups of entries that shared weights tie together.
        cov, conjugate: C and Phihat, (n, n).
        phi: the activation.
        num: how many.
        seed: of the draws.
    """
    key = jax.random.key(seed)
    neurons = np.zeros((num, len(cov)))
    for entries in connected_entries(terms):
        index = np.ix_(entries, entries)
        live = live_entries(factorise(cov[index], NEGLIGIBLE))
        if live:
            key, first, second = jax.random.split(key, 3)
            noise = jax.random.normal(first, (num, len(live)))
            noise = draw(noise, second, cov[index], conjugate[index], phi, live, MOVES_FROM_PRIOR)
            space = range_of(jax.numpy.asarray(cov[index]), live)
            neurons[:, entries] = np.asarray(noise @ (space.spread @ space.pivot).T)
    return neurons

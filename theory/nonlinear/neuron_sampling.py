"""Draws of single neurons from the law q of a solved network."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from theory.causal_reach import connected_entries
from theory.covariance import Terms
from theory.nonlinear.neuron import live_entries, range_of
from theory.nonlinear.neuron_chain import draw
from theory.response import NEGLIGIBLE, factorise
from theory.seeds import part


def draw_neurons(
    terms: Terms, cov: np.ndarray, conjugate: np.ndarray, phi: Callable, num: int, seed: int
) -> np.ndarray:
    """Pre-activations h of independent neurons, (num, n).

    Args:
        terms: the network on the task; neurons factorise over the groups of entries that shared weights tie together.
        cov, conjugate: C and Phihat, (n, n).
        phi: the activation.
        num: how many.
        seed: of the draws.
    """
    neurons = np.zeros((num, len(cov)))
    for number, entries in enumerate(connected_entries(terms)):
        index = np.ix_(entries, entries)
        live = live_entries(factorise(cov[index], NEGLIGIBLE))
        if live:
            noise = draw(num, part(seed, number), cov[index], conjugate[index], phi, live)
            space = range_of(jnp.asarray(cov[index]), live)
            neurons[:, entries] = np.asarray(noise @ (space.spread @ space.pivot).T)
    return neurons

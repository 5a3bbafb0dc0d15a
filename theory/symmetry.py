r"""Symmetries that change the signs of correlations between sites, W -> -W first of all.

Signs e_s of the sites leave the law of the currents and of the targets as it is, for an odd activation, where
C_u[e Phi e] = e C_u[Phi] e and A[e Phi e] = A[Phi] (`theory.model`):

    e_s e_s' = e_{a(s)} e_{a(s')}  wherever M^w_ss' is not zero,        e_s = e_s'  wherever D, F or a readout ties
    them.

These are linear equations over the two-element field; their solutions form a group. For a recurrent chain it is
W -> -W, h_t -> (-1)^t h_t. A leak, a shared bias, or shared inputs at steps of both parities leave none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse.csgraph

from theory.connections import NOWHERE
from theory.model import Array, Model, build_model
from theory.network import Network
from theory.task import Task
from theory.ties import by_site, fixed_ties, labels_of, tied_entries

MOST_GENERATORS = 6  # of the group whose images are listed: 64 of them


def has_sign_symmetry(network: Network, task: Task) -> bool:
    """Whether changing the signs of weights leaves the posterior as it is while kernels change.

    It needs an odd activation. Of a recurrent network it is W -> -W, which turns h_t into (-1)^t h_t up to a common
    sign: inputs at steps of one parity (unless U is unshared, which then flips along) and supervised steps of one
    parity (unless V is unshared). Then the posterior has mirror modes and only invariants may be compared: overlaps
    that change sign enter squared.
    """
    return bool(len(mirror_signs(network, task)))


@lru_cache(maxsize=16)
def mirror_signs(network: Network, task: Task) -> np.ndarray:
    """The sign changes of the sites that give other kernels and leave the posterior as it is, (images, sites), +-1.

    Up to those that change nothing: signs common to all sites that weights tie. Empty where there are none.
    """
    signs = sign_changes(build_model(network, task)) if network.phi.odd else np.ones((0, 0))
    signs.setflags(write=False)  # the next call gets the same array
    return signs


def sign_changes(model: Model, fixed: np.ndarray | None = None) -> np.ndarray:
    """The solutions e of the equations of the module's docstring that some kernel can tell from 1, (images, sites).

    ``fixed``, boolean (sites, sites), says which sites D, F and a readout tie: by default those of `fixed_ties`.
    """
    sites = model.sites
    equations = _equal_within(fixed_ties(model) if fixed is None else fixed, np.arange(sites), sites)
    for number, source in enumerate(model.sources):
        correlated = by_site(model, model.weights[number])
        used = np.flatnonzero(np.diagonal(correlated) & (np.array(source) != NOWHERE))
        own = _equal_within(correlated[np.ix_(used, used)], used, sites)
        read = _equal_within(correlated[np.ix_(used, used)], np.array(source)[used], sites)
        equations += [one ^ other for one, other in zip(own, read, strict=True)]
    # Signs common to a group of tied sites change no kernel: the first site of each keeps its own.
    group = labels_of(tied_entries(model), model.entries)[:: model.patterns]
    for label in np.unique(group):
        equations.append(np.arange(sites) == np.flatnonzero(group == label)[0])
    generators = _null_space(np.array(equations, dtype=bool).reshape(-1, sites))[:MOST_GENERATORS]
    images = [np.zeros(sites, dtype=bool)]
    for generator in generators:
        images += [image ^ generator for image in images]
    return np.where(np.array(images[1:], dtype=bool).reshape(-1, sites), -1.0, 1.0)


def flipped_pairs(signs: np.ndarray, sites: int) -> np.ndarray:
    """Boolean (sites, sites): the pairs of sites whose correlation changes sign in some image."""
    return np.any(signs[:, :, None] != signs[:, None, :], axis=0) if len(signs) else np.zeros((sites, sites), bool)


def apply_signs(kernel: Array, signs: np.ndarray) -> Array:
    """The image of a kernel (..., S, P, S, P) under signs of the sites (S,)."""
    return kernel * signs[:, None, None, None] * signs[None, None, :, None]


def preferred_signs(kernel: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Of the images of a kernel (S, P, S, P), the signs of that whose neighbouring sites correlate most, (S,)."""
    options = np.concatenate([np.ones((1, len(kernel))), signs.reshape(-1, len(kernel))])
    along = np.array([np.trace(kernel[s, :, s + 1]) for s in range(len(kernel) - 1)])
    sums = (options[:, :-1] * options[:, 1:]) @ along if len(along) else np.zeros(len(options))
    return options[int(np.argmax(sums > sums.max() - 1e-12 * np.abs(sums).max(initial=0.0)))]


def _equal_within(related: np.ndarray, at: np.ndarray, sites: int) -> list[np.ndarray]:
    """Equations that the signs at the sites ``at`` are equal within each connected component of ``related``.

    Those of each member with the first are enough.
    """
    _, component = scipy.sparse.csgraph.connected_components(related, directed=False)
    equations = []
    for label in range(component.max(initial=-1) + 1):
        first, *others = np.flatnonzero(component == label)
        for other in others:
            equation = np.zeros(sites, dtype=bool)
            equation[at[first]] ^= True
            equation[at[other]] ^= True
            equations.append(equation)
    return equations


def _null_space(equations: np.ndarray) -> np.ndarray:
    """A basis of the solutions of linear equations over the two-element field, (dimension, unknowns)."""
    rows = equations.copy()
    pivots: list[int] = []
    for column in range(rows.shape[1]):
        found = np.flatnonzero(rows[len(pivots) :][:, column])
        if not found.size:
            continue
        at, row = len(pivots), len(pivots) + found[0]
        rows[[at, row]] = rows[[row, at]]
        others = np.flatnonzero(rows[:, column])
        rows[others[others != at]] ^= rows[at]
        pivots.append(column)
    free = [column for column in range(rows.shape[1]) if column not in pivots]
    basis = np.zeros((len(free), rows.shape[1]), dtype=bool)
    for number, column in enumerate(free):
        basis[number, column] = True
        basis[number, pivots] = rows[: len(pivots), column]
    return basis

r"""What a symmetry that holds only nearly would make of a saddle point: where another one is likely.

A leak, a bias or an input at another step breaks W -> -W (`theory.symmetry`) and the relabelling of patterns
(`theory.relabelling`), and so do targets that are not quite opposite. Where they do so weakly, a saddle point still has
a partner near its image, of another free energy, which a flow of neurons from independent noise need not come to.
"""

from __future__ import annotations

import numpy as np

from theory.activations import Activation
from theory.model import Model
from theory.relabelling import relabel
from theory.symmetry import sign_changes
from theory.ties import by_site, supervised_sites

MOST = 3  # images of one kind: each takes a flow of neurons


def nearly_images(
    kernel: np.ndarray, model: Model, phi: Activation, *, signs: bool, relabelled: bool
) -> list[np.ndarray]:
    """Images of a kernel (n, n) under what would be symmetries if inputs, biases and F tied no sites.

    Args:
        kernel: of a saddle point.
        model: whose saddle point it is.
        phi: the activation.
        signs: those under changes of sign, where phi is odd.
        relabelled: those under a relabelling of patterns.
    """
    supervised = supervised_sites(model)
    changes = sign_changes(model, by_site(model, model.readout) & np.outer(supervised, supervised))[:MOST]
    blocks = kernel.reshape((model.sites, model.patterns) * 2)
    images = []
    if signs and phi.odd:
        turned = [np.repeat(one, model.patterns) for one in changes]
        images += [kernel * np.outer(one, one) for one in turned]
    permutation = nearly_opposite_patterns(model)
    if relabelled and not np.array_equal(permutation, np.arange(model.patterns)):
        images += [relabel(blocks, permutation, one).reshape(kernel.shape) for one in changes]
    return images


def nearly_opposite_patterns(model: Model) -> np.ndarray:
    """pi, (P,): pairs of patterns whose targets are opposite to more than half, and itself of every other pattern."""
    outputs, patterns = model.targets.shape[1], model.patterns
    site, pattern = np.divmod(np.asarray(model.supervised), patterns)
    targets = np.zeros((patterns, model.sites, outputs))
    targets[pattern, site] = model.targets
    targets = targets.reshape(patterns, -1)
    size = np.sum(targets**2, axis=1)
    # |y_mu + y_nu|^2 relative to |y_mu|^2 + |y_nu|^2: 0 of opposite ones, 1 of orthogonal ones.
    total = np.maximum(size[:, None] + size, np.finfo(float).tiny)
    apart = np.sum((targets[:, None] + targets) ** 2, axis=2) / total
    permutation, free = np.arange(patterns), np.ones(patterns, dtype=bool)
    for flat in np.argsort(apart, axis=None):
        one, other = np.divmod(flat, patterns)
        if apart[one, other] >= 0.5:
            break
        if one != other and free[one] and free[other]:
            permutation[[one, other]] = other, one
            free[[one, other]] = False
    return permutation

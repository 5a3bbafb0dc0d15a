"""Which entries a task needs, which of them hang together, and how the others follow from them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph

from theory.covariance import Terms, preactivation_cov
from theory.response import factorise, inverse_factor
from theory.task import Task


def needed_task(task: Task) -> tuple[Task, np.ndarray]:
    """The task without patterns and final steps that no supervised entry depends on, and the flat entries kept."""
    patterns = np.flatnonzero(task.supervised.any(axis=1))
    steps = int(np.flatnonzero(task.supervised.any(axis=0))[-1]) + 1
    kept = (np.arange(steps)[:, None] * task.patterns + patterns).ravel()
    reduced = Task(task.inputs[patterns, :steps], task.targets[patterns, :steps], task.supervised[patterns, :steps])
    return reduced, kept


def connected_entries(terms: Terms) -> list[np.ndarray]:
    """Groups of entries that weights shared over steps tie together, ascending."""
    recurrent, drive, readout = (np.asarray(m) for m in (terms.recurrent, terms.drive, terms.readout))
    supervised = np.zeros(len(drive), dtype=bool)
    supervised[np.asarray(terms.supervised)] = True
    tied = (recurrent != 0) | (drive != 0) | ((readout != 0) & np.outer(supervised, supervised))
    count, labels = scipy.sparse.csgraph.connected_components(tied, directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)]


def extend_kernel(
    kernel: np.ndarray,
    neurons: np.ndarray,
    terms: Terms,
    task: Task,
    kept: np.ndarray,
    phi: Callable,
    rng: np.random.Generator,
) -> np.ndarray:
    r"""The kernel (n, n) of the whole task from that of the entries kept, by the prior conditional.

        h_* = C_{*,g} C_gg^{-1} h_g + sqrt(C_** - C_{*,g} C_gg^{-1} C_{g,*}) xi,

    g being the entries of its group known so far: one after the other in time order, which no supervised
    entry hinders as none depends on the new ones.

    Args:
        kernel: Phi of the entries kept, (k, k).
        neurons: draws of their pre-activations, (M, k), independent between groups.
        terms: the network on the whole task.
        task: the whole task.
        kept: their flat entries, (k,).
        phi: the activation.
        rng: for xi.
    """
    n = task.entries
    full = np.zeros((n, n))
    full[np.ix_(kept, kept)] = kernel
    h = np.zeros((len(neurons), n))
    h[:, kept] = neurons
    group_of = np.zeros(n, dtype=int)
    for number, entries in enumerate(connected_entries(terms)):
        group_of[entries] = number
    known = np.zeros(n, dtype=bool)
    known[kept] = True
    for entry in np.flatnonzero(~known):
        cov = np.asarray(preactivation_cov(terms, jnp.asarray(full), task.patterns))
        # Unknown entries and other groups stay in as zero rows, so that one compiled factorisation serves all entries.
        past = known & (group_of == group_of[entry])
        inverse = inverse_factor(factorise(cov * np.outer(past, past)))
        half = inverse @ (cov[:, entry] * past)
        variance = max(cov[entry, entry] - half @ half, 0.0)
        h[:, entry] = h @ (inverse.T @ half) + np.sqrt(variance) * rng.normal(size=len(h))
        known[entry] = True
        activity = np.asarray(phi(jnp.asarray(h)))
        mean = activity.mean(axis=0)
        together = activity.T @ activity[:, entry] / len(h)
        row = np.where(group_of == group_of[entry], together, mean * mean[entry]) * known
        full[entry], full[:, entry] = row, row
    return full

"""Which entries of a model are needed, and which are tied to one another by weights that they share."""

from __future__ import annotations

import numpy as np
import scipy.sparse.csgraph

from theory.connections import NOWHERE
from theory.model import Array, Model


def needed_part(model: Model) -> tuple[Model, np.ndarray]:
    """The model without the patterns and the last sites that no supervised entry depends on; the flat entries kept."""
    at, patterns = np.divmod(np.asarray(model.supervised), model.patterns)
    chosen, sites = np.unique(patterns), int(at.max()) + 1
    kept = (np.arange(sites)[:, None] * model.patterns + chosen).ravel()
    window = np.ix_(kept, kept)
    part = model.replace(
        weights=tuple(np.asarray(weights)[window] for weights in model.weights),
        drive=np.asarray(model.drive)[window],
        mixing=None if model.mixing is None else np.asarray(model.mixing)[:sites, :sites],
        readout=np.asarray(model.readout)[window],
        supervised=np.searchsorted(kept, np.asarray(model.supervised)).astype(np.int32),
        patterns=len(chosen),
        sources=tuple(source[:sites] for source in model.sources),
        outputs=tuple(site for site in model.outputs if site < sites),
    )
    return part.on_device(), kept


def needed_entries(model: Model) -> np.ndarray:
    """Boolean (n,): whether a supervised entry depends on an entry."""
    needed = np.zeros((model.sites, model.patterns), dtype=bool)
    needed.ravel()[np.asarray(model.supervised)] = True
    for site in reversed(range(model.sites)):
        for source in model.sources:
            if source[site] != NOWHERE:
                needed[source[site]] |= needed[site]
        if model.mixing is not None:  # h_s holds the currents of earlier sites, which their sources make
            carried = np.flatnonzero(np.asarray(model.mixing)[site, :site])
            needed[carried] |= needed[site]
    return needed.ravel()


def reached_entries(model: Model, silent_activity: float) -> np.ndarray:
    """Boolean (n,): whether activity has variance at an entry; ``silent_activity`` is phi(0).

    Where no input, bias or noise has come yet, h = 0.
    """
    reached = (np.diagonal(np.asarray(model.drive)) > 0).reshape(model.sites, model.patterns)
    if silent_activity:
        return np.ones(reached.size, dtype=bool)
    for site in range(model.sites):
        for weights, source in zip(model.weights, model.sources, strict=True):
            if source[site] != NOWHERE and np.asarray(weights)[site * model.patterns, site * model.patterns] > 0:
                reached[site] |= reached[source[site]]
        if model.mixing is not None:
            carried = np.flatnonzero(np.asarray(model.mixing)[site, :site])
            reached[site] |= reached[carried].any(axis=0)
    return reached.ravel()


def tied_entries(model: Model) -> list[np.ndarray]:
    """Groups of entries that shared weights tie to one another, ascending; neurons are independent between them."""
    return _components(_tied_sites(model), model)


def unbroken_entries(model: Model) -> list[np.ndarray]:
    """The finest groups of entries between which the kernels of an odd activation may all vanish.

    If Phi vanishes between groups, so must C[Phi] and, in turn, what the weights carry back: a site that reads one
    group is in one group with each site that reads the same one through the same weights, and conversely. What inputs,
    biases, readouts and F tie stays tied.
    """
    joined = fixed_ties(model)
    pairs = [_reading_pairs(model, number) for number in range(len(model.weights))]
    while True:
        _, labels = scipy.sparse.csgraph.connected_components(joined, directed=False)
        before = len(np.unique(labels))
        for (first, second), (read, other) in pairs:
            same = labels[first] == labels[second]
            joined[read[same], other[same]] = True
            same = labels[read] == labels[other]
            joined[first[same], second[same]] = True
        if len(np.unique(scipy.sparse.csgraph.connected_components(joined, directed=False)[1])) == before:
            return _components(joined, model)


def cut_between(model: Model, groups: list[np.ndarray]) -> Model:
    """The model with the weights between different groups of entries made independent."""
    label = labels_of(groups, model.entries)
    same = label[:, None] == label
    return model.replace(weights=tuple(weights * same for weights in model.weights))


def labels_of(groups: list[np.ndarray], entries: int) -> np.ndarray:
    """The number of its group for each entry, (n,)."""
    label = np.zeros(entries, dtype=int)
    for number, group in enumerate(groups):
        label[group] = number
    return label


def by_site(model: Model, matrix: Array) -> np.ndarray:
    """Boolean (sites, sites): where a matrix over entries (n, n) has anything but zeros."""
    shape = (model.sites, model.patterns) * 2
    return np.any(np.asarray(matrix).reshape(shape) != 0, axis=(1, 3))


def supervised_sites(model: Model) -> np.ndarray:
    """Boolean (sites,)."""
    supervised = np.zeros(model.sites, dtype=bool)
    supervised[np.asarray(model.supervised) // model.patterns] = True
    return supervised


def by_entry(model: Model, matrix: np.ndarray) -> np.ndarray:
    """A matrix over sites (sites, sites) as one over entries, (n, n)."""
    return np.kron(matrix, np.ones((model.patterns, model.patterns), dtype=matrix.dtype))


def tied_pairs(model: Model) -> np.ndarray:
    """Boolean (n, n): whether two entries lie in one of the `tied_entries`."""
    label = labels_of(tied_entries(model), model.entries)
    return label[:, None] == label


def fixed_ties(model: Model, drive: Array | None = None) -> np.ndarray:
    """Boolean (sites, sites): what is tied whatever the kernel, by inputs, biases, readouts and F.

    ``drive`` (n, n) may stand in place of D: what a symmetry changes of it.
    """
    supervised = supervised_sites(model)
    tied = by_site(model, model.drive if drive is None else drive)
    tied = tied | (by_site(model, model.readout) & np.outer(supervised, supervised))
    return tied if model.mixing is None else tied | (np.asarray(model.mixing) != 0)


def _reading_pairs(model: Model, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of sites whose weights of one kind are correlated, (2, pairs), and the pairs of sites that they read."""
    source = np.array(model.sources[number])
    pairs = np.array(np.nonzero(by_site(model, model.weights[number])))
    return pairs, source[pairs]


def _tied_sites(model: Model) -> np.ndarray:
    tied = fixed_ties(model)
    for number in range(len(model.weights)):
        (first, second), (read, other) = _reading_pairs(model, number)
        tied[first, second] = True
        tied[read, other] = True
    return tied


def _components(tied: np.ndarray, model: Model) -> list[np.ndarray]:
    """Entries by connected component of their sites."""
    count, labels = scipy.sparse.csgraph.connected_components(tied, directed=False)
    entries = np.arange(model.entries)
    return [entries[labels[entries // model.patterns] == label] for label in range(count)]

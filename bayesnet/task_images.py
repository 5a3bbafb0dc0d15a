r"""Symmetries of a task that draws break: every draw is looked at in the image nearest to one reference.

A permutation of the patterns that leaves the task as it is (`theory.task_symmetries`) leaves the posterior as it is
too. Chains may settle in modes that are images of one another; what one says of a pattern another then says of the
pattern's image. They agree all the same, as they do in mirror modes (`bayesnet.chain_agreement.mirror_modes`). With the
default observables x of a draw, standardised, and a reference R, the image to look at is

    g = argmax_g  < g x, R >,        which is the image nearest to R.

R is the mean of the draws thus turned, found by iteration. Gaussian draws that keep a symmetry would come to 1.3
standard deviations of themselves in this way. So a symmetry counts as broken only if the draws lie on average `APART`
standard deviations from the middle between R and its image; otherwise nothing is turned by it. Draws that are no images
of one another stay as far apart as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesnet.observables import Row, default_rows
from bayesnet.results import from_outside, has_moments, network_of, task_of
from theory.relabelling import relabel
from theory.search.branch_solution import relabelled
from theory.solution import Solution
from theory.task_symmetries import TaskImages, images_of_task

APART = 2.0  # standard deviations: closer than that two Gaussian modes hardly leave a gap that chains have to cross
FEWEST = 20  # draws of all chains from which a broken symmetry can be told
REFERENCE_DRAWS = 400  # enough for the mean of the images
STARTS = 8  # chains whose last draw the iteration is started from; the best of all ends is taken
SWEEPS = 30  # of the iteration, which seldom takes more than five
ROUNDING = 1e-5  # of the size of an observable: what varies less is constant (draws may be in float32)
SAME = 1e-3  # of the size of a reference: an image that is nearer than that is the reference itself
RESIDENT = 0.99  # share of its draws in one image that makes a chain resident there


@dataclass(frozen=True)
class Action:
    """What each image makes of the default observables: x'_k = sign_k x_source(k), (G, K) each."""

    source: np.ndarray
    sign: np.ndarray

    @classmethod
    def on(cls, rows: list[Row], images: TaskImages) -> Action:
        """That of the images of a task on the rows of `default_rows`."""
        place = {(row.kind, row.pattern): k for k, row in enumerate(rows)}
        source = [
            [place[row.kind, row.pattern if row.pattern is None else int(permutation[row.pattern])] for row in rows]
            for permutation in images.permutations
        ]
        signed = np.array([row.signed for row in rows], dtype=bool)
        return cls(np.array(source), np.where(signed, images.signs[:, None], 1))

    def turn(self, values: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The image ``index`` (...) of each of the values (..., K)."""
        return np.take_along_axis(values, self.source[index], axis=-1) * self.sign[index]

    def turn_back(self, reference: np.ndarray) -> np.ndarray:
        """The reference (K,) under the inverses of all images, (G, K): < g x, R > = < x, g^-1 R >."""
        result = np.empty(self.source.shape)
        np.put_along_axis(result, self.source, self.sign * reference, axis=1)
        return result

    def average(self, values: np.ndarray) -> np.ndarray:
        """The mean over all images of values (S, K): the part that breaks no symmetry."""
        pairs = zip(self.source, self.sign, strict=True)
        return np.sum([values[:, source] * sign for source, sign in pairs], axis=0) / len(self.source)

    def nearest(self, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Which image of each of the values (S, K) is nearest to the reference (K,), (S,); the first of equal ones."""
        scores = values @ self.turn_back(reference).T
        rounding = 1e-9 * np.linalg.norm(values, axis=1) * np.linalg.norm(reference)
        return np.argmax(scores >= (scores.max(axis=1) - rounding)[:, None], axis=1)


@dataclass(frozen=True)
class TurnedDraws:
    """The image that each draw is looked at in.

    Attributes:
        images: of the task.
        action: what they make of the observables ``labels``.
        index: which image of each draw, (chain, draw).
        labels: of the default observables that the draws have.
        mean: of these, in the images, (K,).
    """

    images: TaskImages
    action: Action
    index: np.ndarray
    labels: list[str]
    mean: np.ndarray

    def kernels(self, kernel: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        """Kernels (chain, draw, ..., S, P, S, P) in these images; or those of an own ``index``."""
        result, index = kernel.copy(), self.index if index is None else index
        for image in np.unique(index[index > 0]):
            everywhere = -np.ones(kernel.shape[-4])
            result[index == image] = relabel(kernel[index == image], self.images.permutations[image], everywhere)
        return result

    def outputs(self, prediction: np.ndarray) -> np.ndarray:
        """Predictions (chain, draw, P, T, O) in these images."""
        result = prediction.copy()
        for image in np.unique(self.index[self.index > 0]):
            of_it = self.index == image
            result[of_it] = self.images.signs[image] * prediction[of_it][:, self.images.permutations[image]]
        return result

    def observables(self, values: np.ndarray) -> np.ndarray:
        """Values (chain, draw, K) of the observables ``labels`` in these images."""
        return self.action.turn(values, self.index)

    @property
    def of_chains(self) -> np.ndarray:
        """The image of most draws of each chain, (chain,)."""
        return np.array([np.bincount(row).argmax() for row in self.index])

    def in_words(self) -> str:
        """In which image each chain is looked at."""
        homes: dict[str, list[str]] = {}
        for chain, row in enumerate(self.index):
            share = np.bincount(row) / len(row)
            settled = share.max() >= RESIDENT
            name = _exchange(self.images.permutations[share.argmax()]) if settled else "in several images"
            homes.setdefault(name, []).append(str(chain))
        return "; ".join(f"chain{'s' * (len(chains) > 1)} {', '.join(chains)} {name}" for name, chains in homes.items())


def turned_draws(posterior: xr.DataTree, toward: Solution | None = None) -> TurnedDraws | None:
    """The image to look at of each draw of a posterior; None where the draws break no symmetry of their task.

    Args:
        posterior: what `sample` returned, or networks from outside.
        toward: the reference of networks from outside, which may be few; draws of a sampler are their own.
    """
    network, task = network_of(posterior), task_of(posterior)
    images = images_of_task(task)
    if len(images.signs) == 1:
        return None
    rows, group = default_rows(network, task), posterior["posterior"]
    if has_moments(posterior):
        known = group["observable"].to_numpy().tolist()
        rows = [row for row in rows if row.observable.label in known]
        values = group["observables"].to_numpy()[..., [known.index(row.observable.label) for row in rows]]
    else:
        values = values_of(rows, group["kernel"].to_numpy(), group["prediction"].to_numpy())
    return _turned(values, rows, images, toward if from_outside(posterior) else None, from_outside(posterior))


def turned_toward(solution: Solution, kernels: np.ndarray, outputs: np.ndarray) -> TurnedDraws | None:
    """The same for kernels (chain, draw, S, P, S, P) and outputs (chain, draw, P, T, O) of networks on the task of a
    solution, which is the reference."""
    images = images_of_task(solution.task)
    if len(images.signs) == 1:
        return None
    rows = default_rows(solution.network, solution.task)
    return _turned(values_of(rows, kernels, outputs), rows, images, solution, True)


def image_near(solution: Solution, posterior: xr.DataTree) -> Solution:
    """Of the images of a solution under the symmetries of its task, that nearest to the draws as `turned_draws` has
    them; the solution itself where the draws break none."""
    turned = None if from_outside(posterior) else turned_draws(posterior)
    if turned is None:
        return solution
    rows = [row for row in default_rows(solution.network, solution.task) if row.observable.label in turned.labels]
    values = values_of(rows, solution.kernel, solution.prediction)[None]
    breaking = turned.mean - turned.action.average(turned.mean[None])[0]
    image = int(turned.action.nearest(values, breaking)[0])
    if image == 0:
        return solution
    return relabelled(solution, turned.images.permutations[image], -np.ones(len(solution.kernel)))


def values_of(rows: list[Row], kernel: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The observables of the rows, (..., K); K may be zero, where no step is left to be observed."""
    if not rows:
        return np.empty((*prediction.shape[:-3], 0))
    return np.stack([row.observable.evaluate(kernel, prediction) for row in rows], axis=-1)


def _turned(
    values: np.ndarray, rows: list[Row], images: TaskImages, toward: Solution | None, outside: bool
) -> TurnedDraws | None:
    if not rows:
        return None
    action = Action.on(rows, images)
    flat = values.reshape(-1, values.shape[-1])
    scaled = flat * _weights(flat, action)
    if not outside:
        reference = _own_reference(scaled.reshape(values.shape), action)
    elif toward is None:
        reference = None
    else:
        aim = values_of(rows, toward.kernel, toward.prediction)[None]
        reference = _broken_part(((aim - action.average(aim)) * _weights(flat, action))[0], action)
    if reference is None:
        return None
    index = action.nearest(scaled, reference).reshape(values.shape[:-1])
    mean = action.turn(values, index).reshape(flat.shape).mean(axis=0)
    return TurnedDraws(images, action, index, [row.observable.label for row in rows], mean)


def _weights(flat: np.ndarray, action: Action) -> np.ndarray:
    """One over the standard deviation of each observable (S, K) over draws and images; zero of constants, (K,)."""

    def mean_square(values: np.ndarray) -> np.ndarray:
        return (values**2).mean(axis=0)[action.source].mean(axis=0)

    size, spread = np.sqrt(mean_square(flat)), np.sqrt(mean_square(flat - action.average(flat)))
    return np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > ROUNDING * size)


def _own_reference(values: np.ndarray, action: Action) -> np.ndarray | None:
    """The reference of draws (chain, draw, K) that break a symmetry, such that most draws of the first chain are their
    own image; None of draws that break none."""
    flat = values.reshape(-1, values.shape[-1])
    if len(flat) < FEWEST:
        return None
    shown = flat[:: -(-len(flat) // REFERENCE_DRAWS)]
    shown = shown - action.average(shown)
    ends = [_iterated(shown, chain[-1] - action.average(chain[-1:])[0], action) for chain in values[:STARTS]]
    best = max(ends, key=lambda reference: float(reference @ reference))
    turned = action.turn(shown, action.nearest(shown, best))
    apart = best - best[action.source] * action.sign
    along = turned @ apart.T
    kept = along.mean(axis=0) <= APART * along.std(axis=0)
    reference = _kept_by(best, action, kept)
    if reference is None:
        return None
    first = np.bincount(action.nearest(values[0], reference)).argmax()
    return action.turn_back(reference)[first]


def _iterated(draws: np.ndarray, reference: np.ndarray, action: Action) -> np.ndarray:
    """The mean of draws (S, K) each turned to the image nearest to it, from a first guess of it."""
    index = np.full(len(draws), -1)
    for _ in range(SWEEPS):
        last, index = index, action.nearest(draws, reference)
        if np.array_equal(last, index):
            break
        reference = action.turn(draws, index).mean(axis=0)
    return reference


def _broken_part(reference: np.ndarray, action: Action) -> np.ndarray | None:
    """A reference without the little by which it breaks a symmetry that it keeps up to `SAME`; None if it keeps all."""
    apart = np.linalg.norm(reference - reference[action.source] * action.sign, axis=1)
    return _kept_by(reference, action, apart <= SAME * np.linalg.norm(reference))


def _kept_by(reference: np.ndarray, action: Action, kept: np.ndarray) -> np.ndarray | None:
    """The part of a reference that the symmetries ``kept`` (G,) leave as it is; None where nothing is left."""
    part = reference
    for _ in range(SWEEPS):  # a projection where they are a group, and soon one where they are not
        part = (part[action.source[kept]] * action.sign[kept]).mean(axis=0)
    return part if np.linalg.norm(part) > SAME * np.linalg.norm(reference) else None


def _exchange(permutation: np.ndarray) -> str:
    """A permutation in words, patterns counted from 1."""
    cycles, seen = [], set()
    for start in range(len(permutation)):
        cycle = [start]
        while (image := int(permutation[cycle[-1]])) != start:
            cycle.append(image)
        if len(cycle) > 1 and start not in seen:
            cycles.append("(" + " ".join(str(mu + 1) for mu in cycle) + ")")
        seen.update(cycle)
    return f"with patterns exchanged, {''.join(cycles)}" if cycles else "as drawn"

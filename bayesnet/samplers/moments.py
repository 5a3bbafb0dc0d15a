r"""Running moments in place of the kernel of every draw: what is recorded where n^2 numbers for each draw are too many.

Of each chain and entry x (of the kernel, and of the overlap) the mean, the standard deviation and the Monte Carlo
standard error of the mean are kept, the latter by batch means: with the means m_k of B successive batches of b draws,

    sd^2 = sum_i (x_i - mean)^2 / (D - 1),        mcse^2 = sum_k (m_k - mean_k m_k)^2 / (B (B - 1)),

updated draw by draw (Welford 1962), so that memory does not grow with the number of draws D. Of each draw numbers are
kept: the observables.

Source: batch means: Flegal, Haran and Jones 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bayesnet.observables import Observable, default_observables, order_parameter, overlaps
from theory.kernels import flat_of, kernel_of, outputs_of
from theory.network import Network
from theory.task import Task

EVERY, MOMENTS, AUTO = "every", "moments", "auto"
MOST_BYTES = 2**30  # of kernels and overlaps of all draws: three times that, as while a result is built, fits a laptop
MOST_OBSERVABLES = 4096  # recorded of each draw by default: 131 MB for 4000 draws
BATCHES = 20  # of a chain: enough for an error bar good to a sixth, and each as long as it can be


class Moments(NamedTuple):
    """Sums over the draws of a chain so far; (2, n, n) for kernel and overlap, with chains in lockstep (2, C, n, n).

    Attributes:
        number: of draws, ().
        mean, square: mean, and sum of squared deviations from it.
        batch: sum over the draws of the batch that is not complete.
        batch_mean, batch_square: mean and sum of squared deviations of the means of complete batches.
    """

    number: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    batch: np.ndarray
    batch_mean: np.ndarray
    batch_square: np.ndarray


def choose_form(kernels: str, entries: int, draws: int) -> str:
    """What "auto" stands for: `EVERY` as long as kernels and overlaps of all draws take at most `MOST_BYTES`."""
    if kernels != AUTO:
        return kernels
    return EVERY if 16 * entries**2 * draws <= MOST_BYTES else MOMENTS


def recorded_observables(network: Network, task: Task) -> list[Observable]:
    """What is recorded of every draw: the default observables and the order parameter.

    Where the default ones are more than `MOST_OBSERVABLES`, which many steps bring with them, of the overlaps only
    those between neighbouring sites.
    """
    chosen = default_observables(network, task)
    if len(chosen) > MOST_OBSERVABLES:
        chosen = default_observables(network, task, apart=1)
    return [*chosen, order_parameter(network, task)]


class Recorder:
    """Takes the kernels out of what chains record, and puts observables and moments in their place.

    Args:
        network, task: whose draws they are.
        num_samples: draws of each chain.
    """

    def __init__(self, network: Network, task: Task, num_samples: int) -> None:
        self._task, self._observables = task, recorded_observables(network, task)
        self._entries, self._batch = network.layers * task.entries, -(-num_samples // BATCHES)
        self.labels = [observable.label for observable in self._observables]

    def start(self, lead: tuple[int, ...], dtype: np.dtype) -> Moments:
        """No draws; ``lead`` is (chains,) in lockstep, else ()."""
        nothing = [np.zeros((2, *lead, self._entries, self._entries), dtype) for _ in Moments._fields[1:]]
        return Moments(np.zeros((), int), *nothing)

    def take(self, moments: Moments, draws: dict[str, np.ndarray]) -> tuple[Moments, dict[str, np.ndarray]]:
        """The moments with the draws (draw, ...) of a block, and these with ``observables`` (draw, ..., K) in place of
        their kernels."""
        kernel = kernel_of(draws["kernel"], self._task)
        outputs = outputs_of(draws["prediction"], self._task)
        values = [observable.evaluate(kernel, outputs) for observable in self._observables]
        for one, normalised in zip(draws["kernel"], flat_of(overlaps(kernel)), strict=True):
            moments = self._with(moments, np.stack([one, normalised]))
        left = {name: part for name, part in draws.items() if name != "kernel"}
        return moments, {**left, "observables": np.stack(values, axis=-1)}

    def moments_of(self, kernels: np.ndarray) -> Moments:
        """Those of the kernels (draw, n, n) of a chain."""
        moments = self.start((), kernels.dtype)
        for one in kernels:
            moments = self._with(moments, np.stack([one, flat_of(overlaps(kernel_of(one, self._task)))]))
        return moments

    def _with(self, moments: Moments, x: np.ndarray) -> Moments:
        number, mean, square, batch, batch_mean, batch_square = moments
        number = number + 1
        mean, square = _updated(mean, square, x, number)
        batch = batch + x
        if number % self._batch == 0:
            batch_mean, batch_square = _updated(batch_mean, batch_square, batch / self._batch, number // self._batch)
            batch = np.zeros_like(batch)
        return Moments(number, mean, square, batch, batch_mean, batch_square)

    def finish(self, moments: Sequence[Moments]) -> dict[str, np.ndarray]:
        """``kernel_mean``, ``kernel_sd``, ``kernel_mcse`` and those of the overlap, (chains, n, n), from the moments of
        all chains, or of all in lockstep at once. Of a single draw, or batch, sd and mcse are zero."""
        shape = (2, -1, self._entries, self._entries)
        number = int(moments[0].number)
        batches = number // self._batch
        mean, square, batch_square = (
            np.concatenate([getattr(one, name).reshape(shape) for one in moments], axis=1)
            for name in ("mean", "square", "batch_square")
        )
        found = {
            "mean": mean,
            "sd": np.sqrt(square / max(1, number - 1)),
            "mcse": np.sqrt(batch_square / max(1, batches * (batches - 1))),
        }
        whats = enumerate(("kernel", "overlap"))
        return {f"{what}_{name}": values[index] for index, what in whats for name, values in found.items()}


def _updated(mean: np.ndarray, square: np.ndarray, x: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sum of squared deviations with one more x, the ``number``-th."""
    gap = x - mean
    mean = mean + (gap / number).astype(mean.dtype)
    return mean, square + gap * (x - mean)

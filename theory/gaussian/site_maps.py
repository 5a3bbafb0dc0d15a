r"""The maps between kernels and covariances of `theory.model` in NumPy, for any number of directions at each site.

A network's covariances act on sites only: the p directions (patterns, or fewer numbers that span them) at a site are
all treated alike. Of a matrix X over entries, entry s p + i being direction i at site s,

    (c X)_{si,s'j} = sum_{uv} F_su F_s'v sum_w g_w^2 M^w_uv X_{a_w(u) i, a_w(v) j}

is what the weights make of a kernel: C[Phi] = c Phi + F D F^T. Sites read earlier ones only, so that c is nilpotent and
`SiteMaps.accumulate`, which is (1 - c)^{-1}, runs through the sites once. Nothing here is compiled. Matrices may have
leading axes, (..., n, n): several at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from theory.connections import NOWHERE
from theory.model import Model

SHARED = 1e-14  # of the correlation of weights that counts as one: less is missing than rounding error


class _Reading(NamedTuple):
    """What one kind of weights reads.

    Attributes:
        weights: g^2 M, (n, n).
        source: the site read at each site, (sites,).
        reads: whether anything is read, (sites,).
        everywhere: the entry read at each entry, (n,), any where nothing is read.
        used: the entries that read, and ``at`` what they read.
        once: whether no entry is read twice.
    """

    weights: np.ndarray
    source: np.ndarray
    reads: np.ndarray
    everywhere: np.ndarray
    used: np.ndarray
    at: np.ndarray
    once: bool


class _Shift(NamedTuple):
    """A power of c where it reads the same distance back everywhere: X_ij -> weights_ij X_{i - margin, j - margin}.

    Attributes:
        weights: (n - margin, n - margin).
        margin: in entries.
    """

    weights: np.ndarray
    margin: int

    def forth(self, kernel: np.ndarray, total: np.ndarray) -> np.ndarray:
        """``total`` with the power's image of a matrix added."""
        total[..., self.margin :, self.margin :] += self.weights * kernel[..., : -self.margin, : -self.margin]
        return total

    def back(self, response: np.ndarray, total: np.ndarray) -> np.ndarray:
        """The same for the adjoint."""
        total[..., : -self.margin, : -self.margin] += self.weights * response[..., self.margin :, self.margin :]
        return total

    def squared(self) -> _Shift:
        """The square of the power."""
        margin = self.margin
        return _Shift(self.weights[margin:, margin:] * self.weights[:-margin, :-margin], 2 * margin)


@dataclass(frozen=True, eq=False)
class SiteMaps:
    """The maps of a model.

    Attributes:
        weights: g_w^2 M^w, (sites, sites) for each kind of weights, zero where nothing is read.
        sources: a_w, (sites,) for each; any site where nothing is read.
        mixing: F, (sites, sites), or None for the identity.
        directions: p.
    """

    weights: tuple[np.ndarray, ...]
    sources: tuple[np.ndarray, ...]
    mixing: np.ndarray | None
    directions: int

    @classmethod
    def of(cls, model: Model, directions: int) -> SiteMaps:
        """Those of a model, with that many directions in place of its patterns."""
        weights, sources = [], []
        for matrix, source in zip(model.weights, model.sources, strict=True):
            places = np.array(source)
            used = places != NOWHERE
            weights.append(np.asarray(matrix)[:: model.patterns, :: model.patterns] * np.outer(used, used))
            sources.append(np.where(used, places, 0))
        mixing = None if model.mixing is None else np.asarray(model.mixing)
        return cls(tuple(weights), tuple(sources), mixing, directions)

    @property
    def sites(self) -> int:
        """How many sites there are."""
        return len(self.weights[0])

    def mix(self, matrix: np.ndarray) -> np.ndarray:
        """F X F^T."""
        if self.mixing is None:
            return matrix
        return back(self._mix_rows(back(self._mix_rows(matrix, self.mixing)), self.mixing))

    def change(self, kernel: np.ndarray) -> np.ndarray:
        """c X (..., n, n)."""
        if self._shifts:
            return self._shifts[0].forth(kernel, np.zeros_like(kernel))
        total = np.zeros_like(kernel)
        for read in self._readings:
            total += read.weights * kernel[..., read.everywhere[:, None], read.everywhere]
        return self.mix(total)

    def adjoint(self, response: np.ndarray) -> np.ndarray:
        """c^T Y (..., n, n): sum(c X o Y) = sum(X o c^T Y)."""
        if self._shifts:
            return self._shifts[0].back(response, np.zeros_like(response))
        if self.mixing is not None:
            mixing = self.mixing.T
            response = back(self._mix_rows(back(self._mix_rows(response, mixing)), mixing))
        total = np.zeros_like(response)
        for read in self._readings:
            values = (read.weights * response)[..., read.used[:, None], read.used]
            places: Any = (..., read.at[:, None], read.at)
            if read.once:
                total[places] += values
            else:
                np.add.at(total, places, values)
        return total

    def accumulate(self, matrix: np.ndarray) -> np.ndarray:
        """X with X - c X = ``matrix`` (..., n, n)."""
        if self._shifts:
            for shift in self._shifts:  # (1 + c)(1 + c^2)(1 + c^4) ...
                matrix = shift.forth(matrix, matrix.copy())
            return matrix
        found, p = np.array(matrix, order="C"), self.directions
        lead, width = found.shape[:-2], found.shape[-1]
        mixed = np.zeros((*lead, self.sites, p * width))
        for site in range(self.sites):
            current = self._row_of_currents(found, site)
            if self.mixing is not None:
                mixed[..., site, :] = self._mix_columns(current, self.mixing).reshape(*lead, -1)
                current = self.mixing[site, : site + 1] @ mixed[..., : site + 1, :]
            found[..., site * p : (site + 1) * p, :] += current.reshape(*lead, p, width)
        return found

    def accumulate_adjoint(self, matrix: np.ndarray) -> np.ndarray:
        """Y with Y - c^T Y = ``matrix`` (..., n, n)."""
        if self._shifts:
            for shift in self._shifts:
                matrix = shift.back(matrix, matrix.copy())
            return matrix
        found, p = np.array(matrix, order="C"), self.directions
        lead, width = found.shape[:-2], found.shape[-1]
        by_site = found.reshape(*lead, self.sites, p, width)
        for site in reversed(range(self.sites)):
            current = by_site[..., site, :, :]
            if self.mixing is not None:
                below = by_site[..., site:, :, :].reshape(*lead, self.sites - site, p * width)
                mixed = (self.mixing[site:, site] @ below).reshape(*lead, p, width)
                current = self._mix_columns(mixed, self.mixing.T)
            for read in self._readings:
                if not read.reads[site]:
                    continue
                values = (read.weights[site * p] * current)[..., read.used]
                rows, places = by_site[..., read.source[site], :, :], cast(Any, (..., read.at))
                if read.once:
                    rows[places] += values
                else:
                    np.add.at(rows, places, values)
        return found

    @cached_property
    def _shifts(self) -> list[_Shift]:
        """c, c^2, c^4, ... until nothing is left, where one kind of weights reads the same distance back everywhere."""
        if self.mixing is not None or len(self.weights) != 1:
            return []
        (read,) = self._readings
        back = np.arange(self.sites) - read.source
        distance = int(back[read.reads].min(initial=self.sites))
        if distance == self.sites or not np.array_equal(read.reads, np.arange(self.sites) >= distance):
            return []
        if np.any(back[read.reads] != distance):
            return []
        margin = distance * self.directions
        found = [_Shift(read.weights[margin:, margin:], margin)]
        while 2 * found[-1].margin < len(read.weights):
            found.append(found[-1].squared())
        return found

    @cached_property
    def shift(self) -> np.ndarray | None:
        """S (n, n) with c X = S X S^T, where there is one: a single kind of weights, shared in full."""
        if len(self.weights) != 1:
            return None
        (read,), (weights,) = self._readings, self.weights
        gains = np.sqrt(np.diagonal(weights))
        if np.max(np.abs(weights - np.outer(gains, gains))) > SHARED * np.max(weights):
            return None
        moved = np.zeros_like(read.weights)
        moved[read.used, read.at] = np.repeat(gains, self.directions)[read.used]
        return moved if self.mixing is None else self._mix_rows(moved, self.mixing)

    @cached_property
    def _readings(self) -> list[_Reading]:
        block, within = np.ones((self.directions,) * 2), np.arange(self.directions)
        found = []
        for weights, source in zip(self.weights, self.sources, strict=True):
            reads = np.diagonal(weights) > 0
            everywhere = (source[:, None] * self.directions + within).ravel()
            used = np.flatnonzero(np.repeat(reads, self.directions))
            at = everywhere[used]
            once = len(np.unique(at)) == len(at)
            found.append(_Reading(np.kron(weights, block), source, reads, everywhere, used, at, once))
        return found

    def _row_of_currents(self, kernel: np.ndarray, site: int) -> np.ndarray:
        p = self.directions
        total = np.zeros((*kernel.shape[:-2], p, kernel.shape[-1]))
        for read in self._readings:
            if read.reads[site]:
                start = read.source[site] * p
                total += read.weights[site * p] * kernel[..., start : start + p, read.everywhere]
        return total

    def _mix_rows(self, matrix: np.ndarray, mixing: np.ndarray) -> np.ndarray:
        by_site = matrix.reshape(*matrix.shape[:-2], self.sites, -1)
        return (mixing @ by_site).reshape(matrix.shape)

    def _mix_columns(self, matrix: np.ndarray, mixing: np.ndarray) -> np.ndarray:
        return back(self._mix_rows(back(matrix), mixing))


def back(matrix: np.ndarray) -> np.ndarray:
    """The transposes of matrices (..., n, k)."""
    return matrix.swapaxes(-1, -2)

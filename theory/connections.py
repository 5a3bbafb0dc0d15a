r"""Connections: which weights a network has, what they read at each site, and how they are tied over the sites.

Sites are numbered from 0 in causal order: step by step, within a step layer by layer from the input up, so that with
one layer a site is a step. The weights of one kind have the prior covariance

    E[W_s W_s'] = g_s g_s' M_ss' / (fan-in)

over the sites s, s' where they are used. M is a correlation: positive semi-definite with unit diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from theory import arguments, arrays

NOWHERE = -1
READS = ("activity", "input", "bias", "output")
SINGULAR = 1e-12  # eigenvalue of a correlation, relative to the largest, that counts as zero
LEAST_EIGENVALUE = -1e-8  # of a correlation: rounding error of what users write down


@dataclass(frozen=True, eq=False)
class Connection:
    """The weights of one kind.

    Args:
        name: of the weights, as results and messages call them.
        reads: what the weights multiply: "activity" (phi(h) of another site), "input" (x), "bias" (the number 1), or
            "output" (phi(h) of a site, into the output of a step).
        source: for each site what is read there: the number of an earlier site ("activity"), of a step ("input"), 0
            ("bias"); None where there are no such weights. For "output": for each step the site that is read out.
        gain: g, a positive number, or one for each place in ``source``.
        correlation: M, (places, places): symmetric, positive semi-definite, ones on the diagonal. By default all ones:
            one and the same weights everywhere.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """

    name: str
    reads: str
    source: Any  # kept as a tuple of integers
    gain: Any = 1.0  # kept as an array
    correlation: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(f"name is {self.name!r}; it must be a word of letters, digits and _")
        arguments.one_of("reads", self.reads, READS)
        source = _places(self.source, self.reads)
        gain = np.array([arguments.positive("gain", g) for g in _one_each("gain", self.gain, len(source))])
        ones = np.ones((len(source),) * 2)
        correlation = ones if self.correlation is None else correlation_matrix("correlation", self.correlation)
        if correlation.shape != ones.shape:
            raise ValueError(
                f"correlation has shape {correlation.shape}; it must be {ones.shape}, one row for each place"
            )
        for field, value in (("source", source), ("gain", gain), ("correlation", correlation)):
            object.__setattr__(self, field, value)

    @property
    def used(self) -> np.ndarray:
        """Boolean, by place: where there are such weights."""
        return np.array(self.source) != NOWHERE

    @property
    def covariance(self) -> np.ndarray:
        """g_s g_s' M_ss', zero where there are no such weights, (places, places)."""
        return np.outer(self.gain, self.gain) * self.correlation * np.outer(self.used, self.used)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` (and JSON, TOML) take back."""
        return {
            "name": self.name,
            "reads": self.reads,
            "source": [None if place == NOWHERE else place for place in self.source],
            "gain": list(self.gain),
            "correlation": self.correlation.tolist(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Connection:
        """The inverse of `to_dict`; "gain" and "correlation" may be absent. Raises as `Connection` does."""
        if not isinstance(fields, Mapping) or not {"name", "reads", "source"} <= set(fields) <= set(
            cls.__dataclass_fields__
        ):
            raise ValueError(
                f"connection is {fields!r}; it must map 'name', 'reads', 'source', perhaps 'gain', 'correlation'"
            )
        return cls(**fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Connection) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.reads, self.source, self.gain.tobytes(), self.correlation.tobytes()))

    @cached_property
    def _copies(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place the number of the matrix used there (`NOWHERE`: none), and one place for each matrix."""
        used = np.flatnonzero(self.used)
        rows = np.concatenate([self.correlation[used][:, used], self.gain[used, None]], axis=1)
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        # Places with the same weights have the same row; numbered in the order in which they come.
        order = np.argsort(np.argsort(first))
        copy_of = np.full(len(self.source), NOWHERE)
        copy_of[used] = order[which.ravel()] if used.size else []
        return copy_of, used[np.sort(first)] if used.size else used

    @property
    def copy_of(self) -> np.ndarray:
        """The number of the weight matrix used at each place, `NOWHERE` where there is none."""
        return self._copies[0]

    @cached_property
    def copy_factor(self) -> np.ndarray:
        """B (copies, rank) with gains: copy c of the weights is sum_r B_cr Z_r over sqrt(fan-in), Z_r white."""
        at = self._copies[1]
        covariance = self.covariance[np.ix_(at, at)]
        if self.independent:
            return np.diag(self.gain[at])
        values, vectors = np.linalg.eigh(covariance)
        present = values > SINGULAR * values.max(initial=0.0)
        return vectors[:, present] * np.sqrt(values[present])

    @property
    def independent(self) -> bool:
        """Whether the weight matrices are independent of one another."""
        at = self._copies[1]
        return not np.any(self.correlation[np.ix_(at, at)][~np.eye(len(at), dtype=bool)])

    @property
    def tied(self) -> bool:
        """Whether one and the same weights are used everywhere."""
        window = np.ix_(self.used, self.used)
        return bool(np.all(self.correlation[window] == 1))


def over_steps(degree: Any, steps: int) -> np.ndarray:
    """The correlation over ``steps`` steps that a degree of sharing stands for (`theory.Network`)."""
    if isinstance(degree, Drift):
        distance = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
        return np.exp(-distance / degree.tau)
    if isinstance(degree, tuple):
        matrix = np.array(degree)
        if len(matrix) < steps:
            raise ValueError(f"shared holds a correlation over {len(matrix)} steps; the task has {steps}")
        return matrix[:steps, :steps]
    return degree * np.ones((steps, steps)) + (1 - degree) * np.eye(steps)


@dataclass(frozen=True)
class Drift:
    """Weights that drift from step to step: correlation exp(-|t - t'| / tau).

    Args:
        tau: after how many steps the correlation has fallen to 1/e, a positive number.

    Raises:
        ValueError: if ``tau`` is not a finite number greater than zero.
    """

    tau: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", arguments.positive("tau", self.tau))


Degree = float | tuple[tuple[float, ...], ...] | Drift


class Degrees(Mapping):
    """An immutable mapping from the names of weights to their `Degree` of sharing; hashed by value."""

    def __init__(self, degrees: Mapping[str, Degree]) -> None:
        self._degrees = {name: degrees[name] for name in sorted(degrees)}

    def __getitem__(self, name: str) -> Degree:
        return self._degrees[name]

    def __iter__(self):
        return iter(self._degrees)

    def __len__(self) -> int:
        return len(self._degrees)

    def __hash__(self) -> int:
        return hash(tuple(self._degrees.items()))

    def __repr__(self) -> str:
        return repr(self._degrees)


def checked_degree(name: str, value: Any) -> Degree:
    """A degree of sharing: a number from 0 to 1, a correlation over the steps, a `Drift` or {"drift": tau}.

    Raises:
        ValueError: naming the weights, what was wrong and what is allowed.
    """
    if isinstance(value, Drift):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"drift"}:
            raise ValueError(f'shared[{name!r}] is {value!r}; as a mapping it must be {{"drift": tau}}')
        return Drift(value["drift"])
    number = arrays.scalar(value)
    if isinstance(number, int | float | np.number) and not isinstance(number, bool):
        if not 0 <= number <= 1:
            raise ValueError(f"shared[{name!r}] is {value!r}; {_DEGREES}")
        return float(number)
    if isinstance(value, str) or value is None or getattr(number, "ndim", 1) == 0 or not hasattr(value, "__len__"):
        raise ValueError(f"shared[{name!r}] is {value!r}; {_DEGREES}")
    matrix = correlation_matrix(f"shared[{name!r}]", value)
    return tuple(tuple(map(float, row)) for row in matrix)


_DEGREES = "allowed are a number from 0 to 1, a correlation over the steps, or theory.Drift(tau)"


def correlation_matrix(name: str, value: Any) -> np.ndarray:
    """A symmetric positive semi-definite matrix with unit diagonal.

    Raises:
        ValueError: naming what was wrong and what is allowed.
    """
    matrix = arrays.real_array(name, value, "of real numbers, a correlation matrix", ranks=(2,))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} has shape {matrix.shape}; it must be a square matrix")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} is not finite; it must be a correlation matrix")
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-12):
        raise ValueError(f"{name} is not symmetric; a correlation matrix is")
    if not np.allclose(np.diagonal(matrix), 1, rtol=0, atol=1e-12):
        raise ValueError(f"{name} has {np.diagonal(matrix)} on its diagonal; a correlation matrix has ones there")
    least = float(np.linalg.eigvalsh(matrix)[0])
    if least < LEAST_EIGENVALUE * len(matrix):
        raise ValueError(f"{name} has the eigenvalue {least:.3g}; a correlation matrix is positive semi-definite")
    return (matrix + matrix.T) / 2


def _places(source: Any, reads: str) -> tuple[int, ...]:
    if isinstance(source, str | bytes) or not isinstance(source, Sequence | np.ndarray) or not len(source):
        raise ValueError(f"source is {source!r}; it must be a sequence with one place, or None, for each site")
    places = []
    for site, place in enumerate(source):
        if place is None and reads != "output":
            places.append(NOWHERE)
            continue
        whole = isinstance(place, int | np.integer) and not isinstance(place, bool)
        if not whole or place < 0:
            raise ValueError(f"source[{site}] is {place!r}; it must be a number of at least 0, or None")
        if reads == "activity" and place >= site:
            raise ValueError(
                f"source[{site}] is {place}; a site can only read the activity of an earlier one, or the connections "
                "would form a cycle"
            )
        places.append(int(place))
    return tuple(places)


def _one_each(name: str, value: Any, number: int) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray) or np.ndim(value) == 0:
        return [value] * number
    if len(value) != number:
        raise ValueError(f"{name} has {len(value)} numbers; it must be one number or {number}")
    return list(value)

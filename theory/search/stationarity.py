r"""The stationarity equations as a root problem on laws that stay put.

    Phi = < phi phi^T >_q,    Phihat = `theory.model.conjugate_kernel` of Phi and Q

The unknowns are the entries of Phi and Phihat on either side of which the same neuron law stands: where weights are not
shared, q factorises over steps and each group of entries has a law of its own (`theory.laws.law`). Phi is scaled by
sqrt(Phi_ii Phi_jj) and Phihat by its inverse. The slope is evaluated once, on rougher laws, and serves all sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory import residuals
from theory.jacobians import dense_jacobian
from theory.laws.law import Law
from theory.model import Array, Model, conjugate_kernel, preactivation_cov
from theory.search.roots import solve_root
from theory.search.settings import RootSettings

Laws = tuple[Law, ...]  # of each group of tied entries


class Group(NamedTuple):
    """Entries whose pre-activations and activities are tied to one another by shared weights.

    Attributes:
        entries: flat entries, ascending.
        live: positions within ``entries`` where C has a pivot.
        kind: of its law: "silent", "gaussian", "grid" or "draws".
    """

    entries: tuple[int, ...]
    live: tuple[int, ...]
    kind: str

    @property
    def window(self) -> tuple[np.ndarray, ...]:
        """Its block of a matrix over all entries."""
        return np.ix_(self.entries, self.entries)


class Layout(NamedTuple):
    """What a compiled function needs to know beforehand; hashable.

    Attributes:
        phi: the activation.
        kinks: whether phi'' misses part of it.
        needed: for each entry, whether a supervised one depends on it; Phihat vanishes on the others.
        groups: the `Group` of every entry.
    """

    phi: Callable
    kinks: bool
    needed: tuple[bool, ...]
    groups: tuple[Group, ...]

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the unknown entries: the lower triangles of the groups."""
        parts = [np.array(group.entries)[np.stack(np.tril_indices(len(group.entries)))] for group in self.groups]
        rows, columns = np.concatenate(parts, axis=1)
        return rows, columns

    @property
    def between(self) -> np.ndarray:
        """Whether two entries lie in different groups, (n, n)."""
        label = np.empty(len(self.needed), dtype=int)
        for number, group in enumerate(self.groups):
            label[list(group.entries)] = number
        return label[:, None] != label[None, :]

    @property
    def exact(self) -> bool:
        """Whether no law has a statistical error."""
        return not any(group.kind == "draws" for group in self.groups)

    @property
    def closed_form(self) -> bool:
        """Whether all laws are known in closed form."""
        return all(group.kind in ("silent", "gaussian") for group in self.groups)

    @property
    def alike(self) -> list[list[int]]:
        """Numbers of the groups of one shape, which are averaged over together."""
        shapes: dict[tuple, list[int]] = {}
        for number, group in enumerate(self.groups):
            shapes.setdefault((len(group.entries), group.live, group.kind), []).append(number)
        return list(shapes.values())


@dataclass(frozen=True)
class Root:
    """Where the search for a root ended.

    Attributes:
        kernel, conjugate: Phi and Phihat, (n, n), zero between groups.
        residual: largest violation of the equations, in the scaled unknowns.
        effective_sample_size: smallest of the groups.
        distance: how far the kernel is from a root to first order, where the search has not come to one, (n, n).
    """

    kernel: np.ndarray
    conjugate: np.ndarray
    residual: float
    effective_sample_size: float
    distance: np.ndarray | None = None


def pack(kernel: np.ndarray, conjugate: np.ndarray, scale: np.ndarray, layout: Layout) -> np.ndarray:
    """Phi and Phihat (n, n) -> scaled unknowns; ``scale`` is sqrt(Phi_ii)."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    return np.concatenate([kernel[rows, columns] / pair_scale, conjugate[rows, columns] * pair_scale])


@partial(jax.jit, static_argnums=2)
def unpack(unknowns: Array, scale: Array, layout: Layout) -> tuple[Array, Array]:
    """The inverse of `pack`."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    n = len(layout.needed)

    def symmetric(values):
        lower = jnp.zeros((n, n), values.dtype).at[rows, columns].set(values)
        return lower + lower.T - jnp.diag(jnp.diagonal(lower))

    first, second = jnp.split(unknowns, 2)
    return symmetric(first * pair_scale), symmetric(second / pair_scale)


def averages(kernel: Array, conjugate: Array, model: Model, laws: Laws, layout: Layout) -> tuple[Array, Array, Array]:
    """<phi phi^T> and Q (n, n), zero between groups, and the smallest effective sample size among draws."""
    cov = preactivation_cov(model, kernel)
    new_kernel, response = jnp.zeros_like(cov), jnp.zeros_like(cov)
    sizes = [jnp.ones(1, cov.dtype)]
    for numbers in layout.alike:
        entries = np.array([layout.groups[number].entries for number in numbers])
        rows, columns = entries[:, :, None], entries[:, None, :]
        together = jax.tree.map(lambda *parts: jnp.stack(parts), *(laws[number] for number in numbers))
        average = jax.vmap(lambda law, c, v: law.moments(c, v))(together, cov[rows, columns], conjugate[rows, columns])
        new_kernel = new_kernel.at[rows, columns].set(average.kernel)
        response = response.at[rows, columns].set(average.response)
        if not laws[numbers[0]].exact:
            sizes.append(average.effective_sample_size)
    return new_kernel, response, jnp.min(jnp.concatenate(sizes))


@partial(jax.jit, static_argnums=3)
def conjugate_of(kernel: Array, response: Array, model: Model, layout: Layout) -> Array:
    """Phihat (n, n) for Phi and Q; zero where no supervised entry depends on it."""
    needed = np.array(layout.needed, dtype=float)
    return conjugate_kernel(model, kernel, response) * np.outer(needed, needed)


@partial(jax.jit, static_argnums=4)
def image(kernel: Array, conjugate: Array, model: Model, laws: Laws, layout: Layout) -> tuple[Array, Array, Array]:
    """The right-hand sides (n, n) of both equations, and the smallest effective sample size among draws."""
    new_kernel, response, size = averages(kernel, conjugate, model, laws, layout)
    return new_kernel, conjugate_of(kernel, response, model, layout), size


def _violation(unknowns, scale, model, laws, layout):
    kernel, conjugate = unpack(unknowns, scale, layout)
    new_kernel, new_conjugate, size = image(kernel, conjugate, model, laws, layout)
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]
    first = (kernel - new_kernel)[rows, columns] / pair_scale
    second = (conjugate - new_conjugate)[rows, columns] * pair_scale
    return jnp.concatenate([first, second]), size


_compiled_violation = partial(jax.jit, static_argnums=4)(_violation)


def violation(
    unknowns: np.ndarray, scale: np.ndarray, model: Model, laws: Laws, layout: Layout
) -> tuple[np.ndarray, float]:
    """How far both equations are from being met, in the scaled unknowns, and the effective sample size."""
    value, size = _compiled_violation(unknowns, scale, model, laws, layout)
    return np.asarray(value), float(size)


@partial(jax.jit, static_argnums=5)
def _derivative(unknowns, direction, scale, model, laws, layout):
    return jax.jvp(lambda u: _violation(u, scale, model, laws, layout)[0], (unknowns,), (direction,))[1]


def violation_derivative(
    unknowns: np.ndarray,
    direction: np.ndarray,
    scale: np.ndarray,
    model: Model,
    laws: Laws,
    layout: Layout,
) -> np.ndarray:
    """Derivative of the violation along a direction, on whole laws."""
    return np.asarray(_derivative(unknowns, direction, scale, model, laws, layout))


@partial(jax.jit, static_argnums=4)
def _slope(unknowns, scale, model, laws, layout):
    return dense_jacobian(lambda u: _violation(u, scale, model, laws, layout)[0], unknowns)


def violation_slope(
    unknowns: np.ndarray,
    scale: np.ndarray,
    model: Model,
    laws: Laws,
    layout: Layout,
    settings: RootSettings = RootSettings(),
) -> np.ndarray:
    """Derivative of the violation, on a few of the draws and on whole grids."""
    few = settings.slope_points_with_kinks if layout.kinks else settings.slope_points
    return np.asarray(_slope(unknowns, scale, model, tuple(law.fewer(few) for law in laws), layout))


def find_root(
    kernel: np.ndarray,
    conjugate: np.ndarray,
    scale: np.ndarray,
    model: Model,
    laws: Laws,
    layout: Layout,
    slope: np.ndarray,
    settings: RootSettings = RootSettings(),
) -> Root:
    """The root that `theory.search.roots` finds from Phi and Phihat (n, n), the laws staying put.

    Args:
        kernel, conjugate: where to start.
        scale: sqrt(Phi_ii), ones where that vanishes, (n,).
        model: the network on the task.
        laws: of each group.
        layout: the groups.
        slope: a `violation_slope` nearby.
        settings: of the search.
    """
    tolerance = settings.exact_tolerance if layout.closed_form else settings.tolerance
    unknowns, value, size = solve_root(
        lambda at: violation(at, scale, model, laws, layout),
        pack(kernel, conjugate, scale, layout),
        slope,
        lambda at, direction: violation_derivative(at, direction, scale, model, laws, layout),
        tolerance,
        settings,
    )
    root = root_of(unknowns, value, size, scale, layout)
    if root.residual <= settings.tolerance:
        return root
    return replace(root, distance=_distance(value, slope, scale, layout))


def _distance(value: np.ndarray, slope: np.ndarray, scale: np.ndarray, layout: Layout) -> np.ndarray:
    """What Newton's step would change of the kernel, (n, n); the kernel's scale where nothing is known."""
    whole = np.outer(scale, scale)
    if not np.max(np.abs(value)) <= residuals.ANYWHERE:
        return whole
    try:
        step = np.linalg.solve(slope, value)
    except np.linalg.LinAlgError:
        return whole
    change = np.abs(np.asarray(unpack(jnp.asarray(step), scale, layout)[0]))
    return np.where(change < whole, change, whole)


def root_of(unknowns: np.ndarray, value: np.ndarray, size: float, scale: np.ndarray, layout: Layout) -> Root:
    """The `Root` of scaled unknowns with their violation and effective sample size."""
    kernel, conjugate = map(np.asarray, unpack(jnp.asarray(unknowns), scale, layout))
    return Root(kernel, conjugate, float(np.max(np.abs(value))), size)

r"""Gauge moves: changes of the latents that no density notices, made at random between the draws of a sampler.

Where nothing ties two groups of sites (`theory.ties.tied_entries`: neither weights that both share, nor inputs, biases,
F or a readout), C[Phi] and A[Phi] have no entries between them. The kernels between them enter nothing but themselves,
and an orthogonal matrix O_g on the neurons of each group g,

    z_g -> z_g O_g,        h_g -> h_g O_g,        Phi_gg as it was,        Phi_gg' = phi(h_g O_g) phi(h_g' O_g')^T / N,

leaves the posterior as it is: for any activation if O_g permutes the neurons, for odd ones if signs change as well, and
for linear ones whatever it is. A sampler moves slowly along such directions. A random O_g for each group and draw is a
Gibbs step, exact for any law of O_g that does not depend on the state, and makes the kernels between groups
independent draws.

In fields the move permutes columns of the noise, with signs where the activation is odd. In kernels O_g is any
rotation: in Z_g = R_g Q_g, with R_g the Bartlett factor of the group's own block, it makes a new frame Q_g
(`redraw_frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from bayesnet.models.kernel_space import LogChi, bartlett_factor, bartlett_sites
from theory.model import Array, Model
from theory.ties import labels_of, tied_entries


@dataclass(frozen=True)
class GaugeMove:
    """The gauge move of a coordinate system.

    Attributes:
        move: (key, groups, latents) -> latents, with ``groups`` of `site_groups`.
        isometry: whether it is one that leaves the density of the latents as it is: the gradient is then moved like the
            latents, and nothing need be evaluated anew.
    """

    move: Callable
    isometry: bool


@jax.tree_util.register_static
@dataclass(frozen=True)
class SiteGroups:
    """Which sites are of one group; for JAX no number but part of a program.

    Attributes:
        labels: of each site, the number of its group, counted from 0.
    """

    labels: tuple[int, ...]

    def entries_by_size(self, entries: int) -> list[np.ndarray]:
        """The entries of all groups, ascending: (groups, m) for each size m that groups have."""
        of_entry = np.repeat(self.labels, entries // len(self.labels))
        members = [np.flatnonzero(of_entry == group) for group in np.unique(of_entry)]
        sizes = sorted({len(one) for one in members})
        return [np.stack([one for one in members if len(one) == size]) for size in sizes]


def site_groups(model: Model) -> SiteGroups | None:
    """The groups that nothing ties; None where all sites are of one group, whose moves change nothing."""
    groups = tied_entries(model)
    if len(groups) == 1:
        return None
    return SiteGroups(tuple(labels_of(groups, model.entries)[:: model.patterns].tolist()))


def field_gauge(odd: bool) -> GaugeMove:
    """The move in field coordinates; ``odd``: whether the activation is."""

    def move(key: Array, groups: SiteGroups, latents: Mapping[str, Array]) -> dict[str, Array]:
        return {**latents, "z": permute_neurons(key, groups, latents["z"], odd)}

    return GaugeMove(move, isometry=True)


def kernel_gauge(width: int) -> GaugeMove:
    """The move in kernel coordinates."""

    def move(key: Array, groups: SiteGroups, latents: Mapping[str, Array]) -> dict[str, Array]:
        diagonal, lower = latents["bartlett_diagonal"], latents["bartlett_lower"]
        factor = redraw_frames(key, groups, bartlett_factor(diagonal, lower, width), width)
        diagonal, lower = bartlett_sites(factor, width)
        return {**latents, "bartlett_diagonal": diagonal, "bartlett_lower": lower}

    return GaugeMove(move, isometry=False)


def permute_neurons(key: Array, groups: SiteGroups, z: Array, odd: bool) -> Array:
    """z (sites, P, N) with the neurons of each group permuted, one permutation for all its sites, and odd their signs.

    Permutations and signs make overlaps between groups as independent as any rotation would, at N numbers for each
    group instead of N^2.
    """
    order_key, sign_key = random.split(key)
    group, width = np.array(groups.labels), z.shape[-1]
    shape = (int(group.max()) + 1, width)
    order = random.permutation(order_key, jnp.broadcast_to(jnp.arange(width), shape), axis=1, independent=True)
    moved = jnp.take_along_axis(z, order[group][:, None], axis=-1)
    return moved * random.rademacher(sign_key, shape, z.dtype)[group][:, None] if odd else moved


def redraw_frames(key: Array, groups: SiteGroups, factor: Array, width: int) -> Array:
    """The Bartlett factor R (n, n) with a new frame for each group of entries.

    With R_g = B_g Q_g the rows of a group, B_g lower triangular and the rows of Q_g orthonormal, and T_g = B'_g Q'_g
    the same of a factor T drawn from the prior, the Q'_g have the law of independent frames in R^N, seen in as many
    dimensions as they span. The new rows are B_g Q'_g. Since B_g, R and T are lower triangular with a positive
    diagonal, they are those of a Bartlett factor.
    """
    n = factor.shape[0]
    diagonal_key, lower_key = random.split(key)
    diagonal = LogChi(width - np.arange(n), width).sample(diagonal_key)
    fresh = bartlett_factor(diagonal, random.normal(lower_key, (n * (n - 1) // 2,)), width)
    for entries in groups.entries_by_size(n):
        triangles, frames = _rows_in_frames(jnp.stack([factor[entries], fresh[entries]]))
        factor = factor.at[entries].set(triangles[0] @ frames[1])
    return factor


def _rows_in_frames(rows: Array) -> tuple[Array, Array]:
    """B (..., m, m), lower triangular with a positive diagonal, and Q (..., m, n) with rows = B Q, Q Q^T = 1.

    By Gram-Schmidt, twice for each row, which is as accurate as reflections. The Cholesky factor of rows rows^T would
    square the condition number, and the last pivot can be small where N is hardly larger than n. `jnp.linalg.qr` waits
    for ever where a program has two of them on batches (JAX 0.10.2, CPU).
    """
    *lead, m, _ = rows.shape

    def one_row(i, carry):
        triangle, frame = carry
        row, along = rows[..., i, :], jnp.zeros((*lead, m), rows.dtype)
        for _ in range(2):  # the rows of the frame from i on are still zero
            more = jnp.sum(frame * row[..., None, :], axis=-1)
            along, row = along + more, row - jnp.sum(more[..., None] * frame, axis=-2)
        length = jnp.sqrt(jnp.sum(row**2, axis=-1, keepdims=True))
        return triangle.at[..., i, :].set(along.at[..., i].set(length[..., 0])), frame.at[..., i, :].set(row / length)

    return lax.fori_loop(0, m, one_row, (jnp.zeros((*lead, m, m), rows.dtype), jnp.zeros_like(rows)))

r"""The causal construction: white noise in, pre-activations out, with the weights integrated out exactly.

Given the activity at the sites before, the rows of the weights are independent Gaussians, so each neuron's vector of
currents is Gaussian with covariance C_u[Phi] evaluated at the empirical kernel Phi = phi(H) phi(H)^T / N.
Growing the Cholesky factor of C_u block by block, site after site (`theory.model`),

    u_s = B z_{<s} + L_s z_s,   B = C_{s,<s} L_{<s}^{-T},   L_s L_s^T = C_ss - B B^T,        h = F u,

and since u_{<s} = L_{<s} z_{<s} the past is never refactored: O(N n^2 + n^3) for n entries. L^{-1} grows along
with L: products at each site in place of triangular solves. In short, H = F L z with L = chol C_u[Phi(H)]. For linear
phi only the Gram matrix of z matters, so its (n, n) factor may stand in for z: the sampler's kernel coordinates and the
saddle point (which lives at N -> infinity) use the same function.

C_u is singular where an entry adds nothing new (no input yet, repeated or collinear patterns, fewer neurons than
entries). Such an entry has conditional variance zero: its pivot and its column of L are exactly zero and its noise
drops out. A pivot counts as zero below `PIVOT_FLOOR` times the entry's variance, which is rounding error; nothing
is added to the diagonal.

Sources: Williams 1998 and Cho and Saul 2009 for the infinite-width law of which this is the finite-width, exact
version.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular

from theory.model import Array, Model, current_cov, mix, mix_transposed, recurrent_cov

PIVOT_FLOOR = {"float64": 1e-10, "float32": 1e-5}


class Trajectory(NamedTuple):
    """What the construction returns: n rows, site by site.

    Attributes:
        preactivation: H, (n, N).
        activity: phi(H), (n, N).
        kernel: Phi, (n, n).
        factor: F L with H = F L z, (n, n) lower triangular, zero columns where C is singular.
        own_factor: L, that of the currents.
        inverse: that of L with ones in place of zero pivots, (n, n).
    """

    preactivation: Array
    activity: Array
    kernel: Array
    factor: Array
    own_factor: Array
    inverse: Array


@partial(jax.jit, static_argnums=(2, 3))
def propagate(model: Model, noise: Array, phi: Callable, width: int) -> Trajectory:
    """Run white noise z (n, N) through the construction above.

    Args:
        model: the network on the task.
        noise: z, (n, N) with standard normal entries, or (linear phi) an (n, n) factor R of N times its Gram matrix.
        phi: the activation.
        width: N, by which the kernel is normalised.
    """
    n, patterns = noise.shape[0], model.patterns

    def one_site(site, carry):
        # Of the kernel only what lies in and below the diagonal blocks: all that later sites ask for.
        preactivation, activity, kernel, factor, own_factor, inverse = carry
        start = site * patterns
        cov = lax.dynamic_slice(current_cov(model, kernel), (start, 0), (patterns, n))
        past = _live(own_factor, _before(cov, start) @ inverse.T)
        cov_now = lax.dynamic_slice(cov, (0, start), (patterns, patterns))
        factor_now = semidefinite_cholesky(cov_now - past @ past.T, jnp.diagonal(cov_now))
        inverse_now = _inverse(_regular(factor_now))
        rows = lax.dynamic_update_slice(past, factor_now, (0, start))
        inverse_rows = lax.dynamic_update_slice(-inverse_now @ (past @ inverse), inverse_now, (0, start))
        own_factor = lax.dynamic_update_slice(own_factor, rows, (start, 0))
        rows = _mixed_rows(model, own_factor, site, rows)
        h = rows @ noise
        a = phi(h)
        activity = lax.dynamic_update_slice(activity, a, (start, 0))
        new = (h, a @ activity.T / width, rows, inverse_rows)
        old = (preactivation, kernel, factor, inverse)
        put = (lax.dynamic_update_slice(matrix, block, (start, 0)) for matrix, block in zip(old, new, strict=True))
        preactivation, kernel, factor, inverse = put
        return Trajectory(preactivation, activity, kernel, factor, own_factor, inverse)

    square = jnp.zeros((n, n), noise.dtype)
    empty = Trajectory(jnp.zeros_like(noise), jnp.zeros_like(noise), *(square,) * 4)
    trajectory = lax.fori_loop(0, model.sites, one_site, empty)
    site_of = np.arange(n) // patterns
    kernel = jnp.where(site_of[:, None] >= site_of, trajectory.kernel, trajectory.kernel.T)
    return trajectory._replace(kernel=kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_of_noise(model: Model, noise: Array, phi: Callable, width: int) -> Array:
    """The kernel Phi (n, n) that white noise z (n, N) leads to; arguments as for `propagate`.

    Its gradient is written out below: reverse mode through the loop would store a copy of N-sized arrays for each site.
    The gradient reaches ``noise`` and the covariances in ``model`` (weights, drive, mixing).
    """
    return propagate(model, noise, phi, width).kernel


def _forward(model, noise, phi, width):
    trajectory = propagate(model, noise, phi, width)
    return trajectory.kernel, (model, noise, trajectory)


def _backward(phi, width, residuals, kernel_bar):
    """Adjoint of `propagate`, last site first. X_bar is the derivative of the loss with respect to X.

    All that earlier sites need of later ones stands in the rows of C_bar, taken as if C_su were used for s >= u only:
    C_u is made of earlier kernels, and B_s = C_{s,<s} L^{-T} makes L_bar = - C_bar^T B of the rows before.
    """
    model, noise, (preactivation, activity, kernel, _, factor, inverse) = residuals
    n, patterns = noise.shape[0], model.patterns
    kernel_bar = (kernel_bar + kernel_bar.T) / 2
    # The covariance is linear in the kernel: its adjoint is the same everywhere.
    adjoint = jax.vjp(lambda kernel: recurrent_cov(model, kernel), kernel)[1]

    def one_site(index, carry):
        cov_bar, preactivation_bar = carry
        site = model.sites - 1 - index
        start = site * patterns

        def rows_of(matrix):
            return lax.dynamic_slice(matrix, (start, 0), (patterns, matrix.shape[1]))

        # Phi = a a^T / N and a = phi(h): every entry that has this site in it.
        (from_cov,) = adjoint((cov_bar + cov_bar.T) / 2)
        a_bar = 2 / width * rows_of(kernel_bar + from_cov) @ activity
        h_bar = jax.vjp(phi, rows_of(preactivation))[1](a_bar)[0]
        preactivation_bar = lax.dynamic_update_slice(preactivation_bar, h_bar, (start, 0))
        # h = F u, u = (B, L_s) z, then L_s L_s^T = C_ss - B B^T and B = C_{s,<s} L^{-T}.
        u_bar = _mixed_back(model, preactivation_bar, site, h_bar)
        rows_bar = u_bar @ noise.T - lax.dynamic_slice(cov_bar, (0, start), (n, patterns)).T @ factor
        rows = rows_of(factor)
        factor_now, factor_now_bar = (lax.dynamic_slice(r, (0, start), (patterns, patterns)) for r in (rows, rows_bar))
        variance_bar = _cholesky_adjoint(factor_now, factor_now_bar)
        past_bar = _live(factor, _before(rows_bar - 2 * variance_bar @ rows, start))
        cov_rows_bar = lax.dynamic_update_slice(_before(past_bar @ inverse, start), variance_bar, (0, start))
        return lax.dynamic_update_slice(cov_bar, cov_rows_bar, (start, 0)), preactivation_bar

    start = jnp.zeros_like(kernel), jnp.zeros_like(noise)
    cov_bar, preactivation_bar = lax.fori_loop(0, model.sites, one_site, start)
    cov_bar = (cov_bar + cov_bar.T) / 2
    noise_bar = factor.T @ mix_transposed(model, preactivation_bar)
    currents = factor @ noise if model.mixing is not None else jnp.zeros(())

    def used(model):  # how the model enters besides through the factor: h = F u at given u
        cov = jnp.sum(current_cov(model, kernel) * cov_bar)
        return cov if model.mixing is None else cov + jnp.sum(mix(model, currents) * preactivation_bar)

    (model_bar,) = jax.vjp(used, model)[1](jnp.ones((), cov_bar.dtype))
    return model_bar, noise_bar


kernel_of_noise.defvjp(_forward, _backward)


def kernel_by_site(model: Model, noise: Array, phi: Callable, width: int) -> Array:
    """The same where no two sites are tied, which makes C block by block: O(N n P + n P^2) for P patterns.

    Correlations between sites are those of a leak, of shared weights or of common inputs; where there are any, they are
    left out. Arguments as for `kernel_of_noise`; the kernel is zero between sites.
    """
    kernel = jnp.zeros((noise.shape[0],) * 2, noise.dtype)
    for site in range(model.sites):
        block = slice(site * model.patterns, (site + 1) * model.patterns)
        activity = phi(_block_factor(current_cov(model, kernel)[block, block]) @ noise[block])
        kernel = kernel.at[block, block].set(activity @ activity.T / width)
    return kernel


@jax.custom_vjp
def _block_factor(cov: Array) -> Array:
    """The `semidefinite_cholesky` factor of one block of C, (p, p), as a function that can be differentiated."""
    return semidefinite_cholesky(cov, jnp.diagonal(cov))


def _block_forward(cov):
    factor = _block_factor(cov)
    return factor, factor


def _block_backward(factor, factor_bar):
    return (_cholesky_adjoint(factor, factor_bar),)


_block_factor.defvjp(_block_forward, _block_backward)


def _mixed_rows(model: Model, factor: Array, site: Array, rows: Array) -> Array:
    """The rows of F L at a site, from those of L (n, n) up to it; ``rows`` are its own."""
    if model.mixing is None:
        return rows
    by_site = factor.reshape(model.sites, model.patterns, -1)
    return jnp.tensordot(jnp.asarray(model.mixing, factor.dtype)[site], by_site, 1)


def _mixed_back(model: Model, preactivation_bar: Array, site: Array, h_bar: Array) -> Array:
    """The rows of F^T H_bar at a site, from those of H_bar (n, N) from it on; ``h_bar`` are its own."""
    if model.mixing is None:
        return h_bar
    by_site = preactivation_bar.reshape(model.sites, model.patterns, -1)
    return jnp.tensordot(jnp.asarray(model.mixing, h_bar.dtype)[:, site], by_site, 1)


def semidefinite_cholesky(matrix: Array, scale: Array, floor: float | Array | None = None) -> Array:
    """Lower L with L L^T = matrix (p, p), positive semi-definite; zero columns where it is singular.

    A pivot counts as zero when it is at most ``floor`` (by default PIVOT_FLOOR) times ``scale`` (p,), the entry's
    variance.
    """
    least = (PIVOT_FLOOR[str(matrix.dtype)] if floor is None else floor) * scale
    if matrix.shape[0] == 1:  # one pattern: a root, not a loop in every step
        return jnp.where(matrix > least, jnp.sqrt(jnp.where(matrix > least, matrix, 1)), 0)
    index = jnp.arange(matrix.shape[0])

    def one_column(j, factor):
        row = factor[j]
        pivot = matrix[j, j] - row @ row
        alive = pivot > least[j]
        column = (matrix[:, j] - factor @ row) / jnp.sqrt(jnp.where(alive, pivot, 1))
        return factor.at[:, j].set(jnp.where(alive & (index >= j), column, 0))

    return lax.fori_loop(0, matrix.shape[0], one_column, jnp.zeros_like(matrix))


def _cholesky_adjoint(factor: Array, factor_bar: Array) -> Array:
    """Symmetric derivative with respect to S of a loss that depends on L(S), S = L L^T (zero pivots stay zero)."""
    regular = _regular(factor)
    if factor.shape[0] == 1:  # one pattern: a division, not two calls of LAPACK in every step
        return _live(factor, factor_bar / (2 * regular))
    weighted = jnp.tril(regular.T @ factor_bar)
    weighted = _live(factor, weighted - jnp.diag(jnp.diagonal(weighted)) / 2)
    half = solve_triangular(regular, weighted, lower=True, trans="T")
    full = solve_triangular(regular, half.T, lower=True, trans="T")
    return (full + full.T) / 2


def _inverse(factor: Array) -> Array:
    """L^{-1} of a regular lower factor (p, p)."""
    if factor.shape[0] == 1:
        return 1 / factor
    return solve_triangular(factor, jnp.eye(factor.shape[0], dtype=factor.dtype), lower=True)


def _regular(factor: Array) -> Array:
    """L with ones in place of zero pivots, so that it can be solved with."""
    pivots = jnp.diagonal(factor)
    return factor + jnp.diag(jnp.where(pivots > 0, 0.0, 1.0).astype(factor.dtype))


def _live(factor: Array, matrix: Array) -> Array:
    """``matrix`` with zeros in the columns where the pivot of L is zero."""
    return jnp.where(jnp.diagonal(factor) > 0, matrix, 0)


def _before(matrix: Array, start: Array) -> Array:
    """``matrix`` with zeros from column ``start`` on: what concerns earlier steps."""
    return jnp.where(jnp.arange(matrix.shape[1]) < start, matrix, 0)

r"""The causal construction: white noise in, pre-activations out, with the weights integrated out exactly.

Given the activity up to step t-1, the rows of (W, U) are independent Gaussians, so each neuron's vector of
pre-activations is Gaussian with covariance C[Phi] evaluated at the empirical kernel Phi = phi(H) phi(H)^T / N.
Growing the Cholesky factor of C block by block,

    h_t = B z_{<t} + L_t z_t,   B = C_{t,<t} L_{<t}^{-T},   L_t L_t^T = C_tt - B B^T,

and since H_{<t} = L_{<t} z_{<t} the past is never refactored: O(N n^2 + n^3) for n = T P entries. L^{-1} grows along
with L: products in each step in place of triangular solves. In short, H = L z with L = chol C[Phi(H)]. For linear phi
only the Gram matrix of z matters, so its (n, n) factor may stand in for z: the sampler's kernel coordinates and the
saddle point (which lives at N -> infinity) use the same function.

C is singular where an entry adds nothing new (no input yet, repeated or collinear patterns, fewer neurons than
entries). Such an entry has conditional variance zero: its pivot and its column of L are exactly zero and its noise
drops out. A pivot counts as zero below `PIVOT_FLOOR` times the entry's variance, which is rounding error; nothing
is added to the diagonal.

Sources: DESIGN.md section 2; Williams 1998 and Cho and Saul 2009 for the infinite-width law of which this is the
finite-width, exact version.
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

from theory.covariance import Array, Terms, preactivation_cov, shift_earlier, shift_later

PIVOT_FLOOR = {"float64": 1e-10, "float32": 1e-5}


class Trajectory(NamedTuple):
    """What the construction returns: n = T P rows, time-major.

    Attributes:
        preactivation: H, (n, N).
        activity: phi(H), (n, N).
        kernel: Phi, (n, n).
        factor: L with H = L z, (n, n) lower triangular, zero columns where C is singular.
        inverse: that of L with ones in place of zero pivots, (n, n).
    """

    preactivation: Array
    activity: Array
    kernel: Array
    factor: Array
    inverse: Array


@partial(jax.jit, static_argnums=(2, 3, 4))
def propagate(terms: Terms, noise: Array, phi: Callable, patterns: int, width: int) -> Trajectory:
    """Run white noise z (n, N) through the construction above.

    Args:
        terms: the network on the task.
        noise: z, (n, N) with standard normal entries, or (linear phi) an (n, n) factor R of N times its Gram matrix.
        phi: the activation.
        patterns: P.
        width: N, by which the kernel is normalised.
    """
    n = noise.shape[0]

    def one_step(step, carry):
        # Of the kernel only what lies in and below the diagonal blocks: all that later steps ask for.
        preactivation, activity, kernel, factor, inverse = carry
        start = step * patterns
        cov = lax.dynamic_slice(preactivation_cov(terms, kernel, patterns), (start, 0), (patterns, n))
        past = _live(factor, _before(cov, start) @ inverse.T)
        cov_now = lax.dynamic_slice(cov, (0, start), (patterns, patterns))
        factor_now = semidefinite_cholesky(cov_now - past @ past.T, jnp.diagonal(cov_now))
        inverse_now = _inverse(_regular(factor_now))
        rows = lax.dynamic_update_slice(past, factor_now, (0, start))
        inverse_rows = lax.dynamic_update_slice(-inverse_now @ (past @ inverse), inverse_now, (0, start))
        h = rows @ noise
        a = phi(h)
        activity = lax.dynamic_update_slice(activity, a, (start, 0))
        new = (h, a @ activity.T / width, rows, inverse_rows)
        old = (preactivation, kernel, factor, inverse)
        put = (lax.dynamic_update_slice(matrix, block, (start, 0)) for matrix, block in zip(old, new, strict=True))
        preactivation, kernel, factor, inverse = put
        return Trajectory(preactivation, activity, kernel, factor, inverse)

    square = jnp.zeros((n, n), noise.dtype)
    empty = Trajectory(jnp.zeros_like(noise), jnp.zeros_like(noise), square, square, square)
    trajectory = lax.fori_loop(0, n // patterns, one_step, empty)
    step_of = np.arange(n) // patterns
    kernel = jnp.where(step_of[:, None] >= step_of, trajectory.kernel, trajectory.kernel.T)
    return trajectory._replace(kernel=kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def kernel_of_noise(terms: Terms, noise: Array, phi: Callable, patterns: int, width: int) -> Array:
    """The kernel Phi (n, n) that white noise z (n, N) leads to; arguments as for `propagate`.

    Its gradient is written out below: reverse mode through the loop would store T copies of N-sized arrays. The
    gradient reaches ``noise`` and the covariances in ``terms`` (recurrent, drive).
    """
    return propagate(terms, noise, phi, patterns, width).kernel


def _forward(terms, noise, phi, patterns, width):
    trajectory = propagate(terms, noise, phi, patterns, width)
    return trajectory.kernel, (terms, noise, trajectory)


def _backward(phi, patterns, width, residuals, kernel_bar):
    """Adjoint of `propagate`, last step first. X_bar is the derivative of the loss with respect to X.

    All that earlier steps need of later ones stands in the rows of C_bar, taken as if C_ts were used for t >= s only:
    C_ts is made of Phi_{t-1,s-1}, and B_t = C_{t,<t} L^{-T} makes L_bar = - C_bar^T B of the rows before.
    """
    terms, noise, (preactivation, activity, kernel, factor, inverse) = residuals
    n = noise.shape[0]
    steps = n // patterns
    kernel_bar = (kernel_bar + kernel_bar.T) / 2

    def one_step(index, carry):
        cov_bar, preactivation_bar = carry
        start = (steps - 1 - index) * patterns

        def rows_of(matrix):
            return lax.dynamic_slice(matrix, (start, 0), (patterns, matrix.shape[1]))

        # Phi = a a^T / N and a = phi(h): every entry that has this step in it.
        from_cov = shift_earlier(terms.recurrent * (cov_bar + cov_bar.T) / 2, patterns)
        a_bar = 2 / width * rows_of(kernel_bar + from_cov) @ activity
        h_bar = jax.vjp(phi, rows_of(preactivation))[1](a_bar)[0]
        # h = (B, L_t) z, then L_t L_t^T = C_tt - B B^T and B = C_{t,<t} L^{-T}.
        rows_bar = h_bar @ noise.T - lax.dynamic_slice(cov_bar, (0, start), (n, patterns)).T @ factor
        rows = rows_of(factor)
        factor_now, factor_now_bar = (lax.dynamic_slice(r, (0, start), (patterns, patterns)) for r in (rows, rows_bar))
        variance_bar = _cholesky_adjoint(factor_now, factor_now_bar)
        past_bar = _live(factor, _before(rows_bar - 2 * variance_bar @ rows, start))
        cov_rows_bar = lax.dynamic_update_slice(_before(past_bar @ inverse, start), variance_bar, (0, start))
        cov_bar = lax.dynamic_update_slice(cov_bar, cov_rows_bar, (start, 0))
        return cov_bar, lax.dynamic_update_slice(preactivation_bar, h_bar, (start, 0))

    start = jnp.zeros_like(kernel), jnp.zeros_like(noise)
    cov_bar, preactivation_bar = lax.fori_loop(0, steps, one_step, start)
    cov_bar = (cov_bar + cov_bar.T) / 2
    noise_bar = factor.T @ preactivation_bar
    terms_bar = jax.tree.map(_zero_cotangent, terms)._replace(
        recurrent=(cov_bar * shift_later(kernel, patterns)).astype(terms.recurrent.dtype),
        drive=cov_bar.astype(terms.drive.dtype),
    )
    return terms_bar, noise_bar


kernel_of_noise.defvjp(_forward, _backward)


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


def _zero_cotangent(value: Array) -> Array:
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.zeros_like(value)
    return jnp.zeros(value.shape, jax.dtypes.float0)

r"""The causal construction: white noise in, pre-activations out, with the weights integrated out exactly.

Given the activity up to step t-1, the rows of (W, U) are independent Gaussians, so each neuron's vector of
pre-activations is Gaussian with covariance C[Phi] evaluated at the empirical kernel Phi = phi(H) phi(H)^T / N.
Growing the Cholesky factor of C block by block,

    h_t = B z_{<t} + L_t z_t,   B = C_{t,<t} L_{<t}^{-T},   L_t L_t^T = C_tt - B B^T,

and since H_{<t} = L_{<t} z_{<t} the past is never refactored: O(N n^2 + n^3) for n = T P entries. In one line,
H = L z with L = chol C[Phi(H)]. For linear phi only the Gram matrix of z matters, so its (n, n) factor may stand
in for z: the sampler's kernel coordinates and the saddle point (which lives at N -> infinity) use the same
function.

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
    """

    preactivation: Array
    activity: Array
    kernel: Array
    factor: Array


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
        preactivation, activity, kernel, factor = carry
        start = step * patterns
        cov = lax.dynamic_slice(preactivation_cov(terms, kernel, patterns), (start, 0), (patterns, n))
        past = _solve_factor(factor, _before(cov, start).T).T
        cov_now = lax.dynamic_slice(cov, (0, start), (patterns, patterns))
        factor_now = semidefinite_cholesky(cov_now - past @ past.T, jnp.diagonal(cov_now))
        rows = lax.dynamic_update_slice(past, factor_now, (0, start))
        factor = lax.dynamic_update_slice(factor, rows, (start, 0))
        h = rows @ noise
        a = phi(h)
        preactivation = lax.dynamic_update_slice(preactivation, h, (start, 0))
        activity = lax.dynamic_update_slice(activity, a, (start, 0))
        products = a @ activity.T / width
        kernel = lax.dynamic_update_slice(kernel, products, (start, 0))
        kernel = lax.dynamic_update_slice(kernel, products.T, (0, start))
        return Trajectory(preactivation, activity, kernel, factor)

    square = jnp.zeros((n, n), noise.dtype)
    empty = Trajectory(jnp.zeros_like(noise), jnp.zeros_like(noise), square, square)
    return lax.fori_loop(0, n // patterns, one_step, empty)


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
    """Adjoint of `propagate`, last step first. X_bar is the derivative of the loss with respect to X."""
    terms, noise, (preactivation, activity, kernel, factor) = residuals
    n = noise.shape[0]
    steps = n // patterns

    def one_step(index, carry):
        kernel_bar, factor_bar, cov_bar, preactivation_bar = carry
        start = (steps - 1 - index) * patterns

        def rows_of(matrix):
            return lax.dynamic_slice(matrix, (start, 0), (patterns, matrix.shape[1]))

        # Phi = a a^T / N and a = phi(h): every entry that has this step in it.
        a_bar = 2 / width * rows_of(kernel_bar) @ activity
        h_bar = jax.vjp(phi, rows_of(preactivation))[1](a_bar)[0]
        preactivation_bar = lax.dynamic_update_slice(preactivation_bar, h_bar, (start, 0))
        # h = (B, L_t) z, then L_t L_t^T = C_tt - B B^T and B = C_{t,<t} L^{-T}.
        rows_bar = rows_of(factor_bar) + h_bar @ noise.T
        rows = rows_of(factor)
        past = _before(rows, start)
        factor_now, factor_now_bar = (lax.dynamic_slice(r, (0, start), (patterns, patterns)) for r in (rows, rows_bar))
        variance_bar = _cholesky_adjoint(factor_now, factor_now_bar)
        past_bar = _live(factor, _before(rows_bar, start) - 2 * variance_bar @ past)
        cov_past_bar = _before(_solve_factor(factor, past_bar.T, transposed=True, masked=False).T, start)
        factor_bar = factor_bar - _live(factor, jnp.tril(cov_past_bar.T @ past))
        # C is symmetric: half of the off-diagonal derivative on either side.
        cov_rows_bar = lax.dynamic_update_slice(cov_past_bar, variance_bar, (0, start))
        this = jnp.zeros_like(cov_bar)
        this = lax.dynamic_update_slice(this, cov_rows_bar, (start, 0))
        this = (this + this.T) / 2
        kernel_bar = kernel_bar + shift_earlier(terms.recurrent * this, patterns)
        return kernel_bar, factor_bar, cov_bar + this, preactivation_bar

    square = jnp.zeros_like(kernel)
    start = ((kernel_bar + kernel_bar.T) / 2, square, square, jnp.zeros_like(noise))
    _, _, cov_bar, preactivation_bar = lax.fori_loop(0, steps, one_step, start)
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


def _solve_factor(factor: Array, right: Array, transposed: bool = False, masked: bool = True) -> Array:
    """L^{-1} right or L^{-T} right on the entries that L has; zero on the singular ones if ``masked``."""
    solution = solve_triangular(_regular(factor), right, lower=True, trans="T" if transposed else "N")
    return jnp.where(jnp.diagonal(factor)[:, None] > 0, solution, 0) if masked else solution


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

r"""Variance of a functional of the neurons under the posterior at width N, from its influence function.

A functional f of the law of the neurons moves by < g > when the law moves, g(h) being its influence function. At width
N the posterior of the empirical law of h is, to leading order, Gaussian around q with

    N Var[f] = Var_q(g) + c^T Gamma^{-1} c,        c = ( Cov_q(g, u), Cov_q(g, s) ),

s and u being what Phi and C couple to (`theory.kernel_action`): the first term is that of independent neurons, the
second how they act on each other through the kernels. For f = Phi this is its own first block of Gamma^{-1}.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from theory.kernel_action import covariance_of_pairs, pair_weights, pairs_of
from theory.laws.neurons import Neurons
from theory.response import NEGLIGIBLE, covariance_inverse, factorise
from theory.solution import Saddle


def linear_variance(influence: np.ndarray, kernel: np.ndarray, kernel_cov: np.ndarray) -> np.ndarray:
    """N Var[f] for linear phi, where f depends on second moments: of h (k, k), of white noise xi, and between the two.

    Those of h follow the posterior, the others their prior given h.

    Args:
        influence: derivative of f with respect to the second moments of (h, xi), (..., k + S, k + S).
        kernel: Phi, (k, k).
        kernel_cov: N Cov(Phi) over the pairs i <= j, (d, d).
    """
    k = len(kernel)
    slope = (influence + influence.swapaxes(-1, -2)) / 2
    rows, columns = pairs_of(k)
    by_pair = 2 * pair_weights(k) * slope[..., rows, columns]
    mixed, noise = slope[..., :k, k:], slope[..., k:, k:]
    between = 4 * np.sum(mixed * (kernel @ mixed), axis=(-1, -2))
    return np.sum((by_pair @ kernel_cov) * by_pair, axis=-1) + between + 2 * np.sum(noise**2, axis=(-1, -2))


def sampled_variance(
    influence: np.ndarray,
    neurons: Neurons,
    saddle: Saddle,
    second_variation: np.ndarray,
) -> np.ndarray:
    """N Var[f] from neurons.

    Args:
        influence: g at each neuron, (..., M).
        neurons: drawn from q.
        saddle: the saddle point, k entries.
        second_variation: Gamma, (2d, 2d).
    """
    cov = saddle.cov
    rows, columns = pairs_of(len(cov))
    h, weights = neurons
    activity, x = np.asarray(saddle.phi.function(jnp.asarray(h))), h @ covariance_inverse(factorise(cov, NEGLIGIBLE))
    centred = influence - np.sum(weights * influence, axis=-1, keepdims=True)
    own, centred = np.sum(weights * centred**2, axis=-1), weights * centred
    with_activity = centred @ (activity[:, rows] * activity[:, columns])
    varied = centred @ (pair_weights(len(cov)) * x[:, rows] * x[:, columns])
    with_cov = (varied.reshape(-1, len(rows)) @ covariance_of_pairs(saddle.model)).reshape(varied.shape)
    both = np.concatenate([with_cov, with_activity], axis=-1)
    flat = both.reshape(-1, both.shape[-1])
    acting = np.sum(np.linalg.solve(second_variation, flat.T).T * flat, axis=-1).reshape(both.shape[:-1])
    return own + acting

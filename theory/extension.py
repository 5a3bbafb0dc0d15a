r"""New patterns beside trained ones: their pre-activations follow the prior conditional, step by step.

    h_*t = C_{*t,g} C_gg^{-1} h_g + (earlier steps of the same pattern) + sqrt(v) xi_t,

g being the training entries and C the covariance of the pre-activations with the new pattern in it, which the kernels
of the steps before determine. All kernels are averages over one and the same law of (h_g, xi), C_gg included, just as
a network of finite width extends its own activity: the covariances are consistent whatever the law, and a pattern that
repeats a trained one repeats its activity.

The law is given by a metric on columns of numbers: weights of neurons, < a b > = sum_m w_m a_m b_m, or, for linear phi,
the second moments of (h_g, xi), whose columns are then unit vectors. Derivatives with respect to the metric are
influence functions: they say how the predictor moves when the law does.

Source: DESIGN.md sections 2 and 3 (exact at any width, here at N -> infinity).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from theory.causal import PIVOT_FLOOR
from theory.covariance import Array, Terms, preactivation_cov, target_cov
from theory.network import WEIGHTS, Network
from theory.task import Task


class NewPattern(NamedTuple):
    """What ties one new pattern of S steps to itself and to k training entries.

    Attributes:
        recurrent, drive, readout: gw^2 Mw, gu^2 Mu o x . x / D and gv^2 Mv between its steps and the training entries,
            (S, k).
        own_recurrent, own_drive, own_readout: the same among its own steps, (S, S).
    """

    recurrent: Array
    drive: Array
    readout: Array
    own_recurrent: Array
    own_drive: Array
    own_readout: Array


class Predictor(NamedTuple):
    """The predictor of one new pattern given the kernels.

    Attributes:
        mean: f, (S, O).
        variance: K_** - K_*s A^{-1} K_s*, the variance of f given the kernels over ``terms.scale``, (S,).
    """

    mean: Array
    variance: Array


def new_patterns(network: Network, trained: Task, task: Task) -> NewPattern:
    """The patterns of ``task`` beside the entries of ``trained``; one leading axis over patterns where they differ."""
    trained_steps = np.repeat(np.arange(trained.steps), trained.patterns)
    steps = np.arange(task.steps)
    inputs = trained.inputs.transpose(1, 0, 2).reshape(trained.entries, -1)

    def mask(name: str, columns: np.ndarray) -> np.ndarray:
        shared = name in network.shared
        return np.ones((len(steps), len(columns))) if shared else (steps[:, None] == columns[None, :]).astype(float)

    def gains(columns: np.ndarray) -> tuple[np.ndarray, ...]:
        gain = {name: getattr(network, f"{name}_gain") for name in WEIGHTS}
        return tuple(gain[name] ** 2 * mask(name, columns) for name in WEIGHTS)

    recurrent, driven, readout = gains(trained_steps)
    own_recurrent, own_driven, own_readout = gains(steps)
    return NewPattern(
        recurrent,
        driven * (task.inputs @ inputs.T) / task.input_dim,
        readout,
        own_recurrent,
        own_driven * (task.inputs @ task.inputs.swapaxes(1, 2)) / task.input_dim,
        own_readout,
    )


def predict_pattern(
    metric: Array,
    fields: Array,
    noise: Array,
    terms: Terms,
    new: NewPattern,
    phi: Callable,
    patterns: int,
    live: tuple[int, ...],
) -> Predictor:
    """The predictor of one new pattern from a law of (h_g, xi).

    Args:
        metric: weights (M,) or second moments (M, M) of the columns below.
        fields: h_g, (M, k).
        noise: xi, (M, S).
        terms: the network on the training task of k entries.
        new: the pattern.
        phi: the activation.
        patterns: P of the training task.
        live: the training entries where C_gg has a pivot.
    """
    index = np.asarray(live, dtype=int)
    k, steps = fields.shape[1], noise.shape[1]

    def weigh(columns):
        return metric[:, None] * columns if metric.ndim == 1 else metric @ columns

    activity = phi(fields)
    weighed = weigh(activity)
    kernel = activity.T @ weighed
    cov = preactivation_cov(terms, (kernel + kernel.T) / 2, patterns)
    pivot = jnp.linalg.cholesky(cov[index][:, index])
    white = solve_triangular(pivot, fields[:, index].T, lower=True).T
    columns = jnp.concatenate([white, noise], axis=1)
    floor = PIVOT_FLOOR[str(fields.dtype)]
    shifted = np.arange(k) >= patterns

    def one_step(carry, step):
        # rows: the factor of C on the new steps, against `columns`; own: phi(h_*), one column for each step.
        rows, own, cross, inner = carry
        earlier = jnp.where(step > 0, 1.0, 0.0)
        before = jnp.where(shifted, jnp.roll(cross[step - 1], patterns), 0) * earlier
        cov_trained = new.recurrent[step] * before + new.drive[step]
        before_own = jnp.where(np.arange(steps) > 0, jnp.roll(inner[step - 1], 1), 0) * earlier
        cov_own = new.own_recurrent[step] * before_own + new.own_drive[step]
        trained_row = solve_triangular(pivot, cov_trained[index], lower=True)
        variance = cov_own[step]
        row = jnp.concatenate([trained_row, jnp.zeros(steps, rows.dtype)])
        rest = variance - trained_row @ trained_row
        for other in range(steps - 1):
            place = len(live) + other
            known = rows[other, place]
            value = jnp.where(known > 0, (cov_own[other] - rows[other] @ row) / jnp.where(known > 0, known, 1), 0)
            value = jnp.where(other < step, value, 0)
            row = row.at[place].set(value)
            rest = rest - value**2
        alive = rest > floor * variance
        row = row.at[len(live) + step].set(jnp.where(alive, jnp.sqrt(jnp.where(alive, rest, 1)), 0))
        a = phi(columns @ row)
        own = own.at[:, step].set(a)
        cross = cross.at[step].set(a @ weighed)
        with_own = weigh(a[:, None])[:, 0] @ own
        inner = inner.at[step].set(with_own).at[:, step].set(with_own)
        return (rows.at[step].set(row), own, cross, inner), None

    start = (
        jnp.zeros((steps, columns.shape[1]), fields.dtype),
        jnp.zeros((fields.shape[0], steps), fields.dtype),
        jnp.zeros((steps, k), fields.dtype),
        jnp.zeros((steps, steps), fields.dtype),
    )
    (_, _, cross, inner), _ = jax.lax.scan(one_step, start, jnp.arange(steps))
    rows = terms.supervised
    factor = cho_factor(target_cov(terms, kernel), lower=True)
    readout = (new.readout * cross)[:, rows]
    variance = jnp.diagonal(new.own_readout * inner) - jnp.sum(readout * cho_solve(factor, readout.T).T, axis=1)
    return Predictor(readout @ cho_solve(factor, terms.targets), variance)


@partial(jax.jit, static_argnames=("phi", "patterns", "live"))
def predictors(metric, fields, noise, terms, new, *, phi, patterns, live) -> tuple[Predictor, Array]:
    """Predictors of several new patterns, and the derivatives of their means with respect to the metric.

    ``new.drive`` (Q, S, k) and ``new.own_drive`` (Q, S, S) hold one pattern along the first axis, as does what is
    returned: means (Q, S, O), variances (Q, S), derivatives (Q, S, O, *metric.shape).
    """

    def one(drives):
        pattern = new._replace(drive=drives[0], own_drive=drives[1])

        def law(metric):
            found = predict_pattern(metric, fields, noise, terms, pattern, phi, patterns, live)
            return found.mean, found

        influence, found = jax.jacrev(law, has_aux=True)(metric)
        return found, influence

    return jax.lax.map(one, (new.drive, new.own_drive))

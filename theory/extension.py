r"""New entries beside those of a solution: their pre-activations follow the prior conditional, one after the other.

    h_* = C_{*,g} C_gg^{-1} h_g + (earlier new entries) + sqrt(v) xi,

g being the entries that are known and C the covariance of the pre-activations with the new entry in it, which the
kernels of the sites before determine. No supervised entry depends on the new ones: they are steps after the last
supervised one, patterns without targets, or patterns that a trained network has never seen. All kernels are averages
over one and the same law of (h_g, xi), C_gg included, just as a network of finite width extends its own activity: the
covariances are consistent whatever the law, and a pattern that repeats a trained one repeats its activity.

The law is given by a metric on columns of numbers: weights of neurons, < a b > = sum_m w_m a_m b_m, or, for linear phi,
the second moments of (h_g, xi), whose columns are then unit vectors. Derivatives with respect to the metric are
influence functions: they say how the predictor moves when the law does.
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
from theory.model import Array, Model, build_model, preactivation_cov, target_cov
from theory.network import Network
from theory.response import factorise, inverse_factor
from theory.task import Task
from theory.ties import labels_of, tied_entries


class Joint(NamedTuple):
    """New patterns beside a trained task, one at a time.

    Attributes:
        model: of the trained patterns and a new one; its ``drive`` has a leading axis over the new patterns, (Q, n, n).
        trained: the flat entries of the trained task in it, in its own order.
        new: those of the new pattern.
        outputs: those of them that are read out, one for each step.
    """

    model: Model
    trained: np.ndarray
    new: tuple[int, ...]
    outputs: tuple[int, ...]


class Predictor(NamedTuple):
    """The predictor of one new pattern given the kernels.

    Attributes:
        mean: f, (S, O).
        variance: K_** - K_*s A^{-1} K_s*, the variance of f given the kernels over ``model.scale``, (S,).
    """

    mean: Array
    variance: Array


def joint_model(network: Network, trained: Task, task: Task) -> Joint:
    """The patterns of ``task`` beside the entries of ``trained``."""
    models = [build_model(network, joined(trained, task, number)) for number in range(task.patterns)]
    model, patterns = models[0], trained.patterns + 1
    sites = trained.steps * network.layers
    known = (np.arange(sites)[:, None] * patterns + np.arange(trained.patterns)).ravel()
    new = np.arange(task.steps * network.layers) * patterns + trained.patterns
    outputs = np.array(model.outputs)[: task.steps] * patterns + trained.patterns
    drive = np.array([one.drive for one in models])
    return Joint(model.replace(drive=drive), known, tuple(map(int, new)), tuple(map(int, outputs)))


def joined(trained: Task, task: Task, pattern: int | slice) -> Task:
    """The patterns of both tasks, those of ``task`` unsupervised; silence after the shorter one's last step."""
    steps = max(trained.steps, task.steps)
    chosen = slice(pattern, pattern + 1) if isinstance(pattern, int) else pattern

    def padded(array: np.ndarray, value: float) -> np.ndarray:
        missing = [(0, 0), (0, steps - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(array, missing, constant_values=value)

    unknown = np.full_like(task.targets[chosen], np.nan)
    return Task(
        np.concatenate([padded(trained.inputs, 0), padded(task.inputs[chosen], 0)]),
        np.concatenate([padded(trained.targets, np.nan), padded(unknown, np.nan)]),
        np.concatenate([padded(trained.supervised, False), np.zeros((len(unknown), steps), bool)]),
    )


def extended_kernel(
    metric: Array,
    fields: Array,
    noise: Array,
    model: Model,
    phi: Callable,
    known: tuple[int, ...],
    live: tuple[int, ...],
    new: tuple[int, ...],
) -> Array:
    """The kernel (n, n) of a model on the entries known and new, from a law of (h_g, xi); zero on all others.

    Args:
        metric: weights (M,) or second moments (M, M) of the columns below.
        fields: h_g, (M, k).
        noise: xi, (M, S).
        model: the network on all n entries.
        phi: the activation.
        known: the k entries of h_g.
        live: positions within ``known`` where C_gg has a pivot.
        new: the S other entries, each after those that it reads.
    """
    given, index, added = np.array(known), np.array(live, dtype=int), np.array(new)

    def weigh(columns):
        return metric[:, None] * columns if metric.ndim == 1 else metric @ columns

    activity = phi(fields)
    weighed = weigh(activity)
    own = activity.T @ weighed
    kernel = jnp.zeros((model.entries,) * 2, fields.dtype).at[np.ix_(given, given)].set((own + own.T) / 2)
    cov = preactivation_cov(model, kernel)[np.ix_(given[index], given[index])]
    pivot = jnp.linalg.cholesky(cov)
    columns = jnp.concatenate([solve_triangular(pivot, fields[:, index].T, lower=True).T, noise], axis=1)
    floor = PIVOT_FLOOR[str(fields.dtype)]

    def one_entry(carry, step):
        # rows: the factor of C on the new entries, against `columns`; own: phi(h_*), one column for each of them.
        kernel, rows, own = carry
        entry = jnp.asarray(added)[step]
        cov_row = preactivation_cov(model, kernel)[entry]
        known_row = solve_triangular(pivot, cov_row[given[index]], lower=True)
        cov_own, variance = cov_row[added], cov_row[entry]
        row = jnp.concatenate([known_row, jnp.zeros(len(added), rows.dtype)])
        rest = variance - known_row @ known_row
        for other in range(len(added) - 1):
            place = len(index) + other
            pivot_there = rows[other, place]
            share = (cov_own[other] - rows[other] @ row) / jnp.where(pivot_there > 0, pivot_there, 1)
            value = jnp.where((pivot_there > 0) & (other < step), share, 0)
            row = row.at[place].set(value)
            rest = rest - value**2
        alive = rest > floor * variance
        row = row.at[len(index) + step].set(jnp.where(alive, jnp.sqrt(jnp.where(alive, rest, 1)), 0))
        a = phi(columns @ row)
        own = own.at[:, step].set(a)
        with_known, with_own = a @ weighed, weigh(a[:, None])[:, 0] @ own
        kernel = kernel.at[entry, given].set(with_known).at[given, entry].set(with_known)
        kernel = kernel.at[entry, added].set(with_own).at[added, entry].set(with_own)
        return (kernel, rows.at[step].set(row), own), None

    start = (
        kernel,
        jnp.zeros((len(added), columns.shape[1]), fields.dtype),
        jnp.zeros((fields.shape[0], len(added)), fields.dtype),
    )
    (kernel, _, _), _ = jax.lax.scan(one_entry, start, jnp.arange(len(added)))
    return kernel


@partial(jax.jit, static_argnames=("phi", "known", "live", "new", "outputs"))
def predictors(metric, fields, noise, model, *, phi, known, live, new, outputs) -> tuple[Predictor, Array]:
    """Predictors of several new patterns, and the derivatives of their means with respect to the metric.

    ``model.drive`` (Q, n, n) holds one pattern along the first axis, as does what is returned: means (Q, S, O),
    variances (Q, S), derivatives (Q, S, O, *metric.shape). Arguments as for `extended_kernel`; ``outputs`` are the new
    entries that are read out.
    """
    rows = np.array(outputs)

    def one(drive):
        pattern = model.replace(drive=drive)

        def law(metric):
            kernel = extended_kernel(metric, fields, noise, pattern, phi, known, live, new)
            factor = cho_factor(target_cov(pattern, kernel), lower=True)
            prior = pattern.readout * kernel
            readout = prior[rows][:, pattern.supervised]
            explained = jnp.sum(readout * cho_solve(factor, readout.T).T, axis=1)
            mean = readout @ cho_solve(factor, pattern.targets)
            return mean, Predictor(mean, jnp.diagonal(prior)[rows] - explained)

        influence, found = jax.jacrev(law, has_aux=True)(metric)
        return found, influence

    return jax.lax.map(one, model.drive)


def extend_kernel(
    kernel: np.ndarray, neurons: np.ndarray, model: Model, kept: np.ndarray, phi: Callable, rng: np.random.Generator
) -> np.ndarray:
    """The kernel (n, n) of a whole model from that of the entries kept, entry after entry.

    Args:
        kernel: Phi of the entries kept, (k, k).
        neurons: draws of their pre-activations, (M, k), independent between groups of tied entries.
        model: the network on all entries.
        kept: the flat entries kept, (k,), those that a supervised one depends on among them.
        phi: the activation.
        rng: for xi.
    """
    n = model.entries
    full = np.zeros((n, n))
    full[np.ix_(kept, kept)] = kernel
    h = np.zeros((len(neurons), n))
    h[:, kept] = neurons
    group_of = labels_of(tied_entries(model), n)
    known = np.zeros(n, dtype=bool)
    known[kept] = True
    for entry in np.flatnonzero(~known):
        cov = np.asarray(preactivation_cov(model, jnp.asarray(full)))
        # Unknown entries and other groups stay in as zero rows, so that one compiled factorisation serves all entries.
        past = known & (group_of == group_of[entry])
        inverse = inverse_factor(factorise(cov * np.outer(past, past)))
        half = inverse @ (cov[:, entry] * past)
        variance = max(cov[entry, entry] - half @ half, 0.0)
        h[:, entry] = h @ (inverse.T @ half) + np.sqrt(variance) * rng.normal(size=len(h))
        known[entry] = True
        activity = np.asarray(phi(jnp.asarray(h)))
        mean = activity.mean(axis=0)
        together = activity.T @ activity[:, entry] / len(h)
        row = np.where(group_of == group_of[entry], together, mean * mean[entry]) * known
        full[entry], full[:, entry] = row, row
    return full

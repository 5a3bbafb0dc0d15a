"""What all three coordinate systems share: the kernel as a site, and the targets with V integrated out."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from theory.model import Array, Model, target_cov


def observe_marginal_targets(model: Model, kernel: Array, observed: bool) -> None:
    """Site ``y``, (O, number supervised): y_o ~ N(0, scale A[Phi]), A = kappa I + gv^2 (Mv o Phi), for each output."""
    factor = jnp.linalg.cholesky(model.scale * target_cov(model, kernel))
    law = dist.MultivariateNormal(jnp.zeros(factor.shape[0], factor.dtype), scale_tril=factor)
    law = law.expand([model.targets.shape[1]]).to_event(1)
    numpyro.sample("y", law, obs=jnp.asarray(model.targets.T, factor.dtype) if observed else None)


def record_kernel(kernel: Array, patterns: int) -> None:
    """Deterministic site ``kernel``, (T, P, T, P)."""
    steps = kernel.shape[0] // patterns
    numpyro.deterministic("kernel", kernel.reshape(steps, patterns, steps, patterns))


class TargetDensity(NamedTuple):
    """Log densities of the observed targets given the kernel, V integrated out.

    Attributes:
        joint: ln p(y | Phi).
        pointwise: ln p(y_i | y_-i, Phi) of every supervised entry and output, (number supervised, O).
    """

    joint: Array
    pointwise: Array


def target_density(model: Model, kernel: Array) -> TargetDensity:
    """ln p(y | Phi) and its leave-one-out conditionals: with Q the precision, y_i - (Q y)_i / Q_ii and 1 / Q_ii."""
    factor = jnp.linalg.cholesky(model.scale * target_cov(model, kernel))
    targets = jnp.asarray(model.targets, factor.dtype)
    whitened = solve_triangular(factor, targets, lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    number, outputs = targets.shape
    joint = -(jnp.sum(whitened**2) + outputs * (log_det + number * jnp.log(2 * jnp.pi))) / 2
    inverse = solve_triangular(factor, jnp.eye(number, dtype=factor.dtype), lower=True)
    variance = 1 / jnp.sum(inverse**2, axis=0)[:, None]
    error = variance * (inverse.T @ whitened)
    pointwise = -(error**2 / variance + jnp.log(2 * jnp.pi * variance)) / 2
    return TargetDensity(joint, pointwise)

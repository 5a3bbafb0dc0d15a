r"""Stein's identities as control variates: they take most of the statistical error out of averages over draws.

    < div v - v . g >_q = 0,        g the gradient of -ln q,

for any field v of the noise z: v = phi_i e_j, for smooth phi also h_i e_j and psi_i e_j, psi = phi'(h) o (Phihat
phi(h)). Draws get weights under which these hold: the exponential tilt of least entropy. It acts as control variates
would and keeps all weights positive (measured at n = 12: a tenth of the error of the kernels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular

from theory.display import ShortRepr
from theory.laws.law import range_of
from theory.laws.smoothness import derivatives
from theory.model import Array

FIELDS = 3  # u in v = u_i e_j, of a smooth phi


@dataclass(frozen=True, repr=False)
class TiltSettings(ShortRepr):
    """How draws are tilted.

    Attributes:
        points_per_field: at least so many draws to an identity, or fewer directions are used: with fewer draws the tilt
            fits their noise.
        steps: of Newton's method for the tilt, at most; the tilt is slight, three or four do.
        precision: the last step, relative to the tilt: far below what the statistical error leaves.
        ridge: added to the moments of the identities, relative: what float32 cannot tell from zero.
    """

    points_per_field: int = 12
    steps: int = 12
    precision: float = 1e-3
    ridge: float = 1e-5


@partial(jax.jit, static_argnums=(4, 5, 6))
def _stein_features(noise, cov, conjugate, directions, phi, live, kinks):
    """div v - v . g at each point, for v = (b_i . u) E b_j, b the columns of ``directions`` (r, k), over its root mean
    square; (M, k^2 or 3 k^2), float32.

    u is phi; for a smooth phi also h, and psi = dV/dh.
    """
    space = range_of(cov, live)
    index = np.asarray(live, dtype=int)
    h = noise @ (space.spread @ space.pivot).T
    activity, slope, curvature = derivatives(phi, h, kinks)
    field = activity @ conjugate
    psi = (slope * field) @ space.spread
    gradient = solve_triangular(space.pivot, noise.T, lower=True, trans="T").T + psi
    gradient, slope, directions, leading, conjugate = (
        part.astype(jnp.float32)
        for part in (gradient @ directions, slope, directions, space.spread @ directions, conjugate)
    )

    def features(u, divergence):
        product = (u.astype(jnp.float32) @ directions)[:, :, None] * gradient[:, None, :]
        return (divergence - product).reshape(noise.shape[0], -1)

    found = [features(activity[:, index], jnp.einsum("mi,ia,ib->mab", slope[:, index], directions, directions))]
    if not kinks:
        found.append(features(h[:, index], directions.T @ directions))
        tilted = slope[:, :, None] * leading
        bent = jnp.einsum("mi,ia,ib->mab", (curvature * field).astype(jnp.float32), leading, leading)
        found.append(features(psi, jnp.einsum("mia,ij,mjb->mab", tilted, conjugate, tilted, optimize=True) + bent))
    together = jnp.concatenate(found, axis=1)
    return together / jnp.sqrt(jnp.mean(together**2, axis=0) + 1e-30)


@jax.jit
def _tilted_mean(features, multipliers):
    return jax.nn.softmax(features @ multipliers) @ features


def stein_features(
    noise: Array,
    cov: Array,
    conjugate: Array,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    settings: TiltSettings = TiltSettings(),
) -> np.ndarray:
    """What Stein's identities say averages to zero, at draws z (M, r), each divided by its root mean square; (M, p).

    In float32: they take statistical errors out, and need be no more precise than what is left of those. With many
    entries only the leading directions of C are used, so that there are enough points to an identity. Those of the
    draws themselves would be chosen for their fluctuations, and no longer average to zero.
    """
    count, rank = noise.shape
    directions = np.eye(rank)
    most = int(np.sqrt(count / settings.points_per_field / (1 if kinks else FIELDS)))
    if rank > most:
        directions = np.linalg.eigh(np.asarray(cov)[np.ix_(live, live)])[1][:, -most:]
    return np.asarray(_stein_features(noise, cov, conjugate, jnp.asarray(directions), phi, live, kinks))


def gram_factor(
    features: np.ndarray, weights: np.ndarray | None = None, settings: TiltSettings = TiltSettings()
) -> tuple[np.ndarray, bool]:
    """Cholesky factor of the second moments of features (M, p) under normalised weights (M,), ready to be solved with.

    A ridge stands for what float32 cannot tell from zero: that of the settings, or more where that is not enough.

    Raises:
        ValueError: if the features are not finite.
    """
    rooted = features if weights is None else features * np.sqrt(weights, dtype=np.float32)[:, None]
    gram = (rooted.T @ rooted).astype(float) / (len(features) if weights is None else 1)
    ridge = settings.ridge
    while True:
        try:
            return scipy.linalg.cho_factor(gram + ridge * np.eye(len(gram)))
        except np.linalg.LinAlgError:
            ridge *= 10


def stein_tilt(
    noise: Array,
    cov: Array,
    conjugate: Array,
    phi: Callable,
    live: tuple[int, ...],
    kinks: bool,
    settings: TiltSettings = TiltSettings(),
) -> Array:
    """Log weights (M,) under which the `stein_features` of the draws z (M, r) average to zero, all but exactly."""
    features = stein_features(noise, cov, conjugate, phi, live, kinks, settings)
    factor = gram_factor(features, settings=settings)
    multipliers = np.zeros(features.shape[1], np.float32)
    # The tilt is slight, so that the curvature at no tilt serves throughout.
    for _ in range(settings.steps):
        step = scipy.linalg.cho_solve(factor, np.asarray(_tilted_mean(features, multipliers), float))
        multipliers = multipliers - step.astype(np.float32)
        # In units of its own scatter: by how much the step has moved the averages.
        if np.linalg.norm(step) < settings.precision * np.linalg.norm(multipliers):
            break
    return jnp.asarray(features @ multipliers, noise.dtype)

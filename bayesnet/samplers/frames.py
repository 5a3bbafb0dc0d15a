r"""Frames: linear coordinates of the latents in which a posterior is nearly white, so that few leapfrog steps do.

In kernel coordinates there are few latents, and the targets make the posterior stiff along some of them (with eight
patterns 30 times as stiff as the prior) and soft along others. A chain moves in w,

    x = c + w + U (s - 1) U^T w,        U s^-2 U^T = the mean Hessian of -ln p(x, y) over some states of the warm-up

on the eigenvectors U whose eigenvalues s^-2 differ most from 1 (64, or all), and c the mode that a Newton step finds.

Mirror modes. Where W -> -W is a symmetry, x -> D x with D = diag(+-1) turns one mode into its image, and a frame made
for the one is wrong in the other. So each mode has its own: the latents are x or D x, and which of them is one more
variable of the chain, sigma, with

    p(sigma = upright | x) = 1 / (1 + exp(-a . x)),        |a| = 1, D a = -a.

A chain draws x given sigma (a soft wall ln p keeps it on its side) and sigma given x in turn. Both leave the posterior
as it is, whatever frame and wall; these are changed in the warm-up only.

Sources: a mass matrix is a linear change of coordinates: Neal 2011, section 4.1; the mean Hessian, which is the mean
outer product of the gradients, as mass matrix: Tran and Kleppe 2024, "Tuning diagonal scale matrices for HMC".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jax.flatten_util import ravel_pytree

from bayesnet.samplers.tuning import Tuning
from theory.model import Array


class Frame(NamedTuple):
    """The frame of a chain, for d latents in all.

    Attributes:
        centre: c, (d,).
        directions: U, (d, r) orthonormal.
        stretch: s, (r,).
        wall: a, (d,), zero where there is no mirror.
        mirror: the diagonal of D, (d,), all ones where there is no symmetry.
        reflected: sigma: whether the latents are D x.
        hessian: the mean Hessian, (d, d), of ``number`` states.
        number: of states in the mean.
    """

    centre: Array
    directions: Array
    stretch: Array
    wall: Array
    mirror: Array
    reflected: Array
    hessian: Array
    number: Array


def plain_frame(mirror: Array, rank: int = Tuning.frame_rank) -> Frame:
    """The frame in which w is x, without a wall; it may stretch up to ``rank`` directions."""
    d = mirror.shape[0]
    nothing, square = jnp.zeros_like(mirror), jnp.zeros((d, d), mirror.dtype)
    directions = jnp.eye(d, min(d, rank), dtype=mirror.dtype)
    stretch = jnp.ones(directions.shape[1], mirror.dtype)
    false, zero = jnp.asarray(False), jnp.zeros((), jnp.result_type(int))
    return Frame(nothing, directions, stretch, nothing, mirror, false, square, zero)


def upright(frame: Frame | None, w: Any) -> Any:
    """x of w, both pytrees of latents. Without a frame x is w."""
    if frame is None:
        return w
    flat, unravel = ravel_pytree(w)
    return unravel(_lift(frame, flat))


def place(frame: Frame | None, w: Any) -> Any:
    """The latents of w, x or D x."""
    if frame is None:
        return w
    flat, unravel = ravel_pytree(upright(frame, w))
    return unravel(jnp.where(frame.reflected, frame.mirror * flat, flat))


def lower(frame: Frame | None, latents: Any, key: Array) -> tuple[Frame | None, Any]:
    """The frame and w of latents, with sigma drawn given them: the inverse of `place`."""
    if frame is None:
        return None, latents
    flat, unravel = ravel_pytree(latents)
    up = random.uniform(key, dtype=flat.dtype) < jax.nn.sigmoid(frame.wall @ flat)
    reflected = ~up & jnp.any(frame.wall != 0)
    x = jnp.where(reflected, frame.mirror * flat, flat)
    return frame._replace(reflected=reflected), unravel(_lower(frame, x))


def wall_energy(frame: Frame | None, w: Any) -> Array:
    """-ln p(sigma = upright | x)."""
    if frame is None:
        return jnp.zeros(())
    return jax.nn.softplus(-frame.wall @ ravel_pytree(upright(frame, w))[0])


def redraw_reflection(frame: Frame, state: Any, key: Array) -> tuple[Frame, Any]:
    """sigma given x: the frame and the sampler's state, turned (x to D x, the latents as they are) or left alone.

    The posterior is symmetric, so that nothing has to be evaluated anew: potential E and slope g = dE/dx, the wall's
    included, are E + a . x and D g - a at the image.
    """
    x, unravel = ravel_pytree(upright(frame, state.z))
    toward = frame.wall @ x
    turned = (random.uniform(key, dtype=x.dtype) < jax.nn.sigmoid(-toward)) & jnp.any(frame.wall != 0)
    image = state._replace(
        z=unravel(_lower(frame, frame.mirror * x)),
        potential_energy=state.potential_energy + toward,
        z_grad=unravel(_stretched(frame, frame.mirror * _slope(frame, state) - frame.wall, frame.stretch)),
    )
    state = jax.tree.map(lambda there, here: jnp.where(turned, there, here), image, state)
    return frame._replace(reflected=frame.reflected ^ turned), state


def fit_frame(frame: Frame, state: Any, energy: Callable, softest: float = Tuning.frame_softest) -> tuple[Frame, Any]:
    """The frame with the Hessian of ``energy``, -ln p(x, y), at one more state in its mean, and the state in it.

    Curvatures count as ``softest`` at least.

    ``state`` must have been evaluated with this energy; its potential and gradient are of the old frame after this.
    """
    x, unravel = ravel_pytree(upright(frame, state.z))
    new = _hessian(lambda x: energy(unravel(x)), x)
    hessian = frame.hessian + (new - frame.hessian) / (frame.number + 1)
    curvature, vectors = jnp.linalg.eigh(hessian)
    curvature = jnp.maximum(curvature, softest)
    leading = jnp.argsort(-jnp.abs(jnp.log(curvature)))[: frame.stretch.shape[0]]
    odd = jnp.where(frame.mirror < 0, x, 0)
    length = jnp.linalg.norm(odd)
    slope = _slope(frame, state) + jax.nn.sigmoid(-frame.wall @ x) * frame.wall  # without the wall
    frame = frame._replace(
        directions=vectors[:, leading],
        stretch=curvature[leading] ** -0.5,
        wall=odd / jnp.where(length > 0, length, 1),
        hessian=hessian,
        number=frame.number + 1,
    )
    frame = frame._replace(centre=x - _stretched(frame, slope, frame.stretch**2))
    return frame, state._replace(z=unravel(_lower(frame, x)))


def _hessian(energy: Callable, x: Array) -> Array:
    # By differences of the gradient: its derivative takes two to three times as long to compile and little less to run.
    # The rounding of the gradient and the next order of its Taylor series are both far below what a frame could notice.
    step = jnp.finfo(x.dtype).eps ** 0.25
    shifts = step * jnp.eye(x.size, dtype=x.dtype)
    ahead, behind = jnp.split(lax.map(jax.grad(energy), jnp.concatenate([x + shifts, x - shifts])), 2)
    new = (ahead - behind) / (2 * step)
    return (new + new.T) / 2


def _slope(frame: Frame, state: Any) -> Array:
    """dE/dx of a state, from its gradient in w."""
    return _stretched(frame, ravel_pytree(state.z_grad)[0], 1 / frame.stretch)


def _stretched(frame: Frame, w: Array, stretch: Array) -> Array:
    return w + frame.directions @ ((stretch - 1) * (frame.directions.T @ w))


def _lift(frame: Frame, w: Array) -> Array:
    return frame.centre + _stretched(frame, w, frame.stretch)


def _lower(frame: Frame, x: Array) -> Array:
    return _stretched(frame, x - frame.centre, 1 / frame.stretch)

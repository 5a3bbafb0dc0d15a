r"""Langevin dynamics: noisy gradient descent on the weights, as in training, and without a Metropolis test.

With U(z) = |z|^2 / 2 - ln p(y | z) of the whitened weights z ~ N(0, 1), a step of size eps is

    z  <-  z - eps grad U(z) + sqrt(2 eps) xi,      xi ~ N(0, 1)

(Euler and Maruyama). Training time is eps times the number of steps; its unit is the time in which the prior alone,
the weight decay, would forget a weight. In the weights themselves this is gradient descent on the loss
sum (y - f)^2 / 2 with learning rates eps gw^2 / kappa for W, eps gu^2 N / (D kappa) for U and eps gv^2 N / kappa for V,
weight decay, and noise of temperature kappa / N (muP: kernels and f move at a rate that does not depend on the width).

What it converges to is the posterior for eps -> 0 only: means are off by O(eps). Beyond eps = 2 / (1 + K / kappa) it
explodes, K being the largest eigenvalue of N grad f grad f^T over the supervised entries, the neural tangent kernel.
No test corrects or hides any of this.

Sources: Welling and Teh 2011; for networks at large width Naveh, Ben David, Sompolinsky, Ringel 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from bayesnet.samplers.split_hmc import white_like
from theory.model import Array


class LangevinState(NamedTuple):
    """State of a chain.

    Attributes:
        z: latents, a pytree.
        potential_energy, z_grad: U and its gradient at z.
        step_size: eps.
        num_steps: steps between draws.
        rng_key: key of the next draw.
    """

    z: Any
    potential_energy: Array
    z_grad: Any
    step_size: Array
    num_steps: Array
    rng_key: Array


def langevin_dynamics(potential_fn_gen: Callable, step_size: float, num_steps: int) -> tuple[Callable, Callable]:
    """(init, step) with the calling conventions of `numpyro.infer.hmc.hmc`; ``step`` makes ``num_steps`` steps."""

    def init(init_params, num_warmup, *, target_accept_prob=None, model_args=(), rng_key):
        z, potential_energy, z_grad = init_params
        size = jnp.asarray(step_size, jnp.result_type(float))
        return LangevinState(z, potential_energy, z_grad, size, jnp.asarray(num_steps), rng_key)

    def step(state, model_args, model_kwargs):
        potential = jax.value_and_grad(potential_fn_gen(*model_args, **model_kwargs))
        rng_key, noise_key = random.split(state.rng_key)
        eps = state.step_size

        def descend(index, carry):
            z, _, gradient = carry
            noise = white_like(random.fold_in(noise_key, index), z)
            z = jax.tree.map(lambda z, g, xi: z - eps * g + jnp.sqrt(2 * eps) * xi, z, gradient, noise)
            return z, *potential(z)

        carry = (state.z, state.potential_energy, state.z_grad)
        z, potential_energy, gradient = lax.fori_loop(0, state.num_steps, descend, carry)
        return state._replace(z=z, potential_energy=potential_energy, z_grad=gradient, rng_key=rng_key)

    return init, step

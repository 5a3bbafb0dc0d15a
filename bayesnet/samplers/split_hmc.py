r"""Hamiltonian Monte Carlo with the Gaussian prior solved exactly: the fast sampler for wide networks.

The latents q are white under the prior, so the Hamiltonian splits into an exactly solvable part and the rest,

    H(q, p) = [ |q|^2 / 2 + |p|^2 / 2 ] + V(q),      V = -ln p(q, y) - |q|^2 / 2  (the likelihood, up to a constant),

and a step rotates (q, p) by the angle eps between two half kicks by -grad V. Its error does not grow with the number of
latents. A quarter period, pi/2, decorrelates the prior completely; each trajectory's length is drawn within 30% of it,
so that no direction is periodic. The step size adapts by dual averaging in the warm-up.

Sources: Beskos, Pinski, Sanz-Serna, Stuart 2011; Shahbaba, Lan, Johnson, Neal 2014; dual averaging: Hoffman and
Gelman 2014.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from numpyro.infer import init_to_sample
from numpyro.infer.hmc_util import dual_averaging
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import ParamInfo, initialize_model
from numpyro.util import identity, is_prng_key

from bayesnet.samplers.tuning import Tuning
from theory.model import Array


class StepSize(NamedTuple):
    """The step size eps and the dual averaging behind it."""

    step_size: Array
    averaging: tuple


class SplitState(NamedTuple):
    """State of a chain, with the fields that NumPyro's own HMC has.

    Attributes:
        i: iteration, warm-up included.
        z: latents, a pytree.
        z_grad, potential_energy: -ln p(z, y) and its gradient at z.
        energy: H at the end of the trajectory that was kept.
        num_steps: steps of the last trajectory.
        accept_prob: its acceptance probability.
        diverging: whether its energy error exceeded that of a `Tuning` or was not finite.
        adapt_state: the `StepSize`.
        num_warmup: length of the warm-up.
        target_accept_prob: what the step size adapts to.
        rng_key: key of the next iteration.
    """

    i: Array
    z: Any
    z_grad: Any
    potential_energy: Array
    energy: Array
    num_steps: Array
    accept_prob: Array
    diverging: Array
    adapt_state: StepSize
    num_warmup: Array
    target_accept_prob: Array
    rng_key: Array


def split_hmc(potential_fn_gen: Callable, tuning: Tuning = Tuning()) -> tuple[Callable, Callable]:
    """(init, step) with the calling conventions of `numpyro.infer.hmc.hmc`; every latent must be real and white."""
    average_init, average_update = dual_averaging()

    def init(init_params, num_warmup, *, target_accept_prob=0.8, model_args=(), rng_key):
        z, potential_energy, z_grad = init_params
        number, nothing = jnp.zeros((), jnp.result_type(int)), jnp.zeros((), jnp.result_type(float))
        return SplitState(
            i=number,
            z=z,
            z_grad=z_grad,
            potential_energy=potential_energy,
            energy=potential_energy,
            num_steps=number,
            accept_prob=nothing,
            diverging=jnp.asarray(False),
            adapt_state=StepSize(nothing + tuning.first_step, average_init(nothing + math.log(tuning.first_step))),
            num_warmup=number + num_warmup,
            target_accept_prob=nothing + target_accept_prob,
            rng_key=rng_key,
        )

    def step(state, model_args, model_kwargs):
        potential = jax.value_and_grad(potential_fn_gen(*model_args, **model_kwargs))
        rng_key, momentum_key, length_key, accept_key = random.split(state.rng_key, 4)
        length = tuning.trajectory * (1 + tuning.jitter * random.uniform(length_key, minval=-1, maxval=1))
        num_steps = jnp.ceil(length / state.adapt_state.step_size).astype(state.num_steps.dtype)
        eps = length / num_steps
        cosine, sine = jnp.cos(eps), jnp.sin(eps)

        def kick(p, z, gradient, eps):
            return jax.tree.map(lambda p, z, g: p - eps * (g - z), p, z, gradient)

        def leap(_, carry):
            z, p, _, _ = carry
            z, p = (
                jax.tree.map(lambda z, p: z * cosine + p * sine, z, p),
                jax.tree.map(lambda z, p: p * cosine - z * sine, z, p),
            )
            energy, gradient = potential(z)
            return z, kick(p, z, gradient, eps), energy, gradient

        p = white_like(momentum_key, state.z)
        start = state.potential_energy + _kinetic(p)
        # The second half kick of a step and the first of the next are one.
        p = kick(p, state.z, state.z_grad, eps / 2)
        z, p, potential_energy, gradient = lax.fori_loop(
            0, num_steps, leap, (state.z, p, state.potential_energy, state.z_grad)
        )
        p = kick(p, z, gradient, -eps / 2)
        end = potential_energy + _kinetic(p)
        error = jnp.where(jnp.isnan(end - start), jnp.inf, end - start)
        accept_prob = jnp.minimum(1.0, jnp.exp(-error))
        accepted = random.uniform(accept_key) < accept_prob
        new, old = (z, gradient, potential_energy, end), (state.z, state.z_grad, state.potential_energy, start)
        z, gradient, potential_energy, energy = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)
        return state._replace(
            i=state.i + 1,
            z=z,
            z_grad=gradient,
            potential_energy=potential_energy,
            energy=energy,
            num_steps=num_steps,
            accept_prob=accept_prob,
            diverging=error > tuning.divergence,
            adapt_state=adapt(state, accept_prob),
            rng_key=rng_key,
        )

    def adapt(state, accept_prob):
        miss = state.target_accept_prob - accept_prob
        log_step, mean_log_step, *rest = average_update(miss, state.adapt_state.averaging)
        limit = math.log(tuning.largest_step)
        log_step, mean_log_step = jnp.minimum(log_step, limit), jnp.minimum(mean_log_step, limit)
        last = state.i + 1 >= state.num_warmup
        learned = StepSize(jnp.exp(jnp.where(last, mean_log_step, log_step)), (log_step, mean_log_step, *rest))
        warm = state.i < state.num_warmup
        return jax.tree.map(lambda a, b: jnp.where(warm, a, b), learned, state.adapt_state)

    return init, step


class SplitHMC(MCMCKernel):
    """`split_hmc` as a NumPyro kernel: ``MCMC(SplitHMC(bayesnet.models.fields), ...).run(key, network, task)``.

    Args:
        model: a NumPyro model whose latents are all real with a standard normal prior (or nearly so: `models.kernels`).
        target_accept_prob: acceptance that the step size adapts to.
        init_strategy: as for NumPyro's kernels; a draw from the prior by default.
    """

    sample_field = "z"

    def __init__(self, model: Callable, target_accept_prob: float = 0.8, init_strategy: Callable = init_to_sample):
        self._model, self._target, self._strategy = model, target_accept_prob, init_strategy
        self._step: Callable | None = None
        self._postprocess: Callable | None = None

    @property
    def model(self) -> Callable:
        """The model."""
        return self._model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """What `MCMC` collects besides the latents."""
        return ("z", "diverging")

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """Start a chain; one key, or a batch of keys for ``chain_method="vectorized"``."""
        single = is_prng_key(rng_key)
        keys = random.split(rng_key) if single else jnp.swapaxes(jax.vmap(random.split)(rng_key), 0, 1)
        info = initialize_model(
            keys[0],
            self._model,
            dynamic_args=True,
            init_strategy=self._strategy,
            model_args=model_args,
            model_kwargs=model_kwargs,
        )
        init, step = split_hmc(info.potential_fn)
        self._postprocess = info.postprocess_fn
        params = info.param_info
        if init_params is not None:
            evaluate = jax.value_and_grad(info.potential_fn(*model_args, **model_kwargs))
            energy, gradient = (evaluate if single else jax.vmap(evaluate))(init_params)
            params = ParamInfo(init_params, energy, gradient)

        def start(params, key):
            return init(params, num_warmup, target_accept_prob=self._target, rng_key=key)

        self._step = step if single else jax.vmap(step, in_axes=(0, None, None))
        return start(params, keys[1]) if single else jax.vmap(start)(params, keys[1])

    def sample(self, state, model_args, model_kwargs):
        """The next state."""
        assert self._step is not None, "init comes first"
        return self._step(state, model_args, model_kwargs)

    def postprocess_fn(self, model_args, model_kwargs):
        """Latents -> all sites, deterministic ones included."""
        return identity if self._postprocess is None else self._postprocess(*model_args, **model_kwargs)

    def get_diagnostics_str(self, state):
        """What the progress bar shows."""
        return f"{state.num_steps} steps of size {state.adapt_state.step_size:.2e}. acc. prob={state.accept_prob:.2f}"


def white_like(key: Array, tree: Any) -> Any:
    """Standard normal numbers in the shape of a pytree."""
    leaves, structure = jax.tree.flatten(tree)
    keys = random.split(key, len(leaves))
    white = [random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, white)


def _kinetic(p: Any) -> Array:
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)) / 2

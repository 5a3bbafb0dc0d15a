"""The sampling loop: NumPyro's NUTS, or split HMC, in compiled blocks that return invariants only.

NumPyro's `MCMC` compiles anew at every call and stores every latent number. Here one compiled block of up to
`BLOCK` draws serves warm-up and sampling, all chains, all seeds, and RNN and DNN alike (the `Terms` are an
argument). Warm-up is annealed: the log likelihood is weighted by a factor that rises from .01 to 1, which keeps chains
from freezing in metastable phases (SAMPLER.md, pitfall 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from numpyro import handlers
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo, log_density

from bayesnet.coordinates import Coordinates, build_coordinates
from bayesnet.split_hmc import split_hmc
from theory.network import Network
from theory.task import Task

BLOCK = 25
ANNEALING_WEIGHTS = np.geomspace(0.01, 0.7, 8)


@dataclass(frozen=True)
class Settings:
    """How to sample; every field is an argument of `bayesnet.sample`."""

    coordinates: str
    sampler: str
    num_warmup: int
    num_samples: int
    num_chains: int
    target_accept: float
    max_tree_depth: int
    anneal: bool
    num_latents: int
    precision: str
    chain_method: str


class Machine:
    """The compiled pieces of a run: ``start(key, terms)`` and ``advance(state, key, terms, weight, first, number)``."""

    def __init__(self, space: Coordinates, settings: Settings):
        def potential(terms, weight):
            # Every latent is real, so NumPyro's transforms to unconstrained space are the identity.
            return lambda latents: -log_density(space.model, (terms, True, weight), {}, latents)[0]

        if settings.sampler == "hmc":
            init, step = split_hmc(potential)
        else:
            nuts_init, step = hmc(potential_fn_gen=potential, algo="NUTS")
            # No mass adaptation: the prior is white, and adapting costs five times the warm-up (SAMPLER.md).
            init = partial(nuts_init, adapt_mass_matrix=False, max_tree_depth=settings.max_tree_depth)

        def start(key, terms):
            prior_key, chain_key = random.split(key)
            sites = handlers.trace(handlers.seed(space.model, prior_key)).get_trace(terms)
            latents = {
                name: site["value"]
                for name, site in sites.items()
                if site["type"] == "sample" and not site["is_observed"]
            }
            # Potential and gradient are left blank here: `advance` evaluates them for its own likelihood weight.
            blank = ParamInfo(latents, jnp.zeros(()), jax.tree.map(jnp.zeros_like, latents))
            return init(
                blank,
                settings.num_warmup,
                target_accept_prob=settings.target_accept,
                model_args=(terms, 1.0),
                rng_key=chain_key,
            )

        def advance(state, key, terms, weight, first, number):
            energy, gradient = jax.value_and_grad(potential(terms, weight))(state.z)
            state = state._replace(potential_energy=energy, z_grad=gradient)

            def observe(state, index):
                stats = {
                    "acceptance_rate": state.accept_prob,
                    "n_steps": state.num_steps,
                    "diverging": state.diverging,
                    "energy": state.energy,
                    "lp": -state.potential_energy,
                    "step_size": state.adapt_state.step_size,
                }
                return {**space.observe(terms, state.z, random.fold_in(key, index)), **stats}

            def one_draw(index, carry):
                state, record = carry
                state = step(state, (terms, weight), {})
                seen = observe(state, first + index)
                return state, jax.tree.map(lambda store, value: store.at[index].set(value), record, seen)

            shapes = jax.eval_shape(observe, state, first)
            record = jax.tree.map(lambda leaf: jnp.zeros((BLOCK, *leaf.shape), leaf.dtype), shapes)
            return lax.fori_loop(0, number, one_draw, (state, record))

        self.start: Callable = jax.jit(start)
        self.advance: Callable = jax.jit(advance)
        if settings.chain_method == "vectorized":
            self.start = jax.jit(jax.vmap(start, in_axes=(0, None)))
            self.advance = jax.jit(jax.vmap(advance, in_axes=(0, 0, None, None, None, None)))


def build_machine(settings: Settings, network: Network, task: Task) -> Machine:
    """The machine for a network on a task; kept, so that what has been compiled is not compiled again."""
    if settings.coordinates != "weights":
        # Blank out what the compiled program takes as an argument: RNN and DNN, all targets, share a machine.
        blank = np.zeros((task.patterns, task.steps, 1))
        network, task = Network(network.width, network.activation), Task(blank, blank)
    # The lengths of the run do not enter the program either, nor whether chains run side by side or in turn.
    method = "vectorized" if settings.chain_method == "vectorized" else "parallel"
    same = replace(settings, num_samples=1, num_chains=1, num_latents=1, chain_method=method)
    return _machine(same, network, task)


@lru_cache(maxsize=32)
def _machine(settings: Settings, network: Network, task: Task) -> Machine:
    return Machine(build_coordinates(settings.coordinates, network, task), settings)

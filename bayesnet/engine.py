"""The sampling loop: NumPyro's NUTS kernel in compiled blocks that return invariants only.

NumPyro's `MCMC` compiles anew at every call and stores every latent number. Here one compiled block of up to
`BLOCK` draws serves warm-up and sampling, all chains, all seeds, and RNN and DNN alike (the `Terms` are an
argument). Warm-up is annealed: the log likelihood is weighted by a factor that rises from .01 to 1, which keeps chains
from freezing in metastable phases (SAMPLER.md, pitfall 1).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from numpyro import handlers
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo, log_density

from bayesnet.coordinates import Coordinates, build_coordinates
from theory.covariance import covariance_terms
from theory.network import Network
from theory.task import Task

BLOCK = 25
ANNEALING_WEIGHTS = np.geomspace(0.01, 0.7, 8)


@dataclass(frozen=True)
class Settings:
    """How to sample; every field is an argument of `bayesnet.sample`."""

    coordinates: str
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

        init, step = hmc(potential_fn_gen=potential, algo="NUTS")

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
                adapt_mass_matrix=False,  # the prior is white; adapting costs five times the warm-up (SAMPLER.md)
                target_accept_prob=settings.target_accept,
                max_tree_depth=settings.max_tree_depth,
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


@dataclass(frozen=True)
class Chains:
    """What a run returns.

    Attributes:
        record: per-draw arrays (chains, draws, ...): the invariants and the sampler's statistics.
        latents: latent sites of a few draws (chains, kept draws, ...).
        latent_draws: which draws those are, 0-based.
    """

    record: dict[str, np.ndarray]
    latents: dict[str, np.ndarray]
    latent_draws: np.ndarray


@dataclass(frozen=True)
class _Block:
    """A stretch of one chain: ``number`` draws from draw ``first`` on, the likelihood weighted by ``weight``."""

    weight: float
    first: int
    number: int
    sampling: bool
    keep_latents: bool = False


def run_chains(
    network: Network, task: Task, settings: Settings, seed: int, progress: Callable[[int], None] = lambda draws: None
) -> Chains:
    """Run all chains; ``progress`` is called with the number of draws just made, warm-up included."""
    # float64 within this call only, in every thread: the switch is local to a thread.
    x64 = settings.precision == "float64"
    schedule = _schedule(settings)
    vectorized = settings.chain_method == "vectorized"
    axis = 1 if vectorized else 0  # of the draws, behind the chains where these run together
    with jax.enable_x64(x64):
        machine = _machine(settings, *_canonical(settings, network, task))
        terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
        chain_keys = random.split(random.key(seed), (settings.num_chains, 2))

    def run_group(keys, ready: Callable[[], None] = lambda: None) -> Chains:
        with jax.enable_x64(x64):
            state = machine.start(keys[..., 0], terms)
            records, latents = [], []
            for block in schedule:
                state, record = machine.advance(state, keys[..., 1], terms, block.weight, block.first, block.number)
                jax.block_until_ready(state)
                ready()
                progress(block.number * max(1, keys[..., 0].size))
                if block.sampling:
                    records.append({name: np.asarray(x).take(range(block.number), axis) for name, x in record.items()})
                if block.keep_latents:
                    latents.append(jax.tree.map(np.asarray, state.z))
        kept = [block.first + block.number - 1 for block in schedule if block.keep_latents]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis), *records)
        stacked = jax.tree.map(lambda *parts: np.stack(parts, axis), *latents)
        return Chains(joined, stacked, np.array(kept))

    if vectorized:
        return run_group(chain_keys)
    workers = 1 if settings.chain_method == "sequential" else None
    compiled = threading.Event()

    def run_one(index: int) -> Chains:
        # The first chain compiles; the others wait for its program instead of making their own.
        if index:
            compiled.wait()
        try:
            return run_group(chain_keys[index], compiled.set)
        finally:
            compiled.set()

    with ThreadPoolExecutor(workers or min(settings.num_chains, os.cpu_count() or 1)) as pool:
        chains = list(pool.map(run_one, range(settings.num_chains)))

    def stack(*parts):
        return np.stack(parts)

    return Chains(
        jax.tree.map(stack, *(chain.record for chain in chains)),
        jax.tree.map(stack, *(chain.latents for chain in chains)),
        chains[0].latent_draws,
    )


def _schedule(settings: Settings) -> list[_Block]:
    """Annealed warm-up, warm-up, then the draws in stretches that end where latents are kept."""
    stage = min(BLOCK, settings.num_warmup // (2 * len(ANNEALING_WEIGHTS))) if settings.anneal else 0
    blocks = [_Block(float(weight), 0, stage, False) for weight in ANNEALING_WEIGHTS if stage]
    blocks += [_Block(1.0, 0, number, False) for number in _pieces(settings.num_warmup - stage * len(blocks))]
    ends = np.linspace(0, settings.num_samples, min(settings.num_latents, settings.num_samples) + 1).astype(int)
    for start, end in itertools.pairwise(ends):
        first = int(start)
        for number in _pieces(int(end) - first):
            blocks.append(_Block(1.0, first, number, True, keep_latents=first + number == end))
            first += number
    return blocks


def _pieces(total: int) -> Iterator[int]:
    """``total`` cut into pieces of at most `BLOCK`."""
    while total > 0:
        yield min(total, BLOCK)
        total -= BLOCK


def _canonical(settings: Settings, network: Network, task: Task) -> tuple[Network, Task]:
    """Network and task with everything blanked out that the compiled program takes as an argument."""
    if settings.coordinates == "weights":
        return network, task
    blank = np.zeros((task.patterns, task.steps, 1))
    return Network(network.width, network.activation), Task(blank, blank)


@lru_cache(maxsize=32)
def _machine(settings: Settings, network: Network, task: Task) -> Machine:
    return Machine(build_coordinates(settings.coordinates, network, task), settings)

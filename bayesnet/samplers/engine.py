"""The sampling loop: NumPyro's NUTS, split HMC or Langevin dynamics, in compiled blocks that return invariants only.

NumPyro's `MCMC` compiles anew at every call and stores every latent number. Here one compiled block of up to
`BLOCK` draws serves warm-up and sampling, all chains, all seeds, and all networks in which the same steps are tied (the
`Model` is an argument). Warm-up is annealed: the log likelihood is weighted by a factor that rises from .01 to 1, which
keeps chains from freezing in metastable phases, and for odd chains beyond, so that two phases that coexist are both
found and the chains disagree, instead of agreeing on the one that is nearer to the prior.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro import handlers
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo, log_density

from bayesnet.models.coordinates import Coordinates, build_coordinates
from bayesnet.priors import Priors
from bayesnet.samplers.frames import (
    Frame,
    fit_frame,
    lower,
    place,
    plain_frame,
    redraw_reflection,
    upright,
    wall_energy,
)
from bayesnet.samplers.langevin import langevin_dynamics
from bayesnet.samplers.phase_jumps import propose
from bayesnet.samplers.split_hmc import split_hmc
from bayesnet.samplers.tuning import Tuning
from theory.model import Array
from theory.network import Network
from theory.task import Task

# Folded into the key of a state for its gauge move, the reflection of its frame and its jump between phases: beyond all
# numbers of keys that samplers split it into.
GAUGE, REFLECTION, JUMP = 2**20, 2**20 + 1, 2**20 + 2
BLOCK = 25  # draws of one call of a compiled program: its overhead is gone at ten, and an interrupt waits for one block


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
    keep: tuple[str, ...] = ()
    thin: int = 10
    step_size: float = 0.001
    steps_per_draw: int = 10
    kernels: str = "every"
    tuning: Tuning = Tuning()


class Chain(NamedTuple):
    """Where a chain stands.

    Attributes:
        sampler: the state of its sampler, ``z`` and so on.
        frame: the `Frame` of its latents; None where z are the latents themselves.
    """

    sampler: Any
    frame: Frame | None


class Machine:
    """The compiled pieces of a run.

    ``start(key, model, mirror) -> chain``, with a frame where ``mirror`` (of `plain_frame`) is given;
    ``advance(chain, key, model, weight, first, number, groups, phases) -> chain, record``, with a gauge move after each
    draw where ``groups`` (of `site_groups`) are given, whose values are part of the program (and ``moved``, whether the
    sampler itself has moved, is recorded), and a jump where ``phases`` are (and ``jumped`` is recorded);
    ``fit(chain, model) -> chain``,
    in a better frame; ``latents(chain)``. Chains in lockstep have one more axis in front of chain and key; it is shared
    out over ``devices`` devices.
    """

    def __init__(self, space: Coordinates, settings: Settings, devices: int = 1):
        def energy_of(model, weight):
            # Every latent is real, so NumPyro's transforms to unconstrained space are the identity.
            return lambda latents: -log_density(space.model, (model, True, weight), {}, latents)[0]

        def potential(model, weight, frame):
            energy = energy_of(model, weight)
            # A frame's x has the density of the latents that it stands for.
            return lambda z: energy(upright(frame, z)) + wall_energy(frame, z)

        statistics = _trajectory_statistics
        if settings.sampler == "hmc":
            init, step = split_hmc(potential, settings.tuning)
        elif settings.sampler == "langevin":
            init, step = langevin_dynamics(potential, settings.step_size, settings.steps_per_draw)
            statistics = _descent_statistics
        else:
            nuts_init, step = hmc(potential_fn_gen=potential, algo="NUTS")
            # No mass adaptation: the prior is white, or the frame makes the posterior so, and adapting to draws costs
            # five times the warm-up.
            init = partial(nuts_init, adapt_mass_matrix=False, max_tree_depth=settings.max_tree_depth)

        def start(key, model, mirror):
            prior_key, chain_key = random.split(key)
            sites = handlers.trace(handlers.seed(space.model, prior_key)).get_trace(model)
            latents = {
                name: site["value"]
                for name, site in sites.items()
                if site["type"] == "sample" and not site["is_observed"]
            }
            frame = None if mirror is None else plain_frame(mirror, settings.tuning.frame_rank)
            # Potential and gradient are left blank here: `advance` evaluates them for its own likelihood weight.
            blank = ParamInfo(latents, jnp.zeros(()), jax.tree.map(jnp.zeros_like, latents))
            state = init(
                blank,
                settings.num_warmup,
                target_accept_prob=settings.target_accept,
                model_args=(model, 1.0, frame),
                rng_key=chain_key,
            )
            return jax.tree.map(_strongly_typed, Chain(state, frame))

        def regauge(chain, model, weight, groups):
            state, frame = chain
            move_key, sigma_key = random.split(random.fold_in(state.rng_key, GAUGE))
            gauge = space.gauge
            assert gauge is not None, "weights are in no groups"
            if gauge.isometry and frame is None:
                z, z_grad = (gauge.move(move_key, groups, tree) for tree in (state.z, state.z_grad))
                return Chain(state._replace(z=z, z_grad=z_grad), frame)
            latents = gauge.move(move_key, groups, place(frame, state.z))
            frame, z = lower(frame, latents, sigma_key)
            energy, z_grad = jax.value_and_grad(potential(model, weight, frame))(z)
            return Chain(state._replace(z=z, z_grad=z_grad, potential_energy=energy), frame)

        def jump(chain, model, weight, phases):
            state, frame = chain
            propose_key, accept_key, sigma_key = random.split(random.fold_in(state.rng_key, JUMP), 3)
            flat, unravel = ravel_pytree(place(frame, state.z))
            there, ratio = propose(phases, flat, propose_key)
            other, z = lower(frame, unravel(there), sigma_key)
            energy, z_grad = jax.value_and_grad(potential(model, weight, other))(z)
            # Without the walls, which are laws of sigma given the latents, drawn anew at the other end.
            gain = state.potential_energy - wall_energy(frame, state.z) - energy + wall_energy(other, z)
            jumped = jnp.log(random.uniform(accept_key, dtype=flat.dtype)) < gain + ratio
            arrived = Chain(state._replace(z=z, z_grad=z_grad, potential_energy=energy), other)
            return jax.tree.map(lambda to, back: jnp.where(jumped, to, back), arrived, chain), jumped

        def advance(chain, key, model, weight, first, number, groups=None, phases=None):
            energy, gradient = jax.value_and_grad(potential(model, weight, chain.frame))(chain.sampler.z)
            chain = chain._replace(sampler=chain.sampler._replace(potential_energy=energy, z_grad=gradient))

            def observe(chain, index, events):
                state, frame = chain
                seen = space.observe(model, place(frame, state.z), random.fold_in(key, index))
                return {
                    **seen,
                    **events,
                    **statistics(state),
                    "lp": wall_energy(frame, state.z) - state.potential_energy,
                }

            def move(chain):
                frame, state = chain.frame, step(chain.sampler, (model, weight, chain.frame), {})
                moved = jnp.any(ravel_pytree(state.z)[0] != ravel_pytree(chain.sampler.z)[0])
                if frame is not None:
                    frame, state = redraw_reflection(frame, state, random.fold_in(state.rng_key, REFLECTION))
                chain, events = Chain(state, frame), {}
                if groups is not None:
                    chain, events["moved"] = regauge(chain, model, weight, groups), moved
                if phases is not None:
                    chain, events["jumped"] = jump(chain, model, weight, phases)
                return chain, events

            def draw(chain, index):
                chain, events = move(chain)
                return chain, observe(chain, index, events)

            def one_draw(index, carry):
                chain, record = carry
                chain, seen = draw(chain, first + index)
                return chain, jax.tree.map(lambda store, value: store.at[index].set(value), record, seen)

            _, shapes = jax.eval_shape(draw, chain, first)
            record = jax.tree.map(lambda leaf: jnp.zeros((BLOCK, *leaf.shape), leaf.dtype), shapes)
            return lax.fori_loop(0, number, one_draw, (chain, record))

        def fit(chain, model):
            frame, state = fit_frame(chain.frame, chain.sampler, energy_of(model, 1.0), settings.tuning.frame_softest)
            return Chain(state, frame)

        def latents(chain):
            return place(chain.frame, chain.sampler.z)

        self.start: Callable = jax.jit(start)
        self.advance: Callable = jax.jit(advance)
        self.fit: Callable = jax.jit(fit)
        self.latents: Callable = jax.jit(latents)
        if settings.chain_method == "vectorized":
            self.start = _in_lockstep(start, (True, False, False), devices)
            self.advance = _in_lockstep(advance, (True, True, False, True, False, False, False, False), devices)
            self.fit = _in_lockstep(fit, (True, False), devices)
            self.latents = _in_lockstep(latents, (True,), devices)
        self.fit = _one_thread_at_a_time(self.fit)  # chains come to it first in the middle of their warm-up


def build_machine(settings: Settings, network: Network, task: Task, priors: Priors | None = None) -> Machine:
    """The machine for a network on a task; kept, so that what has been compiled is not compiled again."""
    # The lengths of the run do not enter the program either, nor whether chains run side by side or in turn.
    method = "vectorized" if settings.chain_method == "vectorized" else "parallel"
    same = replace(settings, num_samples=1, num_chains=1, num_latents=1, chain_method=method, keep=(), thin=1)
    same = replace(same, kernels="every")
    return _machine(same, *blank_problem(settings.coordinates, network, task, priors), priors, count_devices(settings))


def blank_problem(coordinates: str, network: Network, task: Task, priors: Priors | None = None) -> tuple[Network, Task]:
    """Network and task without what a compiled program takes as an argument.

    All targets share a program; in fields and kernels networks, gains, noise and inputs do so too, unless some of
    the numbers have priors.
    """
    if coordinates == "weights" or priors is not None:
        return network, Task(task.inputs, np.zeros_like(task.targets))
    nothing = np.zeros((task.patterns, task.steps, 1))
    return Network(network.width, network.activation, layers=network.layers), Task(nothing, nothing)


def count_devices(settings: Settings) -> int:
    """How many devices a run uses: chains in lockstep are shared out evenly over as many as there are."""
    if settings.chain_method != "vectorized":
        return 1
    available = len(jax.local_devices())
    return max(number for number in range(1, available + 1) if settings.num_chains % number == 0)


@lru_cache(maxsize=32)
def _machine(settings: Settings, network: Network, task: Task, priors: Priors | None, devices: int) -> Machine:
    return Machine(build_coordinates(settings.coordinates, network, task, priors), settings, devices)


def _in_lockstep(function: Callable, by_chain: tuple[bool, ...], devices: int) -> Callable:
    """Compiled over the leading axis of the arguments that have one for each chain, spread over the devices."""
    batched = jax.vmap(function, in_axes=tuple(0 if own else None for own in by_chain))
    if devices == 1:
        return jax.jit(batched)
    # Each device runs the loops of its own chains: none waits for a trajectory on another one.
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("chain",))
    specs = tuple(PartitionSpec("chain") if own else PartitionSpec() for own in by_chain)
    spread = jax.shard_map(batched, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("chain"), check_vma=False)
    return jax.jit(spread, in_shardings=tuple(NamedSharding(mesh, spec) for spec in specs))


def _one_thread_at_a_time(program: Callable) -> Callable:
    """With a lock: of several chains that come to a program not compiled yet, one compiles it and the others wait."""
    lock = threading.Lock()

    def locked(*arguments):
        with lock:
            return program(*arguments)

    return locked


def _trajectory_statistics(state: Any) -> dict[str, Array]:
    return {
        "acceptance_rate": state.accept_prob,
        "n_steps": state.num_steps,
        "diverging": state.diverging,
        "energy": state.energy,
        "step_size": state.adapt_state.step_size,
    }


def _descent_statistics(state: Any) -> dict[str, Array]:
    return {"n_steps": state.num_steps, "step_size": state.step_size}


def _strongly_typed(leaf: Array) -> Array:
    """Without JAX's weak types, so that a state fresh, advanced or read from disk enters the same compiled program."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else lax.convert_element_type(leaf, leaf.dtype)

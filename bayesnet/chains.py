"""Running chains: a schedule of blocks for each, in threads or in lockstep, stopped when anything goes wrong."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from bayesnet.engine import ANNEALING_WEIGHTS, BLOCK, Machine, Settings, build_machine
from theory.covariance import Terms, covariance_terms
from theory.network import Network
from theory.task import Task

Progress = Callable[[int], None]


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
class Block:
    """A stretch of a chain: ``number`` draws from draw ``first`` on, the likelihood weighted by ``weight``."""

    weight: float
    first: int
    number: int
    sampling: bool
    keep_latents: bool = False


def run_chains(
    network: Network, task: Task, settings: Settings, seed: int, progress: Progress = lambda draws: None
) -> Chains:
    """Run all chains; ``progress`` is called with the number of draws just made, warm-up included.

    Raises:
        FloatingPointError: if a log density stops being finite, naming the chain and the draw.
    """
    with jax.enable_x64(settings.precision == "float64"):
        machine = build_machine(settings, network, task)
        terms = jax.tree.map(jnp.asarray, covariance_terms(network, task))
        keys = random.split(random.key(seed), (settings.num_chains, 2))
    schedule = make_schedule(settings)
    if settings.chain_method == "vectorized":
        return _follow(machine, settings, schedule, terms, keys, "in lockstep", progress)
    compiled, stop = threading.Event(), threading.Event()

    def announce(draws: int) -> None:
        compiled.set()
        progress(draws)

    def run_one(index: int) -> Chains:
        # The first chain compiles; the others wait for its program instead of making their own.
        if index:
            compiled.wait()
        try:
            return _follow(machine, settings, schedule, terms, keys[index], f"chain {index}", announce, stop)
        except BaseException:
            stop.set()
            raise
        finally:
            compiled.set()

    workers = 1 if settings.chain_method == "sequential" else min(settings.num_chains, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        try:
            chains = list(pool.map(run_one, range(settings.num_chains)))
        finally:
            stop.set()  # an interrupt reaches this thread only; the chains end with their block
    records = {name: np.stack([chain.record[name] for chain in chains]) for name in chains[0].record}
    latents = {name: np.stack([chain.latents[name] for chain in chains]) for name in chains[0].latents}
    return Chains(records, latents, chains[0].latent_draws)


def make_schedule(settings: Settings) -> list[Block]:
    """Annealed warm-up, warm-up, then the draws in stretches that end where latents are kept."""
    stage = min(BLOCK, settings.num_warmup // (2 * len(ANNEALING_WEIGHTS))) if settings.anneal else 0
    blocks = [Block(float(weight), 0, stage, False) for weight in ANNEALING_WEIGHTS if stage]
    blocks += [Block(1.0, 0, number, False) for number in _pieces(settings.num_warmup - stage * len(blocks))]
    ends = np.linspace(0, settings.num_samples, min(settings.num_latents, settings.num_samples) + 1).astype(int)
    for start, end in itertools.pairwise(ends.tolist()):
        first = start
        for number in _pieces(end - start):
            blocks.append(Block(1.0, first, number, True, keep_latents=first + number == end))
            first += number
    return blocks


def _follow(
    machine: Machine,
    settings: Settings,
    schedule: list[Block],
    terms: Terms,
    keys: jax.Array,
    name: str,
    progress: Progress,
    stop: threading.Event | None = None,
) -> Chains:
    """One chain, or all of them in lockstep where ``keys`` has a leading axis, through the schedule."""
    together = keys.ndim == 2
    axis = 1 if together else 0  # of the draws
    records, latents = [], []
    # float64 within this call only; the switch is local to a thread.
    with jax.enable_x64(settings.precision == "float64"):
        state = machine.start(keys[..., 0], terms)
        for block in schedule:
            if stop is not None and stop.is_set():
                raise RuntimeError(f"{name} was stopped because another one failed")
            state, record = machine.advance(state, keys[..., 1], terms, block.weight, block.first, block.number)
            draws = {site: np.asarray(values).take(range(block.number), axis) for site, values in record.items()}
            _check_finite(draws["lp"], axis, name, block)
            progress(block.number * (keys.shape[0] if together else 1))
            if block.sampling:
                records.append(draws)
            if block.keep_latents:
                latents.append(jax.tree.map(np.asarray, state.z))
    kept = np.array([block.first + block.number - 1 for block in schedule if block.keep_latents])
    joined = {site: np.concatenate([record[site] for record in records], axis) for site in records[0]}
    stacked = {site: np.stack([latent[site] for latent in latents], axis) for site in latents[0]}
    return Chains(joined, stacked, kept)


def _check_finite(log_density: np.ndarray, axis: int, name: str, block: Block) -> None:
    bad = np.argwhere(~np.isfinite(log_density))
    if len(bad):
        draw = block.first + int(bad[0][axis])
        where = f"draw {draw}" if block.sampling else f"warm-up, likelihood weight {block.weight:.2g}"
        who = f"{name}, chain {bad[0][0]}" if axis else name
        raise FloatingPointError(
            f"the log density is not finite in {who} at {where}; likely causes: an activation that overflows, "
            "targets or gains of extreme size, or float32 where float64 is needed"
        )


def _pieces(total: int) -> Iterator[int]:
    """``total`` cut into pieces of at most `BLOCK`."""
    while total > 0:
        yield min(total, BLOCK)
        total -= BLOCK

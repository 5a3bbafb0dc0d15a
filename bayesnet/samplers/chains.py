"""Running chains: a schedule of blocks for each, in threads or in lockstep, stopped when anything goes wrong."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.flatten_util import ravel_pytree

from bayesnet.models.gauge import SiteGroups, site_groups
from bayesnet.models.kernel_space import latent_signs
from bayesnet.priors import LATENT, Priors
from bayesnet.samplers.checkpoints import Lane, pack, unpack
from bayesnet.samplers.engine import BLOCK, Machine, Settings, build_machine
from bayesnet.samplers.moments import MOMENTS, Moments, Recorder
from bayesnet.samplers.phase_jumps import Phases
from theory.jax_settings import own_settings
from theory.model import Model, build_model
from theory.network import Network
from theory.seeds import key_of
from theory.task import Task

FULL = (1.0, 1.0)
FRAMED = ("kernels",)  # coordinates whose latents are few and play the same part in every draw
Progress = Callable[[int, dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class Chains:
    """What a run returns.

    Attributes:
        record: per-draw arrays (chains, draws, ...): the invariants and the sampler's statistics.
        latents: latent sites of some draws (chains, kept draws, ...).
        latent_draws: which draws those are, 0-based.
        moments: of `Recorder.finish`, in place of the kernels in ``record``; None where these are there.
        seconds: wall time, that of interrupted runs before this one included.
    """

    record: dict[str, np.ndarray]
    latents: dict[str, np.ndarray]
    latent_draws: np.ndarray
    seconds: float
    moments: dict[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Block:
    """A stretch of the chains: ``number`` draws from draw ``first`` on, the likelihood weighted by ``weights``: that of
    even and that of odd chains; ``fit_frame``: the frame is improved before."""

    weights: tuple[float, float]
    first: int
    number: int
    sampling: bool
    keep_latents: bool = False
    fit_frame: bool = False


def open_lanes(settings: Settings, directory: Path | None = None) -> list[Lane]:
    """A lane for each chain, or one for all of them in lockstep, going on from a checkpoint where there is one."""
    together = settings.chain_method == "vectorized"
    names = ["chains"] if together else [f"chain {index}" for index in range(settings.num_chains)]
    return [Lane(name, directory) for name in names]


def run_chains(
    network: Network,
    task: Task,
    settings: Settings,
    seed: int,
    lanes: Sequence[Lane],
    progress: Progress = lambda draws, record: None,
    priors: Priors | None = None,
    phases: Phases | None = None,
) -> Chains:
    """Run all chains to their end.

    Args:
        network, task, settings, seed: as for `bayesnet.sample`.
        lanes: of `open_lanes`.
        progress: called after each block with the number of draws in it and what was recorded of them.
        priors: of numbers of the network; it has their medians.
        phases: that the chains may jump between.

    Raises:
        FloatingPointError: if a log density stops being finite, naming the chain, the draw and the likely cause.
        MemoryError: if memory runs out.
        OSError: if a checkpoint cannot be written.
    """
    started = time.perf_counter() - max(lane.seconds for lane in lanes)
    with own_settings(settings.precision == "float64"):
        machine = build_machine(settings, network, task, priors)
        model = build_model(network, task).on_device()
        groups = None if settings.coordinates == "weights" else site_groups(model)
        mirror = jnp.asarray(_signs(network, task, priors), float) if settings.coordinates in FRAMED else None
        keys = random.split(key_of(seed), (settings.num_chains, 2))
    schedule = make_schedule(settings)
    together = settings.chain_method == "vectorized"
    unfinished = [index for index, lane in enumerate(lanes) if lane.blocks < len(schedule)]
    leader = unfinished[0] if unfinished else 0
    compiled, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    recorder = Recorder(network, task, settings.num_samples) if settings.kernels == MOMENTS else None
    problem = model, mirror, groups, phases
    sums: dict[int, Moments | None] = {}

    def announce(draws: int, record: dict[str, np.ndarray]) -> None:
        compiled.set()
        progress(draws, record)

    def run_lane(index: int) -> None:
        # One chain compiles; the others wait for its program instead of making their own.
        if index != leader:
            compiled.wait()
        try:
            members = np.arange(settings.num_chains) if together else index
            lane = lanes[index]
            place = keys[members], members, lane, started
            sums[index] = _follow(machine, settings, schedule, problem, recorder, *place, announce, stop)
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            compiled.set()

    workers = 1 if settings.chain_method == "sequential" else min(len(lanes), os.cpu_count() or 1)
    order = sorted(range(len(lanes)), key=lambda index: index != leader)
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run_lane, order))
        finally:
            stop.set()  # an interrupt reaches this thread only; the chains end with their block
    if failures:
        raise _in_words(failures[0])
    kept = np.array([block.first + block.number - 1 for block in schedule if block.keep_latents])
    record, latents = _join(lanes, "draws", together), _join(lanes, "latents", together)
    all_sums = [one for _, one in sorted(sums.items()) if one is not None]
    moments = None if recorder is None else recorder.finish(all_sums)
    return Chains(record, latents, kept, max(lane.seconds for lane in lanes), moments)


def _signs(network: Network, task: Task, priors: Priors | None) -> np.ndarray:
    """`latent_signs` of all latents, in the order in which JAX lays them out; parameters keep theirs."""
    signs, n = latent_signs(network, task), network.layers * task.entries
    sites = {"bartlett_diagonal": signs[:n], "bartlett_lower": signs[n:]}
    sites |= {} if priors is None else {name + LATENT: np.ones(()) for name in priors.names}
    return np.asarray(ravel_pytree(sites)[0])


def _in_words(error: BaseException) -> BaseException:
    """A chain's error; where memory ran out, with what would take less of it."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or "RESOURCE_EXHAUSTED" not in str(error):
        return error
    advice = "a smaller width, other coordinates, precision='float32' or chain_method='sequential' takes less"
    words = MemoryError(f"memory ran out while sampling ({str(error).splitlines()[0]}); {advice}")
    words.__cause__ = error
    return words


def make_schedule(settings: Settings) -> list[Block]:
    """Annealed warm-up, warm-up, then the draws in stretches that end where latents are kept."""
    stages = settings.tuning.stages if settings.anneal else []
    stage = min(BLOCK, settings.num_warmup // max(1, 2 * len(stages)))
    blocks = [Block(_bounded(weights, settings), 0, stage, False) for weights in stages if stage]
    begin = stage * len(blocks)
    full = [Block(FULL, 0, number, False) for number in _pieces(settings.num_warmup - begin)]
    # After half of the warm-up, at states some draws apart, and never so late that no step size could be found for it.
    late = [index for index in range(1, len(full) - 1) if begin + index * BLOCK >= settings.num_warmup // 2]
    for index in late[: settings.tuning.frame_hessians if settings.coordinates in FRAMED else 0]:
        full[index] = replace(full[index], fit_frame=True)
    blocks += full
    total = settings.num_samples
    if settings.keep:
        kept = list(range(settings.thin, total + 1, settings.thin))
    else:
        kept = np.linspace(0, total, min(settings.num_latents, total) + 1).astype(int).tolist()[1:]
    for start, end in itertools.pairwise([0, *kept, total]):
        first = start
        for number in _pieces(end - start):
            first += number
            blocks.append(Block(FULL, first - number, number, True, keep_latents=first == end and end in kept))
    return blocks


def _bounded(weights: tuple[float, float], settings: Settings) -> tuple[float, float]:
    # Without a Metropolis test a stronger likelihood is beyond the edge of stability.
    most = 1.0 if settings.sampler == "langevin" else np.inf
    return float(min(weights[0], most)), float(min(weights[1], most))


def _follow(
    machine: Machine,
    settings: Settings,
    schedule: list[Block],
    problem: tuple[Model, jax.Array | None, SiteGroups | None, Phases | None],
    recorder: Recorder | None,
    keys: jax.Array,
    members: np.ndarray | int,
    lane: Lane,
    started: float,
    progress: Progress,
    stop: threading.Event,
) -> Moments | None:
    """One chain, or several in lockstep with a leading axis of ``keys``, through what is left of the schedule.

    ``problem``: the model, the signs of its mirror image, the groups of its sites and its phases, for the `Machine`.
    With a ``recorder`` the moments of the kernels are part of the state and are returned.
    """
    model, mirror, groups, phases = problem
    together = keys.ndim == 2
    chains = keys.shape[0] if together else 1
    # JAX computes in the background. A program that is handed the result of another one that failed, for want of memory
    # for instance, may wait for it for ever, so each is seen to its end before the next.
    finished = jax.block_until_ready
    # float64 within this call only; the switch is local to a thread.
    with own_settings(settings.precision == "float64"):
        chain, moments = None, None
        if recorder is not None:
            moments = recorder.start((chains,) if together else (), np.asarray(jnp.zeros(())).dtype)
        if lane.blocks and (recorder is not None or lane.blocks < len(schedule)):
            shapes = jax.eval_shape(machine.start, keys[..., 0], model, mirror)
            chain, moments = (lane.state(shapes), None) if moments is None else lane.state((shapes, moments))
            moments = moments if moments is None else Moments(*(np.asarray(part) for part in moments))
        for block in schedule[lane.blocks :]:
            if stop.is_set():
                return None
            if chain is None:
                chain = finished(machine.start(keys[..., 0], model, mirror))
            if block.fit_frame:
                chain = finished(machine.fit(chain, model))
            weight = np.choose(np.remainder(members, 2), block.weights)
            chain, record = finished(
                machine.advance(chain, keys[..., 1], model, weight, block.first, block.number, groups, phases)
            )
            # Draws lead, whether or not chains come before them.
            draws = {
                site: np.moveaxis(np.asarray(values), int(together), 0)[: block.number]
                for site, values in record.items()
            }
            _check_finite(draws, lane.name, block, settings)
            if recorder is not None and moments is not None and block.sampling:
                moments, draws = recorder.take(moments, draws)
            kept = {"draws": pack(draws)} if block.sampling else {}
            if block.keep_latents:
                latents = machine.latents(chain)
                kept["latents"] = pack({site: np.asarray(values)[None] for site, values in latents.items()})
            state = chain if moments is None else (chain, moments)
            lane.add(block.number * chains, time.perf_counter() - started, state, **kept)
            progress(block.number * chains, draws)
        return moments


def _join(lanes: Sequence[Lane], kind: str, together: bool) -> dict[str, np.ndarray]:
    """The records of all lanes, (chains, draws, ...)."""
    parts = [unpack(lane.records[kind]) for lane in lanes]
    if together:
        return {site: np.ascontiguousarray(np.moveaxis(values, 1, 0)) for site, values in parts[0].items()}
    return {site: np.stack([part[site] for part in parts]) for site in parts[0]}


def _check_finite(draws: dict[str, np.ndarray], name: str, block: Block, settings: Settings) -> None:
    bad = {site: np.argwhere(~np.isfinite(values)) for site, values in draws.items()}
    bad = {site: where for site, where in bad.items() if len(where)}
    if not bad:
        return
    site, where = min(bad.items(), key=lambda item: item[1][0][0])
    draw, *rest = where[0].tolist()
    place = f"draw {block.first + draw}" if block.sampling else f"warm-up, likelihood weight {max(block.weights):.2g}"
    who = f"chain {rest[0]}" if name == "chains" else name
    what = "the log density" if "lp" in bad else site
    if settings.sampler == "langevin":
        cause = f"step_size {settings.step_size:g} is beyond the edge of stability"
    elif "kernel" in bad:
        cause = "an activation that overflows at these gains and inputs"
    elif settings.precision == "float32":
        cause = "rounding in float32; try precision='float64'"
    else:
        cause = "targets or gains of extreme size"
    raise FloatingPointError(f"{what} is not finite in {who} at {place}; likely cause: {cause}")


def _pieces(total: int) -> Iterator[int]:
    """``total`` cut into pieces of at most `BLOCK`."""
    while total > 0:
        yield min(total, BLOCK)
        total -= BLOCK

"""sample(network, task) -> xarray.DataTree: the posterior of a network on a task."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np
import tqdm
import xarray as xr

from bayesnet.models.coordinates import choose_coordinates
from bayesnet.priors import Priors
from bayesnet.progress import progress_bar, progress_shown
from bayesnet.results import assemble, installed_versions, network_of, task_of, version_of
from bayesnet.samplers.chains import Progress, open_lanes, run_chains
from bayesnet.samplers.checkpoints import describe_run, open_checkpoint
from bayesnet.samplers.engine import Settings
from bayesnet.samplers.memory_need import require_record_memory, require_state_memory
from bayesnet.samplers.moments import AUTO, EVERY, MOMENTS, choose_form
from bayesnet.samplers.phase_jumps import Phases, find_phases
from bayesnet.samplers.tuning import Tuning
from bayesnet.weight_draws import KEPT, kept_group
from theory import arguments
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

__all__ = ["make_settings", "network_of", "sample", "task_of", "version_of"]

SAMPLERS = ("nuts", "hmc", "langevin")
CHAIN_METHODS = ("auto", "parallel", "sequential", "vectorized")
LARGEST_COUNT = 2**31 - 1  # 32-bit integers count what a chain does
LARGEST_DEPTH = 30  # of a tree, whose leapfrog steps they count too


def sample(
    network: Network,
    task: Task,
    coordinates: str = "auto",
    num_warmup: int = 500,
    num_samples: int = 1000,
    num_chains: int = 4,
    seed: int = 0,
    *,
    sampler: str = "nuts",
    target_accept: float | None = None,
    max_tree_depth: int | None = None,
    step_size: float | None = None,
    steps_per_draw: int | None = None,
    anneal: bool = True,
    num_latents: int = 4,
    keep: Iterable[str] = (),
    thin: int | None = None,
    kernels: str = "auto",
    precision: str = "float64",
    chain_method: str = "auto",
    checkpoint: str | os.PathLike | None = None,
    progress: bool | None = None,
    priors: Mapping[str, Any] | None = None,
    tuning: Tuning = Tuning(),
    phases: Solution | None = None,
) -> xr.DataTree:
    """Sample the posterior of a network on a task, with NumPyro's NUTS unless told otherwise.

    Args:
        network: the network and its prior, of any width and activation.
        task: inputs and supervised targets.
        coordinates: "weights", "fields", "kernels" (linear networks of width >= steps * patterns; their cost does not
            depend on the width) or "auto": kernels where possible, else fields. All three are exact.
        num_warmup: warm-up draws of each chain, in which the step size adapts; discarded.
        num_samples: draws of each chain.
        num_chains: number of chains. Never fewer than four for a result: chains can freeze in metastable phases.
        seed: the same seed, an integer from 0 to 2^64 - 1, gives the same draws.
        sampler: "nuts" (NumPyro's); "hmc" (`bayesnet.samplers.split_hmc`: trajectories of a quarter period with the
            prior solved exactly), several times faster on wide networks in fields; or "langevin"
            (`bayesnet.samplers.langevin`: noisy gradient descent on the weights from a prior draw, as in training, in
            weight coordinates, without a Metropolis test). Langevin's means are off by O(step_size), and it moves
            slowly: it is there to look at training, and ``num_warmup=0`` keeps the transient.
        target_accept: acceptance rate that the step size aims at, between 0 and 1, by default 0.8; for NUTS and HMC
            only. These four are refused where they have no effect.
        max_tree_depth: a trajectory has at most 2^depth - 1 leapfrog steps, by default 2^10 - 1; for NUTS only.
        step_size: in units of the time in which the prior forgets a whitened weight, by default 0.001; for Langevin
            only.
        steps_per_draw: by default 10; training time between draws is step_size times steps_per_draw. For Langevin only.
        anneal: raise the weight of the likelihood from .01 to 1 in the first half of the warm-up; in every second chain
            to 4 and back, twice the signal, so that chains do not agree on one of two phases that coexist.
        num_latents: number of draws of each chain, evenly spaced, whose latent numbers are kept, so that weights and
            new patterns can be drawn from them.
        keep: keep the latent numbers of every ``thin``-th draw instead, and beside them what is named here: "latents"
            (no more), "fields" (pre-activations), "weights". Numbers per kept draw: N T P for fields, N^2 for weights
            (times T - 1 where the recurrent weights are not shared).
        kernels: "every": the kernel and the overlaps of every draw are in the result. "moments": in their place the
            mean, standard deviation and Monte Carlo standard error of the mean of each entry, for each chain
            (`bayesnet.diagnostics.summarise_kernel`), and of every draw the default observables: a few n^2 numbers in
            all instead of 2 n^2 for each draw, n = steps * patterns (* layers). "auto": "every" as long as that takes
            at most 1 GiB, 16 n^2 bytes for each draw of all chains: with 4 chains of 1000 draws up to n = 129.
        thin: see ``keep``, without which ``thin`` is refused; by default 10.
        precision: "float64", or "float32": about twice as fast when wide, with log densities rounded to 1e-2.
        chain_method: "parallel" (a thread for each chain, as many as cores), "sequential", "vectorized" (in lockstep,
            for accelerators, shared out over as many devices as divide the number of chains) or "auto": vectorized on
            an accelerator, else parallel.
        checkpoint: a directory to which every block of 25 draws is written. A run that was killed goes on from there
            when the same call is made again, and ends with the same draws, bitwise on the same machine and versions, as
            if it had not been; a run that was complete is read back.
        progress: whether to show a progress bar with the time left, step size and acceptance; by default in
            notebooks and where standard error is a terminal.
        priors: of numbers of the network that are not known but sampled with it: from their names ("noise",
            "recurrent_gain" and the other gains, "leak", "process_noise", "residual", and degrees of sharing,
            "shared.recurrent" and so on) to scalar NumPyro distributions on positive numbers, or on the unit interval
            for leak and degrees. The network's own values of them do not matter. Not of Langevin. In muP noise and
            gains need priors that are narrow beside the width: a wide network prefers to call a few targets noise.
        tuning: numbers that steer warm-up and samplers, each documented with the reason for its value.
        phases: the solution of `theory.solve` for this network and task, whose stable ``branches`` are phases that the
            chains jump between, so that each phase is met as often as it weighs (`bayesnet.samplers.phase_jumps`). In
            kernel coordinates only, and without ``priors``.

    Returns:
        An ArviZ-shaped DataTree (`bayesnet.to_arviz` hands it to any version of ArviZ):

        - posterior: ``kernel`` and ``overlap`` (its normalisation) with dims (chain, draw, step, pattern, step_bis,
          pattern_bis), ``prediction`` (chain, draw, pattern, step, output) at every step, ``log_likelihood_marginal``,
          ln p(y | Phi) with V integrated out; and (chain, draw) the parameters that have priors, by their names.
          Where ``kernels`` are kept as moments: ``observables`` (chain, draw, observable) in place of kernel and
          overlap, and a group kernel_moments: ``kernel_mean``, ``kernel_sd``, ``kernel_mcse`` and the same of the
          overlap, (chain, step, pattern, step_bis, pattern_bis); the attribute ``kernels`` says so;
        - posterior_predictive: ``y`` (chain, draw, observation), new targets y = f + noise;
        - sample_stats: acceptance_rate, n_steps, tree_depth, diverging, energy, lp, step_size, and where steps are tied
          by nothing ``moved``, whether there was more than a gauge move; where there are ``phases`` ``jumped``, whether
          the draw was reached by a jump; of Langevin n_steps, lp, step_size,
          ``training_time`` and ``loss``, sum (y - f)^2 / 2 over the supervised entries;
        - log_likelihood: ``y`` (chain, draw, observation), ln p(y_i | y_-i, Phi), for leave-one-out comparison;
        - observed_data, constant_data: the task; latents: the latent numbers of the kept draws;
        - fields: ``preactivation`` (chain, latent_draw, step, pattern, neuron); weights: ``recurrent``, ``input``,
          ``readout`` as `Weights` describes them, completed with ``seed``; where ``keep`` asks for them;
        - priors: quantiles of the priors, where there are any;
        - attributes: network (the medians of the priors in place of the parameters that have any), settings, seed,
          versions, device, wall time in seconds, ``bias`` where there is one, ``priors`` and ``phases`` in words.

        Steps, patterns and outputs are counted from 1. An entry that no input has reached has no variance and no
        overlap: zero is stored, and ``constant_data.has_input`` is False there.

        Memory: 8 bytes for each stored number, with n = steps * patterns about 2 n^2 for each draw (unless ``kernels``
        are kept as moments), which is held up to three times while the tree is built; and a few dozen states of the
        sampler, N n numbers each in fields.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed; also where draws or chains cannot
            fit into memory, before anything is compiled.
        FloatingPointError: if a log density stops being finite, naming the chain, the draw and the likely cause.
        MemoryError: if memory runs out all the same.
        OSError: if the checkpoint cannot be written; what was written before stays.
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    unknown = None if priors is None else Priors(network, task, priors)
    network = network if unknown is None else unknown.network
    if unknown is not None and sampler == "langevin":
        raise ValueError("sampler is 'langevin', which trains the weights; with priors allowed are 'nuts', 'hmc'")
    settings = make_settings(
        network,
        task,
        coordinates=coordinates,
        sampler=sampler,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        step_size=step_size,
        steps_per_draw=steps_per_draw,
        anneal=anneal,
        num_latents=num_latents,
        keep=keep,
        thin=thin,
        kernels=kernels,
        precision=precision,
        chain_method=chain_method,
        tuning=tuning,
    )
    seed = arguments.seed("seed", seed)
    jumps = None if phases is None else _phases(network, task, settings, phases, unknown)
    require_state_memory(replace(settings, chain_method=_method(settings)), network, task)
    directory = None
    if checkpoint is not None:
        # How chains are run side by side is no part of what is drawn; in lockstep it is.
        method = "vectorized" if _method(settings) == "vectorized" else "parallel"
        run = asdict(replace(settings, chain_method=method))
        if settings.kernels == EVERY:  # as in checkpoints of versions that knew nothing else
            del run["kernels"]
        if unknown is not None:
            run["priors"] = unknown.fingerprints()
        if jumps is not None:
            run["phases"] = jumps.fingerprint()
        directory = open_checkpoint(checkpoint, describe_run(network.to_dict(), task, run, seed, installed_versions()))
    settings = replace(settings, chain_method=_method(settings))
    lanes = open_lanes(settings, directory)
    hidden = not progress_shown(progress)
    with progress_bar(
        total=settings.num_chains * (settings.num_warmup + settings.num_samples),
        initial=sum(lane.made for lane in lanes),
        desc=f"sampling {settings.coordinates}",
        unit="draw",
        disable=hidden,
        leave=False,
    ) as bar:
        chains = run_chains(network, task, settings, seed, lanes, _shown_on(bar), unknown, jumps)
    tree = assemble(network, task, settings, seed, chains, unknown)
    if jumps is not None:
        tree.attrs["phases"] = f"chains jump between {len(jumps.centres)} phases and mirror images"
    for name in settings.keep:
        if name in KEPT:
            _keep(tree, name)
    return tree


def _phases(network: Network, task: Task, settings: Settings, solution: Solution, priors: Priors | None) -> Phases:
    """Where chains may jump between phases."""
    if settings.coordinates != "kernels" or priors is not None:
        with_priors = " with priors" if priors is not None else ""
        raise ValueError(
            f"phases is given, but coordinates is {settings.coordinates!r}{with_priors}; chains jump between phases in "
            "coordinates 'kernels' without priors only; elsewhere bayesnet.weigh_phases tells what each phase weighs"
        )
    return find_phases(network, task, solution)


def _keep(tree: xr.DataTree, name: str) -> None:
    """Add fields or weights of the kept draws; what was sampled stands without them."""
    try:
        tree[name] = xr.DataTree(kept_group(tree, name))
    except Exception as error:
        warnings.warn(
            f"keep: {name} could not be drawn back ({type(error).__name__}: {error}); the posterior is complete "
            "without them, and keeps the latent numbers from which bayesnet.draw_weights may draw them later",
            stacklevel=3,
        )


def _method(settings: Settings) -> str:
    """The chain method that "auto" stands for."""
    if settings.chain_method != "auto":
        return settings.chain_method
    return "parallel" if jax.default_backend() == "cpu" else "vectorized"


def _shown_on(bar: tqdm.tqdm) -> Progress:
    """Progress as the bar shows it: draws, and step size and acceptance of the last block."""

    one_at_a_time = threading.Lock()  # the chains report from threads of their own

    def show(draws: int, record: dict[str, np.ndarray]) -> None:
        shown = {"step size": f"{record['step_size'].mean():.2g}"}
        if "acceptance_rate" in record:
            shown["acceptance"] = f"{record['acceptance_rate'].mean():.2f}"
        with one_at_a_time:
            bar.set_postfix(shown, refresh=False)
            bar.update(draws)

    return show


def make_settings(
    network: Network,
    task: Task,
    *,
    coordinates: str,
    sampler: str,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    target_accept: float | None,
    max_tree_depth: int | None,
    anneal: bool,
    num_latents: int,
    precision: str,
    chain_method: str,
    keep: Iterable[str] = (),
    thin: int | None = None,
    kernels: str = AUTO,
    step_size: float | None = None,
    steps_per_draw: int | None = None,
    tuning: Tuning = Tuning(),
) -> Settings:
    """The arguments of `sample`, checked; nothing is compiled and no device taken.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    sampler = arguments.one_of("sampler", sampler, SAMPLERS)
    if sampler == "langevin" and coordinates == "auto":
        coordinates = "weights"
    coordinates = choose_coordinates(coordinates, network, task)
    if sampler == "langevin" and coordinates != "weights":
        raise ValueError(f"coordinates is {coordinates!r}; sampler 'langevin' trains the weights: allowed is 'weights'")
    langevin, kept = sampler == "langevin", _names_to_keep(keep)
    arguments.only_for("the samplers 'nuts' and 'hmc'", not langevin, target_accept=target_accept)
    arguments.only_for("the sampler 'nuts'", sampler == "nuts", max_tree_depth=max_tree_depth)
    arguments.only_for("the sampler 'langevin'", langevin, step_size=step_size, steps_per_draw=steps_per_draw)
    arguments.only_for("what is named in keep", bool(kept), thin=thin)
    settings = Settings(
        coordinates=coordinates,
        sampler=sampler,
        num_warmup=arguments.integer("num_warmup", num_warmup, 0, LARGEST_COUNT),
        num_samples=arguments.integer("num_samples", num_samples, 1, LARGEST_COUNT),
        num_chains=arguments.integer("num_chains", num_chains, 1, LARGEST_COUNT),
        target_accept=arguments.fraction("target_accept", 0.8 if target_accept is None else target_accept),
        max_tree_depth=arguments.integer(
            "max_tree_depth", 10 if max_tree_depth is None else max_tree_depth, 1, LARGEST_DEPTH
        ),
        anneal=arguments.flag("anneal", anneal),
        num_latents=arguments.integer("num_latents", num_latents, 1),
        precision=arguments.one_of("precision", precision, ("float64", "float32")),
        chain_method=arguments.one_of("chain_method", chain_method, CHAIN_METHODS),
        keep=kept,
        thin=arguments.integer("thin", 10 if thin is None else thin, 1),
        step_size=arguments.positive("step_size", 0.001 if step_size is None else step_size),
        steps_per_draw=arguments.integer(
            "steps_per_draw", 10 if steps_per_draw is None else steps_per_draw, 1, LARGEST_COUNT
        ),
        tuning=arguments.instance("tuning", tuning, Tuning),
        kernels=arguments.one_of("kernels", kernels, (AUTO, EVERY, MOMENTS)),
    )
    draws = settings.num_chains * settings.num_samples
    settings = replace(settings, kernels=choose_form(settings.kernels, network.layers * task.entries, draws))
    if settings.keep and settings.thin > settings.num_samples:
        raise ValueError(
            f"thin is {settings.thin}; it must be at most num_samples, {num_samples}, for keep to keep anything"
        )
    require_record_memory(settings, network, task)
    return settings


def _names_to_keep(keep: Iterable[str]) -> tuple[str, ...]:
    allowed = ("latents", *KEPT)
    named = isinstance(keep, Iterable) and not isinstance(keep, str | bytes)
    names = tuple(keep) if named else ()
    if not named or any(name not in allowed for name in names):
        raise ValueError(f"keep is {keep!r}; it must be a list of names out of {', '.join(map(repr, allowed))}")
    return tuple(name for name in allowed if name in names)

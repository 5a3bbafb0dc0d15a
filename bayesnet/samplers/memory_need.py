"""How much memory a run takes at least: what its chains stand on while they move, and what is kept of their draws."""

from __future__ import annotations

import math
import os

import jax

from bayesnet.models.weight_space import latent_shapes
from bayesnet.samplers.engine import BLOCK, Settings, count_devices
from bayesnet.samplers.moments import EVERY, recorded_observables
from bayesnet.weight_draws import KEPT
from theory.memory import memory_limit, require_memory
from theory.network import Network
from theory.task import Task

RECORDED = 3  # copies of what the chains recorded, while they are joined and overlaps are added
STATES = 4  # a position, its gradient, its momentum and the next position
SUMS = 10  # of `Moments`, for kernel and overlap
PER_CHAIN, PER_BLOCK = 1000.0, 400.0  # bytes of bookkeeping


def require_record_memory(settings: Settings, network: Network, task: Task) -> None:
    """Refuse a run whose draws this machine cannot hold.

    Raises:
        ValueError: naming what the number of bytes depends on, what it is and what there is.
    """
    n, itemsize = network.layers * task.entries, _itemsize(settings)
    observed = len(task.supervised_entries) * task.output_dim
    draw = (
        (n**2 if settings.kernels == EVERY else len(recorded_observables(network, task)) + 1)
        + task.entries * task.output_dim
        + observed
    )
    number = settings.num_samples
    kept = number // settings.thin if settings.keep else min(settings.num_latents, number)
    drawn_back = [name for name in KEPT if name in settings.keep]
    each = sum(count_latents(name, network, task) for name in (settings.coordinates, *drawn_back))
    moments = 0 if settings.kernels == EVERY else SUMS * n**2
    numbers = number * draw + kept * each + moments
    blocks = (settings.num_warmup + settings.num_samples) / BLOCK * PER_BLOCK
    require_memory(
        f"what is kept of num_chains {settings.num_chains} with num_samples {settings.num_samples} and num_warmup "
        f"{settings.num_warmup}, in {settings.coordinates} at width {network.width} for "
        f"{entries_in_words(network, task)},",
        settings.num_chains * (RECORDED * numbers * itemsize + PER_CHAIN) + blocks,
        "fewer draws or chains, a smaller num_latents, kernels='moments' or other coordinates take less",
    )


def require_state_memory(settings: Settings, network: Network, task: Task) -> None:
    """Refuse a run whose chains do not fit into the memory of what they run on; it takes the devices.

    Raises:
        ValueError: naming what the number of bytes depends on, what it is and what there is.
    """
    together = settings.num_chains
    if settings.chain_method != "vectorized":
        together = 1 if settings.chain_method == "sequential" else min(together, os.cpu_count() or 1)
    # NUTS keeps a position and a sum of momenta for each doubling of its tree.
    states = STATES + (2 * settings.max_tree_depth if settings.sampler == "nuts" else 0)
    numbers = states * count_latents(settings.coordinates, network, task) + BLOCK * (network.layers * task.entries) ** 2
    require_memory(
        f"{together} chain(s) at once in {settings.coordinates} at width {network.width} for "
        f"{entries_in_words(network, task)}, with max_tree_depth {settings.max_tree_depth},",
        together * numbers * _itemsize(settings),
        "a smaller width, other coordinates, precision='float32' or chain_method='sequential' takes less",
        _device_memory(settings),
    )


def count_latents(coordinates: str, network: Network, task: Task) -> int:
    """How many latent numbers a chain moves in."""
    n = network.layers * task.entries
    if coordinates == "kernels":
        return n * (n + 1) // 2
    if coordinates == "fields":
        return n * network.width
    return sum(math.prod(shape) for shape in latent_shapes(network, task).values())


def entries_in_words(network: Network, task: Task) -> str:
    """The number of entries of a kernel and what it comes from."""
    of_layers = "" if network.layers == 1 else " x layers"
    return f"steps x patterns{of_layers} = {network.layers * task.entries}"


def _itemsize(settings: Settings) -> int:
    return 8 if settings.precision == "float64" else 4


def _device_memory(settings: Settings) -> float:
    """Bytes of the devices that a run uses; those of this process where they are its own processors."""
    devices = jax.local_devices()[: count_devices(settings)]
    known = [device.memory_stats() for device in devices if device.platform != "cpu"]
    if len(known) < len(devices):
        return memory_limit()
    return sum(float((stats or {}).get("bytes_limit", math.inf)) for stats in known)

"""run: the network itself, forward in time, with given weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import xarray as xr

from bayesnet.models.weight_space import PROCESS_NOISE, Weights, read_network, run_fields
from bayesnet.outside_weights import checked_weights, networks_of
from theory import arguments
from theory.arrays import real_array
from theory.jax_settings import own_settings
from theory.kernels import OUTPUT_DIMS, entry_coords, kernel_labels, kernel_of
from theory.memory import require_memory
from theory.network import Network
from theory.task import Task


def run(network: Network, weights: Any, inputs: Any, steps: int | None = None, seed: int = 0) -> xr.Dataset:
    r"""Run a network forward: pre-activations, activities, kernel and outputs.

        u_t = W_t phi(h_{t-1}) + U_t x_t + b_t + sigma xi_t,      h_t = (1 - leak) h_{t-1} + leak u_t,
        f_t = V_t phi(h_t) / N   (muP; over sqrt(N) in standard scaling),      Phi = phi(H) phi(H)^T / N

    and whatever else `theory.Network` describes.

    Args:
        network: activation, scaling, leak and how weights are shared; the gains and the noise of the targets do not
            matter here.
        weights: of one network: what `draw_weights` returned, or a mapping from the names of the weights to arrays
            (NumPy, JAX, PyTorch), (copies, rows, columns), or one matrix where there is one copy: "recurrent" W (N, N),
            "input" U (N, D), "readout" V (O, N), "bias" (N,); or the state dict of a `torch.nn.RNN` with a linear
            readout (see `from_weights`).
        inputs: a `theory.Task`, or x (patterns, steps[, input dimensions]).
        steps: how many to run; those of ``inputs`` by default. Beyond them the input is zero.
        seed: of the process noise, where the network has some and ``weights`` hold none.

    Returns:
        A Dataset with ``preactivation`` h and ``activity`` phi(h), dims (step, pattern, neuron), or (site, pattern,
        neuron) of several layers; ``kernel`` (step, pattern, step_bis, pattern_bis) and ``prediction`` f (pattern,
        step, output). float64; steps, patterns and outputs are counted from 1.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    arguments.instance("network", network, Network)
    given = networks_of(network, weights)
    if len(given) > 1:
        raise ValueError(f"weights are those of {len(given)} networks; run them one at a time")
    task = task_of_inputs(inputs, steps, given[0])
    checked = with_noise(network, task, checked_weights(network, task, given[0]), [arguments.seed("seed", seed)])
    n = network.layers * task.entries
    require_memory(
        f"the activity of {n} x {network.width} (entries x neurons)",
        24.0 * n * network.width,
        "fewer patterns or steps take less",
    )
    fields, activity, kernel, prediction = forward(network, task, checked)
    dims, labels = kernel_labels(task, len(fields) // task.patterns)
    shape = (-1, task.patterns, network.width)
    return xr.Dataset(
        {
            "preactivation": ((*dims[:2], "neuron"), fields.reshape(shape)),
            "activity": ((*dims[:2], "neuron"), activity.reshape(shape)),
            "kernel": (dims, kernel_of(kernel, task)),
            "prediction": (OUTPUT_DIMS, prediction),
        },
        coords={**entry_coords(task), **labels},
    )


def forward(network: Network, task: Task, weights: Weights, mixing: Any = None) -> tuple[np.ndarray, ...]:
    """Pre-activations and activities (n, N), kernel (n, n) and outputs f (P, T, O), in float64.

    ``mixing`` is F (sites, sites), where that is not the network's own.
    """
    # float64 within this call only.
    with own_settings():
        found = jax.block_until_ready(_program(network, task)(weights, mixing))
        return tuple(np.asarray(part) for part in found)


@lru_cache(maxsize=8)
def _program(network: Network, task: Task) -> Callable:
    """Compiled: one network after the other runs the same program."""

    @jax.jit
    def program(weights: Weights, mixing: Any) -> tuple:
        fields = run_fields(network, task, weights, mixing)
        activities, kernel, prediction = read_network(network, task, weights, fields)
        return jax.numpy.concatenate(fields), activities, kernel, prediction

    return program


def task_of_inputs(inputs: Any, steps: int | None, matrices: dict[str, np.ndarray]) -> Task:
    """A task with these inputs over ``steps`` steps and as many outputs as the readout has, all of them zero."""
    if isinstance(inputs, Task):
        values = np.array(inputs.inputs)
    else:
        values = real_array("inputs", inputs, "(patterns, steps[, input dimensions]), or a theory.Task", (2, 3))
        values = values if values.ndim == 3 else values[:, :, None]
    number = values.shape[1] if steps is None else arguments.integer("steps", steps)
    shown = np.zeros((values.shape[0], number, values.shape[2]))
    shown[:, : values.shape[1]] = values[:, :number]
    readout = matrices.get("readout")
    outputs = readout.shape[-2] if readout is not None and readout.ndim > 1 else 1
    return Task(shown, np.zeros((*shown.shape[:2], outputs)))


def with_noise(network: Network, task: Task, weights: Weights, seed: list[int]) -> Weights:
    """The weights and, where the network has process noise and they hold none, a draw of it."""
    if not network.process_noise or PROCESS_NOISE in weights.names:
        return weights
    shape = (network.layers * task.steps, network.width, task.patterns)
    noise = network.process_noise * np.random.default_rng(seed).normal(size=shape)
    return Weights({**dict(weights.items()), PROCESS_NOISE: noise})

"""Networks that somebody else trained, or neurons that somebody recorded, as if `sample` had drawn them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import xarray as xr

from bayesnet.forward_pass import forward, with_noise
from bayesnet.models.likelihood import target_density
from bayesnet.outside_weights import checked_weights, networks_of, whitened
from bayesnet.recorded_neurons import FEWEST, kernels_without_parts
from bayesnet.results import NEURONS, OUTSIDE, build_tree, losses
from theory import arguments
from theory.arrays import real_array
from theory.jax_settings import own_settings
from theory.kernels import kernel_labels, kernel_of
from theory.memory import require_memory
from theory.model import Model, build_model
from theory.network import Network
from theory.task import Task


def from_weights(network: Network, task: Task, weights: Any, seed: int = 0) -> xr.DataTree:
    r"""Networks with given weights as draws of a posterior: run on the task, and laid out as `sample` lays them out.

        u_t = W_t phi(h_{t-1}) + U_t x_t + b_t,      f_t = V_t phi(h_t) / N   (muP; over sqrt(N) in standard scaling)

    The prior that the networks are measured by is that of ``network``: W_ij ~ N(0, gw^2/N), U_ij ~ N(0, gu^2/D), V_oi ~
    N(0, gv^2), b_i ~ N(0, gb^2). Gradient descent on sum (y - f)^2 / 2 with weight decay and noise ends in its
    posterior (`bayesnet.samplers.langevin` gives the learning rates); the ``noise`` kappa of the network is that noise.

    Args:
        network: of the same width, activation, scaling, leak and sharing as the networks; its gains and noise say what
            posterior they are compared with.
        task: what they were trained on, at least its inputs and supervised targets.
        weights: one network or many. Of one, what `draw_weights` returned, or a mapping from the names of the weights
            to arrays (NumPy, JAX, PyTorch), (copies, rows, columns), or one matrix where there is one copy:
            "recurrent" W (N, N), "input" U (N, D), "readout" V (O, N), "bias" b (N,), and whatever else
            ``network.weights`` names. Or the state dict of a `torch.nn.RNN` (tanh or ReLU) with a linear readout:
            weight_hh_l0 is W, weight_ih_l0 is U, bias_ih_l0 + bias_hh_l0 is b, and N times (in standard scaling sqrt(N)
            times) the weight of the readout is V; prefixes of modules may stand before these names. Of many, a list of
            any of these, or a mapping to arrays with one more axis in front, (networks, copies, rows, columns).
        seed: of the new targets in posterior_predictive, and of process noise that the weights do not hold.

    Returns:
        The DataTree that `sample` documents, one chain with a draw for each network. All of its functions take it:
        `compare`, `locate`, `report`, `predict` and `draw_weights` (every network is kept), `to_arviz`, `save`. The
        networks count as independent. ``sample_stats`` holds ``loss``, sum (y - f)^2 / 2, and as ``lp`` the
        ln p(y | Phi) of each network; nothing was sampled, so that ``n_steps`` and ``step_size`` are zero.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    started = time.perf_counter()
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    seed = arguments.seed("seed", seed)
    given = networks_of(network, weights)
    names = [f"weights[{number}]" if len(given) > 1 else "weights" for number in range(len(given))]
    n = network.layers * task.entries
    numbers = sum(values.size for matrices in given for values in matrices.values())
    require_memory(
        f"{len(given)} network(s) of width {network.width} for steps x patterns = {n}",
        8.0 * (2 * numbers + 3 * len(given) * n**2),
        "give fewer networks",
    )
    # All are checked before the first is run.
    checked = [checked_weights(network, task, one, name) for one, name in zip(given, names, strict=True)]
    checked = [with_noise(network, task, one, [seed, 2, number]) for number, one in enumerate(checked)]
    white = [whitened(network, task, one, name) for one, name in zip(checked, names, strict=True)]
    kernels, outputs = [], []
    for name, one in zip(names, checked, strict=True):
        _, _, kernel, prediction = forward(network, task, one)
        if not (np.isfinite(kernel).all() and np.isfinite(prediction).all()):
            raise ValueError(f"{name} makes activity that is not finite on this task; the weights are too large")
        kernels.append(kernel)
        outputs.append(prediction)
    latents = xr.Dataset(
        {
            kind: (
                ("chain", "latent_draw", *(f"{kind}_dim_{i}" for i in range(values.ndim))),
                np.stack([one[kind] for one in white])[None],
            )
            for kind, values in white[0].items()
        },
        coords={"chain": np.arange(1), "latent_draw": np.arange(len(white))},
    )
    return _tree(network, task, np.stack(kernels), np.stack(outputs), latents, "weights", seed, started)


def from_activations(network: Network, task: Task, activity: Any, outputs: Any, seed: int = 0) -> xr.DataTree:
    r"""Networks known by their activities, recordings of neurons included, as draws of a posterior.

        Phi_ts = (1/n) sum_i phi(h_it) phi(h_is),      i over the n recorded neurons

    Where fewer neurons are recorded than the network has, a kernel entry is unbiased but scatters by (1/n - 1/N) times
    the variance of phi_t phi_s over neurons more than the network's own kernel does. `compare` and `locate` add that to
    the spread that the theory predicts; and every observable that is no linear function of the kernel (an overlap, a
    square) is freed from its bias of order 1/n - 1/N by a jackknife over parts of the neurons, wherever observables are
    evaluated.

    Args:
        network: what the activities are compared with: its ``width`` is the number of neurons that the networks have,
            recorded or not.
        task: what the networks did.
        activity: phi(h) in the units of the model, (networks, neurons, steps, patterns), or (neurons, steps, patterns)
            of one network; of several layers the sites (step by step, within a step layer by layer) take the place of
            the steps. Neurons must be recorded at random, not chosen by what they do.
        outputs: f of each network, (networks, patterns, steps, outputs), or without the axis of networks; the axis of
            outputs may be missing if there is one.
        seed: of the new targets in posterior_predictive.

    Returns:
        The DataTree of `from_weights`, without latent numbers, so that `predict` and `draw_weights` do not work; the
        attribute ``recorded_neurons`` and a group ``recording`` where fewer neurons than the width were recorded.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    started = time.perf_counter()
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    seed = arguments.seed("seed", seed)
    sites = network.layers * task.steps
    values = _array("activity", activity, "(networks, neurons, steps, patterns)", (3, 4))
    values = values if values.ndim == 4 else values[None]
    if values.shape[2:] != (sites, task.patterns):
        raise ValueError(
            f"activity has {values.shape[2]} steps (or sites) and {values.shape[3]} patterns; network and task have "
            f"{sites} and {task.patterns}"
        )
    neurons = values.shape[1]
    if not (neurons == network.width or FEWEST <= neurons < network.width):
        raise ValueError(
            f"activity has {neurons} neurons; it must have at least {FEWEST} and at most the width, {network.width}"
        )
    told = _outputs(task, outputs, len(values))
    entries = values.reshape(len(values), neurons, -1)
    require_memory(
        f"activity of {len(values)} network(s) for sites x patterns = {entries.shape[2]}",
        8.0 * len(values) * (20 * entries.shape[2] ** 2 + neurons * entries.shape[2]),
        "give fewer networks",
    )
    kernels = entries.swapaxes(1, 2) @ entries / neurons
    tree = _tree(network, task, kernels, told, None, "activations", seed, started)
    if neurons < network.width:
        without = kernel_of(kernels_without_parts(entries), task)[None]
        dims, labels = kernel_labels(task, sites)
        coords = {**labels, **{name: tree["posterior"][name].to_numpy() for name in ("chain", "draw")}}
        tree["recording"] = xr.DataTree(
            xr.Dataset({"kernel_without_part": (("chain", "draw", "part", *dims), without)}, coords)
        )
        tree.attrs[NEURONS] = neurons
    return tree


def _tree(
    network: Network,
    task: Task,
    kernels: np.ndarray,
    outputs: np.ndarray,
    latents: xr.Dataset | None,
    coordinates: str,
    seed: int,
    started: float,
) -> xr.DataTree:
    """The tree of networks with kernels (networks, n, n) and outputs f (networks, P, T, O)."""
    flat = outputs.swapaxes(1, 2).reshape(len(outputs), task.entries, task.output_dim)
    # float64 within this call only.
    with own_settings():
        model = build_model(network, task).on_device()
        joint, pointwise = (np.asarray(part) for part in _densities()(model, jax.numpy.asarray(kernels)))
    record = {
        "kernel": kernels,
        "prediction": flat,
        "log_likelihood_marginal": joint,
        "log_likelihood": pointwise,
    }
    record = {name: values[None] for name, values in record.items()}
    nothing = np.zeros((1, len(kernels)))
    statistics = {
        "lp": record["log_likelihood_marginal"],
        "loss": losses(task, record["prediction"]),
        "n_steps": nothing.astype(int),
        "step_size": nothing,
    }
    tree = build_tree(network, task, record, statistics, latents, seed)
    settings = {
        "coordinates": coordinates,
        "sampler": OUTSIDE,
        "num_warmup": 0,
        "num_samples": len(kernels),
        "num_chains": 1,
        "max_tree_depth": 0,
    }
    tree.attrs.update(settings=json.dumps(settings), wall_time=time.perf_counter() - started)
    return tree


@lru_cache(maxsize=1)
def _densities() -> Callable:
    """Compiled: ln p(y | Phi) and its leave-one-out conditionals for kernels (networks, n, n)."""

    def one(model: Model, kernel: jax.Array) -> tuple:
        return tuple(target_density(model, kernel))

    return jax.jit(lambda model, kernels: jax.lax.map(lambda kernel: one(model, kernel), kernels))


def _outputs(task: Task, outputs: Any, networks: int) -> np.ndarray:
    values = _array("outputs", outputs, "(networks, patterns, steps, outputs)", (2, 3, 4))
    whole = (networks, task.patterns, task.steps, task.output_dim)
    allowed = [whole, *([whole[1:]] if networks == 1 else [])]
    if task.output_dim == 1:
        allowed += [shape[:-1] for shape in allowed]
    if values.shape not in allowed:
        raise ValueError(
            f"outputs has shape {values.shape}; it must be {' or '.join(map(str, dict.fromkeys(allowed)))}: "
            "(networks, patterns, steps, outputs)"
        )
    return values.reshape(whole)


def _array(name: str, value: Any, form: str, ranks: tuple[int, ...]) -> np.ndarray:
    values = real_array(name, value, form, ranks)
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name} is not finite at {where}; all must be finite numbers")
    return values

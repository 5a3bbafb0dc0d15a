r"""Weights and pre-activations drawn back from a posterior in which they were integrated out, exactly.

Given the activity, the rows of the weights are independent Gaussians conditioned on the currents (W x stands for all of
them): with S the features that multiply the whitened weights (gw / sqrt(N) phi(h_{t-1}), gu / sqrt(D) x_t and so on, a
block of rows for each independent matrix),

    W white = G + (u' - G S) S^+,     G a fresh prior draw,     u = F^{-1} h,

reproduces H to rounding error (Matheron's rule). V given the activity and the targets follows by the same rule with
noise kappa. The bulk of the spectrum is prior noise; what was learned is the part of rank n.
"""

from __future__ import annotations

import math

import jax
import numpy as np
import xarray as xr

from bayesnet.models.kernel_space import bartlett_factor
from bayesnet.models.weight_space import PROCESS_NOISE, Weights, latent_shapes, run_fields, scale_weights, unit
from bayesnet.results import names_with_priors, network_of, require_whole, task_of
from theory import arguments
from theory.causal import Trajectory, propagate
from theory.connections import Connection
from theory.jax_settings import own_settings
from theory.model import build_model
from theory.network import Network
from theory.parameters import Parameters, network_at
from theory.task import Task

SINGULAR = 1e-10
KEPT = ("fields", "weights")  # what `sample` stores of kept draws when asked to


def draw_weights(posterior: xr.DataTree, chain: int = 0, latent_draw: int = -1, seed: int = 0) -> Weights:
    """The weights of one posterior draw whose latent numbers were kept.

    Args:
        posterior: what `sample` returned, in any coordinates.
        chain: which chain.
        latent_draw: which of its kept draws (position, negative from the end).
        seed: of the prior noise that completes the weights; kernel coordinates also draw the frame of the neurons.

    Returns:
        `Weights`: W, U, V and the others in float64, scaled as in `Network`, leading axis 1 where shared. Copies of
        weights that nothing passes through are prior draws.

    Raises:
        ValueError: if there is no such chain or kept draw, or if ``seed`` is no integer from 0 to 2^64 - 1.
    """
    task = task_of(posterior)
    latents, rng = _kept_draw(posterior, chain, latent_draw, seed)
    network, numbers = _network_of_draw(posterior, latents)
    # float64 within this call only: the weights must reproduce the fields to rounding error.
    with own_settings():
        if _are_weights(latents):
            return jax.tree.map(np.asarray, scale_weights(network, task, latents, *numbers))
        trajectory = _trajectory(network, task, latents, rng)
    fields, activity = np.asarray(trajectory.preactivation), np.asarray(trajectory.activity)
    return weights_given_fields(network, task, fields, activity, rng)


def draw_fields(posterior: xr.DataTree, chain: int = 0, latent_draw: int = -1, seed: int = 0) -> np.ndarray:
    """The pre-activations h (T, P, N) of one kept draw, those that `draw_weights` reproduces; arguments as there.

    Of several layers (sites, P, N).
    """
    task = task_of(posterior)
    latents, rng = _kept_draw(posterior, chain, latent_draw, seed)
    network, numbers = _network_of_draw(posterior, latents)
    # float64 within this call only.
    with own_settings():
        if _are_weights(latents):
            fields = run_fields(network, task, scale_weights(network, task, latents, *numbers))
            return np.stack([np.asarray(h) for h in fields])
        flat = np.asarray(_trajectory(network, task, latents, rng).preactivation)
    return flat.reshape(-1, task.patterns, network.width)


def kept_group(posterior: xr.DataTree, name: str) -> xr.Dataset:
    """The fields, or weights, of all kept draws of a posterior as `sample` stores them."""
    group, seed = posterior["latents"], int(posterior.attrs["seed"])
    network = network_of(posterior)
    columns = {"activity": "neuron_bis", "input": "input_dim", "bias": "one", "output": "neuron"}
    dims = {
        "preactivation": ("step" if network.layers == 1 else "site", "pattern", "neuron"),
        "process_noise": ("site", "neuron", "pattern"),
    }
    for connection in network.wiring(task_of(posterior).steps).connections:
        rows = "output" if connection.reads == "output" else "neuron"
        dims[connection.name] = (f"{connection.name}_copy", rows, columns[connection.reads])
    stored: dict[str, np.ndarray] = {}
    lead = group.sizes["chain"], group.sizes["latent_draw"]
    for chain, draw in np.ndindex(lead):
        if name == "weights":
            drawn = dict(draw_weights(posterior, chain, draw, seed).items())
        else:
            drawn = {"preactivation": draw_fields(posterior, chain, draw, seed)}
        for part, values in drawn.items():
            stored.setdefault(part, np.empty((*lead, *values.shape)))[chain, draw] = values
    coords = {axis: group[axis].to_numpy() for axis in ("chain", "latent_draw")}
    return xr.Dataset({part: ((*coords, *dims[part]), values) for part, values in stored.items()}, coords)


def _kept_draw(
    posterior: xr.DataTree, chain: int, latent_draw: int, seed: int
) -> tuple[dict[str, np.ndarray], np.random.Generator]:
    """The latent numbers of a kept draw, and the random numbers that complete it."""
    require_whole(posterior, "latents")
    seed = arguments.seed("seed", seed)
    group = posterior["latents"]
    sizes = {"chain": group.sizes["chain"], "latent_draw": group.sizes["latent_draw"]}
    for name, value in (("chain", chain), ("latent_draw", latent_draw)):
        arguments.integer(name, value, -sizes[name], sizes[name] - 1)
    latents = {
        str(name): values.isel(chain=chain, latent_draw=latent_draw).to_numpy().astype(float)
        for name, values in group.data_vars.items()
    }
    return latents, np.random.default_rng([seed, chain % sizes["chain"], latent_draw % sizes["latent_draw"]])


def _network_of_draw(posterior: xr.DataTree, latents: dict[str, np.ndarray]) -> tuple[Network, tuple]:
    """The network at the draw's own values of what has a prior, and these as `scale_weights` takes them."""
    network, names = network_of(posterior), names_with_priors(posterior)
    if not names:
        return network, ()
    values = {name: float(latents[name]) for name in names}
    return network_at(network, values), (Parameters(network, task_of(posterior), names), values)


def _are_weights(latents: dict[str, np.ndarray]) -> bool:
    """Whether latent numbers are whitened weights, not the noise of fields or its Bartlett factor."""
    return "z" not in latents and "bartlett_diagonal" not in latents


def _trajectory(network: Network, task: Task, latents: dict[str, np.ndarray], rng: np.random.Generator) -> Trajectory:
    noise = _noise(latents, network, task, rng)
    model = build_model(network, task).on_device()
    return propagate(model, noise, network.phi.function, network.width)


def weights_given_fields(
    network: Network, task: Task, fields: np.ndarray, activity: np.ndarray, rng: np.random.Generator
) -> Weights:
    """`Weights` drawn from their law given H and phi(H), (n, N) each, and the targets."""
    wiring = network.wiring(task.steps)
    shapes = latent_shapes(network, task)
    currents = fields if wiring.mixing is None else _unmixed(wiring.mixing, fields)
    into = [c for c in wiring.connections if c.reads != "output" and c.name in shapes]
    blocks = [_features(connection, network, task, activity) for connection in into]
    if network.process_noise:
        blocks.append(network.process_noise * np.eye(len(currents)))
    features = np.concatenate(blocks)
    white = _condition(rng.normal(size=(network.width, len(features))), features, currents.T)
    latents: dict[str, np.ndarray] = {}
    at = 0
    for connection in into:
        rank, rows, columns = shapes[connection.name]
        latents[connection.name] = white[:, at : at + rank * columns].reshape(rows, rank, columns).swapaxes(0, 1)
        at += rank * columns
    if network.process_noise:
        noise = white[:, at:].reshape(network.width, wiring.sites, task.patterns)
        latents[PROCESS_NOISE] = noise.swapaxes(0, 1)
    latents[wiring.readout.name] = _readout(network, task, activity, rng)
    with own_settings():
        return jax.tree.map(np.asarray, scale_weights(network, task, latents))


def _unmixed(mixing: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """u = F^{-1} h, (n, N)."""
    by_site = fields.reshape(len(mixing), -1)
    return np.linalg.solve(mixing, by_site).reshape(fields.shape)


def _features(connection: Connection, network: Network, task: Task, activity: np.ndarray) -> np.ndarray:
    """What multiplies the whitened weights of one kind at each entry (readout: output), (rank columns, entries)."""
    read = {
        "activity": lambda: activity.reshape(-1, task.patterns, network.width),
        "input": lambda: task.inputs.swapaxes(0, 1),
        "bias": lambda: np.ones((1, task.patterns, 1)),
        "output": lambda: activity.reshape(-1, task.patterns, network.width),
    }[connection.reads]()
    values = np.where(connection.used[:, None, None], read[list(connection.source)], 0.0)
    factor = np.where(connection.used[:, None], connection.copy_factor[connection.copy_of], 0.0)
    blocks = np.einsum("sr,spc->rcsp", factor * unit(connection, network, task), values)
    return blocks.reshape(blocks.shape[0] * blocks.shape[1], -1)


def _noise(latents: dict[str, np.ndarray], network: Network, task: Task, rng: np.random.Generator) -> np.ndarray:
    """z (n, N): as sampled in fields, or a Bartlett factor turned into a uniformly random orthonormal frame."""
    if "z" in latents:
        return latents["z"].reshape(-1, network.width)
    frame, triangle = np.linalg.qr(rng.normal(size=(network.width, len(latents["bartlett_diagonal"]))))
    factor = bartlett_factor(latents["bartlett_diagonal"], latents["bartlett_lower"], network.width)
    return np.asarray(factor) @ (frame * np.sign(np.diagonal(triangle))).T


def _condition(white: np.ndarray, features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standard normal rows A (m, K) conditioned on A S = values (m, n), S (K, n) of any rank."""
    return white + (values - white @ features) @ np.linalg.pinv(features, rcond=SINGULAR)


def _readout(network: Network, task: Task, activity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """V, whitened (rank, O, N), given the activity and the targets: Gaussian regression with noise kappa."""
    readout = network.wiring(task.steps).readout
    scale = network.width if network.scaling == "mup" else math.sqrt(network.width)
    features = _features(readout, network, task, activity)[:, task.supervised_entries] / scale
    variance = network.noise * network.target_variance_scale
    white = rng.normal(size=(task.output_dim, len(features)))
    noise = rng.normal(size=(task.output_dim, features.shape[1])) * math.sqrt(variance)
    gram = features.T @ features + variance * np.eye(features.shape[1])
    error = task.supervised_targets.T - white @ features - noise
    white = white + np.linalg.solve(gram, error.T).T @ features.T
    return white.reshape(task.output_dim, -1, network.width).swapaxes(0, 1)

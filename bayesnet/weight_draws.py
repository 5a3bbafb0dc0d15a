r"""Weights and pre-activations drawn back from a posterior in which they were integrated out, exactly.

Given the activity, the rows of (W, U) are independent Gaussians conditioned on H: with S the features that multiply
the whitened weights (gw / sqrt(N) phi(h_{t-1}) and gu / sqrt(D) x_t, a block of rows for each copy),

    [W, U] white = G + (H' - G S) S^+,     G a fresh prior draw,

reproduces H to rounding error. V given the activity and the targets follows by the same rule with noise kappa. The
bulk of the spectrum is prior noise; what was learned is the part of rank n.
"""

from __future__ import annotations

import math

import jax
import numpy as np
import xarray as xr

from bayesnet.models.kernel_space import bartlett_factor
from bayesnet.models.weight_space import Weights, run_fields, scale_weights
from bayesnet.results import network_of, require_whole, task_of
from theory import arguments
from theory.causal import Trajectory, propagate
from theory.covariance import covariance_terms
from theory.jax_settings import own_settings
from theory.network import Network
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
        `Weights`: W, U, V in float64, scaled as in `Network`, leading axis 1 where shared. Weights copies that nothing
        passes through are prior draws.

    Raises:
        ValueError: if there is no such chain or kept draw, or if ``seed`` is no integer from 0 to 2^64 - 1.
    """
    network, task = network_of(posterior), task_of(posterior)
    latents, rng = _kept_draw(posterior, chain, latent_draw, seed)
    # float64 within this call only: the weights must reproduce the fields to rounding error.
    with own_settings():
        if "readout" in latents:
            return Weights(*(np.asarray(part) for part in scale_weights(network, task, latents)))
        trajectory = _trajectory(network, task, latents, rng)
    fields, activity = np.asarray(trajectory.preactivation), np.asarray(trajectory.activity)
    return weights_given_fields(network, task, fields, activity, rng)


def draw_fields(posterior: xr.DataTree, chain: int = 0, latent_draw: int = -1, seed: int = 0) -> np.ndarray:
    """The pre-activations h (T, P, N) of one kept draw, those that `draw_weights` reproduces; arguments as there."""
    network, task = network_of(posterior), task_of(posterior)
    latents, rng = _kept_draw(posterior, chain, latent_draw, seed)
    # float64 within this call only.
    with own_settings():
        if "readout" in latents:
            fields = run_fields(network, task, scale_weights(network, task, latents))
            return np.stack([np.asarray(h) for h in fields])
        flat = np.asarray(_trajectory(network, task, latents, rng).preactivation)
    return flat.reshape(task.steps, task.patterns, network.width)


def kept_group(posterior: xr.DataTree, name: str) -> xr.Dataset:
    """The fields, or weights, of all kept draws of a posterior as `sample` stores them."""
    group, seed = posterior["latents"], int(posterior.attrs["seed"])
    dims = {
        "recurrent": ("recurrent_copy", "neuron", "neuron_bis"),
        "input": ("input_copy", "neuron", "input_dim"),
        "readout": ("readout_copy", "output", "neuron"),
        "preactivation": ("step", "pattern", "neuron"),
    }
    stored: dict[str, np.ndarray] = {}
    lead = group.sizes["chain"], group.sizes["latent_draw"]
    for chain, draw in np.ndindex(lead):
        if name == "weights":
            drawn = draw_weights(posterior, chain, draw, seed)._asdict()
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


def _trajectory(network: Network, task: Task, latents: dict[str, np.ndarray], rng: np.random.Generator) -> Trajectory:
    noise = _noise(latents, network, task, rng)
    terms = jax.tree.map(jax.numpy.asarray, covariance_terms(network, task))
    return propagate(terms, noise, network.phi.function, task.patterns, network.width)


def weights_given_fields(
    network: Network, task: Task, fields: np.ndarray, activity: np.ndarray, rng: np.random.Generator
) -> Weights:
    """`Weights` drawn from their law given H and phi(H), (n, N) each, and the targets."""
    width, patterns = network.width, task.patterns
    previous = np.vstack([np.zeros((patterns, width)), activity[:-patterns]])
    inputs = task.inputs.transpose(1, 0, 2).reshape(task.entries, task.input_dim)
    recurrent = _by_copy(previous * network.recurrent_gain / math.sqrt(width), "recurrent" in network.shared, task)
    recurrent = recurrent if "recurrent" in network.shared else recurrent[1:]  # phi(h_0) = 0 needs no W
    driven = _by_copy(inputs * network.input_gain / math.sqrt(task.input_dim), "input" in network.shared, task)
    features = np.concatenate([part.transpose(0, 2, 1).reshape(-1, task.entries) for part in (recurrent, driven)])
    white = _condition(rng.normal(size=(width, len(features))), features, fields.T)
    cut = recurrent.shape[0] * width
    w = white[:, :cut].reshape(width, -1, width).swapaxes(0, 1)
    u = white[:, cut:].reshape(width, -1, task.input_dim).swapaxes(0, 1)
    v = _readout(network, task, activity, rng)
    return Weights(w * network.recurrent_gain / math.sqrt(width), u * network.input_gain / math.sqrt(task.input_dim), v)


def _noise(latents: dict[str, np.ndarray], network: Network, task: Task, rng: np.random.Generator) -> np.ndarray:
    """z (n, N): as sampled in fields, or a Bartlett factor turned into a uniformly random orthonormal frame."""
    if "z" in latents:
        return latents["z"].reshape(task.entries, network.width)
    frame, triangle = np.linalg.qr(rng.normal(size=(network.width, task.entries)))
    factor = bartlett_factor(latents["bartlett_diagonal"], latents["bartlett_lower"], network.width)
    return np.asarray(factor) @ (frame * np.sign(np.diagonal(triangle))).T


def _by_copy(rows: np.ndarray, shared: bool, task: Task) -> np.ndarray:
    """Features (n, K) laid out by weight copy, (copies, n, K): entry t concerns the copy of its own step only."""
    if shared:
        return rows[None]
    step = np.repeat(np.arange(task.steps), task.patterns)
    return np.where((step == np.arange(task.steps)[:, None])[..., None], rows, 0.0)


def _condition(white: np.ndarray, features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standard normal rows A (m, K) conditioned on A S = values (m, n), S (K, n) of any rank."""
    return white + (values - white @ features) @ np.linalg.pinv(features, rcond=SINGULAR)


def _readout(network: Network, task: Task, activity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """V (copies, O, N) given the activity and the targets: Gaussian regression with noise kappa."""
    scale = network.width if network.scaling == "mup" else math.sqrt(network.width)
    entries = task.supervised_entries
    features = _by_copy(activity * network.readout_gain / scale, "readout" in network.shared, task)[:, entries]
    copies = features.shape[0]
    features = features.transpose(0, 2, 1).reshape(-1, len(entries))
    variance = network.noise * network.target_variance_scale
    white = rng.normal(size=(task.output_dim, len(features)))
    noise = rng.normal(size=(task.output_dim, len(entries))) * math.sqrt(variance)
    gram = features.T @ features + variance * np.eye(len(entries))
    error = task.supervised_targets.T - white @ features - noise
    white = white + np.linalg.solve(gram, error.T).T @ features.T
    return network.readout_gain * white.reshape(task.output_dim, copies, network.width).swapaxes(0, 1)

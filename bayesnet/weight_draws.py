r"""Weights drawn back from a posterior in which they were integrated out, exactly.

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
from bayesnet.models.weight_space import Weights, scale_weights
from bayesnet.sampling import network_of, task_of
from theory import arguments
from theory.causal import propagate
from theory.covariance import covariance_terms
from theory.network import Network
from theory.task import Task

SINGULAR = 1e-10


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
        ValueError: if there is no such chain or kept draw.
    """
    network, task = network_of(posterior), task_of(posterior)
    group = posterior["latents"]
    sizes = {"chain": group.sizes["chain"], "latent_draw": group.sizes["latent_draw"]}
    for name, value in (("chain", chain), ("latent_draw", latent_draw)):
        arguments.integer(name, value, -sizes[name], sizes[name] - 1)
    latents = {
        str(name): values.isel(chain=chain, latent_draw=latent_draw).to_numpy().astype(float)
        for name, values in group.data_vars.items()
    }
    rng = np.random.default_rng([seed, chain % sizes["chain"], latent_draw % sizes["latent_draw"]])
    # float64 within this call only: the weights must reproduce the fields to rounding error.
    with jax.enable_x64(True):
        if "readout" in latents:
            return Weights(*(np.asarray(part) for part in scale_weights(network, task, latents)))
        noise = _noise(latents, network, task, rng)
        terms = jax.tree.map(jax.numpy.asarray, covariance_terms(network, task))
        trajectory = propagate(terms, noise, network.phi.function, task.patterns, network.width)
    fields, activity = np.asarray(trajectory.preactivation), np.asarray(trajectory.activity)
    return weights_given_fields(network, task, fields, activity, rng)


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

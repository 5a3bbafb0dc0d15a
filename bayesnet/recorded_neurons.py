r"""Kernels read off fewer neurons than a network has: what that adds to their spread, and the bias that it makes.

The kernel of n neurons picked at random out of N is an unbiased estimate of the network's own, with the covariance

    (1/n - 1/N) Cov_i( phi_a phi_b, phi_c phi_d )                   over neurons i.

A function of the kernel that is not linear is off by b (1/n - 1/N) to first order. Leaving out one of G equal parts of
the neurons changes its value by b / (n (G - 1)) on average, which gives b without any theory (the jackknife).

Source: Quenouille 1956; sampling without replacement: Cochran 1977.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesnet.observables import Observable
from bayesnet.results import network_of, recorded_neurons
from bayesnet.task_images import TurnedDraws
from theory.kernels import flat_of
from theory.solution import Solution

PARTS = 16  # of the neurons: each part costs a kernel, and with 16 the jackknife is as good as with all neurons
FEWEST = 2  # neurons, for there to be parts
NEURONS = 8192  # drawn from q: their covariance is then known to 2%
SINGULAR = 1e-12  # eigenvalue of a kernel, relative to the largest, that counts as zero


def kernels_without_parts(activity: np.ndarray) -> np.ndarray:
    """Kernels of the neurons but one part of them, (networks, parts, n, n), from activity (networks, neurons, n)."""
    neurons = activity.shape[1]
    parts = np.array_split(np.arange(neurons), min(PARTS, neurons))
    whole = activity.swapaxes(1, 2) @ activity
    kernels = []
    for part in parts:
        chosen = activity[:, part]
        kernels.append((whole - chosen.swapaxes(1, 2) @ chosen) / (neurons - len(part)))
    return np.stack(kernels, axis=1)


def corrected(
    posterior: xr.DataTree, observable: Observable, values: np.ndarray, turned: TurnedDraws | None = None
) -> np.ndarray:
    """Values (chain, draw) of an observable less the bias of first order of the recording; without one, as they are.
    ``turned``: the images in which the values are."""
    if "recording" not in posterior.children:
        return values
    without = posterior["recording"]["kernel_without_part"].to_numpy()
    prediction = posterior["posterior"]["prediction"].to_numpy()
    if turned is not None:
        without, prediction = turned.kernels(without), turned.outputs(prediction)
    unseen = 1 - recorded_neurons(posterior) / network_of(posterior).width
    return without_bias(observable, values, without, prediction, unseen)


def without_bias(
    observable: Observable, values: np.ndarray, without: np.ndarray, prediction: np.ndarray, unseen: float
) -> np.ndarray:
    """Values (...) of an observable less its bias of first order, (...).

    Args:
        observable: what was evaluated.
        values: at the kernels of all recorded neurons.
        without: kernels of all of them but one part, (..., parts, S, P, S, P).
        prediction: f (..., P, T, O).
        unseen: share of the network's neurons that were not recorded.
    """
    parts = without.shape[-5]
    repeated = np.broadcast_to(prediction[..., None, :, :, :], (*without.shape[:-4], *prediction.shape[-3:]))
    change = observable.evaluate(without, repeated).mean(axis=-1) - values
    return values - unseen * (parts - 1) * change


def neuron_covariance(solution: Solution, seed: int = 0) -> np.ndarray:
    """Cov_i(phi_a phi_b, phi_c phi_d) over neurons with the law of a solution, (n^2, n^2).

    Linear networks: Phi_ac Phi_bd + Phi_ad Phi_bc, their neurons being Gaussian. Others: from neurons drawn.
    """
    kernel = flat_of(solution.kernel)
    n = len(kernel)
    if solution.network.activation == "linear":
        pairs = np.einsum("ac,bd->abcd", kernel, kernel) + np.einsum("ad,bc->abcd", kernel, kernel)
        return pairs.reshape(n * n, n * n)
    neurons = solution.sample_neurons(NEURONS, seed).reshape(NEURONS, n)
    activity = np.asarray(solution.network.phi.function(neurons))
    products = (activity[:, :, None] * activity[:, None, :]).reshape(NEURONS, n * n)
    return np.cov(products, rowvar=False).reshape(n * n, n * n)


def as_recorded(
    kernels: np.ndarray, covariance: np.ndarray, width: int, neurons: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Kernels (draws, S, P, S, P) of whole networks as they would be estimated from ``neurons`` out of ``width``, and
    from these but one part, (draws, parts, S, P, S, P).

    Sampling without replacement, its deviations Gaussian with the ``covariance`` over neurons.
    """
    flat = flat_of(kernels)
    n, parts = flat.shape[-1], min(PARTS, neurons)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    white = rng.normal(size=(len(flat), 1 + parts, n * n))
    whole = np.sqrt(1 / neurons - 1 / width) * white[:, 0]
    apart = np.sqrt(parts / neurons) * (white[:, 1:] - white[:, 1:].mean(axis=1, keepdims=True))
    both = np.concatenate([whole[:, None], whole[:, None] - apart / (parts - 1)], axis=1)
    deviations = (both @ root.T).reshape(len(flat), 1 + parts, n, n)
    seen = _deviated(flat[:, None], (deviations + deviations.swapaxes(-1, -2)) / 2)
    shape = kernels.shape[1:]
    return seen[:, 0].reshape(-1, *shape), seen[:, 1:].reshape(len(flat), parts, *shape)


def _deviated(kernels: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Phi^{1/2} exp( M - <M^2> / 2 ) Phi^{1/2} with M = Phi^{-1/2} dPhi Phi^{-1/2}: Phi + dPhi to first order, Phi on
    average to second order, and positive semi-definite. Of the average over draws, the first axis, M^2 is taken."""
    spectrum, axes = np.linalg.eigh(kernels)
    present = spectrum > SINGULAR * spectrum[..., -1:]
    root = np.sqrt(np.where(present, spectrum, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=present)
    half, inverse_half = axes * root[..., None, :], axes * inverse[..., None, :]
    relative = inverse_half.swapaxes(-1, -2) @ deviations @ inverse_half
    # The average is taken in the frame of the entries: eigenvectors differ from draw to draw.
    square = half @ (relative @ relative) @ half.swapaxes(-1, -2)
    mean = inverse_half.swapaxes(-1, -2) @ square.mean(axis=0) @ inverse_half
    exponents, turned = np.linalg.eigh(relative - mean / 2)
    factors = half @ (turned * np.exp(exponents / 2)[..., None, :])
    return factors @ factors.swapaxes(-1, -2)

"""Coordinates (c), kernels: linear networks through the Gram matrix of their noise, at any width.

For linear phi the kernel depends on the noise z (n, N) only through z z^T, a Wishart matrix. Its Bartlett factor R
(lower triangular, R_ii^2 ~ chi^2_{N-i}, R_ij ~ N(0, 1)) takes the place of z: n (n+1) / 2 numbers, whatever the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from scipy.special import gammaln

from bayesnet.models.likelihood import observe_marginal_targets, record_kernel
from theory.activations import BUILT_IN
from theory.causal import kernel_of_noise
from theory.model import Array, Model
from theory.network import Network
from theory.parameters import model_at
from theory.symmetry import mirror_signs
from theory.task import Task


class LogChi(dist.Distribution):
    """The law of g when R = sqrt(N) exp(g / sqrt(2N)) is chi distributed: mean near 0 and variance near 1.

    Args:
        degrees: degrees of freedom of R^2, array.
        width: N.
    """

    support = dist.constraints.real

    def __init__(self, degrees: np.ndarray, width: int):
        self.degrees, self.width = degrees, width
        super().__init__(batch_shape=np.shape(degrees))

    def sample(self, key, sample_shape=()):
        """Draws of g."""
        square = 2 * random.gamma(key, self.degrees / 2, sample_shape + self.batch_shape)
        return math.sqrt(self.width / 2) * jnp.log(square / self.width)

    def log_prob(self, value):
        """ln p(g), written so that nothing of order N cancels."""
        half, k = self.width / 2, self.degrees
        x = value / math.sqrt(half)
        constant = k / 2 * math.log(half) - half - gammaln(k / 2) - math.log(half) / 2
        return constant + (k - self.width) * x / 2 - half * (jnp.expm1(x) - x)


def kernels(network: Network, task: Task, observed: bool = True, parameters: Mapping[str, Array] | None = None) -> None:
    """The posterior of a linear network on a task in kernel coordinates, as a NumPyro model.

        R Bartlett,  H H^T / N = L[Phi] R R^T L[Phi]^T / N = Phi,  y_o ~ N(0, (kappa I + gv^2 Mv o Phi) / N)

    Sites: ``bartlett_diagonal`` (n,), g with R_ii = sqrt(N) exp(g_i / sqrt(2N)), and ``bartlett_lower``
    (n (n-1) / 2,) latent, with n = T P entries; ``kernel`` (T, P, T, P) deterministic; ``y`` and the arguments as in
    `fields`.

    Raises:
        ValueError: if the activation is not linear or the width is below n; use `fields` there.
    """
    problem = kernels_refusal(network, task)
    if problem:
        raise ValueError(problem)
    kernel_model(network.width)(model_at(network, task, parameters), observed)


def kernel_model(width: int) -> Callable:
    """The model with its arrays as an argument: ``posterior(model, observed=True, likelihood_weight=1)``."""

    def posterior(model: Model, observed: bool = True, likelihood_weight: Array = 1.0) -> None:
        n = model.entries
        diagonal_law = LogChi(width - np.arange(n), width)
        lower_law = dist.Normal(0, jnp.ones(n * (n - 1) // 2))
        diagonal = numpyro.sample("bartlett_diagonal", diagonal_law.to_event(1))
        lower = numpyro.sample("bartlett_lower", lower_law.to_event(1))
        kernel = bartlett_kernel(model, diagonal, lower, width)
        record_kernel(kernel, model.patterns)
        with numpyro.handlers.scale(scale=likelihood_weight):
            observe_marginal_targets(model, kernel, observed)

    return posterior


def kernels_refusal(network: Network, task: Task) -> str | None:
    """Why kernel coordinates do not hold for this network and task; None where they do."""
    if network.activation != "linear":
        return f"kernel coordinates need activation 'linear', not {network.activation!r}; use fields"
    entries = task.entries * network.layers
    if network.width < entries:
        return (
            f"kernel coordinates need width >= {'layers * ' * (network.layers > 1)}steps * patterns = {entries}, "
            f"but width is {network.width}; use fields"
        )
    return None


def bartlett_kernel(model: Model, diagonal: Array, lower: Array, width: int) -> Array:
    """Phi (n, n) from the Bartlett factor."""
    return kernel_of_noise(model, bartlett_factor(diagonal, lower, width), _linear, width)


def bartlett_factor(diagonal: Array, lower: Array, width: int) -> Array:
    """R (n, n), lower triangular, whose R R^T has the law of z z^T for z (n, N) white; from the two sites."""
    pivots = math.sqrt(width) * jnp.exp(diagonal / math.sqrt(2 * width))
    return jnp.diag(pivots).at[np.tril_indices(diagonal.shape[0], -1)].set(lower)


def bartlett_sites(factor: Array, width: int) -> tuple[Array, Array]:
    """The inverse of `bartlett_factor`: both sites from R."""
    diagonal = math.sqrt(2 * width) * (jnp.log(jnp.diagonal(factor)) - math.log(width) / 2)
    return diagonal, factor[np.tril_indices(factor.shape[0], -1)]


def latent_signs(network: Network, task: Task) -> np.ndarray:
    """What a sign change of the weights does to each latent, (n (n+1) / 2,): some of the Bartlett factor change sign.

    All ones where none is a symmetry of the posterior; of several the first.
    """
    return latent_images(network, task)[:2][-1]


def latent_images(network: Network, task: Task) -> np.ndarray:
    """The same of every sign change that is a symmetry, after the one that changes nothing, (images, n (n+1) / 2)."""
    n = task.entries * network.layers
    signs = np.repeat(np.vstack([np.ones(n // task.patterns), *mirror_signs(network, task)]), task.patterns, axis=1)
    rows, columns = np.tril_indices(n, -1)
    return np.hstack([np.ones_like(signs), signs[:, rows] * signs[:, columns]])


_linear = BUILT_IN["linear"].function

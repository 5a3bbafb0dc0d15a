r"""The evidence p(y) from posterior draws, by bridge sampling in kernel coordinates.

With p~(x) = p(x) p(y | x) over the latent numbers x and a normalised density g that resembles it (Meng and Wong 1996),

    p(y) = E_g[ p~ b ] / E_post[ g b ],      b = 1 / (s p~ + (1 - s) p(y) g),

s the posterior's share of the draws; p(y) on the right is iterated to its fixed point. Here g is a Gaussian fitted to
one half of the draws, or where W -> -W is a symmetry two of them, mirror images, so that the evidence counts both
modes even if every chain stayed in one.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr
from numpyro.infer.util import log_density

from bayesnet.diagnostics import FEWEST_DRAWS as FEWEST_USED
from bayesnet.diagnostics import summarise_draws
from bayesnet.models.kernel_space import kernel_model, latent_signs
from bayesnet.results import from_outside, names_with_priors, require_whole
from bayesnet.sampling import network_of, task_of
from theory import arguments
from theory.jax_settings import own_settings
from theory.model import Array, Model, build_model
from theory.network import Network
from theory.task import Task

SITES = ("bartlett_diagonal", "bartlett_lower")
ITERATIONS = 100
FEWEST_FITTED = 2  # times the number of latents, to fit a Gaussian


class LogEvidence(NamedTuple):
    """ln p(y) at the posterior's width, and its standard error."""

    value: float
    error: float


def log_evidence(posterior: xr.DataTree, seed: int = 0) -> LogEvidence:
    """ln p(y) of the network and task that a posterior was sampled for, in kernel coordinates.

    Differences between networks on one task are log Bayes factors.

    Args:
        posterior: what `sample` returned, in kernel coordinates, with the latent numbers of many draws kept
            (``num_latents``): at least 8 of each chain, and 4 times as many, over all chains, as there are latent
            numbers, n (n+1)/2.
        seed: of the draws from the Gaussian.

    Raises:
        ValueError: for other coordinates, which all networks but linear ones have (`theory.log_evidence` serves any
            activation), or if too few latent numbers were kept.

    Source: Meng and Wong 1996, Statistica Sinica 6; error: Fruehwirth-Schnatter 2004.
    """
    network, task, seed = network_of(posterior), task_of(posterior), arguments.seed("seed", seed)
    if from_outside(posterior):
        raise ValueError("posterior holds networks from outside, which nobody drew; theory.log_evidence needs no draws")
    require_whole(posterior, "latents")
    group = posterior["latents"]
    unknown = names_with_priors(posterior)
    if unknown:
        raise ValueError(f"posterior has priors on {', '.join(unknown)}; its evidence needs fixed numbers")
    if not set(SITES) <= set(group.data_vars):
        raise ValueError(_without_kernels(network))
    draws = np.concatenate([group[name].to_numpy() for name in SITES], axis=-1).astype(float)
    half = draws.shape[1] // 2
    fitted, used = draws[:, :half].reshape(-1, draws.shape[-1]), draws[:, half:]
    if len(fitted) < FEWEST_FITTED * fitted.shape[1]:
        raise ValueError(
            f"posterior keeps the latent numbers of {draws.shape[0] * draws.shape[1]} draws; its evidence needs those "
            f"of at least {2 * FEWEST_FITTED * fitted.shape[1]} (num_latents, over all chains)"
        )
    if used.shape[1] < FEWEST_USED:
        raise ValueError(
            f"posterior keeps the latent numbers of {draws.shape[1]} draws of each chain; the error of its evidence "
            f"needs those of at least {2 * FEWEST_USED}"
        )
    gaussian = _Gaussian(fitted, latent_signs(network, task))
    proposed = gaussian.draw(used.shape[0] * used.shape[1], np.random.default_rng(seed))
    target = _log_joint(network, task, np.concatenate([used.reshape(proposed.shape), proposed]))
    of_posterior, of_proposals = np.split(target - gaussian.log_density(used, proposed), 2)
    return _bridge(of_posterior.reshape(used.shape[:2]), of_proposals)


def _without_kernels(network: Network) -> str:
    """Why the draws do not do, and what does."""
    if network.activation == "linear":
        return "posterior is not in kernel coordinates; the evidence needs coordinates='kernels'"
    return (
        f"posterior is of a network with activation {network.activation}, and kernel coordinates are those of linear "
        "networks; theory.log_evidence(theory.solve(network, task)) is the log evidence for any activation, up to "
        "terms that vanish with the width"
    )


def _bridge(of_posterior: np.ndarray, of_proposals: np.ndarray) -> LogEvidence:
    """From ln p~ / g at draws of the posterior (chain, draw) and of g (as many)."""
    log_p = float(np.median(of_posterior))
    for _ in range(ITERATIONS):
        # Equal shares; both averages are bounded by 2, which keeps their errors finite.
        above = 2 / (1 + np.exp(np.clip(log_p - of_proposals, -700, 700)))
        below = 2 / (1 + np.exp(np.clip(of_posterior - log_p, -700, 700)))
        change = float(np.log(above.mean()) - np.log(below.mean()))
        log_p += change
        if abs(change) < 1e-12:
            break
    from_posterior = float(summarise_draws({"bridge": below})["mcse"].iloc[0]) / below.mean()
    from_proposals = above.std(ddof=1) / np.sqrt(above.size) / above.mean()
    return LogEvidence(log_p, float(np.hypot(from_posterior, from_proposals)))


class _Gaussian:
    """A Gaussian fitted to draws, half of it mirrored; ``signs`` are all ones where there is no mirror."""

    def __init__(self, draws: np.ndarray, signs: np.ndarray):
        self.signs = signs
        # Turn all draws to one side: that of the first draw along the direction that the mirror flips most.
        odd = draws * (signs < 0)
        leading = np.linalg.svd(odd, full_matrices=False)[2][0]
        draws = np.where((odd @ leading)[:, None] < 0, draws * signs, draws)
        self.mean = draws.mean(axis=0)
        self.factor = np.linalg.cholesky(np.atleast_2d(np.cov(draws.T)))

    def draw(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """(number, d)."""
        x = self.mean + rng.normal(size=(number, self.mean.size)) @ self.factor.T
        return np.where(rng.random((number, 1)) < 0.5, x, x * self.signs)

    def log_density(self, *parts: np.ndarray) -> np.ndarray:
        """ln g of all rows of the parts, in order."""
        x = np.concatenate([part.reshape(-1, self.mean.size) for part in parts])
        return np.logaddexp(self._one_side(x), self._one_side(x * self.signs)) - np.log(2)

    def _one_side(self, x: np.ndarray) -> np.ndarray:
        white = scipy.linalg.solve_triangular(self.factor, (x - self.mean).T, lower=True)
        constant = np.sum(np.log(np.diagonal(self.factor))) + self.mean.size / 2 * np.log(2 * np.pi)
        return -np.sum(white**2, axis=0) / 2 - constant


def _log_joint(network: Network, task: Task, latents: np.ndarray) -> np.ndarray:
    """ln p(x) p(y | x) of each row of latents."""
    # float64 within this call only: the log density is of order N.
    with own_settings():
        model = build_model(network, task).on_device()
        return np.asarray(_log_densities(network.width, model, jnp.asarray(latents)))


@partial(jax.jit, static_argnums=0)
def _log_densities(width: int, model: Model, rows: Array) -> Array:
    posterior = kernel_model(width)

    def one(row: Array) -> Array:
        sites = dict(zip(SITES, jnp.split(row, [model.entries]), strict=True))
        return log_density(posterior, (model,), {}, sites)[0]

    return jax.lax.map(one, rows)

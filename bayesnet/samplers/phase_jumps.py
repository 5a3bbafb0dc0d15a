r"""Moves between phases that coexist, in kernel coordinates: NUTS explores a phase, and a jump leads to another.

Near a first-order transition a chain never leaves its phase, since what lies between is exponentially unlikely in the
width, whatever the temperature: hysteresis keeps tempering from crossing as well. The saddle points of the theory say
where the phases are. At each of them, and at its mirror images, the latents x have a mode c_a, and the curvature there
a covariance L_a L_a^T. With r_a(x) the probability of phase a under the mixture of these Gaussians, a jump

    takes a from r(x) and b uniformly from the other phases,    x' = c_b + L_b L_a^{-1} (x - c_a),

    and is accepted with probability min(1, [ p(x', y) r_b(x') |L_b| ] / [ p(x, y) r_a(x) |L_a| ]).

The way back takes b from r(x') and a from the others, so that the posterior is left as it is, wherever the c_a are and
however well the Gaussians describe it: phases then have the weights that the posterior gives them. Phases for which no
saddle point is listed are not reached by jumps.

Source: Tjelmeland and Hegstad 2001, "Mode jumping proposals in MCMC".
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density

from bayesnet.models.kernel_space import bartlett_sites, kernel_model, latent_images
from theory import arguments
from theory.jax_settings import own_settings
from theory.kernels import flat_of
from theory.memory import require_memory
from theory.model import Array, Model, build_model, preactivation_cov
from theory.network import Network
from theory.response import factorise, inverse_factor
from theory.solution import Solution
from theory.task import Task

NEWTON = 20  # steps to a mode, at most: from a saddle point, which is O(1/N) away, three or four are taken
AT_REST = 1e-8  # of a Newton step, in standard deviations of the prior
APART = 1e-3  # the same between two modes: less is one mode, whose image it is


class Phases(NamedTuple):
    """Where the phases of a posterior are, for d latents in the order in which JAX lays them out.

    Attributes:
        centres: c_a, (phases, d).
        factors: L_a, (phases, d, d), lower triangular.
    """

    centres: Array
    factors: Array

    def fingerprint(self) -> str:
        """What tells these phases from others."""
        rounded = np.asarray(self.centres, float).round(6) + 0.0  # no minus zero, whose sign is rounding error
        return hashlib.sha256(rounded[np.lexsort(rounded.T[::-1])].tobytes()).hexdigest()[:16]


def find_phases(network: Network, task: Task, solution: Solution) -> Phases:
    """The modes of the posterior next to the stable saddle points of a solution, with their mirror images.

    Args:
        network, task: what is sampled, in kernel coordinates.
        solution: of `theory.solve` for them, of any width.

    Raises:
        ValueError: if the solution is of another problem, or fewer than two phases are left, so that there is nowhere
            to jump; if the phases do not fit into memory.
    """
    arguments.instance("phases", solution, Solution)
    if replace(solution.network, width=network.width) != network or solution.task != task:
        raise ValueError("phases is the solution of another network or task than those that are sampled")
    images = latent_images(network, task)
    branches = [branch for branch in solution.branches or (solution,) if branch.stable]
    require_memory("phases", 8.0 * len(branches) * images.size * images.shape[1], "sample without phases")
    with own_settings():
        model = build_model(network, task).on_device()
        energy = _energy(model, network.width)
        slope, curvature = jax.jit(jax.grad(energy)), jax.jit(jax.hessian(energy))
        found = []
        for branch in branches:
            try:
                centre, factor = _mode(slope, curvature, _latents(model, flat_of(branch.kernel), network.width))
            except np.linalg.LinAlgError:
                warnings.warn(
                    f"phases: next to the saddle point of free energy {branch.free_energy:.6g} the posterior has no "
                    f"mode at width {network.width}; no chain jumps there",
                    stacklevel=4,
                )
                continue
            found += [(image * centre, image[:, None] * factor) for image in images]
        distinct: list[tuple[np.ndarray, np.ndarray]] = []
        for centre, factor in found:
            if all(np.max(np.abs(centre - other)) > APART for other, _ in distinct):
                distinct.append((centre, factor))
    if len(distinct) < 2:
        raise ValueError(
            "phases has fewer than two stable saddle points and mirror images next to which the posterior has a mode "
            f"at width {network.width}: there is nowhere to jump"
        )
    return Phases(*(np.array(part) for part in zip(*distinct, strict=True)))


def propose(phases: Phases, x: Array, key: Array) -> tuple[Array, Array]:
    """A jump from x (d,): x' and ln of r_b(x') |L_b| / (r_a(x) |L_a|)."""
    from_key, to_key = random.split(key)
    number = len(phases.centres)
    here = _log_densities(phases, x)
    a = random.categorical(from_key, here)
    b = (a + 1 + random.randint(to_key, (), 0, number - 1)) % number
    white = jax.scipy.linalg.solve_triangular(phases.factors[a], x - phases.centres[a], lower=True)
    there = phases.centres[b] + phases.factors[b] @ white
    volumes = _log_volumes(phases)
    ratio = jax.nn.log_softmax(_log_densities(phases, there))[b] - jax.nn.log_softmax(here)[a]
    return there, ratio + volumes[b] - volumes[a]


def _log_volumes(phases: Phases) -> Array:
    """ln |L_a|, (phases,)."""
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(phases.factors, axis1=1, axis2=2))), axis=1)


def _log_densities(phases: Phases, x: Array) -> Array:
    """ln of the Gaussians' densities at x, less what is common, (phases,)."""
    white = jax.vmap(lambda factor, left: jax.scipy.linalg.solve_triangular(factor, left, lower=True))(
        phases.factors, x - phases.centres
    )
    return -jnp.sum(white**2, axis=1) / 2 - _log_volumes(phases)


def _energy(model: Model, width: int) -> Callable:
    """-ln p(x, y) as a function of the latents in a row, (d,)."""
    n = model.entries
    posterior = kernel_model(width)

    def energy(row: Array) -> Array:
        sites = {"bartlett_diagonal": row[:n], "bartlett_lower": row[n:]}
        return -log_density(posterior, (model,), {}, sites)[0]

    return energy


def _latents(model: Model, kernel: np.ndarray, width: int) -> np.ndarray:
    """The Bartlett factor of a kernel (n, n) in a row, (d,); white noise that nothing depends on is near its mode."""
    inverse = inverse_factor(factorise(np.asarray(preactivation_cov(model, jnp.asarray(kernel)))))
    live = np.diagonal(inverse) > 0
    white = np.where(np.outer(live, live), inverse @ kernel @ inverse.T, np.eye(len(kernel)))
    factor = width**0.5 * np.linalg.cholesky(white)
    sites = bartlett_sites(jnp.asarray(factor), width)
    return np.asarray(ravel_pytree(dict(zip(("bartlett_diagonal", "bartlett_lower"), sites, strict=True)))[0])


def _mode(slope: Callable, curvature: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mode next to x and a factor of the covariance there; LinAlgError where the energy has no minimum."""
    for _ in range(NEWTON):
        hessian = np.asarray(curvature(x))
        np.linalg.cholesky(hessian)  # positive definite, or not
        step = np.linalg.solve(hessian, np.asarray(slope(x)))
        x = x - step
        if np.max(np.abs(step)) < AT_REST:
            return x, np.linalg.cholesky(np.linalg.inv(hessian))
    raise np.linalg.LinAlgError("Newton's method does not come to rest")

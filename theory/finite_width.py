r"""Fluctuations of the kernels at finite width, around the saddle point of a linear network.

In the noise coordinates (`theory.noise_gram`) the posterior is exp(-N F) to leading order, so the coordinates are
Gaussian around the saddle with covariance (N d^2F)^{-1}, and the kernels follow through their derivative J:

    Cov(Phi) = (1/N) J (d^2 F)^{-1} J^T

The posterior mean is off by O(1/N) besides. Not valid within 1/sqrt(N) of a transition, where d^2F is singular.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
import scipy.linalg

from theory.covariance import Terms, covariance_terms
from theory.noise_gram import hessian, kernel_jacobian, kernels_of_coordinates, pack
from theory.response import factorise, inverse_factor
from theory.solution import Solution


@dataclass(frozen=True)
class Fluctuations:
    """Gaussian fluctuations of the kernel around a `Solution` at width N.

    Attributes:
        solution: the saddle point.
        width: N.
        coordinates: the saddle point in noise coordinates, (n(n+1)/2,).
        curvature_factor: lower Cholesky factor of N d^2F.
    """

    solution: Solution
    width: int
    coordinates: np.ndarray
    curvature_factor: np.ndarray

    @cached_property
    def kernel_cov(self) -> np.ndarray:
        """Covariance of the kernel entries at width N, (T, P, T, P, T, P, T, P)."""
        with jax.enable_x64(True):
            jacobian = np.asarray(kernel_jacobian(self.coordinates, self._terms(), self.solution.task.patterns))
        half = scipy.linalg.solve_triangular(self.curvature_factor, jacobian.T, lower=True)
        return (half.T @ half).reshape(self.solution.kernel.shape * 2)

    def draw_kernels(self, num: int, seed: int = 0) -> np.ndarray:
        """Kernels (num, T, P, T, P) at width N: Gaussian noise coordinates pushed through the exact map.

        Their spread gives that of any observable, also where its first derivative vanishes (squared overlaps).
        """
        white = np.random.default_rng(seed).normal(size=(self.coordinates.size, num))
        deviations = scipy.linalg.solve_triangular(self.curvature_factor, white, lower=True, trans="T")
        with jax.enable_x64(True):
            draws = kernels_of_coordinates(self.coordinates + deviations.T, self._terms(), self.solution.task.patterns)
        return np.asarray(draws).reshape(num, *self.solution.kernel.shape)

    def _terms(self) -> Terms:
        return jax.tree.map(jax.numpy.asarray, covariance_terms(self.solution.network, self.solution.task))


def fluctuations(solution: Solution) -> Fluctuations:
    """The fluctuations at the width of the solution's network.

    Raises:
        NotImplementedError: if the activation is not linear, or in standard scaling.
        ValueError: if the solution is not a stable saddle point, around which nothing is Gaussian.
    """
    network, task = solution.network, solution.task
    if network.activation != "linear" or network.scaling != "mup":
        raise NotImplementedError("theory.fluctuations handles linear networks in muP scaling only so far")
    if solution.kind != "saddle point" or not solution.stable:
        raise ValueError("solution is not a stable saddle point; fluctuations are Gaussian around a stable one only")
    n = task.entries
    # float64 within this call only: second derivatives.
    with jax.enable_x64(True):
        terms = jax.tree.map(jax.numpy.asarray, covariance_terms(network, task))
        noise_of = inverse_factor(factorise(solution.preactivation_cov.reshape(n, n)))
        gram = noise_of @ solution.kernel.reshape(n, n) @ noise_of.T
        unused = np.diag(np.where(np.diagonal(noise_of) > 0, 0.0, 1.0))
        coordinates = pack(np.linalg.cholesky(gram + unused))
        curvature = np.asarray(hessian(coordinates, terms, task.patterns))
    try:
        factor = np.linalg.cholesky(network.width * curvature)
    except np.linalg.LinAlgError:
        raise ValueError("solution sits at a transition: a direction without curvature has no Gaussian law") from None
    return Fluctuations(solution, network.width, coordinates, factor)

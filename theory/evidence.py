r"""The evidence of a network at large width, to all orders that do not vanish.

    ln p(y) = -N F  -  1/2 ln |det Gamma|  -  O/2 ln det(2 pi A / N)  +  ln 2 (broken sign symmetry)  +  O(1/N)

F is the free energy of the saddle point, A = kappa I + gv^2 (Mv o Phi) on the supervised entries, and Gamma the second
variation of the kernel action (`theory.kernel_action`). In standard scaling the kernels do not move, and what is left
is the evidence of the Gaussian process with covariance A.

Source: Laplace's method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from theory import arguments
from theory.finite_width import (
    draw_sets,
    in_own_units,
    jackknife,
    kernel_covariance,
    require_stable,
    second_variation,
)
from theory.jax_settings import own_settings
from theory.kernels import flat_of
from theory.model import target_cov
from theory.solution import Solution
from theory.symmetry import apply_signs, mirror_signs

BROKEN = 1e-3  # of sqrt(Phi_ii Phi_jj), beyond the statistical error: a saddle point with a mirror image


@dataclass(frozen=True, eq=False)
class Evidence:
    """Log evidence at width N, term by term; ``log_evidence`` is their sum.

    Attributes:
        solution: the saddle point.
        width: N.
        leading: -N F (standard scaling: -F).
        normalisation: -O/2 ln det(2 pi A / N) (standard scaling: without N), the likelihood's own.
        determinant: -1/2 ln |det Gamma|, from the fluctuations of the kernels; zero in standard scaling.
        mirror: ln of the number of saddle points that sign changes turn into one another: ln 2 where there is one
            mirror image, 0 where there is none.
        standard_error: statistical error of the sum; zero for linear networks. N times the error of the free energy
            dominates it.
    """

    solution: Solution
    width: int
    leading: float
    normalisation: float
    determinant: float
    mirror: float
    standard_error: float

    @property
    def gaussian(self) -> float:
        """All terms of order ln N and 1."""
        return self.normalisation + self.determinant + self.mirror

    @property
    def log_evidence(self) -> float:
        """ln p(y), up to O(1/N)."""
        return self.leading + self.gaussian


def log_evidence(solution: Solution, *, neurons: int | None = None, seed: int = 0) -> Evidence:
    """The log evidence of a solution's network on its task, at the network's width.

    It is the contribution of this saddle point (and its mirror image). Where two phases compete, add that of every
    stable one among ``solution.branches`` with ``numpy.logaddexp``.

    Args:
        solution: a stable saddle point, for any activation, or in standard scaling the lazy limit.
        neurons: how many to draw from q, four times over; 8192 by default. Not for linear networks.
        seed: of the draws.

    Raises:
        ValueError: if the solution is not stable, sits at a transition, or is the lazy limit of a network in muP
            scaling; or if an argument is out of its range.
    """
    arguments.instance("solution", solution, Solution)
    network = solution.network
    lazy = network.scaling == "standard"
    determinant, scatter = 0.0, 0.0
    if not lazy:
        require_stable(solution)
        saddle, _ = solution.saddle.natural()
        matrices = [second_variation(saddle, drawn) for drawn in draw_sets(saddle, neurons, seed)]
        determinant, scatter = map(float, jackknife(matrices, _half_log_det))
    factor = 1 if lazy else network.width
    return Evidence(
        solution,
        network.width,
        leading=-factor * solution.free_energy,
        normalisation=_normalisation(solution),
        determinant=determinant,
        mirror=math.log(1 + mirror_images(solution)),
        standard_error=math.hypot(factor * solution.free_energy_error, scatter),
    )


def log_bayes_factor(solution: Solution, other: Solution, *, neurons: int | None = None, seed: int = 0) -> float:
    """ln p(y | network) - ln p(y | other network), up to O(1/N): of an RNN against a DNN, say.

    The evidence of each is that of one saddle point and its mirror images, as in `log_evidence`.

    Args:
        solution, other: of two networks on one task; their widths count.
        neurons, seed: as in `log_evidence`.

    Raises:
        ValueError: if the tasks differ, and as in `log_evidence`.
    """
    if solution.task != other.task:
        raise ValueError("other belongs to another task than solution; a Bayes factor compares networks on one task")
    first, second = (
        log_evidence(s, neurons=None if s.saddle.linear else neurons, seed=seed).log_evidence for s in (solution, other)
    )
    return first - second


def _half_log_det(second_variation: np.ndarray) -> float:
    """-1/2 ln |det Gamma|; refuses what sits at a transition."""
    kernel_covariance(second_variation)
    return -np.linalg.slogdet(in_own_units(second_variation)[0])[1] / 2


def _normalisation(solution: Solution) -> float:
    # float64 within this call only.
    with own_settings():
        cov = np.asarray(target_cov(solution.model, jnp.asarray(flat_of(solution.kernel))))
    log_det = float(np.linalg.slogdet(2 * math.pi * float(solution.model.scale) * cov)[1])
    return -solution.task.output_dim / 2 * log_det


def mirror_images(solution: Solution) -> int:
    """How many other saddle points sign changes make of this one."""
    scale = np.sqrt(np.diagonal(flat_of(solution.kernel)))
    margin = BROKEN * np.outer(scale, scale) + 5 * flat_of(solution.standard_error)
    kernels = [solution.kernel]
    for signs in mirror_signs(solution.network, solution.task):
        image = apply_signs(solution.kernel, signs)
        if all(np.any(np.abs(flat_of(image - other)) / 2 > margin) for other in kernels):
            kernels.append(image)
    return len(kernels) - 1

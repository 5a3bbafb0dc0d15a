r"""Fluctuations of the kernels at finite width, around a saddle point.

To leading order the posterior of the kernel at width N is Gaussian around the saddle point with covariance

    Cov(Phi) = (1/N) [ Gamma^{-1} ]_{Phi Phi},

Gamma being the second variation of the kernel action (`theory.kernel_action`): in closed form for linear networks, from
neurons drawn from q for others. The posterior mean is off by O(1/N) besides. Not valid within 1/sqrt(N) of a
transition, where Gamma is singular.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import jax
import numpy as np

from theory import arguments, residuals
from theory.jax_settings import own_settings
from theory.kernel_action import bordered_matrix, linear_curvature, pairs_of, sampled_curvature, symmetric_of
from theory.kernels import flat_of
from theory.laws.neurons import Neurons, draw_neurons
from theory.memory import require_memory
from theory.seeds import part
from theory.solution import Saddle, Solution
from theory.units import times

NEURONS = 8192  # drawn in a set where nothing is asked for: fluctuations are then known to a few percent
REPETITIONS = 4
KEPT = 2  # sets of draws: those of a solution and of the one that it is compared with
SINGULAR = 1e-12
# What rounding may do to a variance, relative to the variance itself or, of an entry that the data hold fast, to a
# millionth of the largest. The bound overestimates the error some thirty times.
ROUNDED, UNMOVED = 0.1, 1e-6


@dataclass(frozen=True, eq=False)
class Fluctuations:
    """Gaussian fluctuations of the kernel around a `Solution` at width N.

    Attributes:
        solution: the saddle point.
        width: N.
        natural_cov: covariance of the kernel entries in units of 2^(2 unit), (T, P, T, P, T, P, T, P).
        natural_error: its standard error.
        unit: binary logarithm of the unit of the activities (`theory.units`); 0 unless kernels are huge or tiny.
    """

    solution: Solution
    width: int
    natural_cov: np.ndarray
    natural_error: np.ndarray
    unit: int = 0

    @property
    def kernel_cov(self) -> np.ndarray:
        """Covariance of the kernel entries, (T, P, T, P, T, P, T, P).

        Raises:
            ValueError: if it overflows.
        """
        covariance = times(self.natural_cov, 4 * self.unit)
        if not np.isfinite(covariance).all():
            size = self.solution.kernel.max()
            raise ValueError(f"solution has kernels of {size:.0e}, whose squares overflow; give smaller inputs")
        return covariance

    @property
    def standard_error(self) -> np.ndarray:
        """That of ``kernel_cov``, from independent sets of neurons; zero for linear networks."""
        return times(self.natural_error, 4 * self.unit)

    def draw_kernels(self, num: int, seed: int = 0) -> np.ndarray:
        r"""Kernels (num, T, P, T, P) at width N: Phi^{1/2} exp( Phi^{-1/2} dPhi Phi^{-1/2} ) Phi^{1/2}, dPhi Gaussian.

        Positive semi-definite like every kernel. Their spread gives that of any observable, also where its first
        derivative vanishes (squared overlaps).

        Raises:
            ValueError: if ``num`` is not a positive integer or ``seed`` no seed.
        """
        num, seed = arguments.integer("num", num), arguments.seed("seed", seed)
        n = self.solution.model.entries
        require_memory(f"num {num} for sites x patterns = {n}", 32.0 * num * n**2, "draw fewer kernels")
        rows, columns = pairs_of(n)
        pairs = rows * n + columns
        values, vectors = np.linalg.eigh(self.natural_cov.reshape(n * n, n * n)[np.ix_(pairs, pairs)])
        white = np.random.default_rng(seed).normal(size=(num, len(values)))
        deviations = symmetric_of((white * np.sqrt(np.maximum(values, 0))) @ vectors.T, n)
        values, vectors = np.linalg.eigh(times(flat_of(self.solution.kernel), -2 * self.unit))
        present = values > SINGULAR * values[-1]
        half = vectors[:, present] * np.sqrt(values[present])
        inverse = vectors[:, present] / np.sqrt(values[present])
        exponents, axes = np.linalg.eigh(inverse.T @ deviations @ inverse)
        factors = half @ (axes * np.exp(exponents / 2)[:, None, :])
        kernels = times(factors @ factors.swapaxes(1, 2), 2 * self.unit)
        return kernels.reshape(num, *self.solution.kernel.shape)


def fluctuations(solution: Solution, *, neurons: int | None = None, seed: int = 0) -> Fluctuations:
    """The fluctuations at the width of the solution's network.

    Args:
        solution: a stable saddle point, for any activation.
        neurons: how many to draw from q, four times over; 8192 by default. Not for linear networks.
        seed: of the draws.

    Raises:
        ValueError: if the solution is not a stable saddle point, around which nothing is Gaussian, or if an argument is
            out of its range.
    """
    require_stable(solution)
    saddle, units = solution.saddle.natural()
    matrices = [second_variation(saddle, drawn) for drawn in draw_sets(saddle, neurons, seed)]
    n, width = saddle.model.entries, solution.network.width
    covariance, error = jackknife(matrices, kernel_covariance)
    shape = solution.kernel.shape * 2
    whole, its_error = (_by_entry(values, n).reshape(shape) / width for values in (covariance, error))
    return Fluctuations(solution, width, whole, its_error, units.activity)


def require_stable(solution: Solution) -> None:
    """Refuse what no Gaussian law surrounds.

    Raises:
        ValueError: if the solution is no saddle point, or an unstable one, or was not found at all.
    """
    arguments.instance("solution", solution, Solution)
    if solution.residual > residuals.ANYWHERE:
        raise ValueError(
            f"solution was not solved: its equations are violated by {solution.residual:.2g} (at most "
            f"{residuals.ANYWHERE:g} of sqrt(Phi_ii Phi_jj) is allowed), and its kernel is no answer"
        )
    if solution.kind != "saddle point" or not solution.stable:
        raise ValueError("solution is not a stable saddle point; fluctuations are Gaussian around a stable one only")


def jackknife(matrices: list[np.ndarray], function: Callable) -> tuple[np.ndarray, np.ndarray]:
    """A function of the mean of independent estimates, less its bias of first order, and its standard error.

    Zero error for a single matrix, which is exact.

    Source: Quenouille 1956; Tukey 1958.
    """
    count, mean = len(matrices), np.mean(matrices, axis=0)
    whole = np.asarray(function(mean))
    if count == 1:
        return whole, np.zeros_like(whole)
    parts = np.array([function((count * mean - left_out) / (count - 1)) for left_out in matrices])
    centre = parts.mean(axis=0)
    error = np.sqrt((count - 1) / count * np.sum((parts - centre) ** 2, axis=0))
    return count * whole - (count - 1) * centre, error


def draw_sets(saddle: Saddle, neurons: int | None, seed: int, usual: int = NEURONS) -> list[Neurons | None]:
    """Independent sets of neurons from q, weighted so that averages are precise; for a linear network, which needs
    none, one None."""
    arguments.only_for("networks that are not linear", not saddle.linear, neurons=neurons)
    neurons = usual if neurons is None else arguments.integer("neurons", neurons, 1024)
    seed = arguments.seed("seed", seed)
    n = saddle.model.entries
    what = f"the second derivatives of the free energy for sites x patterns = {n}"
    require_memory(what, 8.0 * n**4, "give a smaller task")
    if saddle.linear:
        return [None]
    what = f"neurons {neurons} for sites x patterns = {n}"
    require_memory(what, 8.0 * REPETITIONS * neurons * n, "draw fewer neurons")
    return list(_drawn_sets(_LawOfNeurons(saddle.phi.function, _digest(saddle), saddle), neurons, seed))


@dataclass(frozen=True)
class _LawOfNeurons:
    """The law q of a saddle point, equal to another one of the same activation and the same numbers."""

    phi: Callable
    digest: str
    saddle: Saddle = field(compare=False)


def _digest(saddle: Saddle) -> str:
    """Of all numbers that neurons drawn from the law depend on."""
    model = saddle.model
    arrays = [np.asarray(leaf) for leaf in (*jax.tree.leaves(model), saddle.cov, saddle.conjugate)]
    shapes = [(array.shape, str(array.dtype)) for array in arrays]
    plain = repr((model.patterns, model.sources, model.outputs, model.mixing is None, shapes))
    return hashlib.sha256(b"".join([plain.encode(), *(array.tobytes() for array in arrays)])).hexdigest()


# Fluctuations, evidence, spectrum and sensitivity of one solution ask for the same draws, which take the longest.
@lru_cache(maxsize=KEPT)
def _drawn_sets(law: _LawOfNeurons, neurons: int, seed: int) -> tuple[Neurons, ...]:
    """Draws that nobody may write into, the last few of which are kept."""
    saddle = law.saddle
    parts = saddle.model, saddle.cov, saddle.conjugate, saddle.phi.function
    # float64 within this call only, as everywhere in the theory.
    with own_settings():
        found = tuple(draw_neurons(*parts, neurons, part(seed, number), tilted=True) for number in range(REPETITIONS))
    for drawn in found:
        for values in drawn:
            values.flags.writeable = False
    return found


def second_variation(saddle: Saddle, neurons: Neurons | None) -> np.ndarray:
    """Gamma (2d, 2d) at a stable saddle point, from one of `draw_sets`."""
    # float64 within this call only: second derivatives.
    with own_settings():
        if neurons is None:
            curvature = linear_curvature(saddle.kernel, saddle.conjugate)
        else:
            curvature = sampled_curvature(neurons, saddle.cov, saddle.conjugate, saddle.phi.function)
        return bordered_matrix(saddle.model, saddle.kernel, curvature)


def kernel_covariance(second_variation: np.ndarray) -> np.ndarray:
    """N Cov(Phi) over pairs, (d, d), from Gamma (2d, 2d).

    Raises:
        ValueError: if it is not positive semi-definite, or rounding hides whether it is.
    """
    matrix, units = in_own_units(second_variation)
    d = len(units)
    inverse = _inverse(matrix)[:d, :d]
    inverse = (inverse + inverse.T) / 2
    values = np.linalg.eigvalsh(inverse)
    if values[0] < -1e-3 * values[-1]:
        raise ValueError("solution sits at a transition: a direction without curvature has no Gaussian law")
    return inverse * np.outer(units, units)


def _inverse(second_variation: np.ndarray) -> np.ndarray:
    """Gamma^{-1}, (2d, 2d).

    Raises:
        ValueError: if rounding leaves no variance to trust.
    """
    inverse = np.full_like(second_variation, np.nan)
    if np.isfinite(second_variation).all():
        with contextlib.suppress(np.linalg.LinAlgError):
            inverse = np.linalg.inv(second_variation)
    d = len(inverse) // 2
    # The componentwise bound on what rounding Gamma does to its inverse, which no choice of units alters.
    rounding = np.finfo(float).eps * np.diagonal(np.abs(inverse) @ np.abs(second_variation) @ np.abs(inverse))[:d]
    variances = np.abs(np.diagonal(inverse)[:d])
    if not np.all(rounding <= ROUNDED * np.maximum(variances, UNMOVED * variances.max(initial=0.0))):
        raise ValueError(
            "solution has fluctuations that double precision cannot resolve: it sits at a transition, or its noise is "
            "too small beside gv^2 Phi of patterns that depend on one another (a larger noise, or fewer of these "
            "patterns, can be resolved)"
        )
    return inverse


def in_own_units(second_variation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gamma (2d, 2d) with each pair of entries in units of its own, and these, (d,); the determinant is the same.

    The unit is the spread of phi_i phi_j over neurons, so that nothing depends on the units of the activities.
    """
    d = len(second_variation) // 2
    spread = np.sqrt(np.abs(np.diagonal(second_variation)[d:]))
    units = np.where(spread > 0, spread, 1.0)
    scale = np.concatenate([units, 1 / units])
    return second_variation * scale[:, None] * scale, units


def _by_entry(pairs: np.ndarray, n: int) -> np.ndarray:
    """(d, d) over pairs -> (n, n, n, n)."""
    return symmetric_of(symmetric_of(pairs, n).transpose(1, 2, 0), n)

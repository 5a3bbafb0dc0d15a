r"""The free energy of a linear network as a function of its kernel, and its derivatives by products of matrices.

    F(Phi) = 1/2 [ tr C^{-1} Phi - ln det C^{-1} Phi - m ] + 1/2 sum_o y_o^T A^{-1} y_o,    C = C[Phi],  A = A[Phi]

on the m entries of `theory.gaussian.reduced`, where C is positive definite. A step E (symmetric) leads to

    Phi + E + 1/4 E Phi^{-1} E  =  Phi^{1/2} (1 + S/2)^2 Phi^{1/2},        S = Phi^{-1/2} E Phi^{-1/2},

which is positive semi-definite for every E; lengths are |S|. With g = dF/dPhi, dC = c E (`theory.gaussian.site_maps`),
a = C^{-1} E C^{-1} and b = C^{-1} dC C^{-1}, the first and second derivatives in E are

    g = 1/2 ( C^{-1} - Phi^{-1} + c^T Q - Mv o r r^T ),        Q = C^{-1} - C^{-1} Phi C^{-1},        r = A^{-1} y,
    1/2 ( Phi^{-1} E Phi^{-1} - b + c^T dQ - Mv o ( dr r^T + r dr^T ) ) + 1/4 ( g E Phi^{-1} + Phi^{-1} E g ),
    dQ = b Phi C^{-1} + C^{-1} Phi b - a - b,        dr = -A^{-1} dA r.

At the lazy limit, E = (1 - c)^{-1} [ C^{1/2} X C^{1/2} ] makes the KL divergence |X|^2 / 4 to second order: X is the
change of the Gram matrix of white noise, in which the data alone curve the free energy otherwise. The preconditioner
is that map times its adjoint at any point. A gradient costs two Cholesky factors and two inverses, a second derivative
along one direction eight products of matrices.

Arrays may have leading axes: many kernels at once, since on a few entries NumPy's overhead takes longer than the
products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from theory.gaussian.reduced import Reduced
from theory.gaussian.site_maps import back
from theory.kernels import scale_of

LEAF = 32  # rows up to which LAPACK inverts in a single thread


@dataclass(frozen=True, eq=False)
class Points:
    """The free energy at some kernels.

    On a busy machine the threads of LAPACK, and those of BLAS where an operand is transposed, wait for one another a
    hundred times longer than such products take: transposes are stored, inverses made of products.

    Attributes:
        problem: the network on the task.
        kernel: Phi, (..., m, m).
    """

    problem: Reduced
    kernel: np.ndarray

    def __len__(self) -> int:
        return len(self.kernel)

    def at(self, which: Any) -> Points:
        """Some of them, or a single one, with what is known of them."""
        chosen = Points(self.problem, self.kernel[which])
        known = {name: value[which] for name, value in vars(self).items() if name not in ("problem", "kernel")}
        vars(chosen).update(known)
        return chosen

    @cached_property
    def value(self) -> np.ndarray:
        """F (...,); infinite where Phi or C[Phi] is not positive definite."""
        try:
            factor, kernel_factor = self._factor, np.linalg.cholesky(self.kernel)
        except np.linalg.LinAlgError:
            if self.kernel.ndim == 2:
                return np.array(np.inf)
            return np.array([Points(self.problem, kernel).value for kernel in self.kernel])
        diagonals = (np.diagonal(each, axis1=-2, axis2=-1) for each in (kernel_factor, factor))
        log_det = 2 * np.sum(np.log(np.divide(*diagonals)), axis=-1)
        divergence = (overlap(self._precision, self.kernel) - log_det - factor.shape[-1]) / 2
        return divergence + overlap(self.problem.targets, self._dual) / 2 + self.problem.unexplained

    @cached_property
    def cov(self) -> np.ndarray:
        """C[Phi], (..., m, m)."""
        return self.problem.covariance(self.kernel)

    @cached_property
    def gradient(self) -> np.ndarray:
        """g = dF/dPhi (..., m, m), symmetric."""
        slope = self._precision - self.kernel_precision + self.problem.covariance_adjoint(self.response)
        return _symmetric(slope - self.problem.read_out_adjoint(self._dual @ back(self._dual))) / 2

    @cached_property
    def response(self) -> np.ndarray:
        """Q, (..., m, m)."""
        return _symmetric(self._precision - self._carried @ self._precision)

    @cached_property
    def slope(self) -> np.ndarray:
        """|dF/dS|, (...,)."""
        scaled = self.gradient @ self.kernel
        return np.sqrt(np.abs(overlap(scaled, back(scaled))))

    @cached_property
    def residual(self) -> np.ndarray:
        """How far Phi is from ( C^{-1} + Phihat )^{-1} to first order, relative to sqrt(Phi_ii Phi_jj), at most."""
        return self._largest(2 * self.kernel @ self.gradient @ self.kernel)

    @cached_property
    def violation(self) -> np.ndarray:
        """The same for the equation itself, not to first order."""
        conjugate = self.problem.covariance_adjoint(self.response)
        conjugate = conjugate - self.problem.read_out_adjoint(self._dual @ back(self._dual))
        factor = self._factor
        inner = np.eye(factor.shape[-1]) + back(factor) @ conjugate @ factor
        return self._largest(self.kernel - factor @ np.linalg.solve(inner, back(factor)))

    def curve(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The second derivative along E = ``step`` (..., m, m), and E Phi^{-1}."""
        relative = step @ self.kernel_precision
        by_cov = self._precision @ self.problem.change(step) @ self._precision
        by_kernel = self._precision @ step @ self._precision
        carried = self._carried @ by_cov
        response = carried + back(carried) - by_kernel - by_cov
        slope = self.kernel_precision @ relative - by_cov + self.problem.covariance_adjoint(response)
        dual_change = -self._target_precision @ (self.problem.read_out(step) @ self._dual)
        products = dual_change @ back(self._dual)
        slope = slope - self.problem.read_out_adjoint(products + back(products)) + self.gradient @ relative
        return _symmetric(slope) / 2, relative

    def precondition(self, gradient: np.ndarray) -> np.ndarray:
        """The step (..., m, m) that stands for a gradient (..., m, m) in coordinates of white noise."""
        carried = self.problem.accumulate_adjoint(gradient)
        return _symmetric(self.problem.accumulate(self.cov @ carried @ self.cov))

    def moved(self, step: np.ndarray, relative: np.ndarray) -> Points:
        """The points after a step E; ``relative`` is E Phi^{-1}."""
        return Points(self.problem, _symmetric(self.kernel + step + relative @ step / 4))

    def step_of_noise(self, change: np.ndarray) -> np.ndarray:
        """E for a change X (..., m, m) of the Gram matrix of white noise."""
        return _symmetric(self.problem.accumulate(self._factor @ change @ self._factor_back))

    def noise_of_gradient(self, gradient: np.ndarray) -> np.ndarray:
        """The adjoint of `step_of_noise`."""
        return _symmetric(self._factor_back @ self.problem.accumulate_adjoint(gradient) @ self._factor)

    @cached_property
    def kernel_precision(self) -> np.ndarray:
        """Phi^{-1}."""
        return positive_inverse(self.kernel)

    def _largest(self, change: np.ndarray) -> np.ndarray:
        """The largest entry of a change of the kernel, relative to sqrt(Phi_ii Phi_jj), (...,)."""
        change, kernel = self.problem.expand(change), self.problem.expand(self.kernel)
        scale = scale_of(kernel)
        return np.max(np.abs(change) / (scale[..., :, None] * scale[..., None, :]), axis=(-2, -1))

    @cached_property
    def _factor(self) -> np.ndarray:
        return np.linalg.cholesky(self.cov)

    @cached_property
    def _factor_back(self) -> np.ndarray:
        return np.ascontiguousarray(back(self._factor))

    @cached_property
    def _precision(self) -> np.ndarray:
        return _inverse_of_square(self._factor)

    @cached_property
    def _carried(self) -> np.ndarray:
        """C^{-1} Phi."""
        return self._precision @ self.kernel

    @cached_property
    def _target_precision(self) -> np.ndarray:
        cov = self.problem.read_out(self.kernel)
        return positive_inverse(cov + self.problem.noise * np.eye(cov.shape[-1]))

    @cached_property
    def _dual(self) -> np.ndarray:
        return self._target_precision @ self.problem.targets


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """sum_ij X_ij Y_ij, (...,)."""
    return np.einsum("...ij,...ij->...", one, other)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + back(matrix)) / 2


def positive_inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of positive definite matrices (..., n, n), by products of whole arrays (`Points`)."""
    return _inverse_of_square(np.linalg.cholesky(matrix))


def _inverse_of_square(factor: np.ndarray) -> np.ndarray:
    """(L L^T)^{-1}."""
    inverse = _triangular_inverse(factor)
    return np.ascontiguousarray(back(inverse)) @ inverse


def _triangular_inverse(factor: np.ndarray) -> np.ndarray:
    n = factor.shape[-1]
    if n <= LEAF:
        return np.linalg.inv(factor)
    half, inverse = n // 2, np.zeros_like(factor)
    inverse[..., :half, :half] = _triangular_inverse(factor[..., :half, :half])
    inverse[..., half:, half:] = _triangular_inverse(factor[..., half:, half:])
    inverse[..., half:, :half] = -inverse[..., half:, half:] @ (factor[..., half:, :half] @ inverse[..., :half, :half])
    return inverse

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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from theory.gaussian.reduced import Reduced
from theory.kernels import scale_of

LEAF = 32  # rows up to which LAPACK inverts in a single thread


@dataclass(frozen=True, eq=False)
class Point:
    """The free energy at a kernel.

    On a busy machine the threads of LAPACK, and those of BLAS where an operand is transposed, wait for one another a
    hundred times longer than such products take: transposes are stored, inverses made of products.

    Attributes:
        problem: the network on the task.
        kernel: Phi, (m, m).
    """

    problem: Reduced
    kernel: np.ndarray

    @cached_property
    def value(self) -> float:
        """F; infinite where Phi or C[Phi] is not positive definite."""
        try:
            factor, kernel_factor = np.linalg.cholesky(self.cov), np.linalg.cholesky(self.kernel)
        except np.linalg.LinAlgError:
            return np.inf
        log_det = 2 * np.sum(np.log(np.diagonal(kernel_factor) / np.diagonal(factor)))
        divergence = (np.sum(self._precision * self.kernel) - log_det - len(factor)) / 2
        return float(divergence + np.sum(self.problem.targets * self._dual) / 2 + self.problem.unexplained)

    @cached_property
    def cov(self) -> np.ndarray:
        """C[Phi], (m, m)."""
        return self.problem.covariance(self.kernel)

    @cached_property
    def gradient(self) -> np.ndarray:
        """g = dF/dPhi (m, m), symmetric."""
        slope = self._precision - self.kernel_precision + self.problem.covariance_adjoint(self.response)
        return _symmetric(slope - self.problem.read_out_adjoint(self._dual @ self._dual.T)) / 2

    @cached_property
    def response(self) -> np.ndarray:
        """Q, (m, m)."""
        return _symmetric(self._precision - self._carried @ self._precision)

    @cached_property
    def slope(self) -> float:
        """|dF/dS|."""
        scaled = self.gradient @ self.kernel
        return float(np.sqrt(np.abs(np.sum(scaled * scaled.T))))

    @cached_property
    def residual(self) -> float:
        """How far Phi is from ( C^{-1} + Phihat )^{-1} to first order, relative to sqrt(Phi_ii Phi_jj), at most."""
        violation = 2 * self.problem.expand(self.kernel @ self.gradient @ self.kernel)
        scale = scale_of(self.problem.expand(self.kernel))
        return float(np.max(np.abs(violation) / np.outer(scale, scale)))

    @cached_property
    def violation(self) -> float:
        """The same for the equation itself, not to first order."""
        conjugate = self.problem.covariance_adjoint(self.response)
        conjugate = conjugate - self.problem.read_out_adjoint(self._dual @ self._dual.T)
        factor = self._factor
        inner = np.eye(len(factor)) + factor.T @ conjugate @ factor
        implied = self.problem.expand(factor @ np.linalg.solve(inner, factor.T))
        kernel = self.problem.expand(self.kernel)
        scale = scale_of(kernel)
        return float(np.max(np.abs(kernel - implied) / np.outer(scale, scale)))

    def curve(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The second derivative along E = ``step`` (m, m), and E Phi^{-1}."""
        relative = step @ self.kernel_precision
        by_cov = self._precision @ self.problem.change(step) @ self._precision
        by_kernel = self._precision @ step @ self._precision
        carried = self._carried @ by_cov
        response = carried + carried.T - by_kernel - by_cov
        slope = self.kernel_precision @ relative - by_cov + self.problem.covariance_adjoint(_symmetric(response))
        dual_change = -self._target_precision @ (self.problem.read_out(step) @ self._dual)
        products = dual_change @ self._dual.T
        slope = (slope - self.problem.read_out_adjoint(products + products.T)) / 2
        return _symmetric(slope + self.gradient @ relative / 2), relative

    def precondition(self, gradient: np.ndarray) -> np.ndarray:
        """The step (m, m) that stands for a gradient (m, m) in coordinates of white noise."""
        back = self.problem.accumulate_adjoint(gradient)
        return _symmetric(self.problem.accumulate(self.cov @ back @ self.cov))

    def moved(self, step: np.ndarray, relative: np.ndarray) -> Point:
        """The point after a step E; ``relative`` is E Phi^{-1}."""
        return Point(self.problem, _symmetric(self.kernel + step + relative @ step / 4))

    def step_of_noise(self, change: np.ndarray) -> np.ndarray:
        """E for a change X (m, m) of the Gram matrix of white noise."""
        return _symmetric(self.problem.accumulate(self._factor @ change @ self._factor_back))

    def noise_of_gradient(self, gradient: np.ndarray) -> np.ndarray:
        """The adjoint of `step_of_noise`."""
        return _symmetric(self._factor_back @ self.problem.accumulate_adjoint(gradient) @ self._factor)

    @cached_property
    def kernel_precision(self) -> np.ndarray:
        """Phi^{-1}."""
        return positive_inverse(self.kernel)

    @cached_property
    def _factor(self) -> np.ndarray:
        return np.linalg.cholesky(self.cov)

    @cached_property
    def _factor_back(self) -> np.ndarray:
        return np.ascontiguousarray(self._factor.T)

    @cached_property
    def _precision(self) -> np.ndarray:
        return positive_inverse(self.cov)

    @cached_property
    def _carried(self) -> np.ndarray:
        """C^{-1} Phi."""
        return self._precision @ self.kernel

    @cached_property
    def _target_precision(self) -> np.ndarray:
        cov = self.problem.read_out(self.kernel)
        return positive_inverse(cov + self.problem.noise * np.eye(len(cov)))

    @cached_property
    def _dual(self) -> np.ndarray:
        return self._target_precision @ self.problem.targets


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def positive_inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a positive definite matrix, by products of whole arrays (`Point`)."""
    inverse = _triangular_inverse(np.linalg.cholesky(matrix))
    return np.ascontiguousarray(inverse.T) @ inverse


def _triangular_inverse(factor: np.ndarray) -> np.ndarray:
    n = len(factor)
    if n <= LEAF:
        return np.linalg.inv(factor)
    half, inverse = n // 2, np.zeros_like(factor)
    inverse[:half, :half] = _triangular_inverse(factor[:half, :half])
    inverse[half:, half:] = _triangular_inverse(factor[half:, half:])
    inverse[half:, :half] = -inverse[half:, half:] @ (factor[half:, :half] @ inverse[:half, :half])
    return inverse

r"""Spectrum of the recurrent weights given the neurons: a circular bulk and the outliers that learning puts there.

The rows of W are Gaussian given the activity, so W is its conditional mean, of rank at most (T-1) P, plus prior noise:

- eigenvalues: those of gw^2 C^{-1} <phi(h_{t-1}) h_s^T>, (n, n); those with modulus above gw leave the bulk disc;
- singular values: with theta^2 the eigenvalues of gw^2 I - gw^4 Phi_pre (C^{-1} - C^{-1} <h h^T> C^{-1}) over steps
  2..T (Phi_pre the kernel shifted by one step), an outlier leaves the bulk edge 2 gw where theta^2 > 2 gw^2, at
  sigma^2 = theta^4 / (theta^2 - gw^2).

Where W is unshared each step has its own matrix and everything holds step by step.

Sources: DESIGN.md section 3; spiked random matrices: Benaych-Georges and Nadakuditi 2012, Tao 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from theory.covariance import shift_later
from theory.network import Network
from theory.response import covariance_inverse, covariance_response, factorise
from theory.solution import Solution
from theory.task import Task


@dataclass(frozen=True)
class Spectrum:
    """Predicted spectrum of the recurrent weights at infinite width.

    Attributes:
        eigenvalues: complex eigenvalues of the conditional mean of W, by decreasing modulus; one array per weight
            matrix (one if W is shared, else one for each of the steps 2..T).
        singular_values: positions of the singular value outliers, decreasing, one array per weight matrix.
        radius: gw, the radius of the eigenvalue bulk.
        edge: 2 gw, the upper edge of the singular value bulk.
    """

    eigenvalues: tuple[np.ndarray, ...]
    singular_values: tuple[np.ndarray, ...]
    radius: float
    edge: float

    @property
    def outliers(self) -> tuple[np.ndarray, ...]:
        """The eigenvalues outside the bulk, one array per weight matrix."""
        return tuple(values[np.abs(values) > self.radius] for values in self.eigenvalues)


def spectrum(solution: Solution) -> Spectrum:
    """The spectrum of the recurrent weights that the `Solution` of a linear network predicts.

    Raises:
        NotImplementedError: if the activation is not linear.
    """
    network, task = solution.network, solution.task
    if network.activation != "linear":
        raise NotImplementedError(
            f"theory.spectrum handles activation 'linear' only so far, not {network.activation!r}"
        )
    n = task.entries
    # float64 within this call only, as everywhere in the theory.
    with jax.enable_x64(True):
        kernel = solution.kernel.reshape(n, n)
        factor = factorise(solution.preactivation_cov.reshape(n, n))
        pre_kernel = np.asarray(shift_later(kernel, task.patterns))
    pre_post = np.zeros((n, n))
    pre_post[task.patterns :] = kernel[: n - task.patterns]
    return spectrum_of_moments(network, task, factor, pre_kernel, pre_post, kernel)


def spectrum_of_moments(network: Network, task: Task, factor, pre_kernel, pre_post, second_moment) -> Spectrum:
    """The same from <phi(h_{t-1}) phi(h_{s-1})>, <phi(h_{t-1}) h_s>, <h h^T> and the factor of C, all (n, n)."""
    gain = network.recurrent_gain
    mean = gain**2 * pre_post @ covariance_inverse(factor)
    response = covariance_response(factor, second_moment)
    eigenvalues, singular_values = [], []
    for block in _matrices(network, task):
        window = np.ix_(block, block)
        values = np.linalg.eigvals(mean[window])
        eigenvalues.append(values[np.argsort(-np.abs(values))])
        squares = np.linalg.eigvals(gain**2 * np.eye(len(block)) - gain**4 * pre_kernel[window] @ response[window]).real
        above = squares[squares > 2 * gain**2]
        singular_values.append(np.sort(above / np.sqrt(above - gain**2))[::-1])
    return Spectrum(tuple(eigenvalues), tuple(singular_values), gain, 2 * gain)


def _matrices(network: Network, task: Task) -> list[np.ndarray]:
    """Flat entries that each recurrent weight matrix acts on to: all steps from the second, together or one by one."""
    later = np.arange(task.patterns, task.entries)
    return [later] if "recurrent" in network.shared else list(later.reshape(task.steps - 1, task.patterns))

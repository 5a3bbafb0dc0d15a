"""The lazy limit: kernels at the prior (NNGP), prediction by Gaussian process regression."""

from __future__ import annotations

import numpy as np

from theory import arguments
from theory.covariance import covariance_terms, preactivation_cov
from theory.jax_settings import own_settings
from theory.network import Network
from theory.prediction import data_term, predict_given_kernel
from theory.solution import Solution, kernel_of, outputs_of
from theory.task import Task


def prior_kernel(network: Network, task: Task) -> np.ndarray:
    """Phi_{ts} = <phi(h_t) phi(h_s)> under h ~ N(0, C[Phi]), built step by step; (n, n) float64."""
    terms, patterns = covariance_terms(network, task), task.patterns
    kernel = np.zeros((task.entries, task.entries))
    for step in range(task.steps):
        now, known = slice(step * patterns, (step + 1) * patterns), slice(0, (step + 1) * patterns)
        cov = np.asarray(preactivation_cov(terms, kernel, patterns))
        variance = np.diagonal(cov)
        kernel[now, known] = network.phi.second_moment(variance[now, None], variance[None, known], cov[now, known])
        kernel[known, now] = kernel[now, known].T
    return kernel


def nngp(network: Network, task: Task) -> Solution:
    """The lazy limit of a network on a task: the neural network Gaussian process.

    It is the infinite-width limit in standard scaling, and in muP the limit of vanishing signal; the solver starts
    here. Its ``free_energy`` is the data term 1/2 sum_o y_o^T A^{-1} y_o at the prior kernel, an upper bound on the muP
    saddle point's.

    Returns:
        A `Solution` of kind "lazy limit" whose conjugate kernel is zero.

    Source: Lee et al. 2018; with weights shared over steps, Segadlo et al. 2022.
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    task.require_kernel_memory()
    # float64 within this call only: the result is a reference value.
    with own_settings():
        terms, kernel = covariance_terms(network, task), prior_kernel(network, task)
        predictive = predict_given_kernel(terms, kernel)
        cov = preactivation_cov(terms, kernel, task.patterns)
        return Solution(
            network=network,
            task=task,
            kernel=kernel_of(kernel, task),
            conjugate=np.zeros_like(kernel_of(kernel, task)),
            preactivation_cov=kernel_of(cov, task),
            free_energy=float(data_term(terms, kernel)),
            prediction=outputs_of(predictive.mean, task),
            dual=outputs_of(predictive.dual, task),
            residual=0.0,
            stable=True,
            converged=True,
            message="lazy limit: kernels at the prior, in closed form or by quadrature",
            kind="lazy limit",
        )

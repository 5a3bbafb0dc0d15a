"""The lazy limit: kernels at the prior (NNGP), prediction by Gaussian process regression."""

from __future__ import annotations

import numpy as np

from theory import arguments
from theory.activations import Activation
from theory.jax_settings import own_settings
from theory.kernels import kernel_of, outputs_of
from theory.model import Model, build_model, data_term, output_law, preactivation_cov
from theory.network import Network
from theory.solution import Solution
from theory.task import Task


def prior_kernel(model: Model, phi: Activation) -> np.ndarray:
    """Phi_{ts} = <phi(h_t) phi(h_s)> under h ~ N(0, C[Phi]), built site by site; (n, n) float64."""
    kernel, patterns = np.zeros((model.entries, model.entries)), model.patterns
    for site in range(model.sites):
        now, known = slice(site * patterns, (site + 1) * patterns), slice(0, (site + 1) * patterns)
        cov = np.asarray(preactivation_cov(model, kernel))
        variance = np.diagonal(cov)
        kernel[now, known] = phi.second_moment(variance[now, None], variance[None, known], cov[now, known])
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
    task.require_kernel_memory(network.layers)
    # float64 within this call only: the result is a reference value.
    with own_settings():
        model = build_model(network, task)
        kernel = prior_kernel(model, network.phi)
        law = output_law(model, kernel)
        cov = preactivation_cov(model, kernel)
        return Solution(
            network=network,
            task=task,
            kernel=kernel_of(kernel, task),
            conjugate=np.zeros_like(kernel_of(kernel, task)),
            preactivation_cov=kernel_of(cov, task),
            free_energy=float(data_term(model, kernel)),
            prediction=outputs_of(model.read_out(law.mean), task),
            dual=outputs_of(model.read_out(law.dual), task),
            residual=0.0,
            stable=True,
            converged=True,
            message="lazy limit: kernels at the prior, in closed form or by quadrature",
            kind="lazy limit",
        )

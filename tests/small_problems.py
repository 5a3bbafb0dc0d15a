"""Small tasks, and whole networks as weighted draws: what several test modules compare with."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from theory import Task
from theory.causal import propagate
from theory.model import build_model, data_term, target_cov
from theory.response import factorise, inverse_factor


def chain(steps, signal):
    """x_1 = 1, y_T = signal."""
    inputs, targets = np.zeros((1, steps, 1)), np.full((1, steps), np.nan)
    inputs[0, 0], targets[0, -1] = 1, signal
    return Task(inputs, targets)


def sequence(steps=3):
    """Two patterns, two outputs, generic inputs at every step, three targets."""
    rng = np.random.default_rng(0)
    supervised = np.zeros((2, steps), bool)
    supervised[:, -1] = supervised[0, 1] = True
    return Task(rng.normal(size=(2, steps, 4)), 1.5 * rng.normal(size=(2, steps, 2)), supervised)


def repeated():
    """Two patterns that begin alike: their first activities are one."""
    inputs = np.ones((2, 2, 2))
    inputs[1, 1] = [1, -1]
    return Task(inputs, np.array([[np.nan, 1.0], [np.nan, -0.5]]))


def identity(x):
    return 1.0 * x


def problem_of(network, task):
    """The model in arrays and the activation."""
    return build_model(network, task).on_device(), network.phi


def as_general(solution):
    """A linear solution whose network does not say that it is linear."""
    return replace(solution, network=solution.network.replace(activation=identity), branches=())


def weighted_networks(solution, width, count, seed=0):
    """Kernels (count, n, n) of networks made of neurons drawn from q, and the log weights that make them the posterior.

    Noise z = L^{-1} h of independent neurons goes through the causal construction at the width. The log weight is that
    of prior times likelihood over the density of the draws: its mean exponential is the evidence.
    """
    network, task = solution.network.replace(width=width), solution.task
    n, phi = task.entries, network.phi.function
    neurons = solution.sample_neurons(width * count, seed).reshape(count, width, n)
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        noise_of = jnp.asarray(inverse_factor(factorise(solution.preactivation_cov.reshape(n, n))))
        conjugate = jnp.asarray(solution.conjugate.reshape(n, n))
        at_saddle = jnp.asarray(solution.kernel.reshape(n, n))
        # ln < exp(-V) > of one neuron, V = 1/2 phi^T Phihat phi, from F = -ln Z - < V > + data term.
        log_z = data_term(model, at_saddle) - solution.free_energy - jnp.sum(conjugate * at_saddle) / 2

        def one(h):
            kernel = propagate(model, noise_of @ h.T, phi, width).kernel
            activity = phi(h)
            tilt = jnp.sum((activity @ conjugate) * activity) / 2 + width * log_z
            log_det = jnp.linalg.slogdet(2 * jnp.pi / width * target_cov(model, kernel))[1]
            return kernel, tilt - width * data_term(model, kernel) - task.output_dim / 2 * log_det

        kernels, logs = jax.jit(lambda all_h: jax.lax.map(one, all_h))(neurons)
    return np.asarray(kernels), np.asarray(logs)

"""Small tasks, the model written down a second time, and whole networks as weighted draws: what tests compare with.

The generic case is a network and a task in which nothing is one, equal or symmetric that need not be: most faults that
unit gains, one output, one pattern or a default mask hide show there.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from theory import Network, Task
from theory.causal import propagate
from theory.model import build_model, data_term, target_cov
from theory.response import factorise, inverse_factor

GENERIC_GAINS = {"recurrent_gain": 1.2, "input_gain": 0.8, "readout_gain": 1.5, "noise": 0.3}
GENERIC_SHARINGS = {"W and V": ("recurrent", "readout"), "U": ("input",)}


def generic_network(width, sharing, **settings):
    """One of the two mixed sharings, each the complement of the other, with the generic gains."""
    return Network(width, shared=GENERIC_SHARINGS[sharing], **{**GENERIC_GAINS, **settings})


def generic_task(signal=1.0, patterns=slice(None)):
    """Two patterns, three steps, two outputs, inputs at every step; three targets that are supervised, one that is
    known but not supervised, two that are unknown."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 3, 5)), signal * rng.normal(size=(2, 3, 2))
    supervised = np.array([[False, True, True], [False, False, True]])
    targets[:, 0] = np.nan
    return Task(inputs[patterns], targets[patterns], supervised[patterns])


def generic_new_patterns():
    """Two patterns that the generic task does not have, with targets to score them by."""
    rng = np.random.default_rng(1)
    return Task(rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 3, 2)))


def joined(trained, task):
    """The patterns of both tasks in one task, those of the second unsupervised."""
    supervised = np.concatenate([trained.supervised, np.zeros_like(task.supervised)])
    inputs, targets = (np.concatenate([getattr(t, name) for t in (trained, task)]) for name in ("inputs", "targets"))
    return Task(inputs, targets, supervised)


class Dense:
    """The model written down a second time, in plain NumPy, from the fields of `Network` and `Task` alone.

    Kernels are (..., n, n) with n = T P, pattern mu at step t being entry t P + mu.
    """

    def __init__(self, network, task):
        self.patterns, self.steps, self.width = len(task.inputs), task.inputs.shape[1], network.width
        step = np.repeat(np.arange(self.steps), self.patterns)
        same = (step[:, None] == step).astype(float)
        mask = {
            name: np.ones_like(same) if name in network.shared else same for name in ("recurrent", "input", "readout")
        }
        x = task.inputs.transpose(1, 0, 2).reshape(len(step), -1)
        self.drive = network.input_gain**2 * mask["input"] * (x @ x.T) / x.shape[1]
        self.recurrent = network.recurrent_gain**2 * mask["recurrent"]
        self.readout = network.readout_gain**2 * mask["readout"]
        self.noise, self.scale = network.noise, 1 / network.width if network.scaling == "mup" else 1.0
        self.rows = np.flatnonzero(task.supervised.T)
        self.targets = task.targets.transpose(1, 0, 2).reshape(len(step), -1)[self.rows]

    def cov(self, kernel):
        """C[Phi]."""
        earlier = np.zeros_like(kernel)
        earlier[..., self.patterns :, self.patterns :] = kernel[..., : -self.patterns, : -self.patterns]
        return self.drive + self.recurrent * earlier

    def target_cov(self, kernel):
        """A[Phi]."""
        return (self.readout * kernel)[..., self.rows[:, None], self.rows] + self.noise * np.eye(len(self.rows))

    def data_term(self, kernel):
        """1/2 sum_o y_o^T A^{-1} y_o."""
        return np.sum(self.targets * np.linalg.solve(self.target_cov(kernel), self.targets), axis=(-1, -2)) / 2

    def log_likelihood(self, kernel):
        """ln p(y | Phi), V integrated out."""
        outputs = self.targets.shape[1]
        log_det = np.linalg.slogdet(2 * np.pi * self.scale * self.target_cov(kernel))[1]
        return -self.data_term(kernel) / self.scale - outputs * log_det / 2

    def free_energy(self, kernel):
        """F(Phi) of a linear network: 1/2 [tr C^-1 Phi - ln det C^-1 Phi - n] and the data term."""
        ratio = np.linalg.solve(self.cov(kernel), kernel)
        trace = np.trace(ratio, axis1=-2, axis2=-1)
        return (trace - np.linalg.slogdet(ratio)[1] - kernel.shape[-1]) / 2 + self.data_term(kernel)

    def mean(self, kernel):
        """E[f | Phi, y] at every entry, (..., n, O)."""
        cross = (self.readout * kernel)[..., self.rows]
        return cross @ np.linalg.solve(self.target_cov(kernel), self.targets)

    def variance(self, kernel):
        """Var[f | Phi, y] at every entry, the same for each output, (..., n)."""
        prior = self.readout * kernel
        cross = prior[..., self.rows]
        explained = np.linalg.solve(self.target_cov(kernel), np.swapaxes(cross, -1, -2))
        reduction = np.sum(cross * np.swapaxes(explained, -1, -2), axis=-1)
        return self.scale * (np.diagonal(prior, axis1=-2, axis2=-1) - reduction)

    def linear_kernel(self, gram):
        """Phi = L G L^T, L = chol C[Phi], of a linear network whose white noise has the Gram matrix G (..., n, n)."""
        kernel = np.zeros_like(gram)
        for known in range(self.patterns, gram.shape[-1] + 1, self.patterns):
            factor = np.linalg.cholesky(self.cov(kernel)[..., :known, :known])
            kernel[..., :known, :known] = factor @ gram[..., :known, :known] @ np.swapaxes(factor, -1, -2)
        return kernel

    def prior_kernel(self, phi, nodes=80):
        """<phi phi^T> at infinite width without data, by Gauss-Hermite quadrature of each pair of entries."""
        x, weight = np.polynomial.hermite_e.hermegauss(nodes)
        weight = weight / weight.sum()
        n = len(self.drive)
        kernel = np.zeros((n, n))
        for _ in range(self.steps):  # each pass gets one more step right
            cov = self.cov(kernel)
            for i, j in np.ndindex(n, n):
                slope = cov[i, j] / np.sqrt(cov[i, i])
                other = slope * x[:, None] + np.sqrt(max(cov[j, j] - slope**2, 0)) * x
                kernel[i, j] = weight * phi(np.sqrt(cov[i, i]) * x) @ phi(other) @ weight
        return kernel


def symmetric(values):
    """Numbers (..., d) of the pairs i <= j, row by row -> symmetric matrices (..., n, n)."""
    n = int(np.sqrt(2 * values.shape[-1]))
    rows, columns = np.triu_indices(n)
    full = np.zeros((*values.shape[:-1], n, n))
    full[..., rows, columns] = full[..., columns, rows] = values
    return full


def pairs(matrix):
    """The inverse of `symmetric`."""
    return matrix[..., *np.triu_indices(matrix.shape[-1])]


def slope_of(function, point, step=1e-3):
    """Derivatives (..., d) of a function of points (M, d) at one point, by central differences of fourth order."""
    moves = step * np.eye(len(point))
    one, two = (np.moveaxis(function(point + k * moves) - function(point - k * moves), 0, -1) for k in (1, 2))
    return (8 * one - two) / (12 * step)


def curvature_of(function, point, step=2e-3):
    """Second derivatives (d, d) of a function of points (M, d) -> (M,), by central differences of fourth order."""
    d = len(point)
    moves = step * np.eye(d)
    rows, columns = np.triu_indices(d)

    def second(k):
        plus, minus = k * (moves[rows] + moves[columns]), k * (moves[rows] - moves[columns])
        corners = function(point + plus) - function(point + minus) - function(point - minus) + function(point - plus)
        return corners / (4 * (k * step) ** 2)

    return symmetric((4 * second(1) - second(2)) / 3)


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

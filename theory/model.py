r"""The model: the covariances that a network on a task puts on its currents and targets, as functions of the kernel.

A network has sites s in causal order, one for each step and layer, and P patterns at each of them. Its flat entries are
n = (number of sites) P, site by site. Per neuron and pattern

    u_s = sum_w W^w_s phi(h_{a_w(s)}) + sum_m U^m_s x_{tau_m(s)} + b_s + sigma xi_s         current
    h   = F u                                                                             pre-activation
    f_t = V_t phi(h_{o(t)}) / N,       y_t ~ N(f_t, kappa/N)                              output, supervised target

a_w(s) is the site whose activity the weights W^w read for site s. Each kind of weights has a gain g and a correlation
M over the sites where it is used: E[W_s W_s'] = g^2 M_ss' / N (`theory.connections`). All ones: shared (RNN); the
identity: independent (DNN); anything between: partly shared. Integrating the weights out leaves

    C_u[Phi]_ss' = sum_w g_w^2 M^w_ss' Phi_{a_w(s) a_w(s')} + D_ss'        covariance of the currents
    C[Phi]       = F C_u[Phi] F^T                                          of the pre-activations
    A[Phi]       = kappa I + gv^2 (Mv o Phi), supervised entries           of the targets, times their scale

with D the part that does not depend on the kernel: inputs, biases, noise. These are all that the sampler and the theory
know of an architecture: whoever adds a term to the model adds it here. Derivatives come from `jax.vjp` and `jax.grad`
of these functions.

Kernels are flat here, (n, n), entry s P + mu being pattern mu at site s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve

from theory.connections import NOWHERE, Connection
from theory.network import Network
from theory.task import Task
from theory.wiring import Wiring

Array = Any  # a NumPy or a JAX array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "drive", "mixing", "readout", "noise", "scale", "targets", "supervised"],
    meta_fields=["patterns", "sources", "outputs"],
)
@dataclass(frozen=True, eq=False)
class Model:
    """A network on a task, reduced to the arrays that the posterior depends on.

    A pytree: pass it to compiled functions as an argument, and networks that differ in numbers only share one
    compilation (an RNN and a DNN, say).

    Attributes:
        weights: g_w^2 M^w of each kind of weights between neurons, zero where it reads nothing, (n, n) each.
        drive: D, (n, n).
        mixing: F, (sites, sites), lower triangular with a positive diagonal; None for the identity.
        readout: gv^2 Mv between the sites that are read out, zero at others, (n, n).
        noise: kappa.
        scale: 1/N (muP) or 1 (standard): the targets have covariance ``scale`` times A.
        targets: supervised targets, (number supervised, O).
        supervised: their flat entries, (number supervised,).
        patterns: P.
        sources: a_w, a site for each site, `NOWHERE` where nothing is read; one tuple for each of ``weights``.
        outputs: o(t), the site that is read out at each step.
    """

    weights: tuple[Array, ...]
    drive: Array
    mixing: Array | None
    readout: Array
    noise: Array
    scale: Array
    targets: Array
    supervised: Array
    patterns: int
    sources: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]

    @property
    def entries(self) -> int:
        """n."""
        return self.drive.shape[-1]

    @property
    def sites(self) -> int:
        """How many sites there are."""
        return self.entries // self.patterns

    def read_out(self, rows: Array) -> Array:
        """Rows by entry (..., n, k) at the sites that are read out, by (step, pattern): (..., T P, k)."""
        at = np.array(self.outputs)[:, None] * self.patterns + np.arange(self.patterns)
        return rows[..., at.ravel(), :]

    def place_outputs(self, outputs: Array) -> Array:
        """The inverse of `read_out` for (P, T, O): rows by entry, (n, O), zero at sites that are not read out."""
        rows = jnp.zeros((self.sites, self.patterns, outputs.shape[-1]), outputs.dtype)
        return rows.at[np.array(self.outputs)].set(outputs.swapaxes(0, 1)).reshape(self.entries, -1)

    def replace(self, **changes: Any) -> Model:
        """A copy with some arrays changed."""
        return replace(self, **changes)

    def on_device(self) -> Model:
        """The same with JAX arrays."""
        return jax.tree.map(jnp.asarray, self)


def signal_of(model: Model) -> Callable[[float], Model]:
    """The model as a function of a factor that multiplies its targets."""
    return lambda factor: model.replace(targets=factor * model.targets)


def build_model(network: Network, task: Task) -> Model:
    """The `Model` of a network on a task, as NumPy arrays."""
    wiring, patterns = network.wiring(task.steps), task.patterns
    block = np.ones((patterns, patterns))
    drive = np.zeros((wiring.sites * patterns,) * 2)
    for connection in wiring.inputs:
        drive += np.kron(connection.covariance, block) * input_gram(task, connection)
    for connection in wiring.biases:
        drive += np.kron(connection.covariance, block)
    if network.process_noise:
        drive += network.process_noise**2 * np.eye(len(drive))
    sites, patterns_of = np.divmod(task.supervised_entries, patterns)
    return Model(
        weights=tuple(np.kron(connection.covariance, block) for connection in wiring.weights),
        drive=drive,
        mixing=wiring.mixing,
        readout=np.kron(readout_covariance(wiring), block),
        noise=np.asarray(network.noise),
        scale=np.asarray(network.target_variance_scale),
        targets=task.supervised_targets,
        # The same integers in and out of 64-bit mode.
        supervised=(np.array(wiring.outputs)[sites] * patterns + patterns_of).astype(np.int32),
        patterns=patterns,
        sources=tuple(connection.source for connection in wiring.weights),
        outputs=wiring.outputs,
    )


def input_gram(task: Task, connection: Connection) -> np.ndarray:
    """x . x / D between what a connection reads at any two sites, (n, n)."""
    steps = np.array(connection.source)
    read = task.input_kernel[steps][:, :, steps]
    return read.reshape((len(steps) * task.patterns,) * 2)


def readout_covariance(wiring: Wiring) -> np.ndarray:
    """gv^2 Mv at the sites that are read out, (sites, sites)."""
    covariance = np.zeros((wiring.sites, wiring.sites))
    covariance[np.ix_(wiring.outputs, wiring.outputs)] = wiring.readout.covariance
    return covariance


def recurrent_cov(model: Model, kernel: Array) -> Array:
    """sum_w g_w^2 M^w o Phi at the sites read: what the currents owe to the activity, (n, n); linear in the kernel."""
    total = jnp.zeros_like(kernel)
    for weights, source in zip(model.weights, model.sources, strict=True):
        total = total + weights * _read(kernel, source, model.patterns)
    return total


def current_cov(model: Model, kernel: Array) -> Array:
    """C_u[Phi], the covariance (n, n) of the currents given the kernel (n, n) of the activities."""
    return recurrent_cov(model, kernel) + model.drive


def mix(model: Model, matrix: Array) -> Array:
    """F applied to the rows of a matrix (n, k), pattern by pattern."""
    if model.mixing is None:
        return matrix
    return _by_site(jnp.asarray(model.mixing, matrix.dtype), matrix, model.patterns)


def mix_transposed(model: Model, matrix: Array) -> Array:
    """F^T applied to the rows of a matrix (n, k)."""
    if model.mixing is None:
        return matrix
    return _by_site(jnp.asarray(model.mixing, matrix.dtype).T, matrix, model.patterns)


@jax.jit
def preactivation_cov(model: Model, kernel: Array) -> Array:
    """C[Phi] = F C_u[Phi] F^T, the covariance (n, n) of the pre-activations given the kernel (n, n)."""
    return mix(model, mix(model, current_cov(model, kernel)).T).T


def covariance_change(model: Model, kernel_change: Array) -> Array:
    """dC (n, n) for dPhi = ``kernel_change``: C less its part that does not depend on the kernel."""
    return mix(model, mix(model, recurrent_cov(model, kernel_change)).T).T


def covariance_adjoint(model: Model, response: Array) -> Array:
    """The derivative of sum(C[Phi] o Q) with respect to Phi, (n, n), for a symmetric Q = ``response``."""
    return jax.vjp(partial(covariance_change, model), response)[1](response)[0]


def target_cov(model: Model, kernel: Array) -> Array:
    """A[Phi] = kappa I + gv^2 (Mv o Phi) on the supervised entries; PD because kappa > 0."""
    rows = model.supervised
    readout = (model.readout * kernel)[rows][:, rows]
    return readout + model.noise * jnp.eye(rows.shape[0], dtype=readout.dtype)


@jax.jit
def data_term(model: Model, kernel: Array) -> Array:
    """1/2 sum_o y_o^T A^{-1} y_o, the cost of the targets in the free energy."""
    dual = jnp.linalg.solve(target_cov(model, kernel), model.targets)
    return jnp.sum(model.targets * dual) / 2


class OutputLaw(NamedTuple):
    r"""Gaussian law of f given the kernel at every entry, V integrated out (Gaussian process regression).

        f | Phi, y  ~  N( K_{*s} A^{-1} y,  scale (K_** - K_{*s} A^{-1} K_{s*}) ),     K = gv^2 (Mv o Phi)

    independently for each output. Where the readout is not shared Mv cuts the steps apart, so that the mean is zero at
    unsupervised steps; it is zero at sites that are not read out.

    Attributes:
        mean: (n, O).
        cov: (n, n), the same for each output.
        dual: r = A^{-1} y on the supervised entries, zero elsewhere, (n, O).
    """

    mean: Array
    cov: Array
    dual: Array


@jax.jit
def output_law(model: Model, kernel: Array) -> OutputLaw:
    """The law of f given the kernel (n, n) and the targets."""
    factor = cho_factor(target_cov(model, kernel), lower=True)
    cross = (model.readout * kernel)[:, model.supervised]
    dual = cho_solve(factor, jnp.asarray(model.targets, kernel.dtype))
    explained = cho_solve(factor, cross.T)
    cov = model.readout * kernel - cross @ explained
    # K - K A^{-1} K_s. is kappa K A^{-1} on supervised entries: no difference of numbers that may be close.
    left = model.noise * explained
    cov = model.scale * cov.at[model.supervised].set(left).at[:, model.supervised].set(left.T)
    everywhere = jnp.zeros((kernel.shape[0], dual.shape[1]), kernel.dtype).at[model.supervised].set(dual)
    return OutputLaw(cross @ dual, cov, everywhere)


@jax.jit
def conjugate_kernel(model: Model, kernel: Array, response: Array) -> Array:
    """Phihat (n, n), which makes F stationary in Phi: the derivative of sum(C[Phi] o Q) + 2 (data term).

    Args:
        model: the network on the task.
        kernel: Phi, (n, n).
        response: Q = C^{-1} - C^{-1} <h h^T> C^{-1}, (n, n).

    The derivative of the data term is written out: -gv^2 Mv o sum_o r_o r_o^T.
    """
    dual = output_law(model, kernel).dual
    return covariance_adjoint(model, response) - model.readout * (dual @ dual.T)


def _read(kernel: Array, source: tuple[int, ...], patterns: int) -> Array:
    """Phi at the sites read: entry (s mu, s' nu) becomes that of (a(s) mu, a(s') nu), zero where nothing is read."""
    n, places = kernel.shape[-1], np.array(source)
    back = np.arange(len(places)) - places
    distance = int(back[places != NOWHERE].min(initial=len(places)))
    if np.array_equal(places, np.maximum(np.arange(len(places)) - distance, NOWHERE)):
        # The same distance back everywhere: a shift, which compiles to less and runs faster than a gather.
        margin = distance * patterns
        return jnp.pad(kernel, ((margin, 0), (margin, 0)))[:n, :n]
    at = (np.where(places == NOWHERE, len(places), places)[:, None] * patterns + np.arange(patterns)).ravel()
    at = np.minimum(at, n)
    return jnp.pad(kernel, ((0, 1), (0, 1)))[at][:, at]


def _by_site(matrix: Array, rows: Array, patterns: int) -> Array:
    """A matrix over sites applied to rows by entry (n, k)."""
    by_site = rows.reshape(matrix.shape[1], patterns, -1)
    return jnp.einsum("st,tpk->spk", matrix, by_site).reshape(rows.shape)

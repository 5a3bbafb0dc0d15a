"""Coordinates (a), weights: the literal model, with all weights sampled. The reference for the other two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesnet.models.likelihood import record_kernel
from theory.connections import Connection
from theory.model import Array, Model, build_model
from theory.network import Network
from theory.parameters import Parameters
from theory.task import Task

PROCESS_NOISE = "process_noise"


@jax.tree_util.register_pytree_node_class
class Weights:
    """The weights of a network: matrices on a leading axis of copies, as attributes or by name; iterates over them.

    There is one copy where weights are shared, else one for each step (of several layers: for each site) where they are
    used: ``recurrent`` W, (1 or T-1, N, N), as the first step reads no activity; ``input`` U, (1 or T, N, D);
    ``readout`` V, (1 or T, O, N); and where there are any, ``feedforward`` (copies, N, N), ``bias`` (copies, N, 1) and
    ``process_noise`` (sites, N, P), what noise the neurons received.

    Args:
        matrices: by name.
    """

    def __init__(self, matrices: Mapping[str, Array]) -> None:
        self._matrices = dict(matrices)

    @property
    def names(self) -> tuple[str, ...]:
        """What weights there are."""
        return tuple(self._matrices)

    def items(self) -> Iterable[tuple[str, Array]]:
        """Pairs of name and matrices."""
        return self._matrices.items()

    def __getitem__(self, name: str) -> Array:
        return self._matrices[name]

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in self._matrices:
            raise AttributeError(f"there are no weights {name!r}")
        return self._matrices[name]

    def __iter__(self) -> Iterator[Array]:
        return iter(self._matrices.values())

    def tree_flatten(self) -> tuple:
        """For JAX."""
        return tuple(self), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple, values: tuple) -> Weights:
        """The inverse of `tree_flatten`."""
        return cls(dict(zip(names, values, strict=True)))


def weights(network: Network, task: Task, observed: bool = True, parameters: Mapping[str, Array] | None = None) -> None:
    """The posterior of a network on a task in weight coordinates, as a NumPyro model.

        h_t = W_t phi(h_{t-1}) + U_t x_t,   f_t = V_t phi(h_t) / N,   y_t ~ N(f_t, kappa / N)

    and whatever else `theory.Network` describes. Sites: ``recurrent``, ``input``, ``readout`` and the names of the
    other weights, latent and whitened: standard normal (`scale_weights` gives W, U, V); ``kernel`` (T, P, T, P) and
    ``prediction`` f (P, T, O) deterministic; ``y`` (O, number supervised), observed at the supervised targets, or drawn
    when ``observed`` is False.

    Args:
        network, task: whose posterior it is.
        observed: whether the targets are seen.
        parameters: values of numbers of the network that take the place of its own, see `fields`.
    """
    if parameters is None:
        weight_model(network, task)(build_model(network, task), observed)
        return
    numbers = Parameters(network, task, parameters)
    weight_model(network, task, numbers)(numbers.model(parameters), observed, values=parameters)


def weight_model(network: Network, task: Task, parameters: Parameters | None = None):
    """The model with its targets as an argument: ``posterior(model, observed=True, likelihood_weight=1, values={})``.

    With ``parameters``, ``values`` are those of their names.
    """
    shapes = latent_shapes(network if parameters is None else parameters.reference, task)

    def posterior(
        model: Model,
        observed: bool = True,
        likelihood_weight: Array = 1.0,
        values: Mapping[str, Array] = MappingProxyType({}),
    ) -> None:
        white = {
            name: numpyro.sample(name, dist.Normal(0, jnp.ones(shape)).to_event(3)) for name, shape in shapes.items()
        }
        kernel, prediction = run_white(network, task, white, parameters, values)
        record_kernel(kernel, task.patterns)
        numpyro.deterministic("prediction", prediction)
        mean = model.place_outputs(prediction)[model.supervised].T
        law = dist.Normal(mean, jnp.sqrt(model.scale * model.noise)).to_event(2)
        with numpyro.handlers.scale(scale=likelihood_weight):
            numpyro.sample("y", law, obs=jnp.asarray(model.targets.T, mean.dtype) if observed else None)

    return posterior


def latent_shapes(network: Network, task: Task) -> dict[str, tuple[int, int, int]]:
    """Shapes of the whitened sites: (independent matrices, rows, columns)."""
    wiring = network.wiring(task.steps)
    shapes = {
        connection.name: (connection.copy_factor.shape[1], *matrix_shape(connection, network, task))
        for connection in wiring.connections
        if connection.copy_factor.size
    }
    if network.process_noise:
        shapes[PROCESS_NOISE] = (wiring.sites, network.width, task.patterns)
    return shapes


def matrix_shape(connection: Connection, network: Network, task: Task) -> tuple[int, int]:
    """Rows and columns of a weight matrix; by the square root of the columns a gain is divided (but of a readout)."""
    columns = {"activity": network.width, "input": task.input_dim, "bias": 1, "output": network.width}
    rows = task.output_dim if connection.reads == "output" else network.width
    return rows, columns[connection.reads]


def unit(connection: Connection, network: Network, task: Task) -> float:
    """What a whitened weight is multiplied by besides its gain: 1 / sqrt(fan-in), 1 for a readout."""
    return 1.0 if connection.reads == "output" else 1 / math.sqrt(matrix_shape(connection, network, task)[1])


def scale_weights(
    network: Network,
    task: Task,
    white: Mapping[str, Array],
    parameters: Parameters | None = None,
    values: Mapping[str, Array] = MappingProxyType({}),
) -> Weights:
    """W, U, V and the others from the whitened sites: times gw / sqrt(N), gu / sqrt(D), gv.

    With ``parameters`` at their ``values``; the network is then their reference.
    """
    if parameters is not None:
        network = parameters.reference
    scaled: dict[str, Array] = {}
    for connection in network.wiring(task.steps).connections:
        factor = connection.copy_factor if parameters is None else parameters.copy_factor(connection, values)
        factor = factor * unit(connection, network, task)
        if not factor.size:
            scaled[connection.name] = jnp.zeros((0, *matrix_shape(connection, network, task)))
        elif connection.independent:
            scaled[connection.name] = white[connection.name] * jnp.diagonal(factor)[:, None, None]
        else:
            scaled[connection.name] = jnp.tensordot(factor, white[connection.name], 1)
    if network.process_noise:
        noise = network.process_noise if parameters is None else parameters.process_noise(values)
        scaled[PROCESS_NOISE] = white[PROCESS_NOISE] * noise
    return Weights(scaled)


def run_white(
    network: Network,
    task: Task,
    white: Mapping[str, Array],
    parameters: Parameters | None = None,
    values: Mapping[str, Array] = MappingProxyType({}),
) -> tuple[Array, Array]:
    """`run_network` from the whitened sites, with ``parameters`` at their ``values``."""
    scaled = scale_weights(network, task, white, parameters, values)
    if parameters is None:
        return run_network(network, task, scaled)
    return run_network(parameters.reference, task, scaled, parameters.mixing(values))


def run_network(network: Network, task: Task, weights: Weights, mixing: Array | None = None) -> tuple[Array, Array]:
    """Run the recurrence: the kernel (n, n) and the prediction f (P, T, O); ``mixing`` as for `run_fields`."""
    return read_network(network, task, weights, run_fields(network, task, weights, mixing))[1:]


def read_network(network: Network, task: Task, weights: Weights, fields: list[Array]) -> tuple[Array, Array, Array]:
    """Activities (n, N), kernel (n, n) and prediction f (P, T, O) from the pre-activations at each site."""
    scale = network.width if network.scaling == "mup" else math.sqrt(network.width)
    readout = network.wiring(task.steps).readout
    activities = [network.phi.function(h) for h in fields]
    outputs = [
        activities[site] @ weights[readout.name][copy].T / scale
        for site, copy in zip(readout.source, readout.copy_of, strict=True)
    ]
    activity = jnp.concatenate(activities)
    return activity, activity @ activity.T / network.width, jnp.stack(outputs, axis=1)


def run_fields(network: Network, task: Task, weights: Weights, mixing: Array | None = None) -> list[Array]:
    """The pre-activations h at each site in order, (P, N) each.

    ``mixing`` is F (sites, sites), where that is not the network's own: traced, for instance.
    """
    wiring = network.wiring(task.steps)
    mixing = wiring.mixing if mixing is None else mixing
    inputs = jnp.asarray(task.inputs)
    currents: list[Array] = []
    fields: list[Array] = []
    for site in range(wiring.sites):
        total = jnp.zeros((task.patterns, network.width))
        for connection in wiring.connections:
            if connection.reads == "output" or not connection.used[site]:
                continue
            source, matrix = connection.source[site], weights[connection.name][connection.copy_of[site]]
            if connection.reads == "activity":
                total = total + network.phi.function(fields[source]) @ matrix.T
            elif connection.reads == "input":
                total = total + inputs[:, source] @ matrix.T
            else:
                total = total + matrix[:, 0]
        if network.process_noise:
            total = total + weights[PROCESS_NOISE][site].T
        currents.append(total)
        fields.append(total if mixing is None else _mixed(mixing[site], currents))
    return fields


def _mixed(row, currents: list[Array]) -> Array:
    """The pre-activation at a site: its row of F on the currents so far."""
    pairs = zip(row, currents, strict=False)
    if isinstance(row, np.ndarray):
        return sum(float(share) * current for share, current in pairs if share)  # type: ignore
    return sum(share * current for share, current in pairs)

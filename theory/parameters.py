r"""Parameters: the model of a network on a task as a function of its gains, noise, leak and degrees of sharing.

The covariances of `theory.model` are polynomials of these numbers,

    gw^2 (M_0 + rho (M_1 - M_0)) o ...,     D = gu^2 (...) + gb^2 (...) + sigma^2 I,     A = kappa I + gv^2 (...) o Phi,

M_0 and M_1 being the correlations over the steps of weights that are not shared and that are; F alone takes a
triangular inverse. So the numbers may be traced values of JAX, sampled or differentiated, while what is fixed is worked
out once. Whatever is no parameter has the value of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from theory import arguments
from theory.connections import Connection
from theory.model import Array, Model, build_model, input_gram, readout_covariance
from theory.network import Network
from theory.sharing import SHARED, WEIGHTS
from theory.task import Task
from theory.wiring import carried_sites

GAINS = ("recurrent_gain", "input_gain", "readout_gain", "feedforward_gain", "bias_gain")
NUMBERS = (*GAINS, "noise", "process_noise", "leak", "residual")
GAIN_OF = {name: f"{name}_gain" for name in WEIGHTS}
GENERIC = 0.5  # a value that every parameter can have and with which no term of the model is missing


@dataclass(frozen=True)
class _Covariance:
    """A covariance at unit gain, unshared and shared, and the parameters that it depends on."""

    none: np.ndarray
    shared: np.ndarray
    gain: str | None
    degree: str | None

    def at(self, values: Mapping[str, Array]) -> Array:
        total: Array = self.none
        if self.degree is not None:
            total = self.none + values[self.degree] * (self.shared - self.none)
        return total if self.gain is None else values[self.gain] ** 2 * total


class Parameters:
    """A network on a task as a function of some of its numbers.

    Args:
        network: holds all the others.
        task: what it is asked.
        names: of the parameters: numbers of a `Network` ("recurrent_gain", "noise", "leak" and so on; of several layers
            one number for all of them) and degrees of sharing ("shared.recurrent" and so on).

    Attributes:
        names: in the order of ``names``.
        reference: the network with generic values of the parameters, which has every term that it can have.

    Raises:
        ValueError: if there is no such parameter.
    """

    def __init__(self, network: Network, task: Task, names: Iterable[str]) -> None:
        arguments.instance("network", network, Network)
        arguments.instance("task", task, Task)
        self.names = tuple(names)
        allowed = parameter_names(network, self.names)
        for name in self.names:
            if name not in allowed:
                raise ValueError(f"{name!r} is no parameter of the network; it has {', '.join(allowed)}")
        self.network, self.task = network, task
        self.reference = network_at(network, dict.fromkeys(self.names, GENERIC))

    def model(self, values: Mapping[str, Array]) -> Model:
        """The `theory.model.Model` at these values, one for each name; they may be traced."""
        fixed, pieces = self._fixed, self._covariances
        drive = sum((piece.at(values) for piece in pieces["drive"]), np.zeros_like(fixed.drive))
        sigma = self.process_noise(values)
        changes: dict[str, Any] = {
            "weights": tuple(piece.at(values) for piece in pieces["weights"]),
            "drive": drive + sigma**2 * np.eye(len(fixed.drive)),
            "readout": pieces["readout"][0].at(values),
            "mixing": self.mixing(values),
        }
        if "noise" in self.names:
            changes["noise"] = jnp.asarray(values["noise"])
        return fixed.replace(**changes)

    def mixing(self, values: Mapping[str, Array]) -> Array | None:
        """F (sites, sites), None for the identity."""
        leak, residual = (values.get(name, getattr(self.network, name)) for name in ("leak", "residual"))
        if not {"leak", "residual"} & set(self.names):
            return self._fixed.mixing
        before, below = carried_sites(self.task.steps, self.network.layers)
        carried = (1 - leak) * before + residual * below
        unit = jnp.eye(len(before))
        return leak * solve_triangular(unit - carried, unit, lower=True, unit_diagonal=True)

    def process_noise(self, values: Mapping[str, Array]) -> Array:
        """sigma."""
        return values.get("process_noise", self.network.process_noise)

    def copy_factor(self, connection: Connection, values: Mapping[str, Array]) -> Array:
        """B (copies, rank) of the weights of a connection of ``reference``, gains included: `Connection.copy_factor`.

        With a degree of sharing rho among the parameters it is the symmetric root of (1 - rho) I + rho M_1.
        """
        gain, degree = self._dependence(connection.name)
        factor: Array = connection.copy_factor
        at = [int(np.flatnonzero(connection.copy_of == copy)[0]) for copy in range(len(factor))]
        if degree is not None and factor.size:
            shared = next(
                one for one in self._ends[1].wiring(self.task.steps).connections if one.name == connection.name
            )
            eigenvalues, vectors = np.linalg.eigh(shared.correlation[np.ix_(at, at)])
            root = jnp.sqrt(1 - values[degree] * (1 - np.maximum(eigenvalues, 0)))
            factor = connection.gain[at][:, None] * ((vectors * root) @ vectors.T)
        return factor if gain is None else values[gain] / GENERIC * factor

    @cached_property
    def _ends(self) -> tuple[Network, Network]:
        """Nothing shared and all shared, of weights whose degree is a parameter; gains that are parameters are 1."""
        gains = {name: 1.0 for name in self.names if not name.startswith(SHARED)}
        degrees = [name for name in self.names if name.startswith(SHARED)]
        none, shared = (network_at(self.network, {**gains, **dict.fromkeys(degrees, end)}) for end in (0.0, 1.0))
        return none, shared

    @cached_property
    def _fixed(self) -> Model:
        """Everything that does not depend on parameters, and the shapes of what does."""
        others = {name: GENERIC for name in self.names if name not in ("leak", "residual")}
        return build_model(network_at(self.network, others), self.task)

    @cached_property
    def _covariances(self) -> dict[str, list[_Covariance]]:
        block = np.ones((self.task.patterns,) * 2)
        ends = [end.wiring(self.task.steps) for end in self._ends]

        def pairs(kind: str) -> Iterable[tuple[Connection, Connection]]:
            return zip(getattr(ends[0], kind), getattr(ends[1], kind), strict=True)

        def covariance(name: str, none: np.ndarray, shared: np.ndarray, factor: Any = 1.0) -> _Covariance:
            return _Covariance(np.kron(none, block) * factor, np.kron(shared, block) * factor, *self._dependence(name))

        drive = [
            covariance(one.name, one.covariance, other.covariance, input_gram(self.task, one))
            for one, other in pairs("inputs")
        ]
        drive += [covariance(one.name, one.covariance, other.covariance) for one, other in pairs("biases")]
        weights = [covariance(one.name, one.covariance, other.covariance) for one, other in pairs("weights")]
        readout = covariance("readout", *(readout_covariance(end) for end in ends))
        return {"drive": drive, "weights": weights, "readout": [readout]}

    def _dependence(self, weights: str) -> tuple[str | None, str | None]:
        """The gain and the degree of sharing of weights, where they are parameters."""
        gain, degree = GAIN_OF.get(weights), SHARED + weights
        return gain if gain in self.names else None, degree if degree in self.names else None


def parameter_names(network: Network, names: Iterable[str] = ()) -> tuple[str, ...]:
    """The parameters that a network has; biases count as present if ``names`` hold their gain."""
    if network.connections is not None:
        listed = any(one.reads == "output" for one in network.connections)
        return ("noise", "process_noise", "leak", "residual", *(() if listed else ("readout_gain",)))
    numbers = tuple(name for name in NUMBERS if network.layers > 1 or name != "feedforward_gain")
    weights = network.weights + (("bias",) if "bias_gain" in names and not network.has_bias else ())
    return (*numbers, *(SHARED + name for name in weights))


def model_at(network: Network, task: Task, values: Mapping[str, Array] | None = None) -> Model:
    """The `theory.model.Model` of a network on a task with some of its numbers replaced by ``values``, perhaps traced.

    Raises:
        ValueError: if there is no such parameter.
    """
    return build_model(network, task) if values is None else Parameters(network, task, values).model(values)


def network_at(network: Network, values: Mapping[str, float]) -> Network:
    """The network at concrete values of parameters.

    Raises:
        ValueError: if a value is out of range.
    """
    ordered = sorted(values, key=lambda name: name.startswith(SHARED))  # biases exist once they have a gain
    for name in ordered:
        network = network.with_parameter(name, values[name])
    return network

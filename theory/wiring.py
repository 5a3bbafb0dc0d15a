"""Wiring: a network unrolled over the steps of a task, as a list of connections between its sites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from theory.connections import NOWHERE, Connection, over_steps

if TYPE_CHECKING:
    from theory.network import Network


@dataclass(frozen=True, eq=False)
class Wiring:
    """All connections of a network unrolled over a number of steps.

    Attributes:
        weights: those between neurons.
        inputs: those that read the input.
        biases: those that read nothing.
        readout: the one that is read out.
        mixing: F, (sites, sites); None for the identity.
        layers: how many there are at each step.
    """

    weights: tuple[Connection, ...]
    inputs: tuple[Connection, ...]
    biases: tuple[Connection, ...]
    readout: Connection
    mixing: np.ndarray | None
    layers: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """The site that is read out at each step."""
        return tuple(self.readout.source)  # type: ignore[arg-type]  # every step is read out

    @property
    def sites(self) -> int:
        """How many sites there are."""
        return len(self.outputs) * self.layers

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All of them."""
        return (*self.weights, *self.inputs, *self.biases, self.readout)


@lru_cache(maxsize=64)  # asked for wherever a model is built; its correlations are checked matrices
def wiring_of(network: Network, steps: int) -> Wiring:
    """The `Wiring` of a network over ``steps`` steps: its own connections, or those that its other fields describe.

    Raises:
        ValueError: if the connections do not fit that many steps.
    """
    if network.delay > 1 and network.delay >= steps:
        raise ValueError(f"delay is {network.delay}; on {steps} steps it must be less than that")
    listed = network.connections or _presets(network, steps)
    sites = steps * network.layers
    for connection in listed:
        number = steps if connection.reads == "output" else sites
        if len(connection.source) != number:
            raise ValueError(
                f"connection {connection.name!r} has {len(connection.source)} places; on {steps} steps with "
                f"{network.layers} layer(s) there are {number}"
            )
        last = sites if connection.reads == "output" else steps
        if connection.reads in ("input", "output") and max(connection.source) >= last:
            raise ValueError(
                f"connection {connection.name!r} reads {max(connection.source)}; the last there is {last - 1}"
            )

    def reading(kind: str) -> tuple[Connection, ...]:
        return tuple(connection for connection in listed if connection.reads == kind)

    readout = reading("output") or (_readout(network, steps),)
    mixing = mixing_matrix(steps, network.layers, network.leak, network.residual)
    return Wiring(reading("activity"), reading("input"), reading("bias"), readout[0], mixing, network.layers)


def _presets(network: Network, steps: int) -> list[Connection]:
    """The connections of a stacked recurrent network, those that it has."""
    layers, sites = network.layers, np.arange(steps * network.layers)
    step, layer = np.divmod(sites, layers)

    def connection(name: str, reads: str, source: np.ndarray, gains: tuple[float, ...]) -> Connection:
        # Another layer has other weights.
        correlation = over_steps(network.degree(name), steps)[np.ix_(step, step)] * (layer[:, None] == layer)
        places = [None if place == NOWHERE else int(place) for place in source]
        return Connection(name, reads, places, np.array(gains)[layer], correlation)

    before, below = sites - layers * network.delay, np.where(layer > 0, sites - 1, NOWHERE)
    found = [connection("recurrent", "activity", np.maximum(before, NOWHERE), network.by_layer("recurrent_gain"))]
    if layers > 1:
        above = (1.0, *network.by_layer("feedforward_gain"))
        found.append(connection("feedforward", "activity", below, above))
    found.append(connection("input", "input", np.where(layer == 0, step, NOWHERE), (network.input_gain,) * layers))
    if network.has_bias:
        # A layer without bias has no such weights; its gain is never used.
        gains = network.by_layer("bias_gain")
        source = np.where(np.array(gains)[layer] > 0, 0, NOWHERE)
        found.append(connection("bias", "bias", source, tuple(gain or 1.0 for gain in gains)))
    return found


def _readout(network: Network, steps: int) -> Connection:
    last_layer = range(network.layers - 1, steps * network.layers, network.layers)
    return Connection(
        "readout", "output", list(last_layer), network.readout_gain, over_steps(network.degree("readout"), steps)
    )


def mixing_matrix(steps: int, layers: int, leak: float, residual: float) -> np.ndarray | None:
    """F (sites, sites) of a leak and of residual connections; None for the identity.

        h_s = (1 - leak) h_{one step before} + residual h_{below} + leak u_s

    The site below is the layer below at the same step or, with one layer, the step before.
    """
    if leak == 1 and residual == 0:
        return None
    before, below = carried_sites(steps, layers)
    return leak * np.linalg.inv(np.eye(len(before)) - (1 - leak) * before - residual * below)


def carried_sites(steps: int, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """What `mixing_matrix` carries over, (sites, sites) each: 1 at the site one step before, and at the site below."""
    sites = steps * layers
    before, below = np.zeros((sites, sites)), np.zeros((sites, sites))
    for site in range(sites):
        if site >= layers:
            before[site, site - layers] = 1
        if site % layers if layers > 1 else site:
            below[site, site - 1] = 1
    return before, below

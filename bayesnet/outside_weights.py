r"""Weights of networks that somebody else made, checked and brought into the parametrisation of the model.

    u_t = W_t phi(h_{t-1}) + U_t x_t + b_t,      f_t = V_t phi(h_t) / N   (muP; over sqrt(N) in standard scaling)

so that under the prior the entries of W have the variance gw^2 / N, those of U gu^2 / D, those of V gv^2 and those of b
gb^2. A PyTorch state dict with the names of `nn.RNN` (tanh or ReLU) describes the same network with

    W = weight_hh_l0,    U = weight_ih_l0,    b = bias_ih_l0 + bias_hh_l0,    V = N (weight of the linear readout)

(V = sqrt(N) times it in standard scaling); of several layers, weight_hh_l1 and so on are W of the other layers, and
weight_ih_l1 the feedforward weights Z into them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesnet.models.weight_space import PROCESS_NOISE, Weights, latent_shapes, matrix_shape, unit
from theory.arrays import real_array
from theory.network import Network
from theory.task import Task

Matrices = dict[str, np.ndarray]
OF_TORCH = re.compile(r"^(?P<prefix>.*?)(?P<kind>weight|bias)_(?P<into>ih|hh)_l(?P<layer>\d+)(?P<reverse>_reverse)?$")
RANGE = 1e-8  # of weights outside the range of their prior's covariance, relative to their size: more than rounding
NETWORKS, MATRIX = 4, 2  # ranks of an array with an axis of networks, and of one matrix


def networks_of(network: Network, weights: Any) -> list[Matrices]:
    """The arrays of each network by name, as float64, not yet compared with the network in shape.

    Args:
        network: whose weights they are; torch names are translated by its scaling.
        weights: of one network, `Weights`, a mapping from names to arrays or a PyTorch state dict; of several a list
            of these, or a mapping to arrays with one more axis in front, (networks, copies, rows, columns).

    Raises:
        ValueError: naming the weights, what was wrong and what is allowed.
    """
    if isinstance(weights, list | tuple):
        if not weights:
            raise ValueError("weights is empty; give those of at least one network")
        return [
            _single(_matrices(network, one, f"weights[{number}]"), f"weights[{number}]")
            for number, one in enumerate(weights)
        ]
    matrices = _matrices(network, weights, "weights")
    stacked = {name for name, values in matrices.items() if values.ndim == NETWORKS}
    if not stacked:
        return [matrices]
    counts = {name: len(values) if name in stacked else None for name, values in matrices.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"weights has the numbers of networks {counts}; all arrays or none must have an axis of them")
    return [{name: values[i] for name, values in matrices.items()} for i in range(counts.popitem()[1] or 0)]


def checked_weights(network: Network, task: Task, matrices: Matrices, name: str = "weights") -> Weights:
    """`Weights` of the shapes that a network has on a task: (copies, rows, columns) each, in float64.

    A single matrix needs no axis of copies. Where nothing passes through them (W on one step), they are left out.

    Raises:
        ValueError: naming the weights, what was wrong and what is allowed.
    """
    connections = {one.name: one for one in network.wiring(task.steps).connections}
    optional = {PROCESS_NOISE} if network.process_noise else set()
    for unknown in set(matrices) - set(connections) - optional:
        if unknown != PROCESS_NOISE and not np.any(matrices[unknown]):
            continue  # biases that are all zero are none
        advice = "; give it a bias_gain for biases of its neurons" if unknown == "bias" else ""
        raise ValueError(f"{name} has {unknown!r}; the network has {', '.join(connections)}{advice}")
    found: dict[str, np.ndarray] = {}
    for kind, connection in connections.items():
        shape = matrix_shape(connection, network, task)
        copies = connection.copy_factor.shape[0]
        if not connection.copy_factor.size:
            found[kind] = np.zeros((0, *shape))
        elif kind not in matrices:
            raise ValueError(f"{name} lacks {kind!r}; the network has {', '.join(connections)}")
        else:
            found[kind] = _of_shape(f"{name}[{kind!r}]", matrices[kind], copies, shape)
    if PROCESS_NOISE in matrices:
        shapes = latent_shapes(network, task)[PROCESS_NOISE]
        found[PROCESS_NOISE] = _of_shape(f"{name}[{PROCESS_NOISE!r}]", matrices[PROCESS_NOISE], shapes[0], shapes[1:])
    return Weights(found)


def whitened(network: Network, task: Task, weights: Weights, name: str = "weights") -> Matrices:
    """The inverse of `bayesnet.models.weight_space.scale_weights`: what is standard normal under the prior.

    Raises:
        ValueError: if weights that the prior ties (a singular correlation) are not tied so.
    """
    white: Matrices = {}
    for connection in network.wiring(task.steps).connections:
        factor = connection.copy_factor * unit(connection, network, task)
        if not factor.size:
            continue
        values = np.asarray(weights[connection.name])
        white[connection.name] = np.tensordot(np.linalg.pinv(factor), values, 1)
        gap = np.abs(np.tensordot(factor, white[connection.name], 1) - values).max(initial=0.0)
        if gap > RANGE * np.abs(values).max():
            raise ValueError(
                f"{name}[{connection.name!r}] has copies that the network's prior ties to one another and that are not "
                "tied so; give the network the degree of sharing that they have"
            )
    if network.process_noise:
        white[PROCESS_NOISE] = np.asarray(weights[PROCESS_NOISE]) / network.process_noise
    return white


def _matrices(network: Network, weights: Any, name: str) -> Matrices:
    """The arrays of a mapping, those of a state dict under our names."""
    if not isinstance(weights, Weights | Mapping):
        raise ValueError(
            f"{name} is {type(weights).__name__}; it must be bayesnet.Weights, a mapping from names to arrays, a "
            "PyTorch state dict, or a list of these"
        )
    given = {str(key): value for key, value in weights.items()}
    if any(OF_TORCH.match(key) for key in given):
        return _from_state_dict(network, given, name)
    ranks = (1, MATRIX, 3, NETWORKS)
    form = "(rows, columns), perhaps with an axis of copies and one of networks in front"
    return {key: _finite(f"{name}[{key!r}]", value, form, ranks) for key, value in given.items() if not _empty(value)}


def _single(matrices: Matrices, name: str) -> Matrices:
    for kind, values in matrices.items():
        if values.ndim == NETWORKS:
            raise ValueError(f"{name}[{kind!r}] has shape {values.shape}; in a list each entry is one network")
    return matrices


def _empty(value: Any) -> bool:
    """Weights that nothing passes through have no copies."""
    return 0 in getattr(value, "shape", ())


def _finite(name: str, value: Any, form: str, ranks: tuple[int, ...]) -> np.ndarray:
    values = real_array(name, value, form, ranks)
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name} is not finite at {where}; all weights must be finite numbers")
    return values


def _of_shape(name: str, values: np.ndarray, copies: int, shape: tuple[int, ...]) -> np.ndarray:
    """(copies, rows, columns) from that, from one matrix, or from one column without its axis."""
    wanted = (copies, *shape)
    allowed = [wanted, *([shape] if copies == 1 else [])]
    if shape[-1] == 1:  # biases, weights of a single input
        allowed += [one[:-1] for one in allowed]
    if values.shape not in allowed:
        raise ValueError(f"{name} has shape {values.shape}; it must be {' or '.join(map(str, dict.fromkeys(allowed)))}")
    return values.reshape(wanted)


def _from_state_dict(network: Network, given: Mapping[str, Any], name: str) -> Matrices:
    """W, U, Z, b and V from the names of `torch.nn.RNN` and of a linear readout."""
    parts: dict[tuple[str, str, int], np.ndarray] = {}
    prefixes, rest = set(), {}
    for key, value in given.items():
        match = OF_TORCH.match(key)
        if match is None:
            rest[key] = value
            continue
        if match["reverse"]:
            raise ValueError(f"{name} has {key!r}; a network that also runs backwards in time is not described here")
        prefixes.add(match["prefix"])
        part = (match["kind"], match["into"], int(match["layer"]))
        parts[part] = _finite(f"{name}[{key!r}]", value, "as in torch.nn.RNN", (1, MATRIX))
    if len(prefixes) > 1:
        raise ValueError(f"{name} holds several networks, {', '.join(sorted(prefixes))}; give one state dict for each")
    layers = 1 + max(layer for _, _, layer in parts)
    if layers != network.layers:
        raise ValueError(f"{name} has {layers} layer(s); the network has {network.layers}")
    for layer in range(layers):
        for into in ("ih", "hh"):
            if ("weight", into, layer) not in parts:
                raise ValueError(f"{name} lacks 'weight_{into}_l{layer}'")
            gates = len(parts["weight", into, layer]) / network.width
            if gates in (3.0, 4.0):
                raise ValueError(
                    f"{name} has {gates:.0f} gates for each of {network.width} neurons, as GRU and LSTM have; the "
                    "model has none (torch.nn.RNN)"
                )
    found = {
        "recurrent": np.stack([parts["weight", "hh", layer] for layer in range(layers)]),
        "input": parts["weight", "ih", 0],
    }
    if layers > 1:
        found["feedforward"] = np.stack([parts["weight", "ih", layer] for layer in range(1, layers)])
    if any(kind == "bias" for kind, _, _ in parts):
        nothing = np.zeros(network.width)
        biases = [
            sum((parts.get(("bias", into, layer), nothing) for into in ("ih", "hh")), nothing)
            for layer in range(layers)
        ]
        # Layers whose biases have no gain have no copy of them.
        has = [gain > 0 for gain in network.by_layer("bias_gain")] if network.has_bias else [True] * layers
        for layer, there in enumerate(has):
            if not there and np.any(biases[layer]):
                raise ValueError(f"{name} has biases in layer {layer + 1}, where the network's bias_gain is 0")
        found["bias"] = np.stack([bias for bias, there in zip(biases, has, strict=True) if there])[:, :, None]
    found["readout"] = _readout(network, rest, name)
    return found


def _readout(network: Network, rest: Mapping[str, Any], name: str) -> np.ndarray:
    """V from the linear readout of a state dict, or from an array that is V itself."""
    if "readout" in rest:
        others, values, factor = set(rest) - {"readout"}, rest["readout"], 1.0
        label = "readout"
    else:
        linear = [key for key in rest if key.split(".")[-1] == "weight"]
        if len(linear) != 1:
            raise ValueError(
                f"{name} has, besides the recurrent network, {', '.join(map(repr, rest)) or 'nothing'}; it must have "
                "the '...weight' of one linear readout (outputs, neurons), or 'readout', which is V itself"
            )
        (label,) = linear
        values, others = rest[label], set(rest) - {label, label.removesuffix("weight") + "bias"}
        factor = network.width if network.scaling == "mup" else math.sqrt(network.width)
        offset = rest.get(label.removesuffix("weight") + "bias")
        if offset is not None and np.any(_finite(f"{name}[{label!r}'s bias]", offset, "(outputs,)", (1,))):
            raise ValueError(f"{name} has a bias of its outputs, which the model has not; subtract it from the targets")
    if others:
        raise ValueError(f"{name} has {', '.join(map(repr, sorted(others)))}; nothing in the model corresponds to that")
    return factor * _finite(f"{name}[{label!r}]", values, "(outputs, neurons)", (MATRIX,))

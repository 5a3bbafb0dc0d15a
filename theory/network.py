"""Network: what is fixed about a recurrent or deep network before any data is seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from theory import arguments, arrays, display
from theory.activation_identity import canonical_activation, find_activation, resolve_activation, stored_activation
from theory.activations import Activation
from theory.connections import Connection, Degree, Degrees
from theory.sharing import SHARED, WEIGHTS, completed, plain_degree, plain_sharing, sharing_of
from theory.wiring import Wiring, wiring_of

SCALINGS = ("mup", "standard")
LARGEST_WIDTH = 2**63 - 1  # a 64-bit integer, as files store it


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    r"""A network of ``width`` neurons unrolled over steps t = 1..T, with its Gaussian weight prior.

        h_t = W_t phi(h_{t-1}) + U_t x_t,  phi(h_0) = 0,       f_t = V_t phi(h_t) / N
        W_ij ~ N(0, gw^2/N),   U_ij ~ N(0, gu^2/D),   V_oi ~ N(0, gv^2),   y_t ~ N(f_t, kappa/N)

    A recurrent network (RNN) has one W, one U and one V for all steps; a deep network (DNN) draws an
    independent copy at each step; every mixture is allowed. In full, with ``layers`` l = 1..L at each step,

        u_{t,l} = W_t^l phi(h_{t-delay,l}) + Z_t^l phi(h_{t,l-1}) + [l = 1] U_t x_t + b_t^l + sigma xi_{t,l}
        h_{t,l} = (1 - leak) h_{t-1,l} + residual h_below + leak u_{t,l},        f_t = V_t phi(h_{t,L}) / N

    with h_below = h_{t,l-1} (h_{t-1} if there is one layer), h = 0 and phi(h) = 0 before the first step, and xi white
    noise of each neuron, site and pattern.

    Args:
        width: N, the number of hidden neurons of each layer, a positive integer.
        activation: phi: "linear", "erf", "tanh", "relu", or a function of your own written with JAX that acts
            elementwise. It is told from others by its code and all that this depends on, and stored as
            "module:name" with a digest of them; reading never imports it.
        shared: how far the weights "recurrent" (W), "input" (U), "readout" (V), "feedforward" (Z) and "bias" (b) are
            shared over the steps. A set of names: these are, the others are not. Or a mapping from names to degrees
            of sharing: a number from 0 (not shared) to 1 (shared), the correlation of a weight between any two
            different steps; a correlation matrix over the steps, (T, T); or `Drift`. Names that it leaves out are not
            shared.
        recurrent_gain: gw, prior standard deviation of W times sqrt(N). One number, or one for each layer.
        input_gain: gu, prior standard deviation of U times sqrt(D).
        readout_gain: gv, prior standard deviation of V.
        noise: kappa, the variance of the targets times N ("mup") or the variance itself ("standard").
        scaling: "mup" (above; kernels move by O(1) as N grows) or "standard", the lazy contrast:
            f = V phi / sqrt(N), y ~ N(f, kappa), whose kernels stay at the prior as N grows.
        leak: how much of the pre-activation a step renews, above 0 and at most 1.
        bias_gain: prior standard deviation of b; 0 for none. One number, or one for each layer.
        process_noise: sigma, the standard deviation of the noise in the currents.
        layers: L, layers stacked at each step; the input enters the first, the last is read out.
        feedforward_gain: prior standard deviation of Z times sqrt(N). One number, or one for each layer but the first.
        delay: how many steps back the recurrent weights read, a positive integer.
        residual: coefficient of the connections that skip the weights, a number of at least 0; 0 for none.
        connections: instead of all of the above that concern weights: a list of `Connection`, for one number of steps.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.

    Source: Bauer, Fischer, Helias, Palmigiano, ICML 2026 (arXiv 2602.15593); muP: Yang and Hu 2021.
    """

    width: int
    activation: str | Callable = "linear"
    shared: Any = frozenset(WEIGHTS)
    recurrent_gain: Any = 1.0
    input_gain: float = 1.0
    readout_gain: float = 1.0
    noise: float = 0.1
    scaling: str = "mup"
    leak: float = 1.0
    bias_gain: Any = 0.0
    process_noise: float = 0.0
    layers: int = 1
    feedforward_gain: Any = 1.0
    delay: int = 1
    residual: float = 0.0
    connections: Any = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("width", arguments.integer("width", self.width, 1, LARGEST_WIDTH))
        put("activation", canonical_activation(self.activation))
        put("shared", sharing_of(self.shared))
        put("layers", arguments.integer("layers", self.layers, 1))
        put("delay", arguments.integer("delay", self.delay, 1))
        for name in ("input_gain", "readout_gain", "noise"):
            put(name, arguments.positive(name, getattr(self, name)))
        for name in ("process_noise", "residual"):
            put(name, arguments.not_negative(name, getattr(self, name)))
        put("leak", arguments.degree("leak", self.leak))
        numbers = {"recurrent_gain": self.layers, "bias_gain": self.layers, "feedforward_gain": self.layers - 1}
        for name, number in numbers.items():
            check = arguments.not_negative if name == "bias_gain" else arguments.positive
            put(name, _by_layer(name, getattr(self, name), number, check))
        put("scaling", str(arguments.one_of("scaling", self.scaling, SCALINGS)))
        put("connections", None if self.connections is None else self._checked_connections())

    def _checked_connections(self) -> tuple[Connection, ...]:
        given = self.connections
        if isinstance(given, Collection) and not isinstance(given, str | Mapping):
            listed = [Connection.from_dict(one) if isinstance(one, Mapping) else one for one in given]
        else:
            listed = [given]
        if not listed or not all(isinstance(one, Connection) for one in listed):
            raise ValueError(f"connections is {given!r}; it must be a list of theory.Connection")
        names = [one.name for one in listed]
        if len(set(names)) < len(names):
            raise ValueError(f"connections has the names {', '.join(names)}; no two may be equal")
        if not any(one.reads in ("input", "bias") for one in listed):
            raise ValueError("connections has none that reads 'input' or 'bias'; nothing would stir the network")
        if sum(one.reads == "output" for one in listed) > 1:
            raise ValueError("connections has several that read 'output'; at most one is read out")
        fields = self.__dataclass_fields__
        for name in ("shared", "recurrent_gain", "input_gain", "bias_gain", "feedforward_gain", "delay"):
            if getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} beside connections, which replace it; leave it out"
                )
        return tuple(listed)

    @classmethod
    def rnn(cls, width: int, **settings: Any) -> Network:
        """The recurrent network: all weights shared over the steps. ``settings`` as in `Network`.

        Where ``shared`` is a mapping, weights that it leaves out are shared.
        """
        return cls(width, **{**settings, "shared": completed(settings.get("shared", WEIGHTS), 1.0)})

    @classmethod
    def dnn(cls, width: int, **settings: Any) -> Network:
        """The deep network: its own weights at every step. ``settings`` as in `Network`."""
        return cls(width, **{"shared": (), **settings})

    @property
    def phi(self) -> Activation:
        """The activation with what is known of it: the function, whether it is odd, its Gaussian average."""
        return resolve_activation(self.activation)

    @property
    def target_variance_scale(self) -> float:
        """What multiplies the target covariance kappa I + gv^2 Phi: 1/N in muP, 1 in standard scaling."""
        return 1.0 / self.width if self.scaling == "mup" else 1.0

    @property
    def has_bias(self) -> bool:
        """Whether any layer has biases."""
        return any(gain > 0 for gain in self.by_layer("bias_gain"))

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the weights that the network has."""
        if self.connections is not None:
            listed = tuple(one.name for one in self.connections)
            return listed if any(one.reads == "output" for one in self.connections) else (*listed, "readout")
        missing = {"feedforward": self.layers == 1, "bias": not self.has_bias}
        return tuple(name for name in WEIGHTS if not missing.get(name, False))

    @property
    def degrees(self) -> dict[str, Degree]:
        """The degree of sharing of each of its ``weights``."""
        return {name: self.degree(name) for name in self.weights}

    @property
    def kind(self) -> str:
        """ "RNN" where all weights are shared, "DNN" where none is, else "network"."""
        degrees = set(self.degrees.values())
        return "RNN" if degrees == {1.0} else "DNN" if degrees == {0.0} else "network"

    def with_parameter(self, name: str, value: Any) -> Network:
        """A copy with a field changed, or with the degree of sharing of some weights ("shared.recurrent" and so on).

        Raises:
            ValueError: if the network has no such weights or the value is out of range.
        """
        weights = name.removeprefix(SHARED)
        if weights == name:
            return self.replace(**{name: value})
        if self.connections is not None or weights not in self.weights:
            allowed = () if self.connections is not None else self.weights
            raise ValueError(
                f"{name!r} is no degree of sharing; the network has those of {', '.join(allowed) or 'none'}"
            )
        shared = self.shared if isinstance(self.shared, Degrees) else dict.fromkeys(self.shared, 1.0)
        return self.replace(shared={**shared, weights: value})

    def degree(self, name: str) -> Degree:
        """The degree of sharing of the weights of that name: 1 shared, 0 not, or as `Network` describes them."""
        if self.connections is not None:
            found = [one for one in self.connections if one.name == name]
            return (1.0 if found[0].tied else tuple(map(tuple, found[0].correlation.tolist()))) if found else 1.0
        if isinstance(self.shared, Degrees):
            return self.shared.get(name, 0.0)
        return 1.0 if name in self.shared else 0.0

    def by_layer(self, name: str) -> tuple[float, ...]:
        """The gain of that name in each layer that has one."""
        value = getattr(self, name)
        number = self.layers - (name == "feedforward_gain")
        return value if isinstance(value, tuple) else (value,) * number

    def require_extendable(self, steps: int, seen: int) -> None:
        """Refuse sequences longer than those that weights were trained on, unless all of them go on as they are.

        Raises:
            ValueError: naming the weights that are not shared.
        """
        unshared = [name for name, degree in self.degrees.items() if degree != 1.0]
        if steps > seen and unshared:
            raise ValueError(
                f"task has {steps} steps, those trained on {seen}; longer sequences need every weight shared, but "
                f"{', '.join(unshared)} is not"
            )

    def plain_degrees(self) -> dict[str, Any]:
        """The ``degrees`` as plain values, the same for equal networks."""
        return {name: plain_degree(degree) for name, degree in self.degrees.items()}

    def wiring(self, steps: int) -> Wiring:
        """The network unrolled over ``steps`` steps: its connections between sites."""
        return wiring_of(self, steps)

    def _key(self) -> tuple:
        # What is said of weights that the network does not have makes no difference.
        fields = (getattr(self, name) for name in self.__dataclass_fields__ if name != "shared")
        return (*fields, tuple(sorted(self.degrees.items(), key=lambda item: item[0])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return display.network_text(self)

    def _repr_html_(self) -> str:
        return display.network_html(self)

    def replace(self, **changes: Any) -> Network:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` (and JSON, TOML) take back; a user's function by its name and its digest."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        listed = None if self.connections is None else [one.to_dict() for one in self.connections]
        plain |= {"shared": plain_sharing(self.shared), "connections": listed}
        return {**plain, **stored_activation(self.activation)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], activations: Any = ()) -> Network:
        """The inverse of `to_dict`; every field but "width" may be absent. Nothing is imported.

        Args:
            fields: of `to_dict`.
            activations: a function or functions of yours, for networks that were stored with one of them. It need not
                be handed over where its module has been imported.

        Raises:
            ValueError: for an unknown or missing field, and as in `Network`; if the activation is a function that is
                not found, or another one than was stored.
        """
        allowed = (*cls.__dataclass_fields__, "activation_digest")
        if not isinstance(fields, Mapping) or "width" not in fields or not set(fields) <= set(allowed):
            raise ValueError(f"fields is {fields!r}; it must map 'width' and any others of {', '.join(allowed)}")
        values = dict(fields)
        digest = values.pop("activation_digest", None)
        if "activation" in values and not callable(values["activation"]):
            values["activation"] = find_activation(values["activation"], digest, activations)
        return cls(**values)


def _by_layer(name: str, value: Any, number: int, check: Callable[[str, Any], float]) -> float | tuple[float, ...]:
    """A number, or a tuple of one for each of several layers."""
    if getattr(value, "ndim", 0) == 1:
        value = list(arrays.plain_array(name, value, "of numbers"))
    if number < 2 or not isinstance(value, list | tuple):
        return check(name, value)
    if len(value) != number:
        raise ValueError(
            f"{name} has {len(value)} numbers; it must be one number, or one for each of {number} layer(s)"
        )
    numbers = tuple(check(name, one) for one in value)
    return numbers[0] if len(set(numbers)) == 1 else numbers

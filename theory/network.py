"""Network: what is fixed about a recurrent or deep network before any data is seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from theory import arguments
from theory.activation_identity import canonical_activation, find_activation, resolve_activation, stored_activation
from theory.activations import Activation

WEIGHTS = ("recurrent", "input", "readout")
SCALINGS = ("mup", "standard")
LARGEST_WIDTH = 2**63 - 1  # a 64-bit integer, as files store it


@dataclass(frozen=True)
class Network:
    r"""A network of ``width`` neurons unrolled over steps t = 1..T, with its Gaussian weight prior.

        h_t = W_t phi(h_{t-1}) + U_t x_t,  phi(h_0) = 0,       f_t = V_t phi(h_t) / N
        W_ij ~ N(0, gw^2/N),   U_ij ~ N(0, gu^2/D),   V_oi ~ N(0, gv^2),   y_t ~ N(f_t, kappa/N)

    A recurrent network (RNN) has one W, one U and one V for all steps; a deep network (DNN) draws an
    independent copy at each step; every mixture is allowed.

    Args:
        width: N, the number of hidden neurons, a positive integer.
        activation: phi: "linear", "erf", "tanh", "relu", or a function of your own written with JAX that acts
            elementwise. It is told from others by its code and all that this depends on, and stored as
            "module:name" with a digest of them; reading never imports it.
        shared: which of "recurrent" (W), "input" (U), "readout" (V) are shared over the steps.
        recurrent_gain: gw, prior standard deviation of W times sqrt(N).
        input_gain: gu, prior standard deviation of U times sqrt(D).
        readout_gain: gv, prior standard deviation of V.
        noise: kappa, the variance of the targets times N ("mup") or the variance itself ("standard").
        scaling: "mup" (above; kernels move by O(1) as N grows) or "standard", the lazy contrast:
            f = V phi / sqrt(N), y ~ N(f, kappa), whose kernels stay at the prior as N grows.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.

    Source: Bauer, Fischer, Helias, Palmigiano, ICML 2026 (arXiv 2602.15593); muP: Yang and Hu 2021.
    """

    width: int
    activation: str | Callable = "linear"
    shared: Collection[str] = frozenset(WEIGHTS)
    recurrent_gain: float = 1.0
    input_gain: float = 1.0
    readout_gain: float = 1.0
    noise: float = 0.1
    scaling: str = "mup"

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", arguments.integer("width", self.width, 1, LARGEST_WIDTH))
        object.__setattr__(self, "activation", canonical_activation(self.activation))
        object.__setattr__(self, "shared", _weight_names(self.shared))
        for name in ("recurrent_gain", "input_gain", "readout_gain", "noise"):
            object.__setattr__(self, name, arguments.positive(name, getattr(self, name)))
        object.__setattr__(self, "scaling", arguments.one_of("scaling", self.scaling, SCALINGS))
        object.__setattr__(self, "scaling", str(self.scaling))

    @classmethod
    def rnn(cls, width: int, **settings: Any) -> Network:
        """The recurrent network: W, U and V shared over the steps. ``settings`` as in `Network`."""
        return cls(width, **{"shared": WEIGHTS, **settings})

    @classmethod
    def dnn(cls, width: int, **settings: Any) -> Network:
        """The deep network: its own W, U and V at every step. ``settings`` as in `Network`."""
        return cls(width, **{"shared": (), **settings})

    @property
    def phi(self) -> Activation:
        """The activation with what is known of it: the function, whether it is odd, its Gaussian average."""
        return resolve_activation(self.activation)

    @property
    def target_variance_scale(self) -> float:
        """What multiplies the target covariance kappa I + gv^2 Phi: 1/N in muP, 1 in standard scaling."""
        return 1.0 / self.width if self.scaling == "mup" else 1.0

    def replace(self, **changes: Any) -> Network:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` (and JSON, TOML) take back; a user's function by its name and its digest."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shared = [name for name in WEIGHTS if name in self.shared]
        return {**values, **stored_activation(self.activation), "shared": shared}

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


def _weight_names(value: Any) -> frozenset[str]:
    allowed = ", ".join(map(repr, WEIGHTS))
    try:
        names = None if isinstance(value, str) else list(value)
    except TypeError:
        names = None
    if names is None:
        raise ValueError(f"shared is {value!r}; it must be a set of names out of {allowed}")
    for name in names:
        if not isinstance(name, str) or name not in WEIGHTS:
            raise ValueError(f"shared contains {name!r}; allowed names are {allowed}")
    return frozenset(str(name) for name in names)

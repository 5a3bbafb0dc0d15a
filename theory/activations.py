"""Activations phi with what the theory needs of them: oddness and Gaussian averages <phi(a) phi(b)>.

Closed forms: linear; erf, 2/pi arcsin (Williams 1998); ReLU, the arc-cosine kernel of degree 1 (Cho and
Saul 2009). Any other function is averaged with the trapezoidal rule in whitened coordinates, which converges
exponentially for analytic phi (tanh at variance 25: 1e-7) and like the squared spacing (1e-3) at a kink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

from theory.jax_settings import own_settings

QUADRATURE_NODES = 160
PUBLIC = (jax.numpy, jax.nn, jax.scipy.special, jax.lax)  # where JAX has elementwise functions
QUADRATURE_REACH = 9.0  # standard deviations; the Gaussian weight beyond is 1e-18


@dataclass(frozen=True)
class Activation:
    """An elementwise function phi.

    Attributes:
        function: phi as a JAX function.
        odd: whether phi(-x) = -phi(x), on which the sign symmetry W -> -W rests.
        gaussian_average: (c_aa, c_bb, c_ab) -> <phi(a) phi(b)> for zero-mean Gaussian (a, b), elementwise on
            NumPy arrays; None where only quadrature is known.
    """

    function: Callable
    odd: bool
    gaussian_average: Callable | None = None

    @property
    def linear(self) -> bool:
        """Whether it is the built-in identity, for which everything has a closed form."""
        return self.function is _linear

    def second_moment(self, c_aa: np.ndarray, c_bb: np.ndarray, c_ab: np.ndarray) -> np.ndarray:
        """<phi(a) phi(b)> for (a, b) ~ N(0, [[c_aa, c_ab], [c_ab, c_bb]]), elementwise, in float64."""
        c_aa, c_bb, c_ab = np.broadcast_arrays(*(np.asarray(c, float) for c in (c_aa, c_bb, c_ab)))
        if self.gaussian_average is not None:
            return self.gaussian_average(c_aa, c_bb, c_ab)
        return _quadrature(self.function, c_aa, c_bb, c_ab)


def _linear_average(c_aa, c_bb, c_ab):
    return np.array(c_ab)


def _erf_average(c_aa, c_bb, c_ab):
    return 2 / np.pi * np.arcsin(2 * c_ab / np.sqrt((1 + 2 * c_aa) * (1 + 2 * c_bb)))


def _relu_average(c_aa, c_bb, c_ab):
    scale = np.sqrt(c_aa * c_bb)
    cosine = np.clip(np.divide(c_ab, scale, out=np.zeros_like(scale), where=scale > 0), -1, 1)
    return scale / (2 * np.pi) * (np.sqrt(1 - cosine**2) + (np.pi - np.arccos(cosine)) * cosine)


def _quadrature(function, c_aa, c_bb, c_ab):
    deviation = np.sqrt(c_aa)
    slope = np.divide(c_ab, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    rest = np.sqrt(np.maximum(c_bb - slope**2, 0))
    # float64 for this call only: the averages feed the reference solution.
    with own_settings():
        triples = jnp.stack([jnp.ravel(jnp.asarray(v, float)) for v in (deviation, slope, rest)], axis=-1)
        return np.asarray(_average_pairs(function, triples)).reshape(c_aa.shape)


@partial(jax.jit, static_argnums=0)
def _average_pairs(function, triples):
    """<phi(a) phi(b)> for rows (sd of a, slope of b on a, sd of the rest of b)."""
    nodes = np.linspace(-QUADRATURE_REACH, QUADRATURE_REACH, QUADRATURE_NODES)
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()

    def one_pair(triple):
        sd_a, slope_ba, sd_rest = triple
        phi_a = function(sd_a * nodes)
        phi_b = function(slope_ba * nodes[:, None] + sd_rest * nodes[None, :]) @ weights
        return jnp.sum(weights * phi_a * phi_b)

    return jax.lax.map(one_pair, triples, batch_size=64)


def _linear(x):
    return x


BUILT_IN = {
    "linear": Activation(_linear, odd=True, gaussian_average=_linear_average),
    "erf": Activation(jax.lax.erf, odd=True, gaussian_average=_erf_average),
    "tanh": Activation(jnp.tanh, odd=True),
    "relu": Activation(jax.nn.relu, odd=False, gaussian_average=_relu_average),
}


def check_elementwise(function: Callable, shown: Any) -> None:
    """Whether a function is one of JAX, from reals to reals, finite, and acts elementwise.

    Raises:
        ValueError: if it is not, naming what the user gave as ``shown``.
    """
    try:
        # In a function of ours: JAX itself fails on what cannot be referenced weakly, as NumPy's functions cannot.
        result = jax.eval_shape(lambda x: function(x), jax.ShapeDtypeStruct((2, 3), np.float32))
        fine = result.shape == (2, 3) and jnp.issubdtype(result.dtype, jnp.floating)
    except (Exception, SystemExit) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"activation {shown!r} is not a JAX function of one array; {_counterpart(function)} ({reason})"
        ) from None
    if not fine:
        raise ValueError(f"activation {shown!r} must map an array of reals to an array of reals of the same shape")
    points = np.linspace(-3, 3, 7, dtype=np.float32)
    values = _values(function, points)
    if not np.isfinite(values).all():
        raise ValueError(f"activation {shown!r} is not finite between -3 and 3; it must be finite for all reals")
    alone = [_values(function, points[i : i + 1])[0] for i in range(len(points))]
    if not np.allclose(values, alone, rtol=1e-3, atol=1e-5):
        raise ValueError(f"activation {shown!r} is not elementwise: a value depends on the other entries of the array")


def _counterpart(function: Any) -> str:
    """Where JAX has a function of this name: NumPy's, SciPy's, PyTorch's and Python's own are often tried."""
    name = str(getattr(function, "__name__", ""))
    for module in PUBLIC:
        if name.isidentifier() and callable(getattr(module, name, None)):
            return f"use {module.__name__}.{name}"
    return "write it with jax.numpy"


def _values(function: Callable, points: np.ndarray) -> np.ndarray:
    # Numbers, not tracers, also where the caller is being traced.
    with jax.ensure_compile_time_eval():
        return np.asarray(function(jnp.asarray(points)))


def is_odd(function: Callable) -> bool:
    """Whether phi(-x) = -phi(x), as far as a hundred points tell."""
    points = np.linspace(0.01, 6.0, 97, dtype=np.float32)
    plus, minus = _values(function, points), _values(function, -points)
    return bool(np.allclose(plus, -minus, rtol=1e-5, atol=1e-6))

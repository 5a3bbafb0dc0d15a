r"""Natural units: the same problem with numbers near one, so that nothing overflows, and steep is steep.

With currents and pre-activations in units of a, activities in units of b and targets in units of c,

    h = a h',    phi(h) = b phi'(h'),    y = c y',    phi'(x) = phi(a x) / b,

the posterior is that of another model with the same free energy:

    g_w^2 M' = (b/a)^2 g_w^2 M,    D' = D / a^2,    gv^2 Mv' = (b/c)^2 gv^2 Mv,    kappa' = kappa / c^2,
    Phi = b^2 Phi',    C = a^2 C',    Phihat = Phihat' / b^2,    f = c f',    r = r' / c.

All units are powers of two: the conversion is exact. Numbers that are near one already stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from theory.activations import BUILT_IN, Activation
from theory.model import Array, Model

HOMOGENEOUS = ("linear", "relu")  # phi(a x) = a phi(x)
# A unit of less than 2^10 or more than 2^-10 is none: fourth powers of such numbers are far from any limit, and a
# function other than phi would have to be compiled.
NEAR_ONE = 10
# A pre-activation of more than this is one at which the slope of a saturating function is not resolved: its fourth
# power, which second derivatives are made of, overflows.
STEEPEST = 128
TINY = 1e-300  # an absolute tolerance that leaves the relative one to decide


class Units(NamedTuple):
    """Binary logarithms of a, b and c."""

    preactivation: int
    activity: int
    output: int

    def activation(self, phi: Activation) -> Activation:
        """phi'.

        Raises:
            ValueError: if it is too steep to be differentiated.
        """
        if self.preactivation - self.activity > STEEPEST and not _homogeneous(phi):
            raise ValueError(
                f"solution has pre-activations of {math.ldexp(1.0, self.preactivation):.0e}, at which the slope of the "
                "activation is not resolved; give smaller inputs or gains"
            )
        if self.preactivation == self.activity == 0 or _homogeneous(phi):
            return phi
        return replace(phi, function=_rescaled(phi.function, *self[:2]), gaussian_average=None)

    def model(self, model: Model) -> Model:
        """The model in these units, as NumPy arrays."""
        if not any(self):
            return model
        a, b, c = self
        return model.replace(
            weights=tuple(times(weights, 2 * (b - a)) for weights in model.weights),
            drive=times(model.drive, -2 * a),
            readout=times(model.readout, 2 * (b - c)),
            noise=times(model.noise, -2 * c),
            targets=times(model.targets, -c),
        )


def readout_variance(model: Model, kernel: Array) -> float:
    """The largest gv^2 Phi_ii."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.max(np.diagonal(np.asarray(model.readout)) * np.diagonal(np.asarray(kernel)), initial=0.0))


def weak_signal(model: Model) -> float:
    """The factor at which the largest target of a model is of the size of its prior or its noise."""
    prior = readout_variance(model, model.drive)
    return math.sqrt(max(prior, float(model.noise))) / float(np.max(np.abs(model.targets)))


def why_unresolved(model: Model) -> str:
    """What a search of which no number is finite comes to, in words."""
    ratio = float(model.noise) / readout_variance(model, model.drive)
    return (
        "no saddle point of the network on this task was found: double precision does not resolve it. Its noise is "
        f"about {ratio:.0e} of gv^2 Phi, its targets {1 / weak_signal(model):.0e} in units of either; use numbers that "
        "differ less, or fewer patterns that depend on one another"
    )


def natural_units(model: Model, phi: Activation, kernel: Array, cov: Array) -> Units:
    """The units in which the largest variances are near one.

    Args:
        model: the network on the task.
        phi: its activation.
        kernel, cov: Phi and C, (n, n), or what is of their size.
    """
    activity, preactivation = (_unit(np.max(np.diagonal(np.asarray(array)), initial=0.0)) for array in (kernel, cov))
    if _homogeneous(phi):
        preactivation = activity
    return Units(preactivation, activity, _unit(max(readout_variance(model, kernel), float(model.noise))))


def times(values: Array, exponent: int) -> np.ndarray:
    """Numbers times a power of two."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(np.asarray(values), exponent)


def _unit(variance: float) -> int:
    if not 0 < variance < math.inf:
        return 0
    exponent = math.frexp(variance)[1] // 2
    return exponent if abs(exponent) > NEAR_ONE else 0


def _homogeneous(phi: Activation) -> bool:
    return any(phi is BUILT_IN[name] for name in HOMOGENEOUS)


@lru_cache(maxsize=32)  # the same function again: another one would be compiled anew
def _rescaled(function: Callable, preactivation: int, activity: int) -> Callable:
    inner, outer = math.ldexp(1.0, preactivation), math.ldexp(1.0, -activity)

    def rescaled(x):
        return outer * function(inner * x)

    return rescaled

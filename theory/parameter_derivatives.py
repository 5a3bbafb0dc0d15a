r"""Derivatives of the model by its parameters at a fixed kernel: what is explicit in the derivatives of a solution.

    dC/dtheta,    dD/dtheta,    df/dtheta,    d^2( W_C . C - D ) / dPhi dtheta     at fixed Phi and W_C

D is the data term and f the prediction. The model's arrays are differentiated once by the parameters; from there on
compiled functions take the model and these changes as arguments, so that networks which differ in numbers only share
one compilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.kernel_action import pairs_of
from theory.model import Array, Model, data_term, output_law, preactivation_cov
from theory.parameters import Parameters

ARRAYS = ("weights", "drive", "mixing", "readout", "noise")  # the arrays of a model that depend on parameters


class Explicit(NamedTuple):
    """Derivatives by each parameter at fixed Phi; d pairs of entries.

    Attributes:
        model: where they were taken.
        changes: of the arrays in ``ARRAYS``, parameters along the first axis.
        kernel: Phi, (n, n).
        covariance: dC/dtheta by pairs, (d, names).
        data: dD/dtheta, (names,).
        prediction: df/dtheta by rows, (names, T P, O).
    """

    model: Model
    changes: dict[str, Array]
    kernel: Array
    covariance: np.ndarray
    data: np.ndarray
    prediction: np.ndarray

    def mixed(self, slope: np.ndarray) -> np.ndarray:
        """d^2(W_C . C - D) / dPhi dtheta at fixed W_C = ``slope`` (d,), (d, names)."""
        return np.asarray(_mixed(self.model, self.changes, self.kernel, jnp.asarray(slope))).T

    def by_kernel(self) -> np.ndarray:
        """df/dPhi, (T P, O, n, n), symmetric in Phi."""
        derivative = np.asarray(_prediction_by_kernel(self.model, self.kernel))
        return (derivative + derivative.swapaxes(-1, -2)) / 2


def explicit_derivatives(parameters: Parameters, values: Mapping[str, float], kernel: np.ndarray) -> Explicit:
    """The explicit derivatives at these values, one for each name, and a kernel (n, n); call it in float64."""
    at = jnp.asarray([float(values[name]) for name in parameters.names])

    def model_at(theta: Array) -> Model:
        return parameters.model({name: theta[number] for number, name in enumerate(parameters.names)})

    def numbers(theta: Array) -> dict[str, Any]:
        model = model_at(theta)
        # Arrays of NumPy among them do not depend on theta.
        return {name: jax.tree.map(jnp.asarray, getattr(model, name)) for name in ARRAYS}

    changes = jax.tree.map(lambda array: jnp.moveaxis(array, -1, 0), jax.jacfwd(numbers)(at))
    model, fixed = model_at(at).on_device(), jnp.asarray(kernel)
    covariance, data, prediction = map(np.asarray, _by_parameters(model, changes, fixed))
    return Explicit(model, changes, fixed, covariance.T, data, prediction)


def _along(model: Model, changes: dict[str, Array], function: Any) -> Any:
    """Derivatives of a function of the model along each of the changes, these along the first axis."""
    here = {name: getattr(model, name) for name in ARRAYS}

    def along(change: dict[str, Array]) -> Any:
        return jax.jvp(lambda numbers: function(model.replace(**numbers)), (here,), (change,))[1]

    return jax.vmap(along)(changes)


def _prediction(model: Model, kernel: Array) -> Array:
    return model.read_out(output_law(model, kernel).mean)


@jax.jit
def _by_parameters(model: Model, changes: dict[str, Array], kernel: Array) -> tuple[Array, Array, Array]:
    rows, columns = pairs_of(kernel.shape[0])

    def results(model: Model) -> tuple[Array, Array, Array]:
        covariance = preactivation_cov(model, kernel)[rows, columns]
        return covariance, data_term(model, kernel), _prediction(model, kernel)

    return _along(model, changes, results)


@jax.jit
def _mixed(model: Model, changes: dict[str, Array], kernel: Array, slope: Array) -> Array:
    n = kernel.shape[0]
    rows, columns = pairs_of(n)

    def action(pairs: Array, model: Model) -> Array:
        whole = jnp.zeros((n, n), pairs.dtype).at[rows, columns].set(pairs).at[columns, rows].set(pairs)
        return slope @ preactivation_cov(model, whole)[rows, columns] - data_term(model, whole)

    return _along(model, changes, lambda model: jax.grad(action)(kernel[rows, columns], model))


@jax.jit
def _prediction_by_kernel(model: Model, kernel: Array) -> Array:
    return jax.jacrev(_prediction, argnums=1)(model, kernel)

r"""Sensitivity: derivatives of free energy, kernel and prediction with respect to everything that was fixed.

The saddle point is stationary in the kernel and its conjugate, so that its free energy changes as the action at fixed
Phi and Phihat does (envelope theorem):

    dF/dtheta = 1/2 sum( Q o dC/dtheta ) + dD/dtheta,       Q = 2 dKL/dC = -2 dW/dC,       D the data term

for every number theta of the network, target or input; dF/dy is the dual r. The log evidence changes by -N times it.
Kernel and conjugate follow from the second variation Gamma (`theory.kernel_action`), with Phihat' by pairs:

    Gamma [  dPhi    / dtheta ]   [  d/dtheta dS/dPhi      ]
          [ -dPhihat'/ dtheta ] = [ -d/dtheta dS/dPhihat'  ]        at fixed Phi and Phihat'.

For linear networks all is exact; for others it is an average over neurons drawn from q, with standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory import arguments
from theory.finite_width import draw_sets, in_own_units, jackknife, kernel_covariance, require_stable
from theory.jax_settings import own_settings
from theory.kernel_action import (
    Curvature,
    bordered_matrix,
    covariance_of_pairs,
    linear_curvature,
    pair_weights,
    pairs_of,
    sampled_curvature,
    symmetric_of,
)
from theory.kernels import outputs_of
from theory.model import Array, Model
from theory.network import Network
from theory.parameter_derivatives import Explicit, explicit_derivatives
from theory.parameters import Parameters, parameter_names
from theory.sharing import SHARED
from theory.solution import Solution
from theory.task import Task


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of a solution.

    Attributes:
        solution: the saddle point.
        free_energy: dF/dtheta by the name of the parameter: "noise", "recurrent_gain", "shared.recurrent" and so on.
            The log evidence of a network of width N changes by -N times it, to leading order.
        kernel: dPhi/dtheta, (T, P, T, P) by name.
        prediction: df/dtheta, (P, T, O) by name.
        targets: dF/dy, (P, T, O), which is the dual r: zero where not supervised.
        inputs: dF/dx, (P, T, D).
        standard_error: of ``free_energy``, by name; zero for linear networks.
        kernel_error, prediction_error: the same of ``kernel`` and ``prediction``.
    """

    solution: Solution
    free_energy: dict[str, float]
    kernel: dict[str, np.ndarray]
    prediction: dict[str, np.ndarray]
    targets: np.ndarray
    inputs: np.ndarray
    standard_error: dict[str, float]
    kernel_error: dict[str, np.ndarray]
    prediction_error: dict[str, np.ndarray]


def sensitivity(solution: Solution, *, neurons: int | None = None, seed: int = 0) -> Sensitivity:
    """How a solution changes with every number of its network, and its free energy with targets and inputs.

    The numbers are those of `theory.parameters`: gains, noise, process noise, leak, residual, and the degrees of
    sharing that are single numbers. Gains that differ from layer to layer have no single derivative and are left out.
    At the end of its range (a degree of 1, a leak of 1) a derivative is one-sided.

    Args:
        solution: a stable saddle point, for any activation.
        neurons: how many to draw from q, four times over; 8192 by default. Not for linear networks.
        seed: of the draws.

    Raises:
        ValueError: if the solution is not a stable saddle point, or sits at a transition, where kernels have no
            derivative; or if an argument is out of its range.
    """
    require_stable(solution)
    saddle, network, task = solution.saddle, solution.network, solution.task
    values = current_values(network)
    parameters = Parameters(network, task, values)
    names = parameters.names
    sets = draw_sets(saddle, neurons, seed)
    n, kernel = saddle.model.entries, saddle.kernel
    # float64 within this call only: second derivatives.
    with own_settings():
        curvatures = [
            linear_curvature(kernel, saddle.conjugate)
            if drawn is None
            else sampled_curvature(drawn, saddle.cov, saddle.conjugate, saddle.phi.function)
            for drawn in sets
        ]
        explicit = explicit_derivatives(parameters, values, kernel)
        by_kernel = explicit.by_kernel()
        by_input = jax.jacfwd(partial(_drive_of_inputs, network, task))(jnp.asarray(task.inputs))
    by_input = np.asarray(by_input).reshape(n, n, -1)
    features = [_features(saddle.model, kernel, curvature, explicit) for curvature in curvatures]
    kernel_covariance(np.mean([gamma for gamma, _, _ in features], axis=0))  # refuses what sits at a transition
    size = len(pairs_of(n)[0])

    def packed(feature: tuple) -> np.ndarray:
        gamma, right, slope = feature
        return np.concatenate([gamma.ravel(), right.ravel(), slope])

    def unpacked(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        square = 4 * size**2
        gamma = flat[:square].reshape(2 * size, 2 * size)
        right = flat[square : square + 2 * size * len(names)].reshape(2 * size, len(names))
        return gamma, right, flat[square + right.size :]

    def everything(flat: np.ndarray) -> np.ndarray:
        """dF, then dPhi, then df, then dF by inputs, all in one array for the jackknife."""
        gamma, right, slope = unpacked(flat)
        # W depends on C, and C on theta and on the inputs; D on theta alone.
        free = explicit.data - slope @ explicit.covariance
        response = symmetric_of(-slope, n) * np.where(np.eye(n), 1.0, 0.5)  # Q/2
        inputs = np.einsum("ij,ijk->k", response, by_input)
        changes = symmetric_of(_solved(gamma, right)[:size].T, n)  # (names, n, n)
        outputs = explicit.prediction + np.einsum("aoij,kij->kao", by_kernel, changes)
        return np.concatenate([free, changes.ravel(), outputs.ravel(), inputs])

    value, error = jackknife([packed(feature) for feature in features], everything)
    shapes = [(len(names),), (len(names), n, n), explicit.prediction.shape, task.inputs.shape]
    free, changes, outputs, inputs = _split(value, shapes)
    free_error, changes_error, outputs_error, _ = _split(error, shapes)

    def by_name(arrays: Any) -> dict[str, Any]:
        return dict(zip(names, arrays, strict=True))

    shape = solution.kernel.shape
    return Sensitivity(
        solution,
        by_name(map(float, free)),
        by_name(changes.reshape(-1, *shape)),
        by_name(outputs_of(outputs, task)),
        np.array(solution.dual),
        inputs,
        by_name(map(float, free_error)),
        by_name(changes_error.reshape(-1, *shape)),
        by_name(outputs_of(outputs_error, task)),
    )


def free_energy_slopes(
    solution: Solution, names: Sequence[str], *, neurons: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """dF/dtheta of some parameters and their standard errors, (names,) each, without any second derivative.

    Also at a transition, where the free energy still has a slope. Arguments and errors otherwise as in `sensitivity`.
    """
    require_stable(solution)
    saddle = solution.saddle
    parameters = Parameters(solution.network, solution.task, names)
    rows, columns = pairs_of(saddle.model.entries)
    with own_settings():  # float64 within this call only
        explicit = explicit_derivatives(parameters, current_values(solution.network), saddle.kernel)
        if saddle.linear:
            arguments.only_for("networks that are not linear", False, neurons=neurons)
            response = saddle.conjugate - saddle.conjugate @ saddle.kernel @ saddle.conjugate
            by_covariance = [-pair_weights(len(response)) * response[rows, columns]]
        else:
            by_covariance = [
                sampled_curvature(drawn, saddle.cov, saddle.conjugate, saddle.phi.function).slope
                for drawn in draw_sets(saddle, neurons, seed)
                if drawn is not None
            ]
    return jackknife(by_covariance, lambda slope: explicit.data - slope @ explicit.covariance)


def current_values(network: Network) -> dict[str, float]:
    """The values of the parameters of a network that are single numbers."""
    values = {}
    for name in parameter_names(network):
        if name.startswith(SHARED):
            value: Any = network.degree(name.removeprefix(SHARED))
        else:
            value = getattr(network, name)
        if isinstance(value, int | float):
            values[name] = float(value)
    return values


def _features(model: Model, kernel: np.ndarray, curvature: Curvature, explicit: Explicit) -> tuple[np.ndarray, ...]:
    """Gamma (2d, 2d), the right-hand sides (2d, names) and W_C (d,) of one set of neurons."""
    # float64 within this call only.
    with own_settings():
        gamma = bordered_matrix(model, kernel, curvature)
        by_kernel = covariance_of_pairs(model).T @ (curvature.covariance @ explicit.covariance) + explicit.mixed(
            curvature.slope
        )
    by_conjugate = curvature.mixed @ explicit.covariance
    return gamma, np.concatenate([by_kernel, -by_conjugate]), curvature.slope


def _solved(gamma: np.ndarray, right: np.ndarray) -> np.ndarray:
    matrix, units = in_own_units(gamma)
    scale = np.concatenate([units, 1 / units])[:, None]
    return scale * np.linalg.solve(matrix, scale * right)


def _drive_of_inputs(network: Network, task: Task, inputs: Array) -> Array:
    """F D F^T (n, n), that part of C which the inputs (P, T, D) make."""
    wiring = network.wiring(task.steps)
    block = np.ones((task.patterns,) * 2)
    total: Array = 0.0
    for connection in wiring.inputs:
        read = inputs.swapaxes(0, 1)[np.array(connection.source)].reshape(-1, inputs.shape[-1])
        total = total + np.kron(connection.covariance, block) * (read @ read.T) / inputs.shape[-1]
    if wiring.mixing is None:
        return total
    factor = np.kron(wiring.mixing, np.eye(task.patterns))
    return factor @ total @ factor.T


def _split(flat: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, sizes[:-1]), shapes, strict=True)]

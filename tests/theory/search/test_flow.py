"""The mean-field flow against the exact solution of linear networks."""

import jax
import numpy as np
import pytest

import theory
from theory.model import build_model
from theory.response import covariance_response, factorise
from theory.search.flow import flow, no_pull

NEURONS, REPETITIONS = 4096, 4


@pytest.fixture(scope="module")
def ends():
    """Kernels and responses of several flows below the transition, whose saddle point the linear solver knows."""
    inputs, targets = np.zeros((1, 3, 1)), np.full((1, 3), np.nan)
    inputs[0, 0], targets[0, -1] = 1, 2.0
    network, task = theory.Network.rnn(1), theory.Task(inputs, targets)
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        found = []
        for key in jax.random.split(jax.random.key(0), REPETITIONS):
            first, second = jax.random.split(key)
            # Small steps: the bias, which is quadratic in them, stays far below the scatter.
            noise = jax.random.normal(first, (3, NEURONS))
            found.append(flow(model, noise, second, network.phi.function, 2000, 0.05, 0.0, no_pull(3)))
        return theory.solve(network, task), np.array(found)


@pytest.mark.parametrize("which", [0, 1])
def test_kernel_and_response_are_those_of_the_saddle_point(ends, which):
    solution, found = ends
    kernel, cov = (array.reshape(3, 3) for array in (solution.kernel, solution.preactivation_cov))
    expected = (kernel, covariance_response(factorise(cov), kernel))[which]
    averages = found[:, which]
    error = averages.std(axis=0, ddof=1) / np.sqrt(REPETITIONS)
    # t with three degrees of freedom: 12.9 is exceeded once in a thousand entries.
    assert np.max(np.abs(averages.mean(axis=0) - expected) / error) < 12.9
    # The error itself is small, or the test would say nothing.
    assert np.max(error) < 0.02 * np.max(np.abs(expected))

"""The law of the outputs given the kernel, where the noise is far below what the readout spans."""

import jax
import numpy as np
import pytest

import theory
from theory.model import build_model, output_law


@pytest.mark.parametrize("noise", [1e-3, 1e-20, 1e-60])
def test_the_variance_of_supervised_outputs_survives_small_noise(noise):
    """One pattern at each of two steps, kernel diag(2, 3): the variance is kappa k / (kappa + k)."""
    task = theory.Task(np.ones((1, 2, 1)), np.array([[1.0, 2.0]]))
    network = theory.Network.dnn(1, noise=noise)
    kernel = np.diag([2.0, 3.0])
    with jax.enable_x64(True):
        cov = np.asarray(output_law(build_model(network, task), kernel).cov)
    expected = noise * np.diagonal(kernel) / (noise + np.diagonal(kernel))
    np.testing.assert_allclose(np.diagonal(cov), expected, rtol=1e-12)
    assert cov[0, 1] == cov[1, 0] == 0

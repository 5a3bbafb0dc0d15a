"""Activations: their Gaussian averages against an independent quadrature, and their parity."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import erf

from theory import Network
from theory.activation_identity import resolve_activation
from theory.activations import BUILT_IN, Activation

REFERENCE = {"linear": lambda x: x, "erf": erf, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}
# c_aa, c_bb, c_ab: generic, negative, independent, one step to the next; then degenerate pairs.
GENERIC = [(1.0, 2.0, 0.7), (0.3, 4.0, -0.9), (2.0, 0.5, 0.0)]
DEGENERATE = [(1.0, 1.0, 1.0), (1.0, 4.0, -2.0), (0.0, 2.0, 0.0), (0.7, 0.0, 0.0), (0.0, 0.0, 0.0)]


def polar_average(phi, c_aa, c_bb, c_ab):
    """<phi(a) phi(b)> in polar coordinates: a = sd_a r cos u, b = (c_ab / sd_a) r cos u + rest r sin u."""
    sd_a = np.sqrt(c_aa)
    slope = c_ab / sd_a if c_aa else 0.0
    rest = np.sqrt(max(c_bb - slope**2, 0))

    def weighted(radius, angle):
        first, second = radius * np.cos(angle), radius * np.sin(angle)
        weight = radius * np.exp(-(radius**2) / 2) / (2 * np.pi)
        return weight * phi(sd_a * first) * phi(slope * first + rest * second)

    # The integrand has kinks at the four zeros of its arguments, so each sector is integrated on its own.
    corner = np.arctan2(-slope, rest)
    corners = np.sort(
        np.r_[0, np.pi / 2, 3 * np.pi / 2, corner % (2 * np.pi), (corner + np.pi) % (2 * np.pi), 2 * np.pi]
    )
    sectors = [(a, b) for a, b in pairwise(corners) if b - a > 1e-12]
    return sum(dblquad(weighted, a, b, 0, 10, epsabs=1e-9, epsrel=1e-9)[0] for a, b in sectors)


@pytest.mark.parametrize("name", BUILT_IN)
def test_gaussian_averages(name):
    moment = BUILT_IN[name].second_moment(*np.array(GENERIC + DEGENERATE).T)
    truth = [polar_average(REFERENCE[name], *pair) for pair in GENERIC + DEGENERATE]
    assert moment.dtype == np.float64
    np.testing.assert_allclose(moment, truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("name", "tolerance"), [("linear", 1e-12), ("erf", 1e-8), ("relu", 2e-3)])
def test_quadrature_agrees_with_the_closed_forms(name, tolerance):
    closed = BUILT_IN[name]
    pairs = np.array([*GENERIC, *DEGENERATE, (9.0, 9.0, 8.9)]).T
    quadrature = Activation(closed.function, closed.odd).second_moment(*pairs)
    np.testing.assert_allclose(quadrature, closed.second_moment(*pairs), rtol=tolerance, atol=tolerance)


def test_shapes_broadcast_and_precision_is_left_alone():
    before = jax.config.jax_enable_x64
    tanh = BUILT_IN["tanh"]
    block = tanh.second_moment(np.ones((2, 1)), np.full(3, 2.0), 0.5)
    assert block.shape == (2, 3)
    np.testing.assert_allclose(block, tanh.second_moment(1.0, 2.0, 0.5), rtol=1e-13)
    assert jax.config.jax_enable_x64 == before
    assert BUILT_IN["linear"].second_moment(1, 1, 0.5) == 0.5


def test_average_kernel_is_positive_semidefinite():
    factor = np.random.default_rng(0).normal(size=(6, 3))  # of rank 3
    covariance = factor @ factor.T
    variance = np.diag(covariance)
    for activation in BUILT_IN.values():
        kernel = activation.second_moment(variance[:, None], variance[None, :], covariance)
        assert np.linalg.eigvalsh((kernel + kernel.T) / 2).min() > -1e-10


@pytest.mark.parametrize(
    ("activation", "odd"),
    [("linear", True), ("erf", True), ("tanh", True), ("relu", False), (jnp.sin, True), (jax.nn.gelu, False)],
)
def test_parity(activation, odd):
    assert Network(2, activation=activation).phi.odd is odd


def test_resolved_while_being_traced():
    network = Network(2, activation="jax.numpy:arctan")
    value, odd = jax.jit(lambda x: (network.phi.function(x), network.phi.odd))(1.0)
    np.testing.assert_allclose(value, np.pi / 4, rtol=1e-6)
    assert odd
    assert resolve_activation("erf") is BUILT_IN["erf"]

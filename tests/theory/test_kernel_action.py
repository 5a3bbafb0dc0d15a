"""Second derivatives of W = ln < exp( -1/2 phi^T Phihat phi ) >: each form against derivatives of a quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import kernel_action
from theory.jax_settings import own_settings
from theory.kernel_action import linear_curvature, pairs_of, sampled_curvature
from theory.laws.neurons import Neurons

COV = np.array([[1.3, 0.4], [0.4, 0.9]])
CONJUGATE = np.array([[0.3, -0.2], [-0.2, 0.5]])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WHITE = np.stack(np.meshgrid(NODES, NODES), axis=-1).reshape(-1, 2)
PRIOR = np.outer(WEIGHTS, WEIGHTS).ravel() / np.sum(WEIGHTS) ** 2


def by_quadrature(phi):
    """The derivatives of W by C and by Phihat' (half of Phihat on the diagonal), and neurons of the law q."""
    rows, columns = pairs_of(2)

    def full(pairs):
        return jnp.zeros((2, 2)).at[rows, columns].set(pairs).at[columns, rows].set(pairs)

    def potential(pairs):
        force, activity = full(pairs[3:]), phi(WHITE @ jnp.linalg.cholesky(full(pairs[:3])).T)
        force = force + jnp.diag(jnp.diagonal(force))
        return jnp.einsum("mi,ij,mj->m", activity, force, activity) / 2

    def log_mean(pairs):
        return jnp.log(PRIOR @ jnp.exp(-potential(pairs)))

    at = jnp.asarray(np.concatenate([COV[rows, columns], (CONJUGATE / (1 + np.eye(2)))[rows, columns]]))
    slope, second = np.asarray(jax.grad(log_mean)(at)), np.asarray(jax.hessian(log_mean)(at))
    weights = PRIOR * np.exp(-np.asarray(potential(at)))
    neurons = Neurons(WHITE @ np.linalg.cholesky(COV).T, weights / weights.sum())
    return (second[:3, :3], second[3:, :3], second[3:, 3:], slope[:3]), neurons


@pytest.mark.parametrize("kinks", [False, True], ids=["smooth", "with kinks"])
def test_curvature_from_neurons(kinks, monkeypatch):
    """Of the nodes of the quadrature, which are neurons of q without any scatter."""
    monkeypatch.setattr(kernel_action, "has_kinks", lambda phi: kinks)
    with own_settings():
        expected, neurons = by_quadrature(jnp.tanh)
        found = sampled_curvature(neurons, COV, CONJUGATE, jnp.tanh)
    for name, one, other in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def test_curvature_in_closed_form():
    with own_settings():
        expected, neurons = by_quadrature(lambda h: h)
        kernel = neurons.preactivation.T @ (neurons.weights[:, None] * neurons.preactivation)
        found = linear_curvature(kernel, CONJUGATE)
    for name, one, other in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9, err_msg=name)

"""C[Phi] and A[Phi] against the double loops of their definitions, for every choice of shared weights."""

from itertools import chain, combinations

import jax
import numpy as np
import pytest

from theory import Network, Task
from theory.kernels import largest_relative, scale_of
from theory.model import build_model, covariance_adjoint, covariance_change, preactivation_cov, target_cov

P, T, D, OUTPUTS = 2, 4, 3, 2
WEIGHTS = ("recurrent", "input", "readout")
SHARED = list(chain.from_iterable(combinations(WEIGHTS, size) for size in range(4)))
GAINS = {"recurrent_gain": 1.3, "input_gain": 0.7, "readout_gain": 1.9, "noise": 0.2}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    supervised = np.array([[True, False, True, True], [False, False, True, True]])
    return Task(rng.normal(size=(P, T, D)), rng.normal(size=(P, T, OUTPUTS)), supervised)


@pytest.fixture(scope="module")
def kernel():
    factor = np.random.default_rng(1).normal(size=(T * P, T * P))
    return factor @ factor.T


@pytest.mark.parametrize("shared", SHARED, ids=lambda names: "+".join(names) or "none")
def test_covariances_are_their_double_loops(shared, task, kernel):
    """C_ts = gw^2 M_ts Phi_{t-1,s-1} + gu^2 M_ts x_t.x_s/D and A = kappa I + gv^2 M o Phi, entry by entry."""
    network = Network(8, shared=shared, **GAINS)
    model = build_model(network, task)
    phi = kernel.reshape(T, P, T, P)
    expected = np.zeros((T, P, T, P))
    readout = np.zeros((T, P, T, P))
    for t, mu, s, nu in np.ndindex(T, P, T, P):
        mask = {name: t == s or name in shared for name in WEIGHTS}
        if mask["recurrent"] and t and s:
            expected[t, mu, s, nu] += 1.3**2 * phi[t - 1, mu, s - 1, nu]
        if mask["input"]:
            expected[t, mu, s, nu] += 0.7**2 * task.inputs[mu, t] @ task.inputs[nu, s] / D
        if mask["readout"]:
            readout[t, mu, s, nu] = 1.9**2 * phi[t, mu, s, nu]
    np.testing.assert_allclose(preactivation_cov(model, kernel), expected.reshape(T * P, T * P), rtol=1e-13)
    entries = [(t, mu) for t in range(T) for mu in range(P) if task.supervised[mu, t]]
    noisy = [[readout[(*a, *b)] + 0.2 * (a == b) for b in entries] for a in entries]
    np.testing.assert_allclose(target_cov(model, kernel), noisy, rtol=1e-13)
    np.testing.assert_array_equal(model.targets, [task.targets[mu, t] for t, mu in entries])


@pytest.mark.parametrize(("scaling", "scale"), [("mup", 1 / 8), ("standard", 1.0)])
def test_scale_of_the_targets(scaling, scale, task):
    """The targets have covariance A/N in muP and A in standard scaling."""
    assert build_model(Network(8, scaling=scaling), task).scale == scale


def test_what_is_read_and_its_adjoint(kernel):
    """<dC[A], B> = <A, adjoint of B>, and the first block of a covariance that W makes is zero."""
    other = np.random.default_rng(2).normal(size=kernel.shape)
    other = other + other.T
    model = build_model(Network(8, recurrent_gain=1.3), Task(np.zeros((P, T, D)), np.zeros((P, T))))
    change, adjoint = np.asarray(covariance_change(model, kernel)), np.asarray(covariance_adjoint(model, other))
    np.testing.assert_allclose((change * other).sum(), (kernel * adjoint).sum(), rtol=1e-13)
    assert not change[:P].any()
    assert not change[:, :P].any()
    np.testing.assert_allclose(change[P:, P:], 1.3**2 * kernel[:-P, :-P], rtol=1e-13)


def test_entries_that_no_input_reaches_have_the_scale_one():
    """Rounding leaves them a variance of either sign; relative to its root an error would be anything."""
    np.testing.assert_array_equal(scale_of(np.diag([4.0, 1e-30, -1e-30, 0.25])), [2, 1, 1, 0.5])
    np.testing.assert_array_equal(scale_of(np.zeros((2, 2))), [1, 1])
    error = np.full((4, 4), 1e-16)
    assert largest_relative(error, np.diag([4.0, 1e-30, -1e-30, 0.25])) == pytest.approx(4e-16)

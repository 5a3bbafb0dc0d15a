"""Spectrum of the recurrent weights: neurons against closed forms, and whole matrices drawn given the neurons."""

import numpy as np
import pytest
from small_problems import as_general, chain, sequence

from theory import Network, Task, nngp, solve, spectrum

SHARINGS = [("recurrent", "input", "readout"), (), ("input",)]


def matrices_given_neurons(solution, width, seed=0):
    """W of each copy drawn given H, whose rows are neurons of q: Gaussian conditioning in plain NumPy."""
    network, task = solution.network.replace(width=width), solution.task
    rng = np.random.default_rng(seed)
    steps, patterns = task.steps, task.patterns
    fields = solution.sample_neurons(width, seed)
    activity = np.asarray(network.phi.function(fields))
    copies = 1 if "recurrent" in network.shared else steps - 1
    inputs_shared = "input" in network.shared
    features = []
    for t in range(steps):
        for mu in range(patterns):
            w = np.zeros((copies, width))
            if t > 0:
                w[0 if copies == 1 else t - 1] = activity[:, t - 1, mu] * network.recurrent_gain / np.sqrt(width)
            u = np.zeros((1 if inputs_shared else steps, task.input_dim))
            u[0 if inputs_shared else t] = task.inputs[mu, t] * network.input_gain / np.sqrt(task.input_dim)
            features.append(np.concatenate([w.ravel(), u.ravel()]))
    features = np.array(features).T
    white = rng.normal(size=(width, len(features)))
    white += (fields.reshape(width, -1) - white @ features) @ np.linalg.pinv(features, rcond=1e-10)
    drawn = white[:, : copies * width].reshape(width, copies, width).swapaxes(0, 1)
    return drawn * network.recurrent_gain / np.sqrt(width)


@pytest.mark.slow
@pytest.mark.parametrize("shared", SHARINGS, ids=["RNN", "DNN", "input shared"])
def test_neurons_give_what_the_closed_form_gives(shared):
    """A linear network treated as any other: inputs at every step, two patterns."""
    solution = solve(Network(300, shared=shared), sequence(), starts=2)
    exact, sampled = spectrum(solution), spectrum(as_general(solution), neurons=4096)
    for one, other, errors in zip(exact.eigenvalues, sampled.eigenvalues, sampled.eigenvalue_error, strict=True):
        assert one.shape == other.shape == errors.shape
        # The leading ones; small eigenvalues may change places.
        assert abs(np.abs(other[0]) - np.abs(one[0])) < 12 * errors[0] + 1e-9
    for one, other in zip(exact.singular_values, sampled.singular_values, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)
    assert not any(errors.any() for errors in exact.eigenvalue_error)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shared", [("recurrent", "input", "readout"), ()], ids=["RNN", "DNN"])
def test_matrices_drawn_given_neurons(activation, shared):
    """Largest eigenvalue and singular value of W, averaged over eight draws at width 300: 4 standard errors and 3%."""
    inputs, targets = np.zeros((1, 3, 1)), np.full((1, 3), np.nan)
    inputs[0, :2, 0], targets[0, -1] = (1.0, 0.5), 8.0
    network = Network(300, activation=activation, shared=shared, recurrent_gain=1.2)
    solution = solve(network, Task(inputs, targets), points=4096, randomisations=2)
    predicted = spectrum(solution)
    drawn = np.array([matrices_given_neurons(solution, 300, seed) for seed in range(8)])
    assert drawn.shape[1] == len(predicted.eigenvalues)
    for copy, eigenvalues in enumerate(predicted.eigenvalues):
        largest = max(predicted.radius, np.abs(eigenvalues[0]))
        top = max([predicted.edge, *predicted.singular_values[copy]])
        moduli = np.abs(np.linalg.eigvals(drawn[:, copy])).max(axis=1)
        norms = np.linalg.norm(drawn[:, copy], 2, axis=(1, 2))
        for value, found, error in ((largest, moduli, predicted.eigenvalue_error[copy][0]), (top, norms, 0.0)):
            scatter = np.hypot(found.std(ddof=1) / np.sqrt(8), error)
            assert abs(found.mean() - value) < 4 * scatter + 0.03 * value


def test_the_prior_has_no_outliers():
    """Without data < phi(h_{t-1}) (C^{-1} h)_s > is <phi'> just below the diagonal, and W is all noise."""
    prior = spectrum(nngp(Network.rnn(8, activation="tanh", recurrent_gain=1.5), chain(3, 1.0)), neurons=1024)
    assert np.abs(prior.eigenvalues[0]).max() < 1e-6
    assert prior.singular_values[0].size == prior.outliers[0].size == 0
    assert (prior.radius, prior.edge) == (1.5, 3.0)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="neurons"):
        spectrum(nngp(Network.rnn(8, activation="tanh"), chain(2, 1.0)), neurons=1.5)

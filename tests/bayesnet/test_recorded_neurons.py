"""Fewer neurons than the width: unbiased observables, and as much spread as is predicted."""

import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet.diagnostics import evaluate_observables
from bayesnet.observables import diagonal_kernel, overlap
from bayesnet.predicted_spread import predicted_draws
from bayesnet.recorded_neurons import as_recorded, kernels_without_parts, neuron_covariance

WIDTH, RECORDED, TASK = 400, 40, bn.tasks.chain(3, 1.5)
NETWORK = bn.Network.rnn(WIDTH)
OBSERVABLES = [diagonal_kernel(2, 0), overlap(0, 2, 0, squared=True), overlap(1, 2, 0, squared=True)]


@pytest.fixture(scope="module")
def population():
    """One network of 400 neurons with correlated entries, and 4000 recordings of 40 of them."""
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0, 0], [0.4, 0.9, 0], [0.1, 0.3, 1.2]])
    activity = rng.normal(size=(WIDTH, 3)) @ root.T
    chosen = np.stack([rng.permutation(WIDTH)[:RECORDED] for _ in range(4000)])
    return activity, activity[chosen]


def kernels(activity):
    """(networks, S, P, S, P) of activity (networks, neurons, 3)."""
    return (activity.swapaxes(1, 2) @ activity / activity.shape[1])[:, :, None, :, None]


def test_recordings_are_unbiased(population):
    """Squared overlaps of recordings are too large by O(1/n); in the tree's observables they are the network's own."""
    activity, recorded = population
    truth = [float(o.evaluate(kernels(activity[None]), None)[0]) for o in OBSERVABLES]
    outputs = np.zeros((len(recorded), 1, 3, 1))
    tree = bn.from_activations(NETWORK, TASK, recorded[..., None], outputs)
    assert tree.attrs["recorded_neurons"] == RECORDED
    found = evaluate_observables(tree, OBSERVABLES)
    for observable, value in zip(OBSERVABLES, truth, strict=True):
        draws = found[observable.label].ravel()
        error = draws.std() / np.sqrt(draws.size)
        assert abs(draws.mean() - value) < 4 * error + 1e-3 * value
    plain = OBSERVABLES[1].evaluate(kernels(recorded), None)
    assert plain.mean() - truth[1] > 10 * plain.std() / np.sqrt(len(plain))


def test_deviations_are_those_of_sampling_without_replacement(population):
    activity, recorded = population
    whole = kernels(activity[None])
    covariance = np.cov((activity[:, :, None] * activity[:, None, :]).reshape(WIDTH, 9), rowvar=False)
    rng = np.random.default_rng(1)
    seen, without = as_recorded(np.repeat(whole, 4000, axis=0), covariance, WIDTH, RECORDED, rng)
    expected = np.cov(kernels(recorded).reshape(-1, 9), rowvar=False)
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    assert np.abs(np.cov(seen.reshape(-1, 9), rowvar=False) - expected).max() < 0.15 * scale.max()
    np.testing.assert_allclose(np.cov(seen.reshape(-1, 9), rowvar=False) / scale, expected / scale, atol=0.12)
    np.testing.assert_allclose(seen.mean(axis=0), whole[0], atol=0.03)
    assert np.linalg.eigvalsh(seen[:, :, 0, :, 0]).min() > 0
    parts = kernels_without_parts(recorded)
    expected = np.var((parts - kernels(recorded)[:, None, :, 0, :, 0])[:, 0], axis=0)
    ours = np.var((without - seen[:, None])[:, 0, :, 0, :, 0], axis=0)
    np.testing.assert_allclose(ours, expected, rtol=0.2)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_spread_over_neurons(activation):
    """Wick's formula for linear networks, drawn neurons for others; both are the covariance of drawn neurons."""
    network = bn.Network.rnn(64, activation=activation)
    solution = theory.nngp(network, TASK) if activation == "tanh" else theory.solve(network, TASK, starts=0)
    activity = np.asarray(network.phi.function(solution.sample_neurons(60_000, 7))).reshape(-1, 3)
    expected = np.cov((activity[:, :, None] * activity[:, None, :]).reshape(-1, 9), rowvar=False)
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    np.testing.assert_allclose(neuron_covariance(solution) / scale, expected / scale, atol=0.06)


def test_recordings_of_posterior_draws_are_judged_by_the_larger_spread(chain_posterior):
    """N = 64, 16 recorded: found in the posterior, with about the predicted spread, the larger one."""
    network, task = bn.Network.rnn(64), bn.tasks.chain(2, 1.5)
    solution = theory.solve(network, task, starts=0)
    weights = [bn.draw_weights(chain_posterior, chain, draw) for chain in range(4) for draw in range(4)]
    runs = [bn.run(network, one, task) for one in weights]
    activity = np.stack([one["activity"].transpose("neuron", "step", "pattern") for one in runs])
    outputs = np.stack([one["prediction"] for one in runs])
    tree = bn.from_activations(network, task, activity[:, :16], outputs)
    table = bn.compare(tree, solution)
    observable = [diagonal_kernel(1, 0)]
    few, all_of_them = (predicted_draws(solution, 64, n, observable).std(ddof=1) for n in (16, 64))
    assert few > 1.7 * all_of_them
    row = table.loc[observable[0].label]
    assert row["expected_sd"] == pytest.approx(few, rel=1e-6)
    assert 0.5 < row["sd"] / few < 1.6
    assert (table["verdict"] == "agree").all()
    assert bn.locate(tree, solution).status in ("posterior", "both")

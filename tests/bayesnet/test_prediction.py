"""Predictions for new inputs, against the exact Gaussian process at vanishing signal and between coordinates."""

import numpy as np
import pytest
from literal_network import run

import bayesnet as bn
import theory

TRAIN = bn.tasks.digits(patterns=4, steps=2, signal=2.0)
TEST = bn.tasks.digits_test(patterns=4, steps=2, signal=2.0, test_patterns=6)


@pytest.fixture(scope="module")
def posterior():
    """A linear RNN of width 256 on four digits, 50 kept draws in each of two chains."""
    return bn.sample(bn.Network.rnn(256), TRAIN, num_warmup=200, num_chains=2, num_samples=400, num_latents=50, seed=1)


@pytest.mark.slow
def test_new_patterns_get_the_prediction_of_the_joint_posterior(posterior):
    """Sampling with the test inputs in the task, unsupervised, must give the same predictions."""
    inputs = np.concatenate([TRAIN.inputs, TEST.inputs])
    targets = np.concatenate([TRAIN.targets, np.full_like(TEST.targets, np.nan)])
    network, task = bn.Network.rnn(256), bn.Task(inputs, targets)
    joint = bn.sample(network, task, "fields", num_warmup=200, num_chains=2, num_samples=300)
    exact = joint["posterior"]["prediction"].to_numpy()[:, :, 4:, -1, 0].reshape(-1, 6)
    new = bn.predict(posterior, TEST)["prediction"].to_numpy()[..., -1, 0].reshape(100, -1)
    # At least 100 effective draws on either side.
    error = np.hypot(new.std(0), exact.std(0)) / 10
    assert (np.abs(new.mean(0) - exact.mean(0)) < 4 * error).all()


def test_predictions_are_labelled_and_repeatable(chain_posterior):
    shown = bn.Task(np.linspace(-1, 1, 6).reshape(3, 2, 1), np.zeros((3, 2)))
    first, second = bn.predict(chain_posterior, shown), bn.predict(chain_posterior, shown)
    assert first.identical(second)
    assert first["prediction"].dims == ("chain", "latent_draw", "pattern", "step", "output")
    assert first["prediction"].shape == (4, 4, 3, 2, 1)
    assert not np.array_equal(first["prediction"], bn.predict(chain_posterior, shown, seed=1)["prediction"])


def test_longer_sequences_need_shared_weights(chain_posterior):
    longer = bn.tasks.chain(4, 1.0)
    answers = bn.predict(chain_posterior, longer)["prediction"].to_numpy()
    for chain, draw in np.ndindex(answers.shape[:2]):
        weights = bn.draw_weights(chain_posterior, chain, draw)
        np.testing.assert_allclose(answers[chain, draw], run(bn.Network.rnn(64), longer, weights)[1], atol=1e-9)
    deep = chain_posterior.copy()
    deep.attrs["network"] = chain_posterior.attrs["network"].replace('"recurrent", ', "")
    with pytest.raises(ValueError, match="recurrent is not"):
        bn.predict(deep, longer)


def test_other_dimensions_are_refused(chain_posterior):
    with pytest.raises(ValueError, match="input_dim 2"):
        bn.predict(chain_posterior, bn.tasks.endpoint(2, 1.0))
    with pytest.raises(ValueError, match="output_dim 2"):
        bn.predict(chain_posterior, bn.Task(np.ones((1, 2, 1)), np.ones((1, 2, 2))))
    with pytest.raises(ValueError, match="task is"):
        bn.predict(chain_posterior, theory.nngp(bn.Network.rnn(4), TRAIN))


@pytest.mark.slow
def test_theory_predicts_what_drawn_back_networks_answer(posterior):
    """theory.predict against `bn.predict` at width 256: means within 4 standard errors and 1/N, spreads within 4."""
    found = theory.predict(theory.solve(bn.Network.rnn(256), TRAIN, starts=0), TEST)
    assert_close(bn.predict(posterior, TEST), found, effective=50)


@pytest.mark.slow
def test_theory_predicts_what_drawn_back_tanh_networks_answer():
    network = bn.Network.rnn(256, activation="tanh", recurrent_gain=1.2)
    settings = {"num_chains": 2, "num_samples": 400, "num_latents": 50, "seed": 3, "progress": False}
    posterior = bn.sample(network, TRAIN, "fields", **settings)
    found = theory.predict(theory.solve(network, TRAIN), TEST)
    assert_close(bn.predict(posterior, TEST), found, effective=50)


@pytest.mark.slow
def test_theory_predicts_what_wide_networks_answer():
    """theory.predict against the joint posterior of a linear RNN of width 50 000: mean and variance of f."""
    network = bn.Network.rnn(50_000)
    inputs = np.concatenate([TRAIN.inputs, TEST.inputs])
    targets = np.concatenate([TRAIN.targets, np.full_like(TEST.targets, np.nan)])
    joint = bn.sample(network, bn.Task(inputs, targets), num_samples=500, seed=2, progress=False)
    drawn = joint["posterior"]["prediction"].to_numpy()[:, :, 4:, -1, 0].reshape(-1, 6)
    found = theory.predict(theory.solve(network, TRAIN), TEST)
    mean, variance = found.mean[:, -1, 0], found.variance[:, -1, 0]
    assert np.abs((drawn.mean(0) - mean) / np.sqrt(variance / 500)).max() < 4
    assert np.abs(drawn.var(0, ddof=1) / variance - 1).max() < 4 * np.sqrt(2 / 500)


def assert_close(drawn, found, effective):
    """Answers at the last step, from draws of this effective number, against the theory's."""
    values = drawn["prediction"].to_numpy()[..., -1, 0].reshape(-1, TEST.patterns)
    mean, variance = found.mean[:, -1, 0], found.variance[:, -1, 0]
    error = np.hypot(np.sqrt(variance / effective), found.standard_error[:, -1, 0])
    # The mean is off by O(1/N), as large as the variance up to a factor.
    assert (np.abs(values.mean(0) - mean) < 4 * error + 2 * variance).all()
    assert np.abs(values.var(0, ddof=1) / variance - 1).max() < 4 * np.sqrt(2 / effective)

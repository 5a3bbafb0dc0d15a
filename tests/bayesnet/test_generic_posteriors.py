"""The generic case through sampling and what follows it: against prior networks drawn in NumPy and weighted by the
likelihood, against the recurrence run with drawn weights, and against what was stored."""

import json
from functools import cache

import arviz as az
import numpy as np
import pytest
import xarray as xr
from literal_network import PHI, draw_prior, run
from small_problems import Dense, generic_network, generic_new_patterns, generic_task, joined, pairs

import bayesnet as bn
import theory
from bayesnet.results import task_of

WIDTH = 8
TASK, NEW = generic_task(), generic_new_patterns()
# Both coordinates, sharings and scalings, once each: the scaling and the sharing are arrays of one
# model, so that the other pairs of them run through the same lines.
CASES = [("linear", "W and V", "mup"), ("tanh", "U", "standard")]
MORE = [("linear", "U", "standard"), ("tanh", "U", "mup"), ("tanh", "W and V", "standard")]
SETTINGS = {"num_warmup": 200, "num_samples": 500, "num_latents": 50, "seed": 1, "progress": False}


@cache
def sampled(activation, sharing, scaling):
    """A network and its posterior: kernel coordinates where linear, else fields."""
    network = generic_network(WIDTH, sharing, activation=activation, scaling=scaling)
    return network, bn.sample(network, TASK, **SETTINGS)


@pytest.fixture(params=[*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE)], ids=" ".join)
def case(request):
    return sampled(*request.param)


def moments(values):
    """Values and their squares, (..., K) -> (..., 2 K)."""
    return np.concatenate([values, values**2], axis=-1)


def mean_and_error(values):
    """Of draws (chain, draw, K)."""
    data = xr.Dataset({"x": (("chain", "draw", "number"), values)})
    return values.mean(axis=(0, 1)), az.mcse(data, method="mean")["x"].to_numpy()


def test_posterior_and_new_answers_are_those_of_weighted_prior_networks(case):
    """First and second moments of kernels, of outputs, and of outputs on new patterns, within 4 standard errors."""
    network, posterior = case
    both = Dense(network, joined(TASK, NEW))
    kernels = draw_prior(network, joined(TASK, NEW), 40_000, np.random.default_rng(0))[0]
    logs = both.log_likelihood(kernels)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 1000
    trained = np.tile(np.arange(4) < 2, 3)
    mean, variance = both.mean(kernels), both.variance(kernels)[..., None]

    def assert_same(values, mean, error):
        expected = weights @ values
        scatter = np.sqrt(weights**2 @ (values - expected) ** 2)
        np.testing.assert_array_less(np.abs(mean - expected) / np.hypot(scatter, error), 4)

    group = posterior["posterior"]
    found = pairs(group["kernel"].to_numpy().reshape(4, 500, 6, 6))
    assert_same(moments(pairs(kernels[:, trained][:, :, trained])), *mean_and_error(moments(found)))
    answers = bn.predict(posterior, NEW, seed=2)["prediction"]
    for drawn, at in ((group["prediction"], trained), (answers, ~trained)):
        # The mean of f and of its square given the kernel, rows by step and pattern.
        exact = np.concatenate([mean[:, at], mean[:, at] ** 2 + variance[:, at]], axis=-1).reshape(len(kernels), -1)
        values = np.swapaxes(drawn.to_numpy(), 2, 3)
        assert_same(exact, *mean_and_error(moments(values).reshape(*values.shape[:2], -1)))


def test_replicated_targets_are_outputs_with_noise(case):
    """In the order of the observations, the noise independent, of variance kappa / N or kappa."""
    network, posterior = case
    group = posterior["posterior_predictive"]["y"]
    step, pattern, output = (group[f"observation_{name}"].to_numpy() - 1 for name in ("step", "pattern", "output"))
    noise = (group - posterior["posterior"]["prediction"].to_numpy()[:, :, pattern, step, output]).to_numpy()
    noise = noise.reshape(-1, 6) / np.sqrt(0.3 / (WIDTH if network.scaling == "mup" else 1))
    np.testing.assert_allclose(noise.T @ noise / len(noise), np.eye(6), atol=5 * np.sqrt(2 / len(noise)))
    observed = posterior["observed_data"]["y"].to_numpy()
    np.testing.assert_array_equal(observed, TASK.targets[pattern, step, output])
    assert TASK.supervised[pattern, step].all()


def test_answers_are_those_of_the_weights_drawn_back(case):
    """For every chain and kept draw: weights that make the stored kernel, and what they answer to other inputs."""
    network, posterior = case
    answers = bn.predict(posterior, NEW, seed=3)["prediction"]
    kept = posterior["latents"]["latent_draw"].to_numpy()
    for chain, position in np.ndindex(4, 3):
        weights = bn.draw_weights(posterior, chain, position, seed=3)
        fields, _ = run(network, TASK, weights)
        activity = PHI[network.activation](fields).reshape(6, WIDTH)
        stored = posterior["posterior"]["kernel"].to_numpy()[chain, kept[position]].reshape(6, 6)
        np.testing.assert_allclose(activity @ activity.T / WIDTH, stored, atol=1e-9 * np.abs(stored).max())
        np.testing.assert_allclose(answers[chain, position], run(network, NEW, weights)[1], atol=1e-9)


def test_readouts_drawn_back_follow_their_law(case):
    """Mean and covariance of f over draws of V given one kernel."""
    network, posterior = case
    kernel = posterior["posterior"]["kernel"].to_numpy()[1, -1].reshape(6, 6)
    dense, number = Dense(network, TASK), 400
    drawn = np.stack([run(network, TASK, bn.draw_weights(posterior, 1, -1, seed))[1] for seed in range(number)])
    values = drawn.swapaxes(1, 2).reshape(number, 6, 2)
    variance = dense.variance(kernel)[:, None]
    scores = (values.mean(axis=0) - dense.mean(kernel)) / np.sqrt(variance / number)
    np.testing.assert_array_less(np.abs(scores), 4)
    np.testing.assert_allclose(values.var(axis=0) / variance, 1, atol=4 * np.sqrt(2 / number))


def test_storage(case, tmp_path):
    """The task comes back with its mask: the posterior may be compared with a solution, and gives the same weights."""
    network, posterior = case
    bn.save(posterior, tmp_path / "posterior.nc")
    again = bn.load(tmp_path / "posterior.nc")
    assert task_of(again) == TASK
    xr.testing.assert_identical(again, posterior)
    for one, other in zip(bn.draw_weights(again), bn.draw_weights(posterior), strict=True):
        np.testing.assert_array_equal(one, other)
    lazy = theory.nngp(network, TASK)
    bn.save(lazy, tmp_path / "solution.nc")
    solution = bn.load(tmp_path / "solution.nc")
    assert solution.task == TASK
    assert solution.network == network
    bn.compare(again, solution)


def test_comparison():
    """The theory's column, and the spread it predicts: at a width where kernels and outputs are Gaussian."""
    network, posterior = sampled(*CASES[0])
    width = 10**6
    wide = posterior.copy()
    wide.attrs["network"] = json.dumps(network.replace(width=width).to_dict())
    solution = theory.solve(network, TASK, starts=0)
    table = bn.compare(wide, solution)
    expected = theory.fluctuations(theory.solve(network.replace(width=width), TASK, starts=0))
    predicted = theory.predict(expected.solution)
    for t, mu in np.ndindex(3, 2):
        row = table.loc[f"kernel[t={t + 1}, mu={mu + 1}]"]
        assert row["theory"] == solution.kernel[t, mu, t, mu]
        deviation = np.sqrt(expected.kernel_cov[(t, mu) * 4])
        assert row["expected_sd"] == pytest.approx(deviation, rel=4 / np.sqrt(2000))
        for o in range(2):
            row = table.loc[f"prediction[t={t + 1}, mu={mu + 1}, o={o + 1}]"]
            assert row["theory"] == solution.prediction[mu, t, o]
            drawn = posterior["posterior"]["prediction"].to_numpy()[:, :, mu, t, o]
            assert row["mean"] == pytest.approx(drawn.mean())
            assert row["expected_sd"] == pytest.approx(np.sqrt(predicted.variance[mu, t, o]), rel=4 / np.sqrt(2000))
            assert row["z_sd"] == pytest.approx((drawn.mean() - row["theory"]) / row["expected_sd"])

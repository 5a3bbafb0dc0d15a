"""Every architecture against the model written down a second time in NumPy, in weights, fields and kernels.

The joint law of kernels, outputs and targets under the prior is what defines the posterior: where it is the same in two
coordinate systems, so is the posterior.
"""

import jax
import numpy as np
import pytest
from literal_network import draw_prior

import bayesnet as bn
import theory
from bayesnet.models.weight_space import run_network

P, T, D, OUTPUTS = 2, 3, 2, 2
WIDTH, DRAWS = 14, 6000
GAINS = {"recurrent_gain": 1.2, "input_gain": 0.8, "readout_gain": 1.1, "noise": 0.3}
MIXED = {"recurrent": 1.0, "readout": 1.0, "bias": 1.0}
ARCHITECTURES = {
    "leak": {"leak": 0.5, "shared": MIXED},
    "bias": {"bias_gain": 0.5, "shared": MIXED},
    "bias of its own at each step": {"bias_gain": 0.5, "shared": {"recurrent": 1.0}},
    "process noise": {"process_noise": 0.6, "leak": 0.7},
    "residual": {"residual": 1.0, "shared": {}},
    "two layers": {"layers": 2, "recurrent_gain": (1.2, 0.7), "feedforward_gain": 0.9, "bias_gain": (0.0, 0.4)},
    "two leaky layers, residual": {"layers": 2, "leak": 0.6, "residual": 0.5, "shared": {"recurrent": 1.0}},
    "delay": {"delay": 2},
    "partly shared": {"shared": {"recurrent": 0.5, "input": 0.6, "readout": 0.4}},
    "drift": {"shared": {"recurrent": theory.Drift(1.5), "input": 1.0, "readout": theory.Drift(2.0)}},
}
# Everything at once, for the fast tests.
EVERYTHING = {
    "layers": 2,
    "recurrent_gain": (1.2, 0.7),
    "feedforward_gain": 0.9,
    "bias_gain": (0.0, 0.4),
    "process_noise": 0.5,
    "leak": 0.6,
    "residual": 0.5,
    "shared": {"recurrent": 0.5, "input": theory.Drift(2.0), "readout": 0.4, "feedforward": 1.0, "bias": 0.7},
}
slow = pytest.mark.slow
CASES = [
    pytest.param(EVERYTHING, "tanh", id="everything-tanh"),
    pytest.param(EVERYTHING, "linear", id="everything-linear"),
]
CASES += [
    pytest.param(settings, activation, marks=slow, id=f"{name}-{activation}")
    for name, settings in ARCHITECTURES.items()
    for activation in ("linear", "tanh")
]


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    supervised = np.zeros((P, T), bool)
    supervised[:, -1] = supervised[0, 1] = True
    return bn.Task(rng.normal(size=(P, T, D)), rng.normal(size=(P, T, OUTPUTS)), supervised)


def network_of(settings, activation):
    return bn.Network(WIDTH, activation, **{**GAINS, **settings})


def moments(kernel, output, target):
    """First and second moments that tell the laws apart, by draw: (M, K)."""
    flat = kernel.reshape(len(kernel), -1)
    both = np.concatenate([output.reshape(len(kernel), -1), target.reshape(len(kernel), -1)], axis=1)
    pairs = (both[:, :, None] * both[:, None, :]).reshape(len(kernel), -1)
    return np.concatenate([flat, np.log(np.einsum("mii->mi", kernel)), flat**2, pairs, flat[:, :1] * pairs], axis=1)


def prior_of(network, task, coordinates):
    tree = bn.sample_prior(network, task, DRAWS, coordinates, seed=3)
    kernel = tree["prior"]["kernel"].to_numpy()[0]
    output = tree["prior"]["prediction"].to_numpy()[0].swapaxes(1, 2).reshape(DRAWS, T * P, OUTPUTS)
    target = tree["prior_predictive"]["y"].to_numpy()[0].reshape(DRAWS, -1, OUTPUTS)
    return kernel.reshape(DRAWS, kernel.shape[1] * P, -1), output, target


@pytest.mark.parametrize(("settings", "activation"), CASES)
def test_all_coordinates_have_the_law_of_the_literal_network(settings, activation, task):
    """Of some thousand moments none is more than five standard errors off."""
    network = network_of(settings, activation)
    expected = moments(*draw_prior(network, task, DRAWS, np.random.default_rng(5)))
    for coordinates in ["weights", "fields"] + ["kernels"] * (activation == "linear"):
        found = moments(*prior_of(network, task, coordinates))
        error = np.sqrt((found.var(0) + expected.var(0)) / DRAWS)
        gap = np.abs(found.mean(0) - expected.mean(0)) / np.maximum(error, 1e-12)
        assert np.all(gap < 5), (coordinates, gap.max())


# Of the activation only its values enter; linear networks are among those of test_weight_draws.py.
@pytest.mark.parametrize("activation", [pytest.param("linear", marks=slow), "tanh"])
def test_weights_drawn_back_make_the_kernel_of_their_draw(activation, task):
    network = network_of(EVERYTHING, activation)
    few = {"num_warmup": 4, "num_samples": 4, "num_chains": 2, "num_latents": 1, "seed": 1}
    posterior = bn.sample(network, task, "fields", **few)
    weights = bn.draw_weights(posterior, chain=1)
    assert weights.feedforward.shape == (1, WIDTH, WIDTH)
    assert weights.bias.shape == (3, WIDTH, 1)
    assert weights.recurrent.shape == (4, WIDTH, WIDTH)
    with jax.enable_x64(True):
        kernel = np.asarray(run_network(network, task, weights)[0])
    stored = posterior["posterior"]["kernel"][1, -1].to_numpy()
    np.testing.assert_allclose(kernel.reshape(stored.shape), stored, atol=1e-10 * np.abs(stored).max())


def test_process_noise_is_met_anew(task):
    """The trained inputs do not give the stored outputs, and other patterns may be shown.

    Without it they give them: `test_sampled_weights_are_returned_as_they_are`.
    """
    few = {"num_warmup": 4, "num_samples": 4, "num_chains": 2, "num_latents": 1, "seed": 1}
    posterior = bn.sample(network_of(EVERYTHING, "tanh"), task, "weights", **few)
    stored = posterior["posterior"]["prediction"].isel(draw=[-1]).to_numpy()
    again = bn.predict(posterior, task)["prediction"].to_numpy()
    assert not np.isclose(again, stored, rtol=1e-8).any()
    other = bn.predict(posterior, bn.Task(np.ones((5, T - 1, D)), np.zeros((5, T - 1, OUTPUTS))))
    assert other["prediction"].shape == (2, 1, 5, T - 1, OUTPUTS)
    assert np.isfinite(other["prediction"]).all()


def test_files_and_tables_of_several_layers(task, tmp_path):
    """Kernels have a dim site with its step and layer; posterior and solution are read back, compared and reported."""
    network = network_of(EVERYTHING, "linear")
    few = {"num_warmup": 20, "num_samples": 20, "num_chains": 2, "num_latents": 1, "seed": 1}
    posterior, solution = bn.sample(network, task, **few), theory.solve(network, task, starts=0)
    for value, name in ((posterior, "posterior.nc"), (solution, "solution.nc")):
        bn.save(value, tmp_path / name)
    again, solved = bn.load(tmp_path / "posterior.nc"), bn.load(tmp_path / "solution.nc")
    kernel = again["posterior"]["kernel"]
    assert kernel.dims[2:] == ("site", "pattern", "site_bis", "pattern_bis")
    assert kernel["site_layer"].values.tolist() == [1, 2] * T
    assert kernel["site_step"].values.tolist() == [1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(solved.kernel, solution.kernel)
    assert solved.network == network
    table = bn.compare(again, solved)
    assert "kernel[t=3, l=2, mu=1]" in table.index
    assert "overlap[t=1,3, l=2,1, mu=2]" in table.index
    assert np.isfinite(table["expected_sd"]).all()
    bn.report(again, solved, tmp_path / "report.html")
    assert "could not be made" not in (tmp_path / "report.html").read_text()

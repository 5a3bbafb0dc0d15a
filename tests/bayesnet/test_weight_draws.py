"""Weights drawn back from the posterior: they make the stored kernel again, and follow their law."""

import jax
import numpy as np
import pytest
from literal_network import run
from small_problems import Dense, generic_network, generic_task

import bayesnet as bn
from bayesnet.eigenvalue_cloud import eigenvalue_cloud, learned_spectra, predicted_by
from bayesnet.models.weight_space import run_network
from bayesnet.weight_draws import weights_given_fields
from theory import spectrum

ALL = ("recurrent", "input", "readout")
SHARINGS = [ALL, (), ("recurrent",), ("input", "readout")]
GAINS = {"recurrent_gain": 1.3, "input_gain": 0.7, "readout_gain": 1.2}
FEW = {"num_warmup": 200, "num_samples": 8, "num_chains": 2, "num_latents": 2, "progress": False}
WIDTH = 12


def singular_task():
    """A repeated pattern, one without input at the first step, collinear inputs at the second."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 3, 2))
    inputs[1] = inputs[0]
    inputs[2, 0] = 0
    inputs[2, 1] = 2 * inputs[0, 1]
    return bn.Task(inputs, np.stack([np.full((3,), np.nan)] * 2 + [np.array([1.0, 1.0, -1.0])], axis=1))


def rerun(network, task, weights):
    with jax.enable_x64(True):
        kernel, prediction = run_network(network, task, weights)
    return np.asarray(kernel), np.asarray(prediction)


def assert_weights_make_the_kernel(posterior, network, task):
    latent_draws = posterior["latents"]["latent_draw"].to_numpy()
    for chain, position in ((0, 0), (1, -1)):
        weights = bn.draw_weights(posterior, chain, position)
        kernel, _ = rerun(network, task, weights)
        draw = int(latent_draws[position])
        stored = posterior["posterior"]["kernel"].to_numpy()[chain, draw].reshape(kernel.shape)
        np.testing.assert_allclose(kernel, stored, rtol=0, atol=1e-10 * np.abs(stored).max())


@pytest.mark.parametrize("coordinates", ["fields", "kernels"])
@pytest.mark.parametrize("shared", SHARINGS, ids=str)
def test_weights_make_the_kernel_of_their_draw(coordinates, shared):
    network, task = bn.Network(WIDTH, shared=shared, **GAINS), singular_task()
    posterior = bn.sample(network, task, coordinates, **FEW)
    assert_weights_make_the_kernel(posterior, network, task)


# Of the activation only its values enter: all sharings are tested above.
@pytest.mark.parametrize("shared", [ALL, pytest.param((), marks=pytest.mark.slow)], ids=str)
def test_weights_make_the_kernel_of_a_nonlinear_network(shared):
    network, task = bn.Network(WIDTH, "tanh", shared=shared, **GAINS), singular_task()
    assert_weights_make_the_kernel(bn.sample(network, task, "fields", **FEW), network, task)


@pytest.mark.parametrize("scaling", ["mup", "standard"])
def test_sampled_weights_are_returned_as_they_are(scaling):
    """Of every chain and kept draw: run forth they make its kernel and its outputs, as `predict` does."""
    network, task = generic_network(6, "W and V", scaling=scaling), generic_task()
    posterior = bn.sample(network, task, "weights", **FEW)
    assert_weights_make_the_kernel(posterior, network, task)
    kept = posterior["latents"]["latent_draw"].to_numpy()
    outputs = posterior["posterior"]["prediction"].to_numpy()[:, kept]
    np.testing.assert_allclose(bn.predict(posterior, task)["prediction"], outputs, atol=1e-10)
    for chain, position in np.ndindex(outputs.shape[:2]):
        _, answers = run(network, task, bn.draw_weights(posterior, chain, position))
        np.testing.assert_allclose(answers, outputs[chain, position], atol=1e-10)


@pytest.mark.parametrize("scaling", ["mup", "standard"])
def test_readouts_drawn_back_have_the_law_of_the_regression(scaling):
    """Mean and variance of the outputs at every entry, given the fields: 5 MCSE."""
    network, task = generic_network(8, "W and V", scaling=scaling), generic_task()
    rng, number = np.random.default_rng(0), 400
    fields = rng.normal(size=(task.entries, 8))
    drawn = [run(network, task, weights_given_fields(network, task, fields, fields, rng))[1] for _ in range(number)]
    outputs = np.array(drawn).swapaxes(1, 2).reshape(number, task.entries, -1)
    law, kernel = Dense(network, task), fields @ fields.T / 8
    mean, variance = law.mean(kernel), law.variance(kernel)[:, None]
    assert (np.abs(outputs.mean(axis=0) - mean) < 5 * np.sqrt(variance / number)).all()
    np.testing.assert_allclose(outputs.var(axis=0) / variance, 1, atol=5 * np.sqrt(2 / number))


def test_shapes_seeds_and_refusals(chain_posterior):
    weights = bn.draw_weights(chain_posterior, seed=3)
    assert [part.shape for part in weights] == [(1, 64, 64), (1, 64, 1), (1, 1, 64)]
    assert all(part.dtype == np.float64 for part in weights)
    np.testing.assert_array_equal(bn.draw_weights(chain_posterior, seed=3).recurrent, weights.recurrent)
    assert not np.array_equal(bn.draw_weights(chain_posterior, seed=4).recurrent, weights.recurrent)
    with pytest.raises(ValueError, match=r"^chain is 4"):
        bn.draw_weights(chain_posterior, chain=4)
    with pytest.raises(ValueError, match=r"^latent_draw is 'last'"):
        bn.draw_weights(chain_posterior, latent_draw="last")


def test_bulk_radius_is_the_recurrent_gain():
    """Eigenvalues fill the disc of radius gw uniformly but for a few outliers."""
    network, task = bn.Network.rnn(300, recurrent_gain=0.5), bn.tasks.chain(3, 1.0)
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(task.entries, 300))
    values = np.linalg.eigvals(weights_given_fields(network, task, fields, fields, rng).recurrent[0])
    radii = np.sort(np.abs(values)) / 0.5
    assert (radii > 1.1).sum() <= 2
    np.testing.assert_allclose(radii, np.sqrt(np.arange(1, 301) / 300), atol=0.08)


def test_eigenvalue_cloud(posteriors, solutions, one_step_posterior):
    small = eigenvalue_cloud(posteriors["RNN"])
    assert small.values.shape == (2 * 256,)
    assert small.radius == 1
    assert predicted_by(solutions["RNN"]) is not None
    both = eigenvalue_cloud(posteriors["DNN"])
    assert both.values.shape == (4 * 256,)
    assert eigenvalue_cloud(one_step_posterior).values is None


def test_wide_linear_networks_show_their_learned_part(monkeypatch, posteriors, small_task):
    """At the saddle point's kernel the learned part has the theory's spectrum; wide networks show it alone."""
    monkeypatch.setattr("bayesnet.eigenvalue_cloud.LARGEST_MATRIX", 100)
    cloud = eigenvalue_cloud(posteriors["RNN"])
    assert "learned part" in cloud.note
    assert cloud.values.size == 50 * (small_task.steps - 1) * small_task.patterns


def test_learned_spectrum_is_that_of_the_theory(solutions, small_task):
    kernel = solutions["RNN"].kernel.reshape(small_task.entries, -1)
    (ours,) = learned_spectra(bn.Network.rnn(256), small_task, kernel[None])
    np.testing.assert_allclose(
        np.sort_complex(ours.eigenvalues[0]), np.sort_complex(spectrum(solutions["RNN"]).eigenvalues[0]), atol=1e-6
    )

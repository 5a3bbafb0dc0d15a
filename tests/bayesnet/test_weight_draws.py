"""Weights drawn back from the posterior: they make the stored kernel again, and follow their law."""

import jax
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.models.weight_space import run_network
from bayesnet.weight_draws import weights_given_fields
from bayesnet.weight_spectra import eigenvalue_cloud, learned_spectra
from theory import spectrum
from theory.model import build_model, output_law

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


@pytest.mark.parametrize("shared", [ALL, ()], ids=str)
def test_weights_make_the_kernel_of_a_nonlinear_network(shared):
    network, task = bn.Network(WIDTH, "tanh", shared=shared, **GAINS), singular_task()
    assert_weights_make_the_kernel(bn.sample(network, task, "fields", **FEW), network, task)


def test_sampled_weights_are_returned_as_they_are():
    network, task = bn.Network(6, shared=("recurrent", "input"), **GAINS), bn.tasks.endpoint(2, 1.0)
    posterior = bn.sample(network, task, "weights", **FEW)
    assert_weights_make_the_kernel(posterior, network, task)
    _, prediction = rerun(network, task, bn.draw_weights(posterior, 1, -1))
    np.testing.assert_allclose(prediction, posterior["posterior"]["prediction"].to_numpy()[1, -1], atol=1e-10)


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


@pytest.mark.parametrize("shared", [ALL, ()], ids=str)
def test_the_readout_follows_its_law(shared):
    """Mean and variance of f = V phi / N over draws of V are those of Gaussian regression given the kernel."""
    network, task = bn.Network(WIDTH, shared=shared, noise=3.0, **GAINS), bn.tasks.endpoint(3, 1.0, patterns=2)
    rng = np.random.default_rng(1)
    fields = rng.normal(size=(task.entries, WIDTH))
    kernel = fields @ fields.T / WIDTH
    with jax.enable_x64(True):
        law = output_law(build_model(network, task), kernel)
        mean, variance = np.asarray(law.mean), np.diagonal(np.asarray(law.cov))
    outputs = []
    for _ in range(1000):
        readout = weights_given_fields(network, task, fields, fields, rng).readout
        steps = [readout[0 if len(readout) == 1 else t] for t in range(task.steps)]
        blocks = fields.reshape(task.steps, task.patterns, WIDTH)
        outputs.append(np.concatenate([b @ v.T for b, v in zip(blocks, steps, strict=True)])[:, 0] / WIDTH)
    outputs = np.array(outputs)
    assert np.max(np.abs(outputs.mean(0) - mean[:, 0]) / np.sqrt(variance / 1000)) < 4
    np.testing.assert_allclose(outputs.var(0), variance, rtol=0.2)


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
    small = eigenvalue_cloud(posteriors["RNN"], solutions["RNN"])
    assert small.values.shape == (2 * 256,)
    assert small.radius == 1
    assert small.outliers is not None
    both = eigenvalue_cloud(posteriors["DNN"])
    assert both.values.shape == (4 * 256,)
    assert both.outliers is None
    assert eigenvalue_cloud(one_step_posterior).values is None


def test_wide_linear_networks_show_their_learned_part(monkeypatch, posteriors, small_task):
    """At the saddle point's kernel the learned part has the theory's spectrum; wide networks show it alone."""
    monkeypatch.setattr("bayesnet.weight_spectra.LARGEST_MATRIX", 100)
    cloud = eigenvalue_cloud(posteriors["RNN"])
    assert "learned part" in cloud.note
    assert cloud.values.size == 50 * (small_task.steps - 1) * small_task.patterns


def test_learned_spectrum_is_that_of_the_theory(solutions, small_task):
    kernel = solutions["RNN"].kernel.reshape(small_task.entries, -1)
    (ours,) = learned_spectra(bn.Network.rnn(256), small_task, kernel[None])
    np.testing.assert_allclose(
        np.sort_complex(ours.eigenvalues[0]), np.sort_complex(spectrum(solutions["RNN"]).eigenvalues[0]), atol=1e-6
    )

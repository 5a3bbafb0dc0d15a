"""The evidence by bridge sampling, against quadrature, plain Monte Carlo over the prior, and its own refusals."""

import json

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import xarray as xr

import bayesnet as bn
import theory
from bayesnet.bridge_sampling import log_evidence
from theory.model import build_model

MANY = {"num_warmup": 200, "num_samples": 800, "num_latents": 400, "coordinates": "kernels", "progress": False}


def test_one_step_agrees_with_quadrature():
    """Phi = chi^2_N / N for one step and one pattern: a one-dimensional integral."""
    width, noise, signal = 16, 0.1, 1.5
    task = bn.tasks.chain(1, signal)
    found = log_evidence(bn.sample(bn.Network.rnn(width, noise=noise), task, seed=1, **MANY))

    def integrand(square):
        likelihood = scipy.stats.norm.pdf(signal, scale=np.sqrt((noise + square / width) / width))
        return likelihood * scipy.stats.chi2.pdf(square, width)

    exact = np.log(scipy.integrate.quad(integrand, 0, 60 * width, epsrel=1e-10)[0])
    assert 0 < found.error < 0.05
    assert abs(found.value - exact) < 4 * found.error


@pytest.mark.parametrize("shared", [("recurrent", "input", "readout"), ()], ids=["RNN", "DNN"])
def test_three_steps_agree_with_the_average_over_the_prior(shared):
    """p(y) = E_prior[p(y | Phi)]: plain Monte Carlo, at a width and signal where it still works.

    For the RNN this counts both mirror modes.
    """
    width, signal, draws = 16, 1.5, 400_000
    network, task = bn.Network(width, shared=shared), bn.tasks.chain(3, signal)
    found = log_evidence(bn.sample(network, task, seed=2, **MANY))
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(draws, 3, 3)), -1)
    for i in range(3):
        factor[:, i, i] = np.sqrt(rng.chisquare(width - i, draws))
    model = build_model(network, task)
    # h_1 = z_1; h_2, h_3 by conditioning on the empirical kernel, step by step, as the model says.
    gram = factor @ factor.swapaxes(1, 2) / width
    kernel = np.zeros((draws, 3, 3))
    root = np.zeros((draws, 3, 3))
    mask = model.weights[0]
    root[:, 0, 0] = 1.0
    kernel[:, 0, 0] = gram[:, 0, 0]
    for t in (1, 2):
        cov = np.zeros((draws, t + 1, t + 1))
        cov[:, 1:, 1:] = mask[1 : t + 1, 1 : t + 1] * kernel[:, :t, :t]
        cov[:, 0, 0] = 1.0
        root[:, : t + 1, : t + 1] = np.linalg.cholesky(cov)
        part = root[:, : t + 1, : t + 1]
        kernel[:, : t + 1, : t + 1] = part @ gram[:, : t + 1, : t + 1] @ part.swapaxes(1, 2)
    variance = (network.noise + kernel[:, 2, 2]) / width
    likelihoods = scipy.stats.norm.pdf(signal, scale=np.sqrt(variance))
    exact = np.log(likelihoods.mean())
    its_error = likelihoods.std() / likelihoods.mean() / np.sqrt(draws)
    assert its_error < 0.02
    assert 0 < found.error < 0.05
    assert abs(found.value - exact) < 4 * np.hypot(found.error, its_error)


@pytest.mark.slow
@pytest.mark.parametrize("signal", [1.5, 4.0], ids=["symmetric", "broken"])
@pytest.mark.parametrize("make", [bn.Network.rnn, bn.Network.dnn], ids=["RNN", "DNN"])
def test_the_theory_lacks_no_more_than_one_over_width(make, signal):
    """`theory.log_evidence`, ln 2 for two mirror modes included, against samples: what is left falls as 1/N."""
    task, widths = bn.tasks.chain(3, signal), (200, 5000)
    gaps, errors = [], []
    for width in widths:
        network = make(width)
        found = log_evidence(bn.sample(network, task, seed=4, **MANY))
        gaps.append(found.value - theory.log_evidence(theory.solve(network, task)).log_evidence)
        errors.append(found.error)
    ratio = widths[0] / widths[1]
    assert abs(gaps[1] - ratio * gaps[0]) < 4 * np.hypot(errors[1], ratio * errors[0])
    assert errors[1] < 0.1


def test_other_coordinates_and_too_few_latents_are_refused(chain_posterior):
    few = chain_posterior.copy()
    few["latents"] = few["latents"].isel(latent_draw=slice(2))
    with pytest.raises(ValueError, match="num_latents"):
        log_evidence(few)
    fields = chain_posterior.copy()
    fields["latents"] = xr.DataTree(xr.Dataset({"z": (("chain", "latent_draw", "z_dim_0"), np.zeros((4, 4, 2)))}))
    with pytest.raises(ValueError, match="coordinates='kernels'"):
        log_evidence(fields)
    tanh = bn.Network.rnn(64, activation="tanh")
    fields.attrs["network"] = json.dumps(tanh.to_dict())
    with pytest.raises(ValueError, match=r"activation tanh, .* theory.log_evidence\(theory.solve\(network, task\)\)"):
        log_evidence(fields)
    weights = {"recurrent": np.ones((64, 64)), "input": np.ones((64, 1)), "readout": np.ones((1, 64))}
    with pytest.raises(ValueError, match=r"networks from outside.*theory\.log_evidence"):
        log_evidence(bn.from_weights(tanh, bn.tasks.chain(2, 1.5), weights))
    assert not jax.config.jax_enable_x64

"""Prior draws: the same law in all coordinates, with the moments that can be written down."""

import json

import arviz as az
import numpy as np
import pytest

import bayesnet as bn

NETWORK = bn.Network.rnn(8, recurrent_gain=1.2, input_gain=0.9, readout_gain=1.5, noise=0.3)
TASK = bn.Task([[[1.0, 1.0], [0.0, 2.0]]], [[np.nan, 1.0]])  # one pattern, two steps with input
NUMBER = 4000


@pytest.fixture(scope="module", params=["weights", "fields", "kernels"])
def prior(request):
    return bn.sample_prior(NETWORK, TASK, NUMBER, request.param, seed=3)


def test_moments(prior):
    """E Phi_22 = gw^2 E Phi_11 + gu^2 |x_2|^2 / D; Var f = gv^2 E Phi_22 / N, and kappa / N more for y."""
    first = 0.9**2 * 1.0
    second = 1.2**2 * first + 0.9**2 * 2.0
    kernel = prior["prior"]["kernel"].values[0, :, :, 0, :, 0]
    f = prior["prior"]["prediction"].values[0, :, 0, 1, 0]
    y = prior["prior_predictive"]["y"].values[0, :, 0]
    # Var Phi_11 = 2 Phi^2 / N: h_1 is a Gaussian vector of width N.
    exact = [
        (kernel[:, 0, 0], first),
        ((kernel[:, 0, 0] - first) ** 2, 2 * first**2 / 8),
        (kernel[:, 1, 1], second),
        (kernel[:, 0, 1], 0.9**2 * 1.0),
        (f**2, 1.5**2 * second / 8),
        (y**2, (1.5**2 * second + 0.3) / 8),
        ((y - f) ** 2, 0.3 / 8),
        (f, 0.0),
    ]
    for values, mean in exact:
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(NUMBER)


def test_structure_and_repeatability(prior):
    assert set(prior.children) == {"prior", "prior_predictive", "observed_data", "constant_data"}
    assert prior["prior"]["kernel"].dims == ("chain", "draw", "step", "pattern", "step_bis", "pattern_bis")
    assert dict(prior["prior_predictive"].sizes) == {"chain": 1, "draw": NUMBER, "observation": 1}
    again = bn.sample_prior(NETWORK, TASK, NUMBER, json.loads(prior.attrs["settings"])["coordinates"], seed=3)
    assert again.identical(prior)


def test_arviz_takes_prior_and_posterior_together(prior, chain_posterior):
    task, network = bn.tasks.chain(2, 1.5), bn.Network.rnn(64)
    data = bn.to_arviz(chain_posterior, bn.sample_prior(network, task, 50))
    assert data["prior_predictive"]["y"].sizes["draw"] == 50
    assert data["posterior_predictive"]["y"].sizes["draw"] == 500
    assert len(az.summary(data, group="prior", var_names=["prediction"])) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("network", 3), ("task", None), ("num_samples", 0), ("seed", -1), ("coordinates", "weight")]
)
def test_malformed_arguments(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        bn.sample_prior(**{"network": NETWORK, "task": TASK, name: value})

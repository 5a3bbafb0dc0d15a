"""What ArviZ, old and new, can do with a posterior."""

import arviz as az
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.diagnostics import summarise
from bayesnet.observables import diagonal_kernel


def test_summary(chain_posterior):
    table = az.summary(bn.to_arviz(chain_posterior), var_names=["kernel"], round_to="none")
    assert len(table) == 4
    ours = summarise(chain_posterior, [diagonal_kernel(1, 0)]).iloc[0]
    theirs = table.iloc[-1]
    np.testing.assert_allclose(float(theirs["mean"]), ours["mean"], rtol=1e-6)
    np.testing.assert_allclose(float(theirs["r_hat"]), ours["r_hat"], rtol=1e-6)


@pytest.fixture(scope="module")
def weak():
    """Targets so weak that leaving one out hardly moves the posterior; where it does, the Pareto k exceeds 0.7."""
    return {"RNN": weakly_trained(bn.Network.rnn(16, noise=1.0))}


def weakly_trained(network):
    return bn.sample(network, bn.tasks.endpoint(2, 0.3, patterns=4), num_warmup=200, num_samples=300)


def test_loo_is_reliable_where_single_targets_weigh_little(weak):
    result = az.loo(bn.to_arviz(weak["RNN"]), pointwise=True)
    assert np.max(result.pareto_k.values) < 0.7


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.23 with pandas 3.1
def test_compare(weak):
    noisy = weakly_trained(bn.Network.rnn(16, noise=4.0))  # the same program
    table = az.compare({"RNN": bn.to_arviz(weak["RNN"]), "noisy": bn.to_arviz(noisy)})
    assert set(table.index) == {"RNN", "noisy"}


def moments(posterior):
    """What leave-one-out and predictive checks are made of: label -> draws (chain, draw, observation)."""
    density, replica = posterior["log_likelihood"]["y"].values, posterior["posterior_predictive"]["y"].values
    return {"density": density, "inverse": np.exp(-density), "replica": replica, "square": replica**2}


@pytest.mark.parametrize("name", ["RNN", pytest.param("DNN", marks=pytest.mark.slow)])
def test_leave_one_out_and_predictive_checks_agree_with_the_weights(weak, name):
    """V integrated out and f drawn back, against the literal network: within 4 combined MCSE."""
    task, network = bn.tasks.endpoint(2, 0.3, patterns=4), getattr(bn.Network, name.lower())(16, noise=1.0)
    if name not in weak:
        weak[name] = weakly_trained(network)
    literal = bn.sample(network, task, "weights", num_warmup=100, num_samples=300, seed=3)
    ours, theirs = moments(weak[name]), moments(literal)
    slack = 0.0
    for label, draws in ours.items():
        for observation in range(draws.shape[-1]):
            one, other = draws[..., observation], theirs[label][..., observation]
            error = np.hypot(az.mcse(one, method="mean"), az.mcse(other, method="mean"))
            assert abs(one.mean() - other.mean()) < 4 * error, (label, observation)
            slack += 4 * error / one.mean() if label == "inverse" else 0.0
    # elpd is the sum of -ln E[1 / p], smoothed.
    elpd = [float(_elpd(az.loo(bn.to_arviz(tree)))) for tree in (weak[name], literal)]
    assert abs(elpd[0] - elpd[1]) < slack


def _elpd(result):
    return result.elpd if hasattr(result, "elpd") else result.elpd_loo


def test_all_groups_arrive(chain_posterior):
    data = bn.to_arviz(chain_posterior)
    groups = ("posterior", "posterior_predictive", "sample_stats", "log_likelihood", "observed_data", "constant_data")
    for name in groups:
        assert data[name].sizes == chain_posterior[name].sizes
    with pytest.raises(KeyError):
        data["latents"]

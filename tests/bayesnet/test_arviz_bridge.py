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
    task = bn.tasks.endpoint(2, 0.3, patterns=4)
    networks = {"RNN": bn.Network.rnn(16, noise=1.0), "DNN": bn.Network.dnn(16, noise=1.0)}
    return {name: bn.sample(net, task, num_warmup=100, num_samples=300) for name, net in networks.items()}


def test_loo_is_reliable_where_single_targets_weigh_little(weak):
    result = az.loo(bn.to_arviz(weak["RNN"]), pointwise=True)
    assert np.max(result.pareto_k.values) < 0.7


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.23 with pandas 3.1
def test_compare(weak):
    table = az.compare({name: bn.to_arviz(posterior) for name, posterior in weak.items()})
    assert set(table.index) == {"RNN", "DNN"}


def test_all_groups_arrive(chain_posterior):
    data = bn.to_arviz(chain_posterior)
    for name in ("posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data"):
        assert data[name].sizes == chain_posterior[name].sizes
    with pytest.raises(KeyError):
        data["latents"]

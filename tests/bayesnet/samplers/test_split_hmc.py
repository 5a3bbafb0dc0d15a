"""Split HMC against a closed-form posterior, through NumPyro's MCMC, and against NUTS."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import MCMC

import bayesnet as bn
from bayesnet.diagnostics import summarise
from bayesnet.samplers.split_hmc import SplitHMC
from bayesnet.samplers.tuning import Tuning

DESIGN = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]])
SEEN = np.array([1.0, -2.0])
NOISE = 0.3


def regression():
    """z ~ N(0, I_3), y ~ N(A z, .09): a Gaussian posterior."""
    z = numpyro.sample("z", dist.Normal(0, jnp.ones(3)).to_event(1))
    numpyro.deterministic("fitted", jnp.asarray(DESIGN) @ z)
    numpyro.sample("y", dist.Normal(jnp.asarray(DESIGN) @ z, NOISE).to_event(1), obs=jnp.asarray(SEEN))


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_a_gaussian_posterior_is_sampled_with_its_moments(chain_method):
    """Means and second moments within 4 MCSE of the closed form; deterministic sites come along."""
    cov = np.linalg.inv(np.eye(3) + DESIGN.T @ DESIGN / NOISE**2)
    mean = cov @ DESIGN.T @ SEEN / NOISE**2
    mcmc = MCMC(
        SplitHMC(regression),
        num_warmup=300,
        num_samples=3000,
        num_chains=2,
        chain_method=chain_method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples(group_by_chain=True)
    np.testing.assert_allclose(draws["fitted"], np.asarray(draws["z"]) @ DESIGN.T, rtol=1e-4, atol=1e-4)
    z = np.asarray(draws["z"], float)
    products = np.einsum("cdi,cdj->cdij", z - mean, z - mean)
    for values, exact in ((z, mean), (products, cov)):
        names = [f"dim_{i}" for i in range(values.ndim - 2)]
        mcse = az.mcse(xr.Dataset({"x": (("chain", "draw", *names), values)}), method="mean")["x"].values
        assert (np.abs(values.mean(axis=(0, 1)) - exact) < 4 * mcse).all()
    assert not mcmc.get_extra_fields()["diverging"].any()


def test_a_flat_likelihood_does_not_let_the_step_run_away():
    """Without data every step is accepted; the step size stays at its limit."""

    def prior():
        numpyro.sample("z", dist.Normal(0, jnp.ones(2)).to_event(1))

    mcmc = MCMC(SplitHMC(prior), num_warmup=200, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(1))
    assert float(mcmc.last_state.adapt_state.step_size) == pytest.approx(Tuning.largest_step, rel=1e-5)


def test_hmc_and_nuts_sample_the_same_posterior_with_fewer_gradients():
    task, network = bn.tasks.chain(3, 4.3), bn.Network.rnn(64)
    tables, effort = {}, {}
    for sampler in ("nuts", "hmc"):
        posterior = bn.sample(network, task, "fields", sampler=sampler, num_samples=1000, seed=2)
        tables[sampler] = summarise(posterior)
        gradients = posterior["sample_stats"]["n_steps"].to_numpy().sum()
        effort[sampler] = tables[sampler]["ess_bulk"].min() / gradients
    gap = np.abs(tables["nuts"]["mean"] - tables["hmc"]["mean"])
    assert (gap < 4 * np.hypot(tables["nuts"]["mcse"], tables["hmc"]["mcse"])).all()
    assert (tables["hmc"]["r_hat"] < 1.02).all()
    assert effort["hmc"] > 2 * effort["nuts"]

"""Langevin dynamics: its law at any step size in a Gaussian case, what `sample` makes of it, and its vanishing bias."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from bayesnet import Network, sample, tasks
from bayesnet.comparison import judge
from bayesnet.diagnostics import summarise
from bayesnet.models.weight_space import Weights
from bayesnet.samplers.langevin import LangevinState, langevin_dynamics

NETWORK, TASK = Network.rnn(8), tasks.chain(2, 2.0)
RUN = {"sampler": "langevin", "num_chains": 2, "num_samples": 40, "seed": 1, "progress": False}


def test_a_gaussian_is_sampled_with_the_variance_of_the_discretisation():
    """U = sum lambda z^2 / 2: Euler and Maruyama have variance 1 / (lambda (1 - lambda eps / 2)), exactly."""
    curvature, eps = jnp.array([1.0, 4.0, 15.0]), 0.1

    def potential():
        return lambda z: jnp.sum(curvature * z**2) / 2

    _, step = langevin_dynamics(potential, eps, 50)
    with jax.enable_x64(True):
        z = jnp.zeros((20_000, 3))

        def run(key, z):
            state = LangevinState(z, jnp.zeros(()), curvature * z, jnp.asarray(eps), jnp.asarray(100), key)
            return step(state, (), {}).z

        drawn = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), len(z)), z))
    variance = 1 / (np.asarray(curvature) * (1 - np.asarray(curvature) * eps / 2))
    assert (np.abs(drawn.var(axis=0) / variance - 1) < 4 * np.sqrt(2 / len(z))).all()
    assert (np.abs(drawn.mean(axis=0)) < 4 * np.sqrt(variance / len(z))).all()
    assert variance[2] * curvature[2] > 3  # far from the posterior's 1: the test would see a Metropolis step


@pytest.fixture(scope="module")
def training():
    """From a prior draw on, nothing thrown away."""
    return sample(
        NETWORK, TASK, num_warmup=0, steps_per_draw=5, step_size=0.001, keep=["weights", "fields"], thin=20, **RUN
    )


def test_training_is_recorded_from_the_start(training):
    """Loss and time of every draw; the loss falls from that of a prior draw, about y^2 / 2."""
    stats = training["sample_stats"]
    assert set(stats.data_vars) == {"n_steps", "lp", "step_size", "loss", "training_time"}
    np.testing.assert_allclose(stats["training_time"].values, [0.005 * np.arange(1, 41)] * 2, rtol=1e-12)
    assert (stats["n_steps"] == 5).all()
    assert (stats["step_size"] == 0.001).all()
    error = training["posterior"]["prediction"].values[:, :, 0, 1, 0] - 2.0
    np.testing.assert_allclose(stats["loss"].values, error**2 / 2, rtol=1e-12)
    assert (stats["loss"][:, 20:].mean(axis=1) < 0.2 * stats["loss"][:, 0]).all()


def test_weights_and_fields_of_kept_draws_belong_to_their_kernels(training):
    assert training["weights"]["latent_draw"].values.tolist() == [19, 39]
    for chain, position in np.ndindex(2, 2):
        place = {"chain": chain, "latent_draw": position}
        weights = Weights({name: values[place].values for name, values in training["weights"].items()})
        h = training["fields"]["preactivation"][place].values
        np.testing.assert_allclose(h[1, 0], weights.recurrent[0] @ h[0, 0], rtol=1e-12)
        stored = training["posterior"]["kernel"].values[chain, [19, 39][position], :, 0, :, 0]
        np.testing.assert_allclose(stored, h[:, 0] @ h[:, 0].T / NETWORK.width, rtol=1e-12)


def test_it_says_that_nothing_corrects_it(training):
    """In the attributes and in the verdict; gates that need an energy are not invented."""
    assert "no Metropolis test" in training.attrs["bias"]
    verdict = judge(training, summarise(training))
    assert "no Metropolis test" in verdict.message
    assert {gate.name.split()[0] for gate in verdict.gates} >= {"R-hat", "ESS"}
    assert not any("divergences" in gate.name or "BFMI" in gate.name for gate in verdict.gates)


def test_a_descent_that_explodes_is_an_error_and_targets_do_not_compile_anew(training):
    """A target so large that the step is beyond the edge of stability."""
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **details: compilations.append(event) if "backend_compile" in event else None
    )
    with pytest.raises(
        FloatingPointError, match=r"not finite in chain \d at draw \d+; likely cause: step_size 0\.001 "
    ):
        sample(NETWORK, TASK.scaled(1e4), num_warmup=0, steps_per_draw=5, step_size=0.001, **RUN)
    assert compilations == []


@pytest.mark.parametrize("coordinates", ["fields", "kernels"])
def test_only_weights_are_trained(coordinates):
    with pytest.raises(ValueError, match=f"^coordinates is '{coordinates}'; sampler 'langevin' trains the weights"):
        sample(NETWORK, TASK, coordinates, **RUN)


@pytest.mark.slow
def test_the_bias_vanishes_with_the_step():
    """Against NUTS in kernel coordinates: linear in the step, plain at the largest, gone in the limit."""
    network, task = Network.rnn(8, noise=1.0), tasks.chain(2, 2.0)
    exact = summarise(sample(network, task, "kernels", num_samples=20_000, seed=1))
    steps, tables = np.array([0.01, 0.02, 0.04]), []
    for size in steps:
        settings = {"step_size": float(size), "steps_per_draw": round(0.2 / size)}
        tables.append(summarise(sample(network, task, sampler="langevin", num_samples=30_000, seed=2, **settings)))
    largest = []
    for label in exact.index:
        means, errors = (np.array([table.loc[label, column] for table in tables]) for column in ("mean", "mcse"))
        # A weighted fit of a parabola through the three is exact; its value at zero has the error of its weights.
        weights = np.linalg.inv(np.vander(steps, 3, increasing=True))[0]
        limit, error = weights @ means, np.sqrt(weights**2 @ errors**2 + exact.loc[label, "mcse"] ** 2)
        assert abs(limit - exact.loc[label, "mean"]) < 4 * error, label
        largest.append(abs(means[-1] - exact.loc[label, "mean"]) / np.hypot(errors[-1], exact.loc[label, "mcse"]))
    assert max(largest) > 5

"""Small posteriors and solutions that several test modules share, each sampled or solved once."""

import jax
import pytest

import bayesnet as bn
import theory

# Warm-ups of 200 wherever the length does not matter: it is part of the compiled program.
QUICK = {"num_warmup": 200, "num_samples": 500, "seed": 1, "progress": False}


@pytest.fixture(scope="session")
def small_task():
    """Three digits, three steps: sign symmetry for the RNN, a target direction, several patterns."""
    return bn.tasks.digits(patterns=3, steps=3)


@pytest.fixture(scope="session")
def posteriors(small_task):
    networks = {"RNN": bn.Network.rnn(256), "DNN": bn.Network.dnn(256)}
    # Chains of programs that are compiled otherwise are other chains: these are the same in whatever file comes first.
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        return {name: bn.sample(network, small_task, **QUICK) for name, network in networks.items()}
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def solutions(small_task):
    networks = {"RNN": bn.Network.rnn(256), "DNN": bn.Network.dnn(256)}
    return {name: theory.solve(network, small_task, starts=1) for name, network in networks.items()}


@pytest.fixture(scope="session")
def chain_posterior():
    """One pattern, two steps."""
    return bn.sample(bn.Network.rnn(64), bn.tasks.chain(2, 1.5), **QUICK)


@pytest.fixture(scope="session")
def one_step_posterior():
    """The smallest posterior there is."""
    return bn.sample(bn.Network.rnn(64), bn.tasks.chain(1, 1.5), **QUICK)

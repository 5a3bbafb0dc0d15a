"""The model as a function of its numbers: at concrete values it is the model of the network that has them."""

import jax
import numpy as np
import pytest
from small_problems import generic_network, generic_task

from theory import Network
from theory.causal import kernel_of_noise
from theory.model import build_model
from theory.parameters import Parameters, model_at, network_at, parameter_names

VALUES = {
    "recurrent_gain": 1.3,
    "input_gain": 0.7,
    "readout_gain": 1.1,
    "bias_gain": 0.6,
    "feedforward_gain": 0.9,
    "noise": 0.2,
    "process_noise": 0.35,
    "leak": 0.45,
    "residual": 0.25,
    "shared.recurrent": 0.3,
    "shared.input": 0.8,
    "shared.readout": 0.15,
    "shared.feedforward": 0.55,
    "shared.bias": 0.65,
}
NETWORKS = {
    "every term": generic_network(6, "all"),
    "plain": Network.rnn(6),
    "layers": Network(6, layers=2, shared={"recurrent": 0.4}, delay=2, bias_gain=(0.5, 0.0)),
    "a matrix": Network(6, shared={"input": [[1.0, 0.2, 0.1], [0.2, 1.0, 0.3], [0.1, 0.3, 1.0]]}),
    "standard": Network.dnn(6, scaling="standard"),
}


def subsets(network):
    """All parameters at once, and each alone."""
    everything = parameter_names(network, ["bias_gain"])
    return [everything, *((name,) for name in everything if name != "shared.bias" or network.has_bias)]


def assert_same(ours, exact):
    for name in ("drive", "readout", "noise", "scale", "targets", "supervised"):
        np.testing.assert_allclose(getattr(ours, name), getattr(exact, name), atol=1e-13, err_msg=name)
    for one, other in zip(ours.weights, exact.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)
    mixing = [np.eye(one.sites) if one.mixing is None else one.mixing for one in (ours, exact)]
    np.testing.assert_allclose(*mixing, atol=1e-13)
    assert (ours.patterns, ours.sources, ours.outputs) == (exact.patterns, exact.sources, exact.outputs)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_model_is_that_of_the_network_with_these_values(network):
    task = generic_task()
    with jax.enable_x64(True):
        for names in subsets(network):
            values = {name: VALUES[name] for name in names}
            exact = build_model(network_at(network, values), task)
            assert_same(Parameters(network, task, names).model(values), exact)
        assert_same(model_at(network, task), build_model(network, task))
        traced = jax.jit(lambda values: model_at(network, task, values))(values)
        assert_same(traced, exact)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_factors_of_weights_have_the_covariance_of_the_weights(network):
    """Copies of weights, for the sampler in weights: B B^T is their covariance at any values."""
    task = generic_task()
    with jax.enable_x64(True):
        for names in subsets(network):
            values = {name: VALUES[name] for name in names}
            parameters = Parameters(network, task, names)
            exact = {one.name: one for one in network_at(network, values).wiring(task.steps).connections}
            for connection in parameters.reference.wiring(task.steps).connections:
                factor = np.asarray(parameters.copy_factor(connection, values))
                copies = connection.copy_of
                used = np.flatnonzero(connection.used)
                found = (factor @ factor.T)[np.ix_(copies[used], copies[used])]
                wanted = exact[connection.name].covariance[np.ix_(used, used)]
                np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_derivatives_are_those_of_rebuilt_models():
    """Through the causal construction, tanh, every parameter: finite differences of networks built anew."""
    network, task = generic_network(6, "all", activation="tanh"), generic_task()
    names = parameter_names(network)
    values = {name: VALUES[name] for name in names}
    rng = np.random.default_rng(0)
    noise, cost = rng.normal(size=(task.entries, 6)), rng.normal(size=(task.entries,) * 2)
    phi = network.phi.function

    def score(model):
        return jax.numpy.sum(cost * kernel_of_noise(model, noise, phi, 6)) + model.noise * jax.numpy.sum(model.readout)

    with jax.enable_x64(True):
        parameters = Parameters(network, task, names)
        slope = jax.jit(jax.grad(lambda values: score(parameters.model(values))))(values)
        at = jax.jit(score)
        for name in names:
            ends = [build_model(network_at(network, values | {name: values[name] + h}), task) for h in (1e-5, -1e-5)]
            difference = float(at(ends[0].on_device()) - at(ends[1].on_device())) / 2e-5
            assert slope[name] == pytest.approx(difference, rel=1e-5, abs=1e-7), name


def test_unknown_parameters_are_refused():
    for name in ("signal", "shared.bias", "feedforward_gain", "width", "shared.feedforward"):
        with pytest.raises(ValueError, match=rf"^'{name}' is no parameter of the network; it has recurrent_gain, "):
            Parameters(Network.rnn(6), generic_task(), [name])
    with pytest.raises(ValueError, match=r"^network is int"):
        Parameters(3, generic_task(), [])

"""Network: what it takes, what it refuses, and that it goes through plain values unchanged."""

import json
from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from theory import Network


def cubic(x):
    return x - x**3 / 10


def test_defaults():
    network = Network(8)
    assert set(network.degrees.items()) == {("recurrent", 1), ("input", 1), ("readout", 1)}
    assert (network.recurrent_gain, network.input_gain, network.readout_gain, network.noise) == (1, 1, 1, 0.1)
    assert (network.activation, network.scaling, network.target_variance_scale) == ("linear", "mup", 1 / 8)
    assert Network(8, scaling="standard").target_variance_scale == 1


def test_rnn_and_dnn_are_the_two_ends_of_sharing():
    assert Network.rnn(8, noise=1) == Network(8, noise=1.0)
    assert Network.dnn(8).shared == frozenset()
    assert Network.dnn(8, shared={"input"}) == Network(8, shared=["input", "input"])


def test_frozen_and_hashed_by_value():
    network = Network(np.int64(8), shared=("readout",), noise=np.float32(0.5))
    assert network == Network(8, shared={"readout"}, noise=0.5)
    assert hash(network) == hash(Network(8, shared={"readout"}, noise=0.5))
    assert network != network.replace(width=9)
    assert type(network.width) is int
    assert type(network.noise) is float
    with pytest.raises(FrozenInstanceError):
        network.width = 9


POSITIVE = ["recurrent_gain", "input_gain", "readout_gain", "noise"]
NOT_POSITIVE = [
    0,
    -1.0,
    np.nan,
    np.inf,
    -np.inf,
    True,
    np.True_,
    "1",
    None,
    1j,
    [1.0],
    np.ones(1),
    np.array(True),
    jnp.zeros(()),
]
NOT_POSITIVE += [10**400, 1e200, 1e-200, -1e-200]


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", NOT_POSITIVE, ids=lambda v: repr(v)[:12])
def test_gains_and_noise_must_be_positive_numbers(name, value):
    with pytest.raises(ValueError, match=f"^{name} is .*greater than zero"):
        Network(8, **{name: value})


@pytest.mark.parametrize("width", [0, -3, 8.0, np.nan, True, "8", None, np.array(8.0), [8], 2**63, 10**400])
def test_width_must_be_a_positive_integer(width):
    with pytest.raises(ValueError, match=r"^width is "):
        Network(width)


@pytest.mark.parametrize("shared", ["input", None, 3, {"weights"}, [1], [["input"]], np.array(3), [None]])
def test_shared_must_name_weights(shared):
    with pytest.raises(ValueError, match=r"^shared .*'recurrent', 'input', 'readout'"):
        Network(8, shared=shared)


@pytest.mark.parametrize("scaling", ["muP", "", None, 1, ["mup"], np.array(["mup"])])
def test_scaling_must_be_known(scaling):
    with pytest.raises(ValueError, match=r"^scaling is .*'mup', 'standard'"):
        Network(8, scaling=scaling)


BAD_ACTIVATIONS = {
    "unknown": ("swish", "'linear', 'erf', 'tanh', 'relu'"),
    "no name": (None, "allowed are"),
    "no function": ("theory.activations:BUILT_IN", "not a function"),
    "no module": ("no_such_module:f", "cannot be imported"),
    "relative": ("..x:f", "cannot be imported"),
    "empty": (":", "cannot be imported"),
    "no attribute": ("math:no_such", "cannot be imported"),
    "not JAX": ("math:sin", "not a JAX function"),
    "NumPy": (lambda x: np.sin(np.asarray(x)), "not a JAX function.*write it with jax.numpy"),
    "NumPy's own": (np.tanh, "not a JAX function.*use jax.numpy.tanh"),
    "SciPy's own": (scipy.special.erf, "not a JAX function.*use jax.scipy.special.erf"),
    "an end": ("sys:exit", "not a JAX function"),
    "an end at import": ("unittest.__main__:x", "cannot be imported: SystemExit"),
    "two arguments": (jnp.add, "not a JAX function"),
    "sum": (jnp.sum, "same shape"),
    "complex": (lambda x: x + 1j, "array of reals"),
    "integer": (lambda x: (x > 0).astype(int), "array of reals"),
    "softmax": (jax.nn.softmax, "not elementwise"),
    "cumsum": (lambda x: jnp.cumsum(x, -1), "not elementwise"),
    "log": (jnp.log, "finite"),
}


@pytest.mark.parametrize(("activation", "message"), BAD_ACTIVATIONS.values(), ids=BAD_ACTIVATIONS)
def test_activation_must_be_an_elementwise_jax_function(activation, message):
    with pytest.raises(ValueError, match=f"^activation .*{message}"):
        Network(8, activation=activation)


@pytest.mark.parametrize("activation", ["linear", "erf", "tanh", "relu", "jax.numpy:sinh", cubic, jnp.arctan])
@pytest.mark.parametrize("shared", [(), ("input", "readout")])
def test_round_trip_through_json(activation, shared):
    network = Network(8, activation, shared, 0.5, 2, 3, 4, "standard")
    assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network
    assert ":" in str(network.activation) or network.activation in ("linear", "erf", "tanh", "relu")


@pytest.mark.parametrize(
    "fields", [{}, {"noise": 1.0}, {"width": 8, "depth": 2}, [("width", 8)], None, {"width": 8, 3: 1}]
)
def test_from_dict_refuses_unknown_and_missing_fields(fields):
    with pytest.raises(ValueError, match=r"^fields is .*'width'.*noise"):
        Network.from_dict(fields)


@pytest.mark.parametrize(
    "value", [np.array(1.5), np.array(1.5, "f4"), jnp.asarray(1.5), jnp.asarray(1.5, jnp.bfloat16)]
)
def test_numbers_in_arrays_without_dimensions_are_taken(value):
    network = Network(np.array(8), recurrent_gain=value, noise=value)
    assert network == Network(8, recurrent_gain=1.5, noise=1.5)
    assert type(network.recurrent_gain) is float
    assert type(network.width) is int


@pytest.mark.parametrize(
    "half", [np.array(0.5), jnp.asarray(0.5, jnp.bfloat16), np.float32(0.5)], ids=["0-d", "JAX", "NumPy"]
)
def test_numbers_as_arrays(half):
    plain = Network.rnn(4, leak=0.5, shared={"recurrent": 0.5}, recurrent_gain=0.5)
    assert Network.rnn(4, leak=half, shared={"recurrent": half}, recurrent_gain=half) == plain


@pytest.mark.parametrize("array", [np.array, jnp.asarray, np.ma.array], ids=["NumPy", "JAX", "masked"])
def test_several_numbers_as_arrays(array):
    plain = Network.rnn(4, layers=2, recurrent_gain=[0.5, 2.0], shared={"input": [[1.0, 0.5], [0.5, 1.0]]})
    other = {"recurrent_gain": array([0.5, 2.0]), "shared": {"input": array([[1.0, 0.5], [0.5, 1.0]])}}
    assert Network.rnn(4, layers=2, **other) == plain


@pytest.mark.parametrize(
    "degree",
    [np.ma.array(0.5, mask=True), np.array(np.nan), np.array(True), np.array([0.5]), [["1"]], [[1, None]], object()],
)
def test_arrays_that_are_no_degree_of_sharing(degree):
    with pytest.raises(ValueError, match=r"^shared\['input'\]"):
        Network.rnn(4, shared={"input": degree})


def test_degrees_of_sharing_that_a_network_does_not_have_are_refused():
    """Those of weights that it lacks, and all of a network of connections."""
    network = Network(8)
    assert network.with_parameter("shared.recurrent", 0.5).degree("recurrent") == 0.5
    for one, name, known in (
        (network, "shared.bias", "recurrent, input, readout"),
        (Network(8, connections=network.wiring(2).connections), "shared.recurrent", "none"),
    ):
        with pytest.raises(ValueError, match=rf"'{name}' is no degree of sharing; the network has those of {known}$"):
            one.with_parameter(name, 0.5)

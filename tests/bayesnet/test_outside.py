"""Networks from outside: the samples' own weights give the samples again, and other notations the same network."""

import json
import time

import numpy as np
import pytest
from literal_network import run as run_literally
from small_problems import generic_network, generic_task

import bayesnet as bn
from bayesnet.diagnostics import evaluate_observables
from bayesnet.observables import default_observables
from bayesnet.results import predictive_data

FEW = {"num_warmup": 200, "num_samples": 8, "num_chains": 2, "num_latents": 2, "progress": False}
TASK = bn.tasks.chain(3, 1.5)
RNN = bn.Network.rnn(6, activation="tanh", bias_gain=0.5)


def drawn_weights(network, task, seed=0):
    """A network from its prior, in the parametrisation of the README."""
    rng, n = np.random.default_rng(seed), network.width
    weights = {
        "recurrent": network.recurrent_gain * rng.normal(size=(n, n)) / np.sqrt(n),
        "input": network.input_gain * rng.normal(size=(n, task.input_dim)) / np.sqrt(task.input_dim),
        "readout": network.readout_gain * rng.normal(size=(task.output_dim, n)),
    }
    return weights | ({"bias": network.bias_gain * rng.normal(size=n)} if network.bias_gain else {})


def as_state_dict(weights, width, prefix="rnn."):
    """The same network in the names and the scaling of `torch.nn.RNN` with a linear readout."""
    bias = 0.3 * weights["bias"]
    return {
        f"{prefix}weight_ih_l0": weights["input"],
        f"{prefix}weight_hh_l0": weights["recurrent"],
        f"{prefix}bias_ih_l0": bias,
        f"{prefix}bias_hh_l0": weights["bias"] - bias,
        "fc.weight": weights["readout"] / width,
        "fc.bias": np.zeros(len(weights["readout"])),
    }


def torch_rnn(state, inputs):
    """What `torch.nn.RNN` computes, batch first, and the readout: outputs (patterns, steps, outputs)."""
    hidden, outputs = np.zeros((len(inputs), len(state["rnn.weight_hh_l0"]))), []
    for step in range(inputs.shape[1]):
        now = inputs[:, step] @ state["rnn.weight_ih_l0"].T + state["rnn.bias_ih_l0"]
        hidden = np.tanh(now + hidden @ state["rnn.weight_hh_l0"].T + state["rnn.bias_hh_l0"])
        outputs.append(hidden @ state["fc.weight"].T + state["fc.bias"])
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("scaling", ["mup", "standard"])
def test_weights_of_draws_give_the_draws_again(scaling):
    """Every term of the model: kernels, outputs, densities, groups and latent numbers of a run in weights."""
    network, task, started = generic_network(6, "all", scaling=scaling), generic_task(), time.perf_counter()
    posterior = bn.sample(network, task, "weights", **FEW)
    weights = [bn.draw_weights(posterior, chain, draw) for chain in range(2) for draw in range(2)]
    tree = bn.from_weights(network, task, weights)
    assert 0 < tree.attrs["wall_time"] + posterior.attrs["wall_time"] < time.perf_counter() - started
    assert set(tree.children) == set(posterior.children)
    assert json.loads(tree.attrs["network"]) == json.loads(posterior.attrs["network"])
    kept = posterior["latents"]["latent_draw"].to_numpy()
    for group in ("posterior", "log_likelihood"):
        for name, values in tree[group].data_vars.items():
            expected = posterior[group][name].to_numpy()[:, kept].reshape(values.shape)
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)
    for name, values in tree["latents"].data_vars.items():
        expected = posterior["latents"][name].to_numpy().reshape(values.shape)
        np.testing.assert_allclose(values, expected, atol=1e-12)
    again = bn.draw_weights(tree, 0, 1)
    for name, values in weights[1].items():
        np.testing.assert_allclose(again[name], values, atol=1e-12)
    errors = tree["posterior"]["prediction"].to_numpy()[0].swapaxes(1, 2).reshape(4, task.entries, -1)
    errors = errors[:, task.supervised_entries] - task.supervised_targets
    np.testing.assert_allclose(tree["sample_stats"]["loss"][0], (errors**2).sum((1, 2)) / 2)
    fresh = predictive_data(network, task, tree["posterior"].to_dataset(), 0)
    np.testing.assert_array_equal(tree["posterior_predictive"]["y"], fresh["y"])


def test_state_dicts_and_many_networks():
    """PyTorch's names and scaling, lists, stacked arrays: one tree. Outputs as `torch.nn.RNN` defines them."""
    parts = [drawn_weights(RNN, TASK, seed) for seed in range(3)]
    states = [as_state_dict(one, RNN.width) for one in parts]
    tree = bn.from_weights(RNN, TASK, parts)
    told = np.stack([torch_rnn(state, TASK.inputs) for state in states])
    np.testing.assert_allclose(tree["posterior"]["prediction"][0], told, atol=1e-12)
    stacked = {name: np.stack([one[name] for one in parts])[:, None] for name in ("recurrent", "input", "readout")}
    stacked["bias"] = np.stack([one["bias"] for one in parts])[:, None, :, None]
    for other in (states, stacked):
        same = bn.from_weights(RNN, TASK, other)
        np.testing.assert_allclose(same["posterior"]["kernel"], tree["posterior"]["kernel"], atol=1e-12)
        np.testing.assert_allclose(same["posterior"]["prediction"], tree["posterior"]["prediction"], atol=1e-12)
    assert tree["posterior"].sizes["draw"] == 3
    # V itself beside the names of PyTorch, and readouts in standard scaling.
    rnn_only = {key: value for key, value in states[0].items() if not key.startswith("fc")}
    own = bn.run(RNN, rnn_only | {"readout": parts[0]["readout"]}, TASK)["prediction"]
    np.testing.assert_allclose(own, told[0], atol=1e-12)
    lazy = bn.run(RNN.replace(scaling="standard"), states[0], TASK)["prediction"]
    np.testing.assert_allclose(lazy, told[0], atol=1e-12)


def test_layers_of_a_state_dict():
    """weight_ih_l1 is what the second layer reads of the first."""
    network = bn.Network.rnn(4, activation="relu", layers=2, bias_gain=(0.3, 0.0))
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(2, 3, 2))
    state = {
        f"weight_{into}_l{layer}": rng.normal(size=(4, 2 if (into, layer) == ("ih", 0) else 4))
        for into in ("ih", "hh")
        for layer in range(2)
    }
    state |= {"bias_ih_l0": rng.normal(size=4), "bias_hh_l1": np.zeros(4), "out.weight": rng.normal(size=(3, 4))}
    below, above, outputs = np.zeros((2, 4)), np.zeros((2, 4)), []
    for step in range(3):
        now = x[:, step] @ state["weight_ih_l0"].T + state["bias_ih_l0"]
        below = np.maximum(now + below @ state["weight_hh_l0"].T, 0)
        above = np.maximum(below @ state["weight_ih_l1"].T + above @ state["weight_hh_l1"].T, 0)
        outputs.append(above @ state["out.weight"].T)
    np.testing.assert_allclose(bn.run(network, state, x)["prediction"], np.stack(outputs, axis=1), atol=1e-12)
    with pytest.raises(ValueError, match=r"biases in layer 2, where the network's bias_gain is 0"):
        bn.run(network, state | {"bias_hh_l1": np.ones(4)}, x)


def test_run_is_the_literal_network():
    """Fields, activity and kernel belong together; more steps go on without input, fewer stop earlier."""
    network, task = generic_network(6, "W and V"), generic_task()
    rng = np.random.default_rng(0)
    shapes = {"recurrent": (1, 6, 6), "input": (3, 6, 5), "readout": (1, 2, 6)}
    weights = bn.Weights({name: rng.normal(size=shape) for name, shape in shapes.items()})
    found = bn.run(network, weights, task)
    fields, outputs = run_literally(network, task, weights)
    np.testing.assert_allclose(found["prediction"], outputs, atol=1e-12)
    np.testing.assert_allclose(found["preactivation"], fields, atol=1e-12)
    activity = found["activity"]
    assert activity.dims == ("step", "pattern", "neuron")
    np.testing.assert_allclose(activity, network.phi.function(found["preactivation"].to_numpy()), atol=1e-12)
    gram = np.einsum("tpi,sqi->tpsq", activity, activity) / 6
    np.testing.assert_allclose(found["kernel"], gram, atol=1e-12)
    rnn, x = drawn_weights(RNN, TASK), np.ones((2, 2, 1))
    longer = bn.run(RNN, rnn, x, steps=4)
    silent = np.concatenate([x, np.zeros((2, 2, 1))], axis=1)
    np.testing.assert_array_equal(longer["prediction"], bn.run(RNN, rnn, silent)["prediction"])
    np.testing.assert_allclose(longer["activity"][:2], bn.run(RNN, rnn, x)["activity"], atol=1e-14)
    np.testing.assert_allclose(longer["activity"][:1], bn.run(RNN, rnn, x, steps=1)["activity"], atol=1e-14)


def test_process_noise_is_drawn_where_none_is_given():
    network = RNN.replace(process_noise=0.5)
    weights = drawn_weights(RNN, TASK)
    one, same, other = (bn.run(network, weights, TASK, seed=seed)["preactivation"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    without = bn.run(RNN, weights, TASK)["preactivation"]
    assert 0.2 < float(np.std((one - without)[0])) < 1.0
    tree = bn.from_weights(network, TASK, [weights, weights], seed=3)
    assert tree["latents"]["process_noise"].dims[:2] == ("chain", "latent_draw")
    kernels = tree["posterior"]["kernel"].to_numpy()[0]
    assert not np.allclose(kernels[0], kernels[1])


def test_activations_are_the_weights_seen_from_outside():
    parts = [drawn_weights(RNN, TASK, seed) for seed in range(2)]
    tree = bn.from_weights(RNN, TASK, parts)
    runs = [bn.run(RNN, one, TASK) for one in parts]
    activity = np.stack([one["activity"].transpose("neuron", "step", "pattern") for one in runs])
    outputs = np.stack([one["prediction"] for one in runs])
    seen = bn.from_activations(RNN, TASK, activity, outputs)
    for group in ("posterior", "log_likelihood", "posterior_predictive", "sample_stats"):
        for name, values in seen[group].data_vars.items():
            np.testing.assert_allclose(values, tree[group][name], atol=1e-10, err_msg=name)
    assert "latents" not in seen.children
    assert "recording" not in seen.children
    one = bn.from_activations(RNN, TASK, activity[0], outputs[0, :, :, 0])
    np.testing.assert_allclose(one["posterior"]["kernel"][0, 0], seen["posterior"]["kernel"][0, 0], atol=1e-14)


def test_every_function_takes_the_tree(tmp_path):
    """One network and several: table, saved and loaded, ArviZ, predictions, report."""
    parts = [drawn_weights(RNN, TASK, seed) for seed in range(6)]
    for number in (1, 6):
        tree = bn.from_weights(RNN, TASK, parts[:number])
        table = bn.diagnostics.summarise(tree)
        observables = default_observables(RNN, TASK)
        values = np.stack([v.ravel() for v in evaluate_observables(tree, observables).values()])
        np.testing.assert_allclose(table["mean"], values.mean(axis=1))
        spread = values.std(axis=1, ddof=1) if number > 1 else np.zeros(len(values))
        np.testing.assert_allclose(table["mcse"], spread / np.sqrt(number))
        assert (table["ess_bulk"] == number).all()
        assert (table["r_hat"] == 1).all()
        (gate,) = bn.diagnostics.check_gates(tree, table)
        assert gate.passed
        assert str(number) in gate.detail
        bn.save(tree, tmp_path / "tree.nc")
        assert bn.load(tmp_path / "tree.nc")["posterior"].equals(tree["posterior"])
        assert bn.to_arviz(tree)["posterior"]["kernel"].sizes["draw"] == number
        np.testing.assert_allclose(bn.predict(tree, TASK)["prediction"], tree["posterior"]["prediction"], atol=1e-12)
    report = bn.report(tree, None, tmp_path / "report.html")
    page = report.path.read_text()
    assert report.status == "PLACED"
    assert report.message == "6 network(s) from outside, taken to be independent; no theory to compare with"
    assert "These networks come from outside" in page
    assert "The sampler converged" not in page
    assert "6 network(s) from outside, known by their weights" in page


GOOD = drawn_weights(RNN, TASK)
STATE = as_state_dict(GOOD, RNN.width)
REFUSED = {
    "a number": (3, r"^weights is int; it must be bayesnet.Weights"),
    "no network": ([], r"^weights is empty"),
    "missing": ({k: v for k, v in GOOD.items() if k != "bias"}, r"^weights lacks 'bias'; the network has recurrent"),
    "unknown": (GOOD | {"feedforward": np.ones((6, 6))}, r"^weights has 'feedforward'; the network has recurrent"),
    "shape": (GOOD | {"recurrent": np.ones((5, 6))}, r"^weights\['recurrent'\] has shape \(5, 6\); it must be \(1, 6"),
    "copies": (GOOD | {"recurrent": np.ones((2, 6, 6))}, r"^weights\['recurrent'\] has shape \(2, 6, 6\)"),
    "nan": (GOOD | {"input": np.full((6, 1), np.nan)}, r"^weights\['input'\] is not finite at \(0, 0\)"),
    "complex": (GOOD | {"input": np.ones((6, 1), complex)}, r"^weights\['input'\] has dtype complex128"),
    "one stacked": (GOOD | {"input": np.ones((2, 1, 6, 1))}, r"^weights has the numbers of networks"),
    "second of a list": ([GOOD, GOOD | {"bias": np.ones(5)}], r"^weights\[1\]\['bias'\] has shape \(5,\)"),
    "exploding": (GOOD | {"readout": np.full((1, 6), 1e308)}, r"^weights makes activity that is not finite"),
    "gru": (STATE | {"rnn.weight_ih_l0": np.ones((18, 1))}, r"^weights has 3 gates for each of 6 neurons"),
    "backwards": (STATE | {"rnn.weight_hh_l0_reverse": np.ones((6, 6))}, r"^weights has 'rnn.weight_hh_l0_reverse'"),
    "two layers": (STATE | {"rnn.weight_hh_l1": np.ones((6, 6))}, r"^weights has 2 layer\(s\); the network has 1"),
    "two networks": (STATE | {"b.weight_hh_l0": np.ones((6, 6))}, r"^weights holds several networks, b\., rnn\."),
    "output bias": (STATE | {"fc.bias": np.ones(1)}, r"^weights has a bias of its outputs"),
    "no readout": ({k: v for k, v in STATE.items() if k[0] == "r"}, r"^weights has, besides the recurrent network, no"),
    "two readouts": (STATE | {"other.weight": np.ones((1, 6))}, r"^weights has, besides the recurrent network, 'fc"),
    "more": (STATE | {"scale": np.ones(1)}, r"^weights has 'scale'; nothing in the model corresponds to that"),
}


@pytest.mark.parametrize(("weights", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_weights(weights, words):
    with pytest.raises(ValueError, match=words):
        bn.from_weights(RNN, TASK, weights)


def test_weights_that_the_prior_ties_otherwise_are_refused():
    """A singular correlation: the first two copies of U are one, the third is another."""
    correlation = [[1.0, 0.5, -0.5], [0.5, 1.0, 0.5], [-0.5, 0.5, 1.0]]  # of rank 2
    network = bn.Network.rnn(6, shared={"input": correlation})
    rng = np.random.default_rng(0)
    weights = {"recurrent": rng.normal(size=(6, 6)), "input": rng.normal(size=(3, 6, 1)), "readout": np.ones((1, 6))}
    with pytest.raises(ValueError, match=r"^weights\['input'\] has copies that the network's prior ties"):
        bn.from_weights(network, TASK, weights)
    weights["input"][1] = weights["input"][0] + weights["input"][2]
    assert bn.from_weights(network, TASK, weights)["latents"]["input"].sizes["input_dim_0"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activity": np.ones((1, 6, 2, 1))}, r"^activity has 2 steps \(or sites\) and 1 patterns; network and task"),
        ({"activity": np.ones((1, 7, 3, 1))}, r"^activity has 7 neurons; it must have at least 2 and at most the"),
        ({"activity": np.ones((1, 1, 3, 1))}, r"^activity has 1 neurons"),
        ({"activity": np.full((1, 6, 3, 1), np.inf)}, r"^activity is not finite at \(0, 0, 0, 0\)"),
        ({"outputs": np.ones((1, 3, 1))}, r"^outputs has shape \(1, 3, 1\)"),
        ({"outputs": np.ones((2, 1, 2, 1))}, r"^outputs has shape \(2, 1, 2, 1\); it must be \(2, 1, 3, 1\)"),
        ({"outputs": "none"}, r"^outputs "),
        ({"network": 3}, r"^network is int"),
        ({"task": 3}, r"^task is int"),
        ({"seed": -1}, r"^seed is -1"),
    ],
)
def test_refused_activations(changes, words):
    given = {"network": RNN, "task": TASK, "activity": np.ones((2, 6, 3, 1)), "outputs": np.ones((2, 1, 3, 1))}
    with pytest.raises(ValueError, match=words):
        bn.from_activations(**{**given, **changes})


def test_refused_runs():
    with pytest.raises(ValueError, match=r"^weights are those of 2 networks; run them one at a time"):
        bn.run(RNN, [GOOD, GOOD], TASK)
    with pytest.raises(ValueError, match=r"^steps is 0"):
        bn.run(RNN, GOOD, TASK, steps=0)
    with pytest.raises(ValueError, match=r"^inputs has shape \(3,\)"):
        bn.run(RNN, GOOD, np.ones(3))
    with pytest.raises(ValueError, match=r"^weights\['input'\] has shape \(6, 1\); it must be \(1, 6, 2\)"):
        bn.run(RNN, GOOD, np.ones((1, 3, 2)))

"""Every architecture against the model written down a second time in NumPy, in weights, fields and kernels.

The joint law of kernels, outputs and targets under the prior is what defines the posterior: where it is the same in two
coordinate systems, so is the posterior.
"""

import numpy as np
import pytest

import bayesnet as bn
import theory

P, T, D, OUTPUTS = 2, 3, 2, 2
WIDTH, DRAWS = 8, 6000
GAINS = {"recurrent_gain": 1.2, "input_gain": 0.8, "readout_gain": 1.1, "noise": 0.3, "scaling": "mup"}
MIXED = {"recurrent": 1.0, "input": 0.0, "readout": 1.0, "bias": 1.0}
ARCHITECTURES = {
    "leak": {"leak": 0.5, "shared": MIXED},
    "bias": {"bias_gain": 0.5, "shared": MIXED},
    "bias of its own at each step": {"bias_gain": 0.5, "shared": {"recurrent": 1.0}},
    "process noise": {"process_noise": 0.6, "leak": 0.7},
    "residual": {"residual": 1.0, "shared": {}},
    "two layers": {"layers": 2, "recurrent_gain": (1.2, 0.7), "feedforward_gain": 0.9, "bias_gain": (0.0, 0.4)},
    "two leaky layers, residual": {"layers": 2, "leak": 0.6, "residual": 0.5, "shared": {"recurrent": 1.0}},
    "delay": {"delay": 2},
    "partly shared": {"shared": {"recurrent": 0.5, "input": 0.6, "readout": 0.4}},
    "drift": {"shared": {"recurrent": theory.Drift(1.5), "input": 1.0, "readout": theory.Drift(2.0)}},
}


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    supervised = np.zeros((P, T), bool)
    supervised[:, -1] = supervised[0, 1] = True
    return bn.Task(rng.normal(size=(P, T, D)), rng.normal(size=(P, T, OUTPUTS)), supervised)


def correlated(degree, steps, shape, rng):
    """Standard normal matrices for each step, (steps, *shape), with the correlation that a degree of sharing means."""
    if isinstance(degree, theory.Drift):
        distance = np.abs(np.arange(steps)[:, None] - np.arange(steps))
        root = np.linalg.cholesky(np.exp(-distance / degree.tau))
        return np.tensordot(root, rng.normal(size=(steps, *shape)), 1)
    return np.sqrt(degree) * rng.normal(size=shape) + np.sqrt(1 - degree) * rng.normal(size=(steps, *shape))


def draw_prior(task, number, rng, shared, **settings):
    """Kernels (M, n, n), outputs (M, T P, outputs), targets (M, supervised, outputs) of networks run step by step."""
    s = {**GAINS, "leak": 1.0, "bias_gain": 0.0, "process_noise": 0.0, "layers": 1, "residual": 0.0, "delay": 1}
    s |= {"feedforward_gain": 1.0, **settings}
    layers, n = s["layers"], WIDTH
    gain = {name: np.broadcast_to(s[name], layers) for name in ("recurrent_gain", "bias_gain")}

    def weights(name, rows, columns, deviation):
        return deviation * correlated(shared.get(name, 0.0), T, (number, rows, columns), rng)

    w = [weights("recurrent", n, n, gain["recurrent_gain"][layer] / np.sqrt(n)) for layer in range(layers)]
    z = [weights("feedforward", n, n, s["feedforward_gain"] / np.sqrt(n)) for _ in range(layers - 1)]
    b = [weights("bias", 1, n, gain["bias_gain"][layer]) for layer in range(layers)]
    u = weights("input", n, D, s["input_gain"] / np.sqrt(D))
    v = weights("readout", OUTPUTS, n, s["readout_gain"])
    fields, activities, outputs = {}, [], []
    for t in range(T):
        for layer in range(layers):
            current = b[layer][t] + s["process_noise"] * rng.normal(size=(number, P, n))
            if t >= s["delay"]:
                current = current + s["phi"](fields[t - s["delay"], layer]) @ w[layer][t].swapaxes(1, 2)
            if layer:
                current = current + s["phi"](fields[t, layer - 1]) @ z[layer - 1][t].swapaxes(1, 2)
            else:
                current = current + np.einsum("pd,mid->mpi", task.inputs[:, t], u[t])
            field = s["leak"] * current + (1 - s["leak"]) * fields.get((t - 1, layer), 0.0)
            below = (t, layer - 1) if layers > 1 else (t - 1, 0)
            fields[t, layer] = field + s["residual"] * fields.get(below, 0.0)
            activities.append(s["phi"](fields[t, layer]))
        outputs.append(activities[-1] @ v[t].swapaxes(1, 2) / n)
    activity, f = np.concatenate(activities, axis=1), np.concatenate(outputs, axis=1)
    noise = np.sqrt(s["noise"] / n) * rng.normal(size=(number, len(task.supervised_entries), OUTPUTS))
    return activity @ activity.swapaxes(1, 2) / n, f, f[:, task.supervised_entries] + noise


def moments(kernel, output, target):
    """First and second moments that tell the laws apart, by draw: (M, K)."""
    flat = kernel.reshape(len(kernel), -1)
    both = np.concatenate([output.reshape(len(kernel), -1), target.reshape(len(kernel), -1)], axis=1)
    pairs = (both[:, :, None] * both[:, None, :]).reshape(len(kernel), -1)
    return np.concatenate([flat, np.log(np.einsum("mii->mi", kernel)), flat**2, pairs, flat[:, :1] * pairs], axis=1)


def prior_of(network, task, coordinates):
    tree = bn.sample_prior(network, task, DRAWS, coordinates, seed=3)
    kernel = tree["prior"]["kernel"].to_numpy()[0]
    sites = kernel.shape[1]
    output = tree["prior"]["prediction"].to_numpy()[0].swapaxes(1, 2).reshape(DRAWS, T * P, OUTPUTS)
    target = tree["prior_predictive"]["y"].to_numpy()[0].reshape(DRAWS, -1, OUTPUTS)
    return kernel.reshape(DRAWS, sites * P, sites * P), output, target


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_coordinates_have_the_law_of_the_literal_network(name, activation, task):
    settings = {**GAINS, **ARCHITECTURES[name]}
    width = WIDTH if settings.get("layers", 1) == 1 else 2 * WIDTH
    network = bn.Network.rnn(width, activation=activation, **settings)
    if "shared" in settings:
        network = bn.Network(width, activation, **settings)
    literal = {**settings, "shared": {**dict.fromkeys(theory.network.WEIGHTS, 1.0), **settings.get("shared", {})}}
    if "shared" in settings:
        literal["shared"] = settings["shared"]
    phi = {"linear": lambda x: x, "tanh": np.tanh}[activation]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WIDTH", width)
        expected = moments(*draw_prior(task, DRAWS, np.random.default_rng(5), phi=phi, **literal))
    for coordinates in ["weights", "fields"] + ["kernels"] * (activation == "linear"):
        found = moments(*prior_of(network, task, coordinates))
        error = np.sqrt((found.var(0) + expected.var(0)) / DRAWS)
        gap = np.abs(found.mean(0) - expected.mean(0)) / np.where(error > 0, error, 1)
        assert np.all(gap < 5), (coordinates, gap.max())

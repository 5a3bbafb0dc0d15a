"""The three coordinate systems: one prior, one posterior, and plain NumPyro models."""

from functools import cache
from itertools import product

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import scipy.stats
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, init_to_sample
from numpyro.infer.autoguide import AutoNormal

from bayesnet import Network, Task, draw_weights, models, predict, sample, tasks
from bayesnet.models.kernel_space import LogChi
from bayesnet.models.likelihood import target_density
from bayesnet.models.weight_space import Weights, run_network
from bayesnet.observables import default_observables
from theory.model import build_model

WIDTH, T, D = 8, 3, 2
SHARED = {"rnn": ("recurrent", "input", "readout"), "dnn": (), "partial": ("recurrent", "readout")}
MODELS = {"weights": models.weights, "fields": models.fields, "kernels": models.kernels}
GAINS = {"recurrent_gain": 1.2, "input_gain": 0.8, "readout_gain": 1.5, "noise": 0.2}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def task():
    """Two patterns, two outputs, inputs at every step, three entries supervised."""
    rng = np.random.default_rng(0)
    supervised = np.array([[False, True, True], [False, False, True]])
    return Task(rng.normal(size=(2, T, D)), rng.normal(size=(2, T, 2)), supervised)


def network_of(sharing, width=WIDTH, **settings):
    return Network(width, shared=SHARED[sharing], **{**GAINS, **settings})


@pytest.mark.parametrize("scaling", ["mup", "standard"])
@pytest.mark.parametrize("sharing", SHARED)
def test_recurrence(sharing, scaling, task):
    """h_t = W_t phi(h_{t-1}) + U_t x_t, f_t = V_t phi(h_t) / N (or / sqrt(N)), one pattern and step at a time."""
    network = network_of(sharing, activation="tanh", scaling=scaling)
    rng = np.random.default_rng(1)
    shapes = {"recurrent": (WIDTH, WIDTH), "input": (WIDTH, D), "readout": (2, WIDTH)}
    copies = {name: 1 if name in network.shared else T - (name == "recurrent") for name in shapes}
    weights = Weights({name: rng.normal(size=(copies[name], *shape)) for name, shape in shapes.items()})
    kernel, prediction = run_network(network, task, weights)
    activity = np.zeros((T, 2, WIDTH))
    for mu in range(2):
        for t in range(T):
            w, u, v = (part[0 if len(part) == 1 else t - (part is weights.recurrent)] for part in weights)
            previous = activity[t - 1, mu] if t else np.zeros(WIDTH)
            activity[t, mu] = np.tanh((w @ previous if t else 0) + u @ task.inputs[mu, t])
            f = v @ activity[t, mu] / (WIDTH if scaling == "mup" else np.sqrt(WIDTH))
            np.testing.assert_allclose(prediction[mu, t], f, rtol=1e-12)
    flat = activity.reshape(2 * T, WIDTH)
    np.testing.assert_allclose(kernel, flat @ flat.T / WIDTH, rtol=1e-12)


def prior_draws(name, network, task, number, seed):
    """Kernel (draws, n^2) and y (draws, ...) drawn from the prior, side by side."""
    drawn = Predictive(MODELS[name], num_samples=number, parallel=True)(
        jax.random.key(seed), network, task, observed=False
    )
    return np.concatenate([np.asarray(drawn[site]).reshape(number, -1) for site in ("kernel", "y")], axis=1)


def assert_same_moments(one, other):
    """Means and second moments of independent draws (draws, ...) within 4 combined standard errors."""
    for power in (1, 2):
        a, b = one**power, other**power
        error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        assert np.abs((a.mean(0) - b.mean(0)) / error).max() < 4


@pytest.mark.parametrize(
    ("sharing", "activation", "scaling"),
    [
        pytest.param("rnn", "linear", "mup", marks=pytest.mark.slow),
        pytest.param("dnn", "linear", "mup", marks=pytest.mark.slow),
        # Kernel coordinates are among those of test_architectures.py, with every term of the model.
        pytest.param("partial", "linear", "mup", marks=pytest.mark.slow),
        ("rnn", "tanh", "mup"),
        ("partial", "relu", "standard"),
    ],
)
def test_prior_draws_agree(sharing, activation, scaling, task):
    """Kernels and targets drawn without data have the same moments in all coordinates."""
    network = network_of(sharing, activation=activation, scaling=scaling)
    literal = prior_draws("weights", network, task, 10_000, seed=1)
    assert_same_moments(literal, prior_draws("fields", network, task, 10_000, seed=2))
    if activation == "linear":
        assert_same_moments(literal, prior_draws("kernels", network, task, 10_000, seed=3))


def invariants(posterior, network, task):
    kernel, prediction = (posterior["posterior"][name].to_numpy() for name in ("kernel", "prediction"))
    return {item.label: item.evaluate(kernel, prediction) for item in default_observables(network, task)}


def assert_same_posterior(one, other, network, task):
    """Means and variances of every invariant within 4 combined MCSE, with enough effective draws to tell."""
    first, second = invariants(one, network, task), invariants(other, network, task)
    for label, x in first.items():
        y = second[label]
        for a, b in ((x, y), ((x - x.mean()) ** 2, (y - y.mean()) ** 2)):
            assert min(az.ess(a), az.ess(b)) > 200, label
            error = np.hypot(az.mcse(a, method="mean"), az.mcse(b, method="mean"))
            assert abs(a.mean() - b.mean()) < 4 * error, label


@cache
def chain_posterior(sharing, coordinates):
    """N = 16, T = 3, one pattern, a strong signal; 50 kept draws in each of four chains."""
    length = {"num_warmup": 150, "num_samples": 300} if coordinates == "weights" else {"num_samples": 800}
    settings = {"num_warmup": 200, "num_latents": 50, "seed": 1, "progress": False, **length}
    return sample(network_of(sharing, 16), tasks.chain(T, 3.0), coordinates, **settings)


@pytest.mark.parametrize(
    "sharing", ["rnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dnn", "partial"))]
)
def test_posteriors_agree(sharing):
    """weights, fields and kernels sample the same posterior."""
    literal = chain_posterior(sharing, "weights")
    for coordinates in ("fields", "kernels"):
        other = chain_posterior(sharing, coordinates)
        assert_same_posterior(literal, other, network_of(sharing, 16), tasks.chain(T, 3.0))


def weight_statistics(posterior):
    """Label -> draws (chain, kept draw) of numbers that no permutation of the neurons changes."""
    found = {}
    shape = tuple(posterior["latents"].sizes[axis] for axis in ("chain", "latent_draw"))
    for place in np.ndindex(shape):
        drawn = draw_weights(posterior, *place)
        w, u, v = drawn.recurrent[-1], drawn.input[0, :, 0], drawn.readout[-1, 0]
        numbers = {"tr W": np.trace(w), "tr W^2": np.trace(w @ w), "V U": v @ u, "V W U": v @ w @ u}
        numbers |= {
            f"|{name}|^2": np.sum(x**2) for name, x in {"W": w, "U": u, "V": v, "W U": w @ u, "V W": v @ w}.items()
        }
        for label, number in numbers.items():
            found.setdefault(label, np.empty(shape))[place] = number
    return found


def new_answers(posterior, sharing):
    """Label -> draws (chain, kept draw) of f on a new pattern with input at every step, longer where all is shared."""
    steps = T + 2 if sharing == "rnn" else T
    shown = Task(np.linspace(1, -0.5, steps)[None, :, None], np.zeros((1, steps, 1)))
    f = predict(posterior, shown)["prediction"].to_numpy()[:, :, 0, :, 0]
    return {f"f_{step + 1}": f[..., step] for step in range(steps)}


@pytest.mark.parametrize(
    ("sharing", "coordinates"),
    [
        pytest.param(*case, marks=[] if case == ("rnn", "fields") else pytest.mark.slow)
        for case in product(SHARED, ("fields", "kernels"))
    ],
)
def test_weights_drawn_back_and_their_new_answers_agree_with_sampled_ones(sharing, coordinates):
    """Means of values and of their squares within 4 combined MCSE."""
    literal, other = chain_posterior(sharing, "weights"), chain_posterior(sharing, coordinates)
    first = weight_statistics(literal) | new_answers(literal, sharing)
    second = weight_statistics(other) | new_answers(other, sharing)
    for label, x in first.items():
        for a, b in ((x, second[label]), (x**2, second[label] ** 2)):
            error = np.hypot(az.mcse(a, method="mean"), az.mcse(b, method="mean"))
            assert abs(a.mean() - b.mean()) < 4 * error, label


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARED)  # varies fastest: fields and kernels compile once for all three
@pytest.mark.parametrize("steps", [2, 3, 4])
@pytest.mark.parametrize("patterns", [1, 3])
@pytest.mark.parametrize("width", [16, 64])
def test_posteriors_agree_everywhere(sharing, patterns, steps, width):
    """The same over patterns, steps and widths."""
    network = Network(width, shared=SHARED[sharing])
    inputs = np.random.default_rng(patterns).normal(size=(patterns, 4))
    shown = tasks.chain(steps, 2.0) if patterns == 1 else tasks.endpoint(steps, 2.0, inputs=inputs)
    literal = sample(network, shown, "weights", num_warmup=300, num_samples=1000, seed=1, progress=False)
    for coordinates in ("fields", "kernels"):
        other = sample(network, shown, coordinates, num_warmup=400, num_samples=2000, seed=2, progress=False)
        assert_same_posterior(literal, other, network, shown)


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 200])
def test_kernels_of_forty_entries_are_those_of_fields(width):
    """n = 40: 820 numbers, also at the smallest width there is. Split HMC on fields, NUTS on kernels."""
    network, shown = Network.rnn(width), tasks.endpoint(5, 3.0, patterns=8)
    wide = sample(network, shown, "fields", num_samples=2000, seed=1, sampler="hmc", progress=False)
    assert_same_posterior(
        wide, sample(network, shown, "kernels", num_samples=2000, seed=2, progress=False), network, shown
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARED)
@pytest.mark.parametrize("patterns", [1, 3])
@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_posteriors_of_nonlinear_networks_agree(activation, sharing, patterns, width):
    """fields = weights beyond linear networks, with inputs at every step."""
    rng = np.random.default_rng(3)
    network = Network(width, activation=activation, shared=SHARED[sharing], recurrent_gain=1.4)
    targets = np.full((patterns, T), np.nan)
    targets[:, -1] = rng.normal(size=patterns)
    shown = Task(rng.normal(size=(patterns, T, 4)), targets)
    literal = sample(network, shown, "weights", num_warmup=300, num_samples=1000, seed=1, progress=False)
    other = sample(network, shown, "fields", num_warmup=400, num_samples=2000, seed=2, progress=False)
    assert_same_posterior(literal, other, network, shown)


ONE_FAST = [pytest.param("weights", marks=pytest.mark.slow), "fields", pytest.param("kernels", marks=pytest.mark.slow)]
LATENT = {"weights": "recurrent", "fields": "z", "kernels": "bartlett_lower"}


@pytest.mark.slow  # each compiles for ten seconds; fields run in NumPyro's MCMC in the README too
@pytest.mark.parametrize("name", MODELS)
def test_numpyro_mcmc(name, task):
    """The models run in NumPyro's own MCMC as they are, and Predictive finds the recorded kernel again."""
    network = network_of("rnn")
    nuts = NUTS(MODELS[name], init_strategy=init_to_sample, max_tree_depth=6)
    mcmc = MCMC(nuts, num_warmup=30, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(0), network, task)
    draws = mcmc.get_samples()
    assert draws["kernel"].shape == (20, T, 2, T, 2)
    assert np.isfinite(draws["kernel"]).all()
    assert len(np.unique(draws[LATENT[name]][:, 0])) > 10
    again = Predictive(MODELS[name], draws)(jax.random.key(1), network, task, observed=False)
    np.testing.assert_allclose(again["kernel"], draws["kernel"], rtol=1e-9)
    assert again["y"].shape == (20, 2, 3)


@pytest.mark.parametrize("name", ONE_FAST)
def test_numpyro_svi(name, task):
    """A mean-field guide trains on the models as they are; the loss is finite and falls."""
    network = network_of("rnn")
    guide = AutoNormal(MODELS[name], init_loc_fn=init_to_sample)
    svi = SVI(MODELS[name], guide, numpyro.optim.Adam(0.02), Trace_ELBO())
    losses = np.asarray(svi.run(jax.random.key(0), 100, network, task, progress_bar=False).losses)
    assert np.isfinite(losses).all()
    assert losses[-30:].mean() < losses[:30].mean()


def test_models_in_single_precision(task):
    """Without 64-bit mode the models run in float32, with the same density."""
    network = network_of("rnn")
    z = np.random.default_rng(0).normal(size=(T, 2, WIDTH))

    def log_joint():
        value, trace = numpyro.infer.util.log_density(models.fields, (network, task), {}, {"z": jnp.asarray(z)})
        return value, trace["kernel"]["value"].dtype

    exact, dtype = log_joint()
    assert dtype == np.float64
    with jax.enable_x64(False):
        z = z.astype(np.float32)
        rounded, dtype = log_joint()
    assert dtype == np.float32
    assert rounded == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(64, activation="tanh"), r"activation 'linear', not 'tanh'; use fields"),
        (Network(5), r"width >= steps \* patterns = 6, but width is 5; use fields"),
    ],
)
def test_kernels_refuse(network, message, task):
    """Kernel coordinates need a linear network of width n or more, and name the way out."""
    with pytest.raises(ValueError, match=message):
        numpyro.handlers.seed(models.kernels, jax.random.key(0))(network, task)
    numpyro.handlers.seed(models.kernels, jax.random.key(0))(Network(6), task)


@pytest.mark.parametrize("width", [3, 64, 10**6])
def test_log_chi(width):
    """g = sqrt(2N) ln(R / sqrt(N)) for R chi distributed: density with its Jacobian, unit mass, draws."""
    degrees = width - np.arange(min(width, 3))
    law = LogChi(degrees, width)
    grid = np.linspace(-4, 4, 33)[:, None]
    radius = np.sqrt(width) * np.exp(grid / np.sqrt(2 * width))
    expected = scipy.stats.chi.logpdf(radius, degrees) + np.log(radius / np.sqrt(2 * width))
    np.testing.assert_allclose(law.log_prob(jnp.asarray(grid)), expected, rtol=0, atol=2e-8)
    fine = jnp.linspace(-80, 20, 20_001)[:, None]
    np.testing.assert_allclose(np.exp(law.log_prob(fine)).sum(0) * 100 / 20_000, 1, rtol=0, atol=1e-9)
    draws = np.asarray(law.sample(jax.random.key(0), (2000,)))
    for i, degree in enumerate(degrees):
        square = width * np.exp(draws[:, i] * np.sqrt(2 / width))
        assert scipy.stats.kstest(square, scipy.stats.chi2(degree).cdf).pvalue > 1e-3
    with jax.enable_x64(False):
        single = LogChi(degrees, width).log_prob(jnp.asarray(grid, np.float32))
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-3)


def random_kernel():
    half = np.random.default_rng(4).normal(size=(2 * T, 9))
    return half @ half.T / 9


def target_law(network, task, kernel):
    """Covariance of y_o at the supervised entries, from the definition."""
    same = np.kron(np.eye(T), np.ones((2, 2)))
    readout = network.readout_gain**2 * (1 if "readout" in network.shared else same) * kernel
    rows = task.supervised_entries
    scale = 1 / network.width if network.scaling == "mup" else 1
    return scale * (network.noise * np.eye(len(rows)) + readout[np.ix_(rows, rows)])


@pytest.mark.parametrize("scaling", ["mup", "standard"])
@pytest.mark.parametrize("sharing", ["rnn", "dnn"])
def test_target_density(sharing, scaling, task):
    """ln p(y | Phi) against SciPy, and ln p(y_i | y_-i, Phi) = ln p(y) - ln p(y_-i) for every entry and output."""
    network = network_of(sharing, scaling=scaling)
    kernel, y = random_kernel(), task.supervised_targets
    cov = target_law(network, task, kernel)
    density = target_density(build_model(network, task).on_device(), jnp.asarray(kernel))
    joint = [scipy.stats.multivariate_normal(cov=cov).logpdf(column) for column in y.T]
    assert float(density.joint) == pytest.approx(sum(joint), rel=1e-10)
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        others = scipy.stats.multivariate_normal(cov=cov[np.ix_(rest, rest)])
        for o, column in enumerate(y.T):
            assert float(density.pointwise[i, o]) == pytest.approx(joint[o] - others.logpdf(column[rest]), rel=1e-8)


@pytest.mark.parametrize("name", ["fields", "kernels"])
@pytest.mark.parametrize("sharing", ["rnn", "dnn"])
def test_observed_site(name, sharing, task):
    """Site y carries the marginal likelihood of the targets at the recorded kernel."""
    network = network_of(sharing)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(MODELS[name], jax.random.key(0))).get_trace(network, task)
    kernel = np.asarray(trace["kernel"]["value"]).reshape(2 * T, 2 * T)
    law = scipy.stats.multivariate_normal(cov=target_law(network, task, kernel))
    expected = law.logpdf(task.supervised_targets.T).sum()
    y = trace["y"]
    assert y["is_observed"]
    np.testing.assert_array_equal(y["value"], task.supervised_targets.T)
    assert float(y["fn"].log_prob(y["value"]).sum()) == pytest.approx(expected, rel=1e-10)

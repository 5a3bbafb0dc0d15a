"""Numbers of a network that are sampled with it: against quadrature and literal networks, in all coordinates."""

import json

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from literal_network import draw_prior
from numpyro import handlers
from numpyro.infer.util import log_density
from small_problems import Dense, generic_network, generic_task

import bayesnet as bn
from bayesnet.diagnostics import summarise, summarise_draws
from bayesnet.priors import Priors
from theory.model import build_model
from theory.parameters import network_at

WIDTH, GAINS = 4, {"input_gain": 1.2, "readout_gain": 1.5}
NETWORK, TASK = bn.Network.rnn(WIDTH, **GAINS), bn.tasks.chain(2, 1.3)
PRIORS = {"noise": dist.LogNormal(-0.5, 0.8), "recurrent_gain": dist.Gamma(3.0, 2.0)}
RUN = {"num_warmup": 300, "num_samples": 1000, "seed": 3, "progress": False}


def exact_means():
    """E of functions of noise, gain and the last kernel given y, by quadrature over the noise, the gain and the two
    chi-squared numbers that make the kernel of a linear network: Phi_11 = gu^2 s_1, Phi_22 = gw^2 Phi_11 s_2."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    share, weights = (nodes + 1) / 2, weights / 2  # quantiles of each variable
    noise = np.exp(-0.5 + 0.8 * scipy.special.ndtri(share))
    gain = scipy.stats.gamma(3.0, scale=0.5).ppf(share)
    chi = scipy.stats.chi2(WIDTH).ppf(share) / WIDTH
    k, g, one, two = np.meshgrid(noise, gain, chi, chi, indexing="ij", sparse=True)
    kernel = g**2 * 1.2**2 * one * two
    variance = (k + 1.5**2 * kernel) / WIDTH
    likelihood = np.exp(-(1.3**2) / (2 * variance)) / np.sqrt(variance)
    joint = np.einsum("abcd,a,b,c,d->abcd", likelihood, *[weights] * 4)
    joint /= joint.sum()
    values = {"log noise": np.log(k), "noise": k, "gain": g, "gain squared": g**2, "log kernel": np.log(kernel)}
    return {name: float(np.sum(value * joint)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("coordinates", "sampler"),
    [
        ("kernels", "nuts"),
        ("fields", "hmc"),
        pytest.param("fields", "nuts", marks=pytest.mark.slow),
        pytest.param("weights", "nuts", marks=pytest.mark.slow),
    ],
)
def test_posterior_of_noise_and_gain_is_that_of_quadrature(coordinates, sampler):
    posterior = bn.sample(NETWORK, TASK, coordinates, sampler=sampler, priors=PRIORS, **RUN)["posterior"]
    noise, gain = (posterior[name].to_numpy() for name in ("noise", "recurrent_gain"))
    kernel = posterior["kernel"].to_numpy()[:, :, 1, 0, 1, 0]
    found = {"log noise": np.log(noise), "noise": noise, "gain": gain, "gain squared": gain**2}
    table = summarise_draws({**found, "log kernel": np.log(kernel)})
    exact = exact_means()
    z = (table["mean"] - np.array([exact[name] for name in table.index])) / table["mcse"]
    assert z.abs().max() < 4, table.assign(z=z)
    # The prior is another law, so that agreement means something.
    assert exact["gain"] - 1.5 > 4 * table.loc["gain", "mcse"]
    assert table["mcse"].max() < 0.1


@pytest.mark.parametrize(
    ("name", "coordinates"),
    [
        ("shared.recurrent", "weights"),
        pytest.param("shared.readout", "fields", marks=pytest.mark.slow),
        pytest.param("leak", "fields", marks=pytest.mark.slow),
    ],
)
def test_posterior_of_sharing_and_leak_is_that_of_literal_networks(name, coordinates):
    """Every term of the model; evidence at 12 values from literal prior networks, quadrature over the value."""
    network, task = generic_network(4, "all", noise=1.0), generic_task(signal=0.7)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    rng, evidence, errors = np.random.default_rng(0), [], []
    for value in (nodes + 1) / 2:
        here = network_at(network, {name: float(value)})
        kernels, _, _ = draw_prior(here, task, 12_000, rng)
        likelihood = np.exp(Dense(here, task).log_likelihood(kernels))
        evidence.append(likelihood.mean())
        errors.append(likelihood.std() / np.sqrt(likelihood.size))
    theta = (nodes + 1) / 2
    density = weights * np.array(evidence) / (weights @ evidence)
    mean = theta @ density
    error = np.linalg.norm((theta - mean) * weights * errors) / (weights @ evidence)
    prior = {name: dist.Uniform(0.0, 1.0)}
    posterior = bn.sample(network, task, coordinates, priors=prior, **RUN)["posterior"]
    row = summarise_draws({name: posterior[name].to_numpy()}).loc[name]
    assert abs(row["mean"] - mean) < 4 * np.hypot(row["mcse"], error)
    assert np.hypot(row["mcse"], error) < 0.025


@pytest.mark.parametrize("model", [bn.models.weights, bn.models.fields, bn.models.kernels])
def test_models_take_parameters(model):
    """A model of the user's own may hand them in: the density is that of the network with these values."""
    network, task = bn.Network.rnn(8), generic_task()
    values = {"noise": 0.2, "leak": 0.6, "bias_gain": 0.4, "recurrent_gain": 1.3}
    with jax.enable_x64(True):

        def own(values):
            model(network, task, parameters=values)

        seeded = handlers.seed(model, 0)
        sites = handlers.trace(seeded).get_trace(network_at(network, values), task)
        drawn = {name: s["value"] for name, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
        expected = log_density(model, (network_at(network, values), task), {}, drawn)[0]
        found = jax.jit(lambda values: log_density(own, (values,), {}, drawn)[0])(values)
        assert float(found) == pytest.approx(float(expected), rel=1e-10)


@pytest.fixture(scope="module")
def trees_and_task():
    """Short runs with priors on noise, leak and a degree of sharing, in fields and in weights."""
    priors = {"noise": dist.HalfNormal(0.5), "leak": dist.Beta(2.0, 2.0), "shared.input": dist.Beta(1.0, 1.0)}
    network, task = bn.Network.rnn(8), generic_task()
    run = {"num_warmup": 200, "num_samples": 40, "num_chains": 2, "num_latents": 2, "progress": False}
    run |= {"sampler": "hmc", "priors": priors}
    return {name: bn.sample(network, task, name, **run) for name in ("fields", "weights")}, task


def test_trees_hold_the_parameters(trees_and_task, tmp_path):
    trees, task = trees_and_task
    for tree in trees.values():
        assert set(json.loads(tree.attrs["priors"])) == {"noise", "leak", "shared.input"}
        for name in ("noise", "leak", "shared.input"):
            assert tree["posterior"][name].dims == ("chain", "draw")
            assert tree["latents"][name].dims == ("chain", "latent_draw")
            kept = tree["latents"]["latent_draw"].to_numpy()
            np.testing.assert_array_equal(tree["latents"][name], tree["posterior"][name][:, kept])
        table = summarise(tree)
        assert table.index[:3].tolist() == ["leak", "noise", "shared.input"]
        bn.save(tree, tmp_path / "tree.nc")
        assert bn.load(tmp_path / "tree.nc")["posterior"].equals(tree["posterior"])
        assert set(bn.to_arviz(tree)["posterior"].data_vars) >= {"noise", "leak", "shared.input", "kernel"}
        # New targets are drawn with each draw's own noise.
        means = tree["posterior"]["prediction"].to_numpy().swapaxes(2, 3)
        means = means.reshape(*means.shape[:2], task.entries, -1)[:, :, task.supervised_entries]
        gap = tree["posterior_predictive"]["y"].to_numpy().reshape(means.shape) - means
        scaled = gap / np.sqrt(tree["posterior"]["noise"].to_numpy()[..., None, None] / 8)
        assert 0.85 < scaled.std() < 1.15


def test_weights_of_draws_have_the_parameters_of_their_draw(trees_and_task):
    """They make the kernel of the draw; in weights also its outputs, which `predict` gives too."""
    trees, task = trees_and_task
    for name, tree in trees.items():
        predicted = bn.predict(tree, task)["prediction"].to_numpy()
        for chain, draw in np.ndindex(2, 2):
            at = int(tree["latents"]["latent_draw"][draw])
            values = {p: float(tree["latents"][p][chain, draw]) for p in ("noise", "leak", "shared.input")}
            network = network_at(bn.Network.rnn(8), values)
            found = bn.run(network, bn.draw_weights(tree, chain, draw), task)
            stored = tree["posterior"].to_dataset().isel(chain=chain, draw=at)
            np.testing.assert_allclose(found["kernel"], stored["kernel"], atol=1e-8)
            fields = bn.draw_fields(tree, chain, draw)
            np.testing.assert_allclose(found["preactivation"], fields, atol=1e-8)
            np.testing.assert_allclose(predicted[chain, draw], found["prediction"], atol=1e-8)
            if name == "weights":
                np.testing.assert_allclose(found["prediction"], stored["prediction"], atol=1e-8)


def test_what_needs_fixed_numbers_is_refused(trees_and_task, tmp_path):
    trees, task = trees_and_task
    lazy = bn.theory.nngp(bn.Network.rnn(8), task)
    with pytest.raises(ValueError, match=r"^posterior has priors on leak, noise, shared.input, a solution has values"):
        bn.compare(trees["fields"], lazy)
    with pytest.raises(ValueError, match=r"^posterior has priors on leak, noise, shared.input; its evidence needs"):
        bn.log_evidence(trees["fields"])
    page = bn.report(trees["fields"], None, tmp_path / "r.html").path.read_text()
    assert "Numbers of the network" in page
    assert "median and central 90%: leak 0." in page
    assert "Error" not in page


def test_prior_draws_with_their_parameters():
    priors = {"noise": dist.LogNormal(-1.0, 0.5), "recurrent_gain": dist.Gamma(3.0, 2.0)}
    tree = bn.sample_prior(NETWORK, TASK, 4000, "kernels", seed=1, priors=priors)
    noise, gain = (tree["prior"][name].to_numpy()[0] for name in ("noise", "recurrent_gain"))
    assert scipy.stats.kstest(np.log(noise), scipy.stats.norm(-1, 0.5).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(gain, scipy.stats.gamma(3, scale=0.5).cdf).pvalue > 1e-3
    kernel = tree["prior"]["kernel"].to_numpy()[0, :, 1, 0, 1, 0]
    # E Phi_22 / gw^2 = gu^2, whatever the gain.
    ratio = kernel / gain**2
    assert abs(ratio.mean() - 1.44) < 4 * ratio.std() / np.sqrt(4000)
    gap = tree["prior_predictive"]["y"].to_numpy()[0, :, 0] - tree["prior"]["prediction"].to_numpy()[0, :, 0, 1, 0]
    assert scipy.stats.kstest(gap / np.sqrt(noise / WIDTH), "norm").pvalue > 1e-3


def test_runs_go_on_from_checkpoints(tmp_path):
    # The warm-up of `RUN`, whose program serves here too.
    run = {**RUN, "num_samples": 50, "num_chains": 1, "priors": PRIORS}
    first = bn.sample(NETWORK, TASK, "kernels", checkpoint=tmp_path / "c", **run)
    again = bn.sample(NETWORK, TASK, "kernels", checkpoint=tmp_path / "c", **run)
    assert again["posterior"].equals(first["posterior"])
    other = {**PRIORS, "noise": dist.LogNormal(-0.5, 0.9)}
    with pytest.raises(ValueError, match=r"^checkpoint .*another run"):
        bn.sample(NETWORK, TASK, "kernels", checkpoint=tmp_path / "c", **{**run, "priors": other})


def test_white_laws():
    """The law of theta is the prior's, whatever its scale, and its latent has the size of one."""
    laws = {"noise": dist.LogNormal(-7.0, 0.1), "recurrent_gain": dist.HalfCauchy(2.0), "leak": dist.Beta(0.5, 3.0)}
    priors = Priors(NETWORK, TASK, laws)
    with jax.enable_x64(True):
        for name, law in priors.laws.items():
            white = np.asarray(law.sample(jax.random.key(1), (20_000,)))
            assert abs(np.median(white)) < 0.05
            assert 0.9 < np.subtract(*np.quantile(white, [0.75, 0.25])) / 1.349 < 1.1
            grid = np.linspace(-12, 12, 20_001)
            height = np.exp(np.asarray(law.log_prob(grid)))
            inside = np.trapezoid(height, grid)
            assert inside == pytest.approx(1, abs=2e-3), name
            below = np.trapezoid(np.where(grid < 0.7, height, 0), grid)
            assert below == pytest.approx(float(np.mean(white < 0.7)), abs=0.02)
    assert priors.network.noise == pytest.approx(np.exp(-7), rel=0.01)
    same = Priors(NETWORK, TASK, {"leak": dist.Beta(0.5, 3.0), **{k: laws[k] for k in ("noise", "recurrent_gain")}})
    assert (same, hash(same)) == (priors, hash(priors))
    assert Priors(NETWORK, TASK, {**laws, "leak": dist.Beta(0.5, 3.1)}) != priors


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        (3, r"^priors is 3; it must map names of parameters"),
        ({}, r"^priors is \{\}"),
        ({"kappa": dist.LogNormal()}, r"^priors: 'kappa' is no parameter of the network; it has recurrent_gain, "),
        ({"noise": 0.1}, r"^priors\['noise'\] is float; it must be a NumPyro distribution"),
        (
            {"noise": dist.Normal(1.0, 0.1)},
            r"^priors\['noise'\] is Normal\(loc=1, scale=0.1\), with values from -",
        ),
        ({"leak": dist.LogNormal()}, r"^priors\['leak'\] is LogNormal.* it must be from 0 to 1"),
        ({"shared.input": dist.Uniform(-1.0, 1.0)}, r"^priors\['shared.input'\] is Uniform\(low=-1, high=1\), with"),
        ({"noise": dist.Poisson(3.0)}, r"^priors\['noise'\] is Poisson\(rate=3\); it must be continuous"),
        ({"noise": dist.LogNormal(np.zeros(2), 1.0)}, r"^priors\['noise'\] is LogNormal.*of a single number"),
        ({"noise": dist.Delta(0.1)}, r"^priors\['noise'\] is Delta"),
    ],
)
def test_refused_priors(priors, words):
    for function in (bn.sample, bn.sample_prior):
        with pytest.raises(ValueError, match=words):
            function(NETWORK, TASK, priors=priors)


def test_langevin_takes_no_priors():
    with pytest.raises(ValueError, match=r"^sampler is 'langevin', which trains the weights"):
        bn.sample(NETWORK, TASK, sampler="langevin", priors=PRIORS)


@pytest.mark.slow
@pytest.mark.parametrize("coordinates", ["kernels", "fields", "weights"])
def test_calibration_over_noise_gain_and_sharing(coordinates):
    """Simulation-based calibration: parameters drawn from their priors, targets from literal networks with them; ranks
    of the truth among 31 posterior draws are uniform (chi-squared over 8 bins), for each parameter and the last kernel.
    """
    simulations, ranked, thin, bins = 160, 31, 12, 8
    priors = {**PRIORS, "shared.recurrent": dist.Beta(1.0, 1.0)}
    drawn = bn.sample_prior(NETWORK, bn.tasks.chain(3, 1.0), simulations, "kernels", seed=5, priors=priors)["prior"]
    truth = {name: drawn[name].to_numpy()[0] for name in priors}
    rng, ranks = np.random.default_rng(1), {name: [] for name in (*priors, "kernel")}
    settings = {"num_warmup": 300, "num_samples": ranked * thin, "num_chains": 1, "progress": False, "anneal": False}
    for number in range(simulations):
        here = network_at(NETWORK, {name: float(values[number]) for name, values in truth.items()})
        kernels, _, targets = draw_prior(here, bn.tasks.chain(3, 1.0), 1, rng)
        task = bn.tasks.chain(3, float(targets[0, 0, 0]))
        posterior = bn.sample(NETWORK, task, coordinates, priors=priors, seed=number, **settings)["posterior"]
        true = {**{name: float(values[number]) for name, values in truth.items()}, "kernel": kernels[0, -1, -1]}
        found = {name: posterior[name].to_numpy()[0] for name in priors}
        found["kernel"] = posterior["kernel"].to_numpy()[0, :, -1, 0, -1, 0]
        for name, draws in found.items():
            ranks[name].append(int((draws[thin - 1 :: thin] < true[name]).sum()))
    for name, values in ranks.items():
        counts = np.bincount(np.array(values) * bins // (ranked + 1), minlength=bins)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3 / len(ranks), (name, counts)


def test_targets_do_not_enter_the_compiled_program():
    """The model of a run with priors takes its targets from its argument."""
    from bayesnet.models.coordinates import build_coordinates

    priors = Priors(NETWORK, TASK, PRIORS)
    space = build_coordinates("kernels", priors.network, bn.tasks.chain(2, 0.0), priors)
    with jax.enable_x64(True):
        sites = handlers.trace(handlers.seed(space.model, 0)).get_trace(build_model(priors.network, TASK))
        assert float(sites["y"]["value"][0, 0]) == 1.3

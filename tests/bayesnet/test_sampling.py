"""sample: what it returns, that it can be repeated, and that it agrees with the theory where that is exact."""

import functools
import json
import re

import arviz as az
import jax
import jax.monitoring
import numpy as np
import pytest
import scipy.stats
import tqdm
import xarray as xr
from numpyro.infer.util import log_density

from bayesnet import Network, Task, Tuning, results, sample, sample_prior, sampling, tasks
from bayesnet.models.coordinates import build_coordinates
from bayesnet.observables import default_observables
from bayesnet.samplers import chains, engine
from theory.causal import propagate
from theory.model import build_model

P, T, D, OUTPUTS = 2, 3, 2, 2
TANH = Network(8, activation="tanh", recurrent_gain=1.3, noise=0.2)
SHORT = {"num_warmup": 40, "num_samples": 30, "num_chains": 2, "num_latents": 3, "progress": False}
WIDE = Network.rnn(100_000)
LONG = {"num_warmup": 200, "num_samples": 1500, "progress": False}
COMPILATIONS = []


@pytest.fixture(scope="module", autouse=True)
def _count_compilations():
    def listen(event, duration, **details):
        if "backend_compile" in event:
            COMPILATIONS.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)


def task_of(seed=0, inputs_from=0):
    """Two patterns and outputs, inputs at every step from ``inputs_from`` on, three entries supervised."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(P, T, D))
    inputs[:, :inputs_from] = 0
    supervised = np.array([[False, True, True], [False, False, True]])
    return Task(inputs, rng.normal(size=(P, T, OUTPUTS)), supervised)


@pytest.fixture(scope="module")
def posterior():
    """Fields of a small tanh network."""
    return sample(TANH, task_of(), seed=1, **SHORT)


@pytest.fixture(scope="module")
def wide():
    """The chain above the transition (docs/reference_numbers.md) in kernel coordinates, N = 100 000."""
    return sample(WIDE, tasks.chain(3, 4.3), seed=1, **LONG)


def assert_identical(one, other, group="posterior"):
    for name, values in one[group].data_vars.items():
        np.testing.assert_array_equal(values, other[group][name], err_msg=name)


def test_structure(posterior):
    """Groups, dims, coordinates and attributes as the docstring of `sample` says."""
    kernel = ("chain", "draw", "step", "pattern", "step_bis", "pattern_bis")
    scalar = ("chain", "draw")
    expected = {
        "posterior": {
            "kernel": kernel,
            "overlap": kernel,
            "prediction": ("chain", "draw", "pattern", "step", "output"),
            "log_likelihood_marginal": scalar,
        },
        "posterior_predictive": {"y": ("chain", "draw", "observation")},
        "sample_stats": dict.fromkeys(
            ["acceptance_rate", "n_steps", "tree_depth", "diverging", "energy", "lp", "step_size"], scalar
        ),
        "log_likelihood": {"y": ("chain", "draw", "observation")},
        "observed_data": {"y": ("observation",)},
        "constant_data": {
            "inputs": ("pattern", "step", "input_dim"),
            "targets": ("pattern", "step", "output"),
            "supervised": ("pattern", "step"),
            "has_input": ("pattern", "step"),
        },
        "latents": {"z": ("chain", "latent_draw", "z_dim_0", "z_dim_1", "z_dim_2")},
    }
    assert isinstance(posterior, xr.DataTree)
    assert set(posterior.children) == set(expected)
    for group, variables in expected.items():
        assert {name: values.dims for name, values in posterior[group].data_vars.items()} == variables
    group = posterior["posterior"]
    sizes = {"chain": 2, "draw": 30, "step": T, "pattern": P, "output": OUTPUTS, "step_bis": T, "pattern_bis": P}
    assert dict(group.sizes) == sizes
    for name, size in sizes.items():
        first = 0 if name in ("chain", "draw") else 1
        assert group[name].values.tolist() == list(range(first, first + size))
    assert all(values.dtype == np.float64 for values in group.data_vars.values())
    assert set(posterior.attrs) == {"network", "settings", "seed", "versions", "device", "wall_time"}
    assert Network.from_dict(json.loads(posterior.attrs["network"])) == TANH
    settings = json.loads(posterior.attrs["settings"])
    assert settings["coordinates"] == "fields"
    assert settings["num_samples"] == 30
    assert posterior.attrs["seed"] == 1
    assert "jax" in json.loads(posterior.attrs["versions"])


def test_contents(posterior):
    """Overlap, likelihoods, observations and constant data follow from the task and the kernels."""
    task, group = task_of(), posterior["posterior"]
    kernel = group["kernel"].values.reshape(60, P * T, P * T)
    deviation = np.sqrt(np.einsum("kii->ki", kernel))
    overlap = kernel / deviation[:, :, None] / deviation[:, None, :]
    np.testing.assert_allclose(group["overlap"].values.reshape(kernel.shape), overlap, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(kernel, kernel.transpose(0, 2, 1))
    rows, y = task.supervised_entries, task.supervised_targets
    cov = (0.2 * np.eye(3) + kernel[:, rows][:, :, rows]) / TANH.width
    quadratic = np.einsum("io,kij,jo->k", y, np.linalg.inv(cov), y)
    joint = -(quadratic + OUTPUTS * np.linalg.slogdet(2 * np.pi * cov)[1]) / 2
    np.testing.assert_allclose(group["log_likelihood_marginal"].values.ravel(), joint, rtol=1e-9)
    precision = np.linalg.inv(cov)
    variance = 1 / np.einsum("kii->ki", precision)[:, :, None]
    error = variance * (precision @ y)
    pointwise = -(error**2 / variance + np.log(2 * np.pi * variance)) / 2
    found = posterior["log_likelihood"]["y"].values.reshape(pointwise.shape)
    np.testing.assert_allclose(found, pointwise, rtol=1e-9, atol=1e-9)
    observed = posterior["observed_data"]
    for value, step, pattern, output in zip(
        observed["y"].values,
        *(observed[f"observation_{name}"].values for name in ("step", "pattern", "output")),
        strict=True,
    ):
        assert task.targets[pattern - 1, step - 1, output - 1] == value
        assert task.supervised[pattern - 1, step - 1]
    constant = posterior["constant_data"]
    assert Task(*(constant[name].values for name in ("inputs", "targets", "supervised"))) == task
    stats = posterior["sample_stats"]
    assert (2 ** stats["tree_depth"] > stats["n_steps"]).all()
    assert (2 ** (stats["tree_depth"] - 1) <= stats["n_steps"]).all()


def test_latents_reproduce_their_kernels(posterior):
    """The white noise kept for some draws leads to the kernels stored for those draws."""
    latents = posterior["latents"]
    assert latents["latent_draw"].values.tolist() == [9, 19, 29]
    with jax.enable_x64(True):
        model = build_model(TANH, task_of()).on_device()
        for chain, latent in np.ndindex(2, 3):
            z = latents["z"].values[chain, latent].reshape(T * P, TANH.width)
            kernel = np.asarray(propagate(model, z, TANH.phi.function, TANH.width).kernel)
            stored = posterior["posterior"]["kernel"].values[chain, latents["latent_draw"].values[latent]]
            np.testing.assert_allclose(stored.reshape(kernel.shape), kernel, rtol=1e-12, atol=1e-12)


def test_the_log_density_is_that_of_the_latents(posterior, wide):
    """Of fields written out, white noise and likelihood; of kernels that of NumPyro, with frames and their walls."""
    z, drawn = posterior["latents"]["z"].values, posterior["latents"]["latent_draw"].values
    prior = scipy.stats.norm.logpdf(z).sum(axis=(2, 3, 4))
    likelihood = posterior["posterior"]["log_likelihood_marginal"].values[:, drawn]
    np.testing.assert_allclose(posterior["sample_stats"]["lp"].values[:, drawn], prior + likelihood, rtol=1e-9)
    with jax.enable_x64(True):
        model = build_model(WIDE, tasks.chain(3, 4.3)).on_device()
        density = build_coordinates("kernels", WIDE, tasks.chain(3, 4.3)).model
        for chain, latent in np.ndindex(2, 2):
            latents = {name: values.values[chain, latent] for name, values in wide["latents"].data_vars.items()}
            found = wide["sample_stats"]["lp"].values[chain, wide["latents"]["latent_draw"].values[latent]]
            assert found == pytest.approx(float(log_density(density, (model,), {}, latents)[0]), rel=1e-9)


def test_kept_fields_and_weights_reproduce_their_kernels():
    """Every tenth draw; the fields run forth from the weights, and their kernel is the one stored for the draw."""
    tree = sample(TANH, task_of(), seed=1, **{**SHORT, "keep": ["weights", "fields"], "thin": 10})
    assert tree["fields"]["latent_draw"].values.tolist() == [9, 19, 29]
    task, shape = task_of(), (T * P, T * P)
    for chain, position in np.ndindex(2, 3):
        place = {"chain": chain, "latent_draw": position}
        h = tree["fields"]["preactivation"][place].values
        activity = np.tanh(h).reshape(T * P, -1)
        stored = tree["posterior"]["kernel"].values[chain, 10 * position + 9].reshape(shape)
        np.testing.assert_allclose(activity @ activity.T / TANH.width, stored, rtol=1e-11)
        w, u = (tree["weights"][name][place].values[0] for name in ("recurrent", "input"))
        again = np.tanh(h[0]) @ w.T + task.inputs[:, 1] @ u.T
        np.testing.assert_allclose(again, h[1], rtol=1e-9, atol=1e-9)


def test_posterior_predictive_is_the_prediction_with_noise(posterior):
    """At the supervised entries, in the order of the observations, with variance kappa / N."""
    group, task = posterior["posterior_predictive"]["y"], task_of()
    f = posterior["posterior"]["prediction"].values
    step, pattern, output = (group[f"observation_{name}"].values - 1 for name in ("step", "pattern", "output"))
    noise = group.values - f[:, :, pattern, step, output]
    variance, number = TANH.noise / TANH.width, noise.size
    assert task.supervised[pattern, step].all()
    assert abs((noise**2).mean() / variance - 1) < 4 * np.sqrt(2 / number)
    assert abs(noise.mean()) < 4 * np.sqrt(variance / number)


def test_progress_shows_the_time_left_step_size_and_acceptance(capsys, monkeypatch):
    monkeypatch.setattr(sampling, "progress_bar", functools.partial(tqdm.tqdm, mininterval=0, miniters=1))
    sample(TANH, task_of(), seed=1, **{**SHORT, "progress": True})
    shown = capsys.readouterr().err
    assert "sampling fields: 100%" in shown
    assert re.search(r"\d+/140 \[\d\d:\d\d<\d\d:\d\d, .*draw/s, step size=0\.\d+, acceptance=[01]\.\d\d\]", shown)


def explosive(x):
    """Overflows beyond |x| of about ten."""
    return jax.numpy.exp(8 * x**2)


@pytest.mark.parametrize(
    ("sampler", "num_warmup", "where"), [("nuts", 40, r"warm-up, likelihood weight 0\.01"), ("hmc", 0, "draw 0")]
)
def test_densities_that_are_not_finite_stop_the_run(sampler, num_warmup, where):
    """The message names the chain, the draw and the likely cause."""
    network, task = Network(8, activation=explosive), task_of()
    task = Task(100 * task.inputs, task.targets, task.supervised)
    with pytest.raises(FloatingPointError, match=rf"not finite in chain \d at {where}; likely cause: an activation"):
        sample(network, task, sampler=sampler, **{**SHORT, "num_warmup": num_warmup})


def test_the_chain_that_fails_is_named(monkeypatch):
    """Not the first one, which is only stopped."""
    check = chains._check_finite

    def failing(draws, name, block, settings):
        if name == "chain 1" and block.first > 5:
            draws["lp"] = draws["lp"] * np.nan
        check(draws, name, block, settings)

    monkeypatch.setattr(chains, "_check_finite", failing)
    with pytest.raises(FloatingPointError, match=r"^the log density is not finite in chain 1 at draw 10; likely"):
        sample(TANH, task_of(), **SHORT)


def test_same_seed_same_draws(posterior):
    """Bitwise, whether chains run side by side or one after the other; another seed, or chain, gives other draws."""
    again = sample(TANH, task_of(), seed=1, **SHORT)
    sequential = sample(TANH, task_of(), seed=1, chain_method="sequential", **SHORT)
    other = sample(TANH, task_of(), seed=2, **SHORT)
    for group in ("posterior", "sample_stats", "log_likelihood", "latents"):
        assert_identical(posterior, again, group)
        assert_identical(posterior, sequential, group)
    kernel = posterior["posterior"]["kernel"].values
    assert (kernel != other["posterior"]["kernel"].values).all()
    assert (kernel[0] != kernel[1]).all()


def test_one_compilation_for_all_networks_tasks_and_seeds(posterior):
    """Gains, scaling, seeds, sharing, inputs and targets of the same shape, lengths: nothing compiles anew where the
    same steps are tied, all or none of them."""
    sample(TANH.replace(shared=()), task_of(), **SHORT)
    before = jax.config.jax_enable_x64
    changes = [
        (TANH.replace(shared=()), task_of(3), {"seed": 4}),
        (TANH.replace(shared=("input",), readout_gain=2.0, noise=1.0, scaling="standard"), task_of(5), {}),
        (TANH, task_of(6), {"num_samples": 55, "num_latents": 2}),
    ]
    COMPILATIONS.clear()
    for network, task, settings in changes:
        sample(network, task, **{**SHORT, **settings})
    assert COMPILATIONS == []
    assert jax.config.jax_enable_x64 == before
    sample(TANH.replace(width=9), task_of(), **SHORT)
    assert COMPILATIONS  # the count counts


def test_steps_without_input():
    """Entries that no input has reached: kernel and overlap zero, has_input False, neither NaN nor warning."""
    late = sample(TANH, task_of(inputs_from=1), seed=1, **SHORT)
    group = late["posterior"]
    assert np.isfinite(group.to_dataset().to_array()).all()
    for name in ("kernel", "overlap", "prediction"):
        assert not group[name].sel(step=1).values.any()
        assert group[name].sel(step=2).values.any()
    np.testing.assert_array_equal(late["constant_data"]["has_input"], [[False, True, True]] * P)
    assert np.isfinite(late["sample_stats"].to_dataset().to_array()).all()


def invariants(tree, network, task):
    kernel, prediction = (tree["posterior"][name].values for name in ("kernel", "prediction"))
    return {item.label: item.evaluate(kernel, prediction) for item in default_observables(network, task)}


def test_wide_chain_agrees_with_theory(wide):
    """N = 100 000, where the bias of order 1/N is negligible: kernels, overlaps and f, within 4 MCSE."""
    draws = invariants(wide, WIDE, tasks.chain(3, 4.3))
    assert not wide["sample_stats"]["diverging"].any()
    truth = {
        "kernel[t=1, mu=1]": 2.26299,
        "kernel[t=2, mu=1]": 5.71627,
        "kernel[t=3, mu=1]": 14.43917,
        "overlap^2[t=1,2, mu=1]": 0.340901**2,
        "overlap^2[t=2,3, mu=1]": 0.610817**2,
        "overlap[t=1,3, mu=1]": 0.208228,
        "prediction[t=3, mu=1, o=1]": 4.270425,
    }
    for label, value in truth.items():
        error = float(az.mcse(draws[label], method="mean"))
        assert abs(draws[label].mean() - value) < 4 * error, label
        assert error < 0.01 * value, label


@pytest.mark.parametrize(
    "change",
    [{"precision": "float32"}, pytest.param({"chain_method": "vectorized"}, marks=pytest.mark.slow)],
    ids=["float32", "vectorized"],
)
def test_other_ways_to_run_agree(wide, change):
    """float32 and chains in lockstep sample the same posterior: means within 4 combined MCSE."""
    task = tasks.chain(3, 4.3)
    other = sample(WIDE, task, seed=2, **{**LONG, **change})
    if "precision" in change:
        assert other["posterior"]["kernel"].dtype == np.float32
    one, two = invariants(wide, WIDE, task), invariants(other, WIDE, task)
    for label, x in one.items():
        y = two[label].astype(float)
        error = np.hypot(az.mcse(x, method="mean"), az.mcse(y, method="mean"))
        assert abs(x.mean() - y.mean()) < 4 * error, label


def nonlinear(x):
    """An activation that can be found again."""
    return jax.numpy.sin(x)


LANGEVIN = {"sampler": "langevin", "coordinates": "weights"}
BAD = [
    *(("coordinates", value) for value in ("kernel", "", None, 3, ["fields"], "kernels")),
    *(("num_warmup", value) for value in (-1, 2.0, True, "3", None)),
    *((name, value) for name in ("num_samples", "num_chains", "num_latents", "max_tree_depth") for value in (0, 1.0)),
    *(("seed", value) for value in (-1, 1.5, None, True, "0")),
    *(("target_accept", value) for value in (0, 1, 1.0, -0.5, float("nan"), "0.8", True)),
    *(("anneal", value) for value in (1, "yes", None)),
    *(("precision", value) for value in ("float16", 64, None, np.float64)),
    *(("chain_method", value) for value in ("threads", None, 2)),
    *(("keep", value) for value in ("fields", ["field"], None, [3])),
    *(("thin", value) for value in (0, 1.5)),
    *(("step_size", value) for value in (0, -1.0, float("inf"), "0.1")),
    *(("steps_per_draw", value) for value in (0, 2.5)),
    ("checkpoint", 3),
    *(("network", value) for value in (None, "rnn", 8, TANH.to_dict())),
    *(("task", value) for value in (None, "chain", np.ones((1, 3, 1)))),
    *(("tuning", value) for value in (None, {"jitter": 0.2})),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:20])
def test_malformed_arguments(name, value, monkeypatch):
    """A ValueError that begins with the name of the argument, before any chain is started."""
    monkeypatch.setattr(sampling, "run_chains", lambda *arguments: pytest.fail("a chain was started"))
    needed = {"thin": {"keep": ["latents"]}, "step_size": LANGEVIN, "steps_per_draw": LANGEVIN}
    arguments = {"network": TANH, "task": task_of(), **SHORT, **needed.get(name, {}), name: value}
    with pytest.raises(ValueError, match=rf"^{name} is (?!.*leave it out)"):
        sample(**arguments)


@pytest.mark.parametrize(
    ("sampler", "idle"),
    [
        ("nuts", {"step_size": 0.01}),
        ("nuts", {"steps_per_draw": 2}),
        ("nuts", {"thin": 2}),
        ("hmc", {"max_tree_depth": 4}),
        ("hmc", {"step_size": 0.01}),
        ("langevin", {"target_accept": 0.9}),
        ("langevin", {"max_tree_depth": 4}),
    ],
)
def test_arguments_that_would_have_no_effect_are_refused(sampler, idle, monkeypatch):
    monkeypatch.setattr(sampling, "run_chains", lambda *arguments: pytest.fail("a chain was started"))
    with pytest.raises(ValueError, match=rf"^{next(iter(idle))} is .*leave it out here"):
        sample(TANH, task_of(), **{**SHORT, "sampler": sampler, **idle})


def test_malformed_tuning():
    """Each of its numbers, by name."""
    for name in ("trajectory", "jitter", "first_step", "largest_step", "divergence", "frame_softest"):
        for value in (0, -1.0, float("nan"), "0.3", None):
            with pytest.raises(ValueError, match=rf"^tuning\.{name} is "):
                Tuning(**{name: value})
    for name in ("rise", "even", "odd"):
        with pytest.raises(ValueError, match=rf"^tuning\.{name} is -1"):
            Tuning(**{name: (1.0, -1.0)})
    for name in ("frame_rank", "frame_hessians"):
        with pytest.raises(ValueError, match=rf"^tuning\.{name} is 1\.5"):
            Tuning(**{name: 1.5})
    with pytest.raises(ValueError, match=r"tuning\.even has 1 stages and tuning.odd 4"):
        Tuning(even=(1.0,))
    with pytest.raises(ValueError, match=r"tuning\.jitter is 1\.5; it must be below 1"):
        Tuning(jitter=1.5)


def test_the_warm_up_is_that_of_the_tuning():
    """Its stages by weight of the likelihood, and the frames that are fitted in kernels."""
    tuning = Tuning(rise=(0.1, 0.5), even=(1.0,), odd=(3.0,), frame_hessians=2)
    run = {"num_warmup": 400, "num_samples": 10, "num_chains": 2, "sampler": "nuts", "max_tree_depth": None}
    run |= {"target_accept": None, "anneal": True, "num_latents": 1, "precision": "float64", "chain_method": "auto"}
    settings = sampling.make_settings(Network.rnn(8), task_of(), coordinates="kernels", tuning=tuning, **run)
    blocks = chains.make_schedule(settings)
    assert [block.weights for block in blocks[:4]] == [(0.1, 0.1), (0.5, 0.5), (1.0, 3.0), (1.0, 1.0)]
    assert sum(block.fit_frame for block in blocks) == 2


def test_thinning_that_keeps_nothing():
    with pytest.raises(ValueError, match=r"^thin is 31; it must be at most num_samples, 30"):
        sample(TANH, task_of(), **{**SHORT, "keep": ["latents"], "thin": 31})


def test_unknown_arguments_are_refused():
    """Misspelt settings do not pass silently."""
    with pytest.raises(TypeError, match="num_draws"):
        sample(TANH, task_of(), num_draws=3)


def test_functions_of_one_name_share_neither_programs_nor_draws():
    """As in a session in which a function is defined anew: results of the old one stay those of the old one."""

    def draw(scale):
        def redefined(x):
            return scale * nonlinear(x)

        network, task = Network(8, activation=redefined), task_of()
        return network, sample_prior(network, task, 20, "weights")

    (first, first_draws), (second, second_draws), (again, same_draws) = draw(1.0), draw(3.0), draw(1.0)
    assert str(first.activation) == str(second.activation)
    assert first == again != second
    xr.testing.assert_identical(first_draws, same_draws)
    assert not np.allclose(first_draws["prior"]["kernel"], second_draws["prior"]["kernel"])
    for network, draws in ((first, first_draws), (second, second_draws)):
        assert results.network_of(draws) == network
        np.testing.assert_array_equal(results.network_of(draws).phi.function(1.0), network.phi.function(1.0))
    settings = engine.Settings("fields", "nuts", 40, 30, 2, 0.8, 10, True, 3, "float64", "parallel")
    machines = [engine.build_machine(settings, network, task_of()) for network in (first, second, again)]
    assert machines[0] is machines[2] is not machines[1]


def test_coordinates_are_chosen():
    """auto takes kernels where they hold: linear, width >= n; fields elsewhere."""
    chosen = sampling.choose_coordinates
    task = task_of()
    assert chosen("auto", Network(6), task) == "kernels"
    assert chosen("auto", Network(5), task) == "fields"
    assert chosen("auto", Network(64, activation="tanh"), task) == "fields"
    assert chosen("weights", Network(6), task) == "weights"
    with pytest.raises(ValueError, match=r"^coordinates is 'kernels'.* width is 5; use fields"):
        chosen("kernels", Network(5), task)

"""Gauge moves: no density notices them, what they draw has the law of random rotations, and overlaps between groups of
sites that nothing ties become independent draws. `test_calibration.py` looks at the posterior as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpyro import handlers
from numpyro.infer.util import log_density

from bayesnet import Network, Task, diagnostics, sample, tasks
from bayesnet.models.coordinates import build_coordinates
from bayesnet.models.gauge import SiteGroups, permute_neurons, redraw_frames, site_groups
from bayesnet.models.kernel_space import bartlett_factor, bartlett_sites
from bayesnet.samplers import chains
from theory.model import build_model

PATTERNS, STEPS = 2, 3
# The first and the last of three steps are of one group: its entries stand on both sides of the other group's.
TIED = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 1.0]])
NETWORKS = {
    "unshared": {"shared": ()},
    "two groups": {"shared": {"input": TIED, "readout": TIED}, "bias_gain": 0.4, "process_noise": 0.3},
}
GAINS = {"recurrent_gain": 1.2, "input_gain": 0.8, "readout_gain": 1.5, "noise": 0.3}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def task():
    """Two patterns, two outputs, inputs at every step, all steps supervised."""
    rng = np.random.default_rng(0)
    supervised = np.array([[True, True, True], [True, False, True]])
    return Task(rng.normal(size=(PATTERNS, STEPS, 5)), rng.normal(size=(PATTERNS, STEPS, 2)), supervised)


def network_of(name, width=7, **settings):
    return Network(width, **{**GAINS, **NETWORKS[name], **settings})


def problem(network, task, coordinates, seed=0):
    """Model, energy of latents, kernel of latents, the gauge move, and latents drawn from the prior."""
    space, model = build_coordinates(coordinates, network, task), build_model(network, task).on_device()
    trace = handlers.trace(handlers.seed(space.model, jax.random.key(seed))).get_trace(model)
    latents = {name: s["value"] for name, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}

    def energy(latents):
        return -log_density(space.model, (model, True, 1.0), {}, latents)[0]

    def seen(latents):
        return space.observe(model, latents, jax.random.key(0))

    return model, energy, jax.jit(seen), space.gauge, latents


def same_group(groups):
    entry = np.repeat(groups.labels, PATTERNS)
    return entry[:, None] == entry


def test_groups_of_sites(task):
    """Those that nothing ties; none where all hangs together, so that nothing is moved and nothing drawn for it."""
    assert site_groups(build_model(Network.rnn(7), task)) is None
    assert site_groups(build_model(network_of("unshared"), task)).labels == (0, 1, 2)
    assert site_groups(build_model(network_of("two groups"), task)).labels == (0, 1, 0)
    assert site_groups(build_model(network_of("unshared", leak=0.5), task)) is None


@pytest.mark.parametrize(("name", "activation"), [("unshared", "tanh"), ("two groups", "relu")])
def test_no_density_of_fields_notices_the_move(name, activation, task):
    """Density, and gradient moved along; kernels within groups as they were, between them others. Not so where a move
    takes only a part of a group."""
    model, energy, seen, gauge, latents = problem(network_of(name, activation=activation), task, "fields")
    groups = site_groups(model)
    assert gauge.isometry
    moved = gauge.move(jax.random.key(1), groups, latents)
    evaluate = jax.jit(jax.value_and_grad(energy))
    (before, slope), (after, moved_slope) = evaluate(latents), evaluate(moved)
    np.testing.assert_allclose(after, before, rtol=1e-12)
    np.testing.assert_allclose(
        moved_slope["z"], gauge.move(jax.random.key(1), groups, slope)["z"], rtol=1e-9, atol=1e-9
    )
    change, within = np.abs(seen(moved)["kernel"] - seen(latents)["kernel"]), same_group(groups)
    assert change[within].max() < 1e-12
    assert np.median(change[~within]) > 1e-3
    if len(set(groups.labels)) == 2:
        part = gauge.move(jax.random.key(1), SiteGroups((0, 1, 2)), latents)
        assert abs(evaluate(part)[0] - before) > 1e-2


def test_signs_change_only_where_the_activation_is_odd(task):
    z = 1 + jax.random.uniform(jax.random.key(0), (STEPS, PATTERNS, 7))
    groups = SiteGroups((0, 1, 0))
    for odd in (True, False):
        moved = permute_neurons(jax.random.key(1), groups, z, odd)
        np.testing.assert_array_equal(np.sort(np.abs(moved), axis=-1), np.sort(z, axis=-1))
        assert (moved < 0).any() == odd
        # One permutation and one set of signs for both sites of the group.
        np.testing.assert_allclose(
            np.einsum("spi,tqi->spqt", moved, moved)[0, ..., 2], np.einsum("spi,tqi->spqt", z, z)[0, ..., 2]
        )


@pytest.mark.parametrize("width", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_kernels_within_groups_and_their_likelihood_stay(width, task):
    """Also where there are hardly as many neurons as entries."""
    model, _, seen, gauge, latents = problem(network_of("two groups", width), task, "kernels")
    groups = site_groups(model)
    moved = gauge.move(jax.random.key(1), groups, latents)
    before, after, within = seen(latents), seen(moved), same_group(groups)
    np.testing.assert_allclose(after["kernel"][within], before["kernel"][within], rtol=1e-9)
    np.testing.assert_allclose(after["log_likelihood_marginal"], before["log_likelihood_marginal"], rtol=1e-9)
    assert np.median(np.abs(after["kernel"] - before["kernel"])[~within]) > 1e-3
    part = gauge.move(jax.random.key(1), SiteGroups((0, 1, 2)), latents)
    assert abs(seen(part)["log_likelihood_marginal"] - before["log_likelihood_marginal"]) > 1e-2


def test_new_frames_are_those_of_random_rotations():
    """Kernels between groups, z_g O z_g'^T, against explicit rotations of neurons, in moments up to the fourth."""
    width, number = 6, 20_000
    groups = SiteGroups((0, 1, 0))
    rng = np.random.default_rng(0)
    z = rng.normal(size=(STEPS * PATTERNS, width)) * np.linspace(0.5, 2, STEPS * PATTERNS)[:, None]
    factor = jnp.asarray(np.linalg.cholesky(z @ z.T))
    keys = jax.random.split(jax.random.key(2), number)
    drawn = jax.jit(jax.vmap(lambda key: redraw_frames(key, groups, factor, width)))(keys)
    own, other = (np.flatnonzero(np.repeat(groups.labels, PATTERNS) == group) for group in (0, 1))
    crossed = np.asarray(drawn @ drawn.swapaxes(-1, -2))[:, own[:, None], other]
    rotations = scipy.stats.ortho_group.rvs(width, number, random_state=rng)
    explicit = np.einsum("an,mnk,bk->mab", z[own], rotations, z[other])
    for moment in range(1, 5):
        rows, columns = np.indices(crossed.shape[1:]).reshape(2, -1)
        for i, j in zip(rows, columns, strict=True):  # powers, and products of neighbouring elements
            k = (j + 1) % len(other)
            one, two = (
                values[:, i, j] ** (moment - moment // 2) * values[:, i, k] ** (moment // 2)
                for values in (crossed, explicit)
            )
            error = np.hypot(one.std(), two.std()) / np.sqrt(number)
            assert abs(one.mean() - two.mean()) < 4.5 * error, (moment, i, j)


def test_factors_of_the_prior_stay_so():
    """Bartlett factors with new frames have the law of Bartlett factors."""
    width, n, number = 8, STEPS * PATTERNS, 5_000
    task = Task(np.ones((PATTERNS, STEPS, 1)), np.zeros((PATTERNS, STEPS)))
    space, model = build_coordinates("kernels", Network(width), task), build_model(Network(width), task).on_device()

    def one(key):
        prior_key, move_key = jax.random.split(key)
        trace = handlers.trace(handlers.seed(space.model, prior_key)).get_trace(model)
        diagonal, lower = trace["bartlett_diagonal"]["value"], trace["bartlett_lower"]["value"]
        factor = redraw_frames(move_key, SiteGroups((0, 1, 0)), bartlett_factor(diagonal, lower, width), width)
        return bartlett_sites(factor, width)

    diagonal, lower = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), number))
    pivots = np.sqrt(width) * np.exp(np.asarray(diagonal) / np.sqrt(2 * width))
    p = [scipy.stats.kstest(pivots[:, i] ** 2, scipy.stats.chi2(width - i).cdf).pvalue for i in range(n)]
    p += [scipy.stats.kstest(column, scipy.stats.norm.cdf).pvalue for column in np.asarray(lower).T]
    assert min(p) * len(p) > 1e-3


@pytest.mark.parametrize("sampler", ["nuts", pytest.param("hmc", marks=pytest.mark.slow)])
def test_overlaps_between_groups_are_independent_draws(sampler):
    """Of a linear network without sharing and one pattern they are those of two random directions in R^N: overlap^2
    ~ Beta(1/2, (N-1)/2), whatever the targets. Draws that were not independent would fail the test."""
    width = 8
    run = {"num_warmup": 200, "num_samples": 500, "seed": 3, "sampler": sampler, "progress": False}
    tree = sample(Network.dnn(width), tasks.chain(3, 2.0), "kernels", **run)
    overlap = tree["posterior"]["overlap"].to_numpy().reshape(-1, 3, 3)
    law = scipy.stats.beta(0.5, (width - 1) / 2).cdf
    for t, s in ((0, 1), (1, 2), (0, 2)):
        assert scipy.stats.kstest(overlap[:, t, s] ** 2, law).pvalue > 1e-3, (t, s)
        assert scipy.stats.binomtest(int((overlap[:, t, s] > 0).sum()), len(overlap)).pvalue > 1e-3, (t, s)
    for chain in tree["posterior"]["overlap"].to_numpy().reshape(4, -1, 3, 3):
        next_to = np.corrcoef(chain[1:, 0, 1], chain[:-1, 0, 1])[0, 1]
        assert abs(next_to) < 4 / np.sqrt(len(chain))


def test_a_killed_run_moves_on_bitwise(tmp_path, monkeypatch):
    """Kernels without sharing, stopped where draws begin: frames and gauge moves go on where they were."""
    run = {"num_warmup": 200, "num_samples": 40, "num_chains": 2, "seed": 5, "progress": False}
    network, task = Network.dnn(8), tasks.chain(3, 2.0)  # whose program is that of the test before
    whole = sample(network, task, **run)
    add = chains.Lane.add

    def failing(lane, *arguments, **records):
        if lane.blocks == 19:
            raise InterruptedError
        add(lane, *arguments, **records)

    monkeypatch.setattr(chains.Lane, "add", failing)
    with pytest.raises(InterruptedError):
        sample(network, task, checkpoint=tmp_path, **run)
    monkeypatch.setattr(chains.Lane, "add", add)
    resumed = sample(network, task, checkpoint=tmp_path, **run)
    assert resumed["posterior"].equals(whole["posterior"])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["hmc", "nuts"])
def test_unshared_chains_agree(sampler, monkeypatch):
    """30 entries, 17 of them supervised, tanh: at 500 draws the R-hat of overlaps between steps falls to 1.0."""
    rng = np.random.default_rng(0)
    supervised = np.zeros(30, bool)
    supervised[rng.permutation(30)[:17]] = True
    task = Task(rng.normal(size=(6, 5, 4)), 1.5 * rng.normal(size=(6, 5, 2)), supervised.reshape(6, 5))
    network = Network.dnn(128, activation="tanh")
    run = {"num_warmup": 300, "num_samples": 500, "seed": 1, "sampler": sampler, "progress": False}
    worst = {}
    for moved in (True, False):
        if not moved:
            monkeypatch.setattr(chains, "site_groups", lambda model: None)
        table = diagnostics.summarise(sample(network, task, **run))
        overlaps = table[table.index.str.startswith("overlap")]
        worst[moved] = overlaps["r_hat"].max()
        least = overlaps["ess_bulk"].min()
        print(f"{sampler}, gauge moves {moved}: R-hat of overlaps {worst[moved]:.4f}, ESS {least:.0f}")
    assert worst[True] < 1.01
    assert worst[False] > 1.04

"""Moments in place of the kernel of every draw: the same run, the same numbers, and whatever needs kernels says so."""

import json

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
import theory
from bayesnet.comparison import judge
from bayesnet.diagnostics import summarise, summarise_kernel
from bayesnet.observables import Observable, default_observables
from bayesnet.samplers import chains
from bayesnet.samplers.moments import Recorder, choose_form, recorded_observables
from bayesnet.sampling import make_settings

# The network, task and warm-up of the gauge tests, whose compiled program serves here too.
NETWORK, TASK = bn.Network.dnn(8), bn.tasks.chain(3, 2.0)
RUN = {"num_warmup": 200, "num_samples": 110, "num_chains": 2, "seed": 3, "progress": False}


@pytest.fixture(scope="module")
def every():
    return bn.sample(NETWORK, TASK, kernels="every", **RUN)


@pytest.fixture(scope="module")
def moments():
    return bn.sample(NETWORK, TASK, kernels="moments", **RUN)


def test_all_that_is_left_is_bitwise_the_same(every, moments):
    assert "kernel" not in moments["posterior"]
    assert "overlap" not in moments["posterior"]
    assert "moments" not in every.attrs.get("kernels", "")
    assert "220 draws" in moments.attrs["kernels"]
    for group in ("posterior_predictive", "sample_stats", "log_likelihood", "latents"):
        xr.testing.assert_identical(every[group].to_dataset(), moments[group].to_dataset())
    for name in ("prediction", "log_likelihood_marginal"):
        xr.testing.assert_identical(every["posterior"][name], moments["posterior"][name])
    stated = summarise(every), summarise(moments)
    assert stated[0].equals(stated[1])
    expected = bn.diagnostics.evaluate_observables(every, recorded_observables(NETWORK, TASK))
    for label, values in expected.items():
        np.testing.assert_array_equal(moments["posterior"]["observables"].sel(observable=label), values)


def test_moments_are_those_of_the_draws(every, moments):
    """Mean and sd of each chain; the mcse is that of the means of 18 batches of six draws, two draws left over."""
    found = moments["kernel_moments"]
    for what in ("kernel", "overlap"):
        draws = every["posterior"][what].to_numpy()
        np.testing.assert_allclose(found[f"{what}_mean"], draws.mean(axis=1), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[f"{what}_sd"], draws.std(axis=1, ddof=1), rtol=1e-9, atol=1e-12)
        means = draws[:, :108].reshape(2, 18, 6, *draws.shape[2:]).mean(axis=2)
        np.testing.assert_allclose(
            found[f"{what}_mcse"], means.std(axis=1, ddof=1) / np.sqrt(18), rtol=1e-9, atol=1e-12
        )
    one, other = summarise_kernel(every), summarise_kernel(moments)
    xr.testing.assert_allclose(one, other.transpose(*one["kernel_mean"].dims), rtol=1e-9)
    pooled = every["posterior"]["kernel"].to_numpy().reshape(-1, 3, 1, 3, 1)
    np.testing.assert_allclose(one["kernel_mean"], pooled.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one["kernel_sd"], pooled.std(axis=0, ddof=1), rtol=1e-9)
    # Gelman and Rubin 1992, of a kernel that varies, and of an overlap that does not.
    draws = every["posterior"]["kernel"].to_numpy()[:, :, 2, 0, 2, 0]
    total = 109 / 110 * draws.var(axis=1, ddof=1).mean() + draws.mean(axis=1).var(ddof=1)
    r_hat = one["kernel_r_hat"].sel(step=3, step_bis=3).item()
    assert r_hat == pytest.approx(np.sqrt(total / draws.var(axis=1, ddof=1).mean()), rel=1e-9)
    assert one["overlap_r_hat"].sel(step=3, step_bis=3).item() == pytest.approx(1, abs=1e-2)  # up to rounding
    alone = xr.DataTree.from_dict(
        {name: group.to_dataset().isel(chain=[0], missing_dims="ignore") for name, group in every.children.items()}
    )
    alone.attrs = every.attrs
    assert summarise_kernel(alone)["kernel_r_hat"].isnull().all()


def test_batch_means_and_r_hat_of_known_chains():
    """Autoregressive chains x_t = a x_{t-1} + e_t: sd 1, mcse sqrt((1 + a) / (1 - a) / D), R-hat near one, and not for
    chains with means of their own."""
    number, a, rng = 4000, 0.5, np.random.default_rng(0)
    noise = np.sqrt(1 - a**2) * rng.normal(size=(number, 200))
    x = np.empty_like(noise)
    x[0] = rng.normal(size=200)
    for t in range(1, number):
        x[t] = a * x[t - 1] + noise[t]
    task = bn.Task(np.ones((1, 1, 1)), np.zeros((1, 1)))
    recorder = Recorder(bn.Network(8), task, number)
    entries = recorder.finish([recorder.moments_of(5 + x[:, i, None, None]) for i in range(40)])
    mcse = np.sqrt(np.mean(entries["kernel_mcse"] ** 2))
    # The mean of 40 squared errors, of 19 degrees of freedom each, is good to sqrt(2 / 760).
    assert abs(mcse / np.sqrt((1 + a) / (1 - a) / number) - 1) < 4 * np.sqrt(2 / 760) / 2 + 0.01
    assert abs(entries["kernel_sd"].mean() - 1) < 0.02


def test_every_summary_takes_them(every, moments, tmp_path):
    """Comparison, verdict, file, ArviZ, and the maps of kernels and overlaps."""
    solution = theory.solve(NETWORK, TASK)
    assert bn.compare(moments, solution).equals(bn.compare(every, solution))
    assert judge(moments, bn.compare(moments, solution)).gates[0].name
    bn.save(moments, tmp_path / "posterior.nc")
    read = bn.load(tmp_path / "posterior.nc")
    for group in moments.children:
        xr.testing.assert_identical(read[group].to_dataset(), moments[group].to_dataset())
    assert summarise(read).equals(summarise(moments))
    summary = az.summary(bn.to_arviz(moments), var_names=["observables"])
    assert len(summary) == len(recorded_observables(NETWORK, TASK))
    for draw in (bn.plots.kernel, bn.plots.overlaps):
        images = [draw(source).images[0].get_array() for source in (every, moments)]
        np.testing.assert_allclose(*images, rtol=1e-9)
    mine = default_observables(NETWORK, TASK)[0]
    for plot in (bn.plots.prediction, lambda source: bn.plots.density(source, mine)):
        lines = [plot(source).lines[-1].get_xydata() for source in (every, moments)]
        np.testing.assert_allclose(*lines, rtol=1e-9)
    plt.close("all")


def test_what_needs_the_kernel_of_each_draw_says_so(moments):
    mine = Observable("mine", lambda kernel, prediction: kernel[..., 0, 0, 1, 0])
    for attempt in (
        lambda: summarise(moments, [mine]),
        lambda: bn.plots.density(moments, mine),
        lambda: bn.weigh_phases(moments, theory.solve(NETWORK, TASK)),
    ):
        with pytest.raises(ValueError, match=r"kernels='every'"):
            attempt()
    with pytest.raises(ValueError, match=r"^kernels is 'some'; "):
        bn.sample(NETWORK, TASK, kernels="some")
    broken = moments.copy()
    broken["kernel_moments"] = xr.DataTree(moments["kernel_moments"].to_dataset().drop_vars("kernel_sd"))
    with pytest.raises(ValueError, match=r"kernel_moments/kernel_sd"):
        bn.save(broken, "nowhere.nc")


def test_weights_are_drawn_back_all_the_same(every, moments):
    one, other = (bn.draw_weights(tree, chain=1, seed=2) for tree in (every, moments))
    np.testing.assert_array_equal(one.recurrent, other.recurrent)


@pytest.mark.parametrize("method", ["parallel", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_and_a_complete_one_is_read_back(tmp_path, monkeypatch, method):
    run = {**RUN, "kernels": "moments", "chain_method": method}
    whole = bn.sample(NETWORK, TASK, **run)
    add = chains.Lane.add

    def failing(lane, *arguments, **records):
        if lane.blocks == 20:
            raise InterruptedError
        add(lane, *arguments, **records)

    monkeypatch.setattr(chains.Lane, "add", failing)
    with pytest.raises(InterruptedError):
        bn.sample(NETWORK, TASK, checkpoint=tmp_path, **run)
    monkeypatch.setattr(chains.Lane, "add", add)
    for _ in range(2):
        resumed = bn.sample(NETWORK, TASK, checkpoint=tmp_path, **run)
        for group in ("posterior", "kernel_moments"):
            assert resumed[group].equals(whole[group])
    with pytest.raises(ValueError, match=r"belongs to another run: settings\.kernels"):
        bn.sample(NETWORK, TASK, checkpoint=tmp_path, **{**run, "kernels": "every"})


def test_the_form_is_chosen_by_size_and_said():
    """Up to 1 GiB of kernels and overlaps: n = 129 at 4 x 1000 draws; and room for what is too large otherwise."""
    assert choose_form("auto", 129, 4000) == "every"
    assert choose_form("auto", 130, 4000) == "moments"
    assert choose_form("every", 300, 4000) == "every"
    assert choose_form("moments", 2, 1) == "moments"
    inputs = np.random.default_rng(0).normal(size=(30, 10, 3))
    task = bn.Task(inputs, np.where(np.arange(10) == 9, 1.0, np.nan) * np.ones((30, 10)))
    arguments = {"coordinates": "fields", "sampler": "nuts", "num_warmup": 0, "num_samples": 1000, "num_chains": 4}
    arguments |= {"target_accept": 0.8, "max_tree_depth": 10, "anneal": True, "num_latents": 1}
    arguments |= {"precision": "float64", "chain_method": "parallel"}
    assert make_settings(bn.Network.rnn(32), task, **arguments).kernels == "moments"


def test_many_steps_are_recorded_by_overlaps_of_neighbours():
    network = bn.Network.rnn(8)
    few, many = bn.tasks.chain(5, 1.0), bn.tasks.chain(100, 1.0)
    assert len(recorded_observables(network, few)) == len(default_observables(network, few)) + 1
    labels = [observable.label for observable in recorded_observables(network, many)]
    assert len(labels) == 100 + 99 + 100 + 1
    assert sum("overlap" in label for label in labels) == 99


def test_settings_are_in_the_result(every, moments):
    forms = [json.loads(tree.attrs["settings"])["kernels"] for tree in (every, moments)]
    assert forms == ["every", "moments"]

"""Observables are invariants; summaries and gates tell a good run from broken ones."""

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.comparison import judge
from bayesnet.diagnostics import _bfmi, check_gates, summarise, summarise_draws
from bayesnet.observables import default_observables, overlaps, target_direction
from theory.symmetry import apply_signs, mirror_signs


def random_state(task, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(task.entries, 2 * task.entries))
    kernel = (root @ root.T / task.entries).reshape((task.steps, task.patterns) * 2)
    return kernel, rng.normal(size=(task.patterns, task.steps, task.output_dim))


def changed(posterior, name, values):
    tree = posterior.copy(deep=True)
    tree[name] = tree[name].copy(data=values)
    return tree


def failed(posterior):
    return {gate.name for gate in check_gates(posterior) if not gate.passed}


@pytest.mark.parametrize("shared", [("recurrent", "input", "readout"), ("recurrent",), ("recurrent", "input")], ids=str)
def test_default_observables_do_not_see_the_mirror_image(shared):
    task = bn.tasks.endpoint(4, 1.0, patterns=3)
    network = bn.Network(8, shared=shared)
    kernel, prediction = random_state(task)
    (signs,) = mirror_signs(network, task)
    np.testing.assert_array_equal(signs, (-1.0) ** np.arange(task.steps))
    mirrored = prediction * signs[-1] * signs[:, None] if "readout" in shared else prediction
    for observable in default_observables(network, task):
        here, there = observable.evaluate(kernel, prediction), observable.evaluate(apply_signs(kernel, signs), mirrored)
        np.testing.assert_allclose(here, there, rtol=1e-12, err_msg=observable.label)


def test_squares_are_taken_where_the_symmetry_asks_for_them_only():
    task = bn.tasks.chain(3, 1.0)
    labels = [observable.label for observable in default_observables(bn.Network.rnn(8), task)]
    assert "overlap^2[t=1,2, mu=1]" in labels
    assert "overlap[t=1,3, mu=1]" in labels
    assert "prediction^2[t=2, mu=1, o=1]" in labels
    assert "prediction[t=3, mu=1, o=1]" in labels
    for network in (bn.Network.dnn(8), bn.Network.rnn(8, activation="relu")):
        assert not any("^2" in observable.label for observable in default_observables(network, task))


def test_observables_take_leading_axes_and_labels_are_unique():
    task = bn.tasks.digits(classes=(0, 1, 2), patterns=3, steps=2)
    kernel, prediction = random_state(task)
    observables = default_observables(bn.Network.rnn(8), task)
    assert len({observable.label for observable in observables}) == len(observables)
    for observable in observables:
        many = observable.evaluate(np.stack([[kernel] * 3] * 2), np.stack([[prediction] * 3] * 2))
        np.testing.assert_allclose(many, np.full((2, 3), observable.evaluate(kernel, prediction)))


def test_entries_without_input_are_left_out():
    inputs = np.zeros((1, 3, 1))
    inputs[0, 1] = 1
    task = bn.Task(inputs, np.array([[np.nan, np.nan, 1.0]]))
    labels = [observable.label for observable in default_observables(bn.Network.rnn(8), task)]
    assert labels
    assert not any("t=1" in label for label in labels)


def test_overlaps():
    kernel, _ = random_state(bn.tasks.endpoint(2, 1.0))
    kernel[0, 0] = kernel[:, :, 0, 0] = 0
    flat = overlaps(kernel).reshape(4, 4)
    np.testing.assert_allclose(np.diag(flat), [0, 1, 1, 1])
    assert not flat[0].any()
    assert np.abs(flat).max() <= 1 + 1e-12


def test_target_direction():
    assert target_direction(bn.tasks.chain(3, 1.0)) is None
    assert target_direction(bn.tasks.endpoint(3, 0.0)) is None
    direction = target_direction(bn.tasks.endpoint(3, 2.0))  # its sign is free: it enters squared
    np.testing.assert_allclose(np.outer(direction, direction), [[0.5, -0.5], [-0.5, 0.5]], atol=1e-15)
    one_is_zero = bn.Task(np.ones((3, 1, 1)), [[3.0], [0.0], [-4.0]])
    np.testing.assert_allclose(np.abs(target_direction(one_is_zero)), [0.6, 0, 0.8], atol=1e-15)


def test_summary_of_independent_draws_and_of_a_constant():
    draws = {"normal": np.random.default_rng(0).normal(3, 2, size=(4, 1000)), "constant": np.full((4, 1000), 7.0)}
    table = summarise_draws(draws)
    assert abs(table.loc["normal", "mean"] - 3) < 4 * table.loc["normal", "mcse"]
    np.testing.assert_allclose(table.loc["normal", "mcse"], 2 / np.sqrt(4000), rtol=0.2)
    assert table.loc["normal", "r_hat"] < 1.01
    np.testing.assert_array_equal(table.loc["constant"], [7, 0, 0, 1, 4000, 4000])


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_chain_fails_though_nothing_varies(tied):
    """One chain that rejects every proposal: constants have no R-hat, and the drawn predictions look independent. Nor
    do gauge moves between steps that are tied by nothing make it one that moves."""
    network = bn.Network.rnn(64) if tied else bn.Network.dnn(64)
    stuck = bn.sample(network, bn.tasks.chain(3, 60.0), sampler="hmc", num_warmup=0, num_samples=500, num_chains=1)
    kernel = stuck["posterior"]["kernel"].to_numpy().reshape(500, 3, 3)
    kernel = kernel if tied else np.diagonal(kernel, axis1=1, axis2=2)
    assert np.ptp(kernel, axis=0).max() <= (0 if tied else 1e-12 * kernel.max())
    calm = changed(stuck, "sample_stats/diverging", np.zeros((1, 500), bool))
    assert not tied or summarise(calm).filter(like="kernel", axis=0)["r_hat"].eq(1).all()
    assert "every chain moves" in failed(calm)
    verdict = judge(calm, summarise(calm))
    assert verdict.status == "FAIL"
    assert "smallest share of draws that moved 0.00 (chain 0)" in verdict.message


def test_a_good_run_passes_all_gates(chain_posterior):
    assert failed(chain_posterior) == set()
    r_hat = summarise(chain_posterior)["r_hat"]
    details = {gate.name: gate.detail for gate in check_gates(chain_posterior)}
    assert details["R-hat <= 1.01"] == f"largest {r_hat.max():.4f} ({r_hat.idxmax()})"


def test_divergences(chain_posterior):
    stats = chain_posterior["sample_stats"]
    diverging = np.zeros_like(stats["diverging"].to_numpy())
    diverging[2, 5:8] = True
    broken = changed(chain_posterior, "sample_stats/diverging", diverging)
    assert failed(broken) == {"no divergences"}
    gate = next(gate for gate in check_gates(broken) if not gate.passed)
    assert gate.detail == "3 divergent draws (by chain: 0, 0, 3, 0)"


def test_saturated_trees(chain_posterior):
    steps = chain_posterior["sample_stats"]["n_steps"].to_numpy().copy()
    steps[0, 0] = 2**10 - 1
    assert failed(changed(chain_posterior, "sample_stats/n_steps", steps)) == {"no tree-depth saturation"}


def test_a_frozen_chain(chain_posterior):
    kernel = chain_posterior["posterior"]["kernel"].to_numpy().copy()
    kernel[1] = kernel[1, :1]
    assert failed(changed(chain_posterior, "posterior/kernel", kernel)) >= {"R-hat <= 1.01", "ESS >= 400"}


def test_an_energy_that_creeps(chain_posterior):
    shape = chain_posterior["sample_stats"]["energy"].shape
    energy = np.cumsum(np.random.default_rng(0).normal(size=shape), axis=1)
    assert failed(changed(chain_posterior, "sample_stats/energy", energy)) == {"E-BFMI >= 0.3"}
    frozen = changed(chain_posterior, "sample_stats/energy", np.ones(shape))
    assert "E-BFMI >= 0.3" not in failed(frozen)


@pytest.mark.parametrize("column", ["ess_bulk", "ess_tail"])
def test_both_effective_sizes_count(chain_posterior, column):
    """One observable too small in either fails the gate, which names it."""
    table = summarise(chain_posterior)
    table[["ess_bulk", "ess_tail"]] = 400.0
    assert not {gate.name for gate in check_gates(chain_posterior, table) if not gate.passed}
    table.loc[table.index[1], column] = 399.0
    gate = next(gate for gate in check_gates(chain_posterior, table) if not gate.passed)
    assert gate.name == "ESS >= 400"
    assert gate.detail == f"smallest 399 ({table.index[1]})"


@pytest.mark.parametrize("number", [1, 3, 50])
def test_too_few_draws_never_pass(chain_posterior, number):
    few = chain_posterior.isel(draw=slice(0, number), missing_dims="ignore")
    assert "ESS >= 400" in failed(few)


def test_summarise_has_one_row_for_each_observable(posteriors, small_task):
    table = summarise(posteriors["RNN"])
    labels = [observable.label for observable in default_observables(bn.Network.rnn(256), small_task)]
    assert list(table.index) == labels
    assert list(table.columns) == ["mean", "sd", "mcse", "r_hat", "ess_bulk", "ess_tail"]


def test_energy_bfmi_of_few_draws():
    """Mean squared change over variance; two draws have both, one has neither, and frozen ones no variance."""
    energy = np.array([[0.0, 1.0], [2.0, 2.0]])
    assert _bfmi(energy).tolist() == [2.0, np.inf]
    assert _bfmi(energy[:, :1]).tolist() == [np.inf, np.inf]
    np.testing.assert_allclose(_bfmi(np.array([[0.0, 1.0, 3.0]])), [2.5 / (7 / 3)])

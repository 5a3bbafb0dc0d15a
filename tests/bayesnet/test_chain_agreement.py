"""Chains that disagree are named, with the observable; mirror modes are recognised and labelled."""

import json

import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
from bayesnet.chain_agreement import mirror_modes, name_disagreement, name_modes
from bayesnet.diagnostics import check_gates

NORMAL = np.random.default_rng(0).normal(size=(4, 500))
LIKELY = -260 + np.random.default_rng(1).normal(size=(4, 500))


def moved(values, chains, by):
    values = values.copy()
    values[list(chains)] += by
    return values


def with_overlaps(posterior, mean, spread=0.05):
    """A posterior with other overlaps between its last two steps: ``mean`` (chain, 1) plus white noise; none else."""
    tree = posterior.copy(deep=True)
    shape = tree["posterior"]["kernel"].shape
    drawn = mean + spread * np.random.default_rng(2).normal(size=shape[:2])
    overlap = np.broadcast_to(np.eye(shape[2])[:, None, :, None], shape).copy()
    overlap[:, :, -2, 0, -1, 0] = overlap[:, :, -1, 0, -2, 0] = drawn
    for name in ("kernel", "overlap"):
        tree[f"posterior/{name}"] = tree["posterior"][name].copy(data=overlap)
    return tree


def test_the_chain_that_stands_apart_is_named():
    text = name_disagreement(moved(NORMAL, [2], -9.0), moved(LIKELY, [2], -58.0))
    assert text == "chain 2 at -8.95, chains 0, 1, 3 at -0.0542; log likelihood of the former lower by 58.0"
    pairs = name_disagreement(moved(NORMAL, [0, 3], 0.5), moved(LIKELY, [0, 3], 5.0))
    assert pairs.startswith("chains 1, 2 at ")
    assert "chains 0, 3 at " in pairs
    assert pairs.endswith("lower by 5.1")


@pytest.mark.parametrize("apart", [[], [1]])
def test_nobody_is_blamed_within_the_error(apart):
    """A shift of half a standard error of a chain's mean."""
    text = name_disagreement(moved(NORMAL, apart, 0.5 / np.sqrt(500)), LIKELY)
    assert text == "no chain stands apart: draw more"


def test_correlated_chains_need_a_wider_gap():
    """A gap that would count among independent draws is nothing between chains that creep."""
    creeping = np.repeat(NORMAL[:, :50], 10, axis=1)
    shift = 10 / np.sqrt(500)
    assert name_disagreement(moved(NORMAL, [1], shift), LIKELY).startswith("chain 1 at ")
    assert name_disagreement(moved(creeping, [1], shift), LIKELY) == "no chain stands apart: draw more"


def test_a_chain_that_has_just_come_loose_is_named():
    """Its own error is as large as the gap."""
    loose = moved(NORMAL, [1], -30.0)
    loose[1] += np.linspace(0, 20, 500)
    assert name_disagreement(loose, LIKELY).startswith("chain 1 at -20")


def test_odd_chains_against_even_ones_tell_of_coexistence():
    """They warm up from either side of a first-order transition."""
    assert "bayesnet.weigh_phases" in name_disagreement(moved(NORMAL, [1, 3], 9.0), LIKELY)
    for apart in ([1], [0, 1], [2, 3]):
        assert "weigh_phases" not in name_disagreement(moved(NORMAL, apart, 9.0), LIKELY)
    frozen = np.repeat([[1.0], [2.0], [1.0], [2.0]], 500, axis=1)
    text = name_disagreement(frozen, LIKELY)
    assert text.startswith("chains 0, 2 at 1, chains 1, 3 at 2; ")  # the mean of a frozen chain has no error
    assert "weigh_phases" not in text


def test_frozen_chains_and_a_single_one():
    frozen = NORMAL.copy()
    frozen[3] = 2.0
    assert name_disagreement(frozen, LIKELY).startswith("chain 3 at 2, ")
    assert name_disagreement(NORMAL[:1], LIKELY[:1]) == "the only chain has not settled"
    assert name_disagreement(NORMAL[:, :3], LIKELY[:, :3]) == "no chain stands apart: draw more"


def test_a_failed_gate_names_the_observable_and_the_chain(chain_posterior):
    tree = chain_posterior.copy(deep=True)
    kernel = tree["posterior"]["kernel"].to_numpy().copy()
    kernel[1, :, 1] *= 3  # step 2, whatever it is correlated with
    tree["posterior/kernel"] = tree["posterior"]["kernel"].copy(data=kernel)
    gate = next(gate for gate in check_gates(tree) if gate.name.startswith("R-hat"))
    assert not gate.passed
    assert "t=2" in gate.detail
    assert ": chain 1 at " in gate.detail


def test_mirror_modes():
    home = np.array([[1], [-1], [-1], [1]])
    three_steps = bn.sample(bn.Network.rnn(16), bn.tasks.chain(3, 1.0), num_warmup=50, num_samples=100)
    tree = with_overlaps(three_steps, 0.6 * home)
    modes = mirror_modes(tree)
    assert modes.dims == ("chain", "draw")
    np.testing.assert_array_equal(modes, np.broadcast_to(home, modes.shape))
    gate = check_gates(tree)[-1]
    assert (gate.name, gate.passed, gate.detail) == ("mirror modes", True, "chains 0, 3 in +; chains 1, 2 in -")
    turning = with_overlaps(three_steps, np.zeros((4, 1)))
    assert name_modes(mirror_modes(turning)) == "chains 0, 1, 2, 3 in both"


def test_no_mirror_modes_without_the_symmetry(chain_posterior):
    tree = chain_posterior.copy()
    tree.attrs["network"] = json.dumps(bn.Network.dnn(64).to_dict())
    assert mirror_modes(tree) is None
    assert not any(gate.name == "mirror modes" for gate in check_gates(tree))


def test_mirror_modes_follow_the_overlaps_that_matter():
    """Neighbouring steps are orthogonal; the sign shows between the first and the last only."""
    task = bn.tasks.chain(4, 1.0)
    overlap = np.eye(4) + np.random.default_rng(0).normal(scale=0.01, size=(2, 50, 4, 4))
    overlap[:, :, 0, 3] += np.array([[0.7], [-0.7]])
    values = overlap[:, :, :, None, :, None]
    dims = ("chain", "draw", "step", "pattern", "step_bis", "pattern_bis")
    variables = {name: (dims, values) for name in ("kernel", "overlap")}
    variables["prediction"] = (("chain", "draw", "pattern", "step", "output"), np.zeros((2, 50, 1, 4, 1)))
    variables["log_likelihood_marginal"] = (("chain", "draw"), np.zeros((2, 50)))
    posterior = xr.Dataset(variables, {"chain": [0, 1], "draw": np.arange(50)})
    constant = {"inputs": (("pattern", "step", "input_dim"), task.inputs)}
    constant["has_input"] = (("pattern", "step"), task.has_input)
    constant |= {
        "targets": (("pattern", "step", "output"), task.targets),
        "supervised": (("pattern", "step"), task.supervised),
    }
    tree = xr.DataTree.from_dict(
        {"posterior": posterior, "constant_data": xr.Dataset(constant, {"pattern": [1], "step": np.arange(1, 5)})}
    )
    tree.attrs["network"] = json.dumps(bn.Network.rnn(64).to_dict())
    modes = mirror_modes(tree).to_numpy()
    assert (modes == modes[:, :1]).all()
    assert modes[0, 0] == -modes[1, 0]

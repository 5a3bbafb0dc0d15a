"""Where two phases coexist, chains meet both and disagree; their weights follow from the evidence."""

import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.special

import bayesnet as bn
import theory
from bayesnet.comparison import DIFFER
from bayesnet.diagnostics import check_gates
from bayesnet.phases import weigh_phases

# Chain with T = 8, kappa = .1, unit gains: signals at which the symmetric phase becomes unstable, and at which the free
# energies of the two phases are equal.
INSTABILITY = 0.778367
CROSSING = 0.9034 * INSTABILITY
METASTABLE = 0.92 * INSTABILITY  # closer to the instability a chain may leave the symmetric phase, as it should
QUICK = {"num_warmup": 600, "num_samples": 150, "progress": False}


def squared_overlap(posterior):
    kernel = posterior["posterior"]["kernel"].to_numpy()
    return kernel[..., 6, 0, 7, 0] ** 2 / (kernel[..., 6, 0, 6, 0] * kernel[..., 7, 0, 7, 0])


def r_hat_gate(posterior):
    return next(gate for gate in check_gates(posterior) if gate.name.startswith("R-hat"))


@pytest.fixture(scope="module")
def torn():
    """A wide network between crossing and instability, where the phase nearer to the prior weighs nothing."""
    return bn.sample(bn.Network.rnn(100_000), bn.tasks.chain(8, METASTABLE), **QUICK)


def test_chains_meet_both_phases_and_say_so(torn):
    broken = squared_overlap(torn).mean(axis=1) > 0.1
    np.testing.assert_array_equal(broken, [False, True, False, True])
    gate = r_hat_gate(torn)
    assert not gate.passed
    assert "chains 0, 2 at " in gate.detail
    assert "chains 1, 3 at " in gate.detail
    assert "bayesnet.weigh_phases" in gate.detail


def test_the_weights_tell_which_phase_is_the_posterior(torn):
    task = bn.tasks.chain(8, METASTABLE)
    table = weigh_phases(torn, theory.solve(bn.Network.rnn(10), task))
    assert list(table["chains"]) == [(1, 3), (0, 2)]
    assert table["weight"].sum() == pytest.approx(1)
    assert table["weight"][1] < 1e-15
    heaviest = torn.isel(chain=list(table["chains"][0]), missing_dims="ignore")
    assert squared_overlap(heaviest).mean(axis=1).min() > 0.1
    assert r_hat_gate(heaviest).passed or "no chain stands apart" in r_hat_gate(heaviest).detail
    gap = table["free_energy"][1] - table["free_energy"][0]
    assert table["log_evidence"][0] - table["log_evidence"][1] == pytest.approx(
        100_000 * gap, abs=5
    )  # terms of order one


def test_refusals(torn):
    with pytest.raises(ValueError, match="another task"):
        weigh_phases(torn, theory.solve(bn.Network.rnn(10), bn.tasks.chain(8, 0.5)))
    with pytest.raises(ValueError, match="differ in width only"):
        weigh_phases(torn, theory.solve(bn.Network.dnn(10), bn.tasks.chain(8, METASTABLE)))


def test_chains_far_from_every_saddle_point_are_refused(torn):
    """The search has found the symmetric phase only; chains 1 and 3 are in the other one."""
    solution = theory.solve(bn.Network.rnn(10), bn.tasks.chain(8, METASTABLE))
    symmetric = next(branch for branch in solution.branches[::-1] if branch.stable)
    assert abs(symmetric.kernel[6, 0, 7, 0]) < 1e-6
    gap = np.sqrt(np.mean((solution.kernel - symmetric.kernel) ** 2))
    with pytest.raises(ValueError, match=r"chain\(s\) 1, 3 at none of the saddle points") as refused:
        weigh_phases(torn, replace(solution, branches=(symmetric,)))
    told = float(re.search(r"chain [13] is (\S+) ", str(refused.value)).group(1))
    assert told == pytest.approx(gap, rel=0.2)
    apart = torn.isel(chain=[0, 2], missing_dims="ignore")
    assert list(weigh_phases(apart, replace(solution, branches=(symmetric,)))["chains"]) == [(0, 1)]


@pytest.mark.slow
def test_weights_are_the_time_spent_in_each_phase():
    """At a width where chains still go to and fro, slowly; the phases are nearly separate there."""
    task = bn.tasks.chain(8, CROSSING)
    posterior = bn.sample(bn.Network.rnn(8000), task, num_warmup=400, num_samples=20_000, progress=False)
    share = (squared_overlap(posterior) > 0.12).mean(axis=1)
    table = weigh_phases(posterior, theory.solve(bn.Network.rnn(10), task))
    error = share.std(ddof=1) / 2
    broken = table["weight"][table["chains"].map(len).idxmax()]
    print(share, error, table)
    assert error < 0.05
    # Up to terms of order 1/N, phases that touch: log odds off by .41(3) at N = 4000, .32(4) at 8000, .2(2) at 16000.
    gap = scipy.special.logit(share.mean()) - scipy.special.logit(broken)
    assert abs(gap) < 0.4 + 4 * error / (broken * (1 - broken))


def frustrated(seed, num_chains=4, **settings):
    """Five steps, eight patterns, tanh, N = 256, where chains get stuck: each chain's height, the posterior."""
    network, task = bn.Network.rnn(256, activation="tanh"), bn.tasks.endpoint(5, 1.0, patterns=8)
    settings = {"num_samples": 100, "num_chains": num_chains, "seed": seed, "progress": False, **settings}
    tree = bn.sample(network, task, "fields", **settings)
    return tree["posterior"]["log_likelihood_marginal"].mean("draw").to_numpy(), tree


def stuck(heights):
    """Chains in a metastable phase, 60 below the others, which spread by 1.5 about their median."""
    return heights < np.median(heights) - 20


@pytest.mark.slow
def test_plain_warm_up_leaves_chains_stuck_and_the_gate_names_them():
    heights, tree = frustrated(0, 24, sampler="hmc", num_warmup=150, anneal=False)
    print(f"{stuck(heights).sum()} of 24 chains stuck")
    assert stuck(heights).any()
    assert not r_hat_gate(tree).passed
    assert f"chains {', '.join(map(str, np.flatnonzero(stuck(heights))))} at " in r_hat_gate(tree).detail


@pytest.mark.slow
def test_annealing_frees_every_chain_of_twenty_seeds():
    """Four chains for each seed, as by default."""
    heights = np.array([frustrated(seed, sampler="hmc", num_warmup=350)[0] for seed in range(20)])
    print(f"{stuck(heights).sum()} of {heights.size} chains stuck, standard deviation {heights.std():.2f}")
    assert not stuck(heights).any()


@pytest.mark.slow
def test_the_default_frees_every_chain_of_the_frustrated_patterns():
    """NUTS and the warm-up of `sample`, fewer seeds."""
    heights = np.array([frustrated(seed)[0] for seed in range(4)])
    print(f"{stuck(heights).sum()} of {heights.size} chains stuck, standard deviation {heights.std():.2f}")
    assert not stuck(heights).any()


@pytest.mark.slow
def test_chains_of_a_relu_network_sit_in_either_image():
    """Four patterns with targets of both signs, above the transition: each chain agrees with one of the two saddle
    points that relabelling every other step exchanges, and both are met."""
    network = bn.Network.rnn(1000, activation="relu", recurrent_gain=2**0.5)
    task = bn.tasks.endpoint(3, 1.6, patterns=4)
    solution = theory.solve(network, task)
    assert len(solution.branches) == 2
    posterior = bn.sample(network, task, "fields", sampler="hmc", num_chains=8, num_samples=500, seed=3)
    y = task.supervised_targets[:, 0]
    along = np.einsum("p,cdpq,q->c", y, posterior["posterior"]["kernel"].values[:, :, 1, :, 2], y)
    seen = []
    for branch, chains in zip(solution.branches, (along > 0, along < 0), strict=True):
        table = bn.compare(posterior.isel(chain=np.flatnonzero(chains), missing_dims="ignore"), branch)
        print(chains.sum(), table["verdict"].value_counts().to_dict(), table["z_sd"].abs().max())
        assert (table["verdict"] != DIFFER).all()
        seen.append(chains.sum())
    assert min(seen) > 0

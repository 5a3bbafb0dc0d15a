"""The critical signal: closed forms of the chain, the order of the transition, and what has none."""

import numpy as np
import pytest

import theory
from bayesnet import tasks

RNN = theory.Network.rnn(8)


def closed_form(steps: int, noise: float) -> float:
    """DESIGN section 3: |y|_c = (kappa + K_c) / sqrt(K_c) sqrt(r_c - 1), r_c = (T-1)/(T-2), unit gains."""
    ratio = (steps - 1) / (steps - 2)
    response = ratio**steps
    return (noise + response) / np.sqrt(response) * np.sqrt(ratio - 1)


@pytest.mark.parametrize("steps", [3, 4])
def test_short_chains_have_a_continuous_transition_at_the_closed_form(steps):
    found = theory.critical_signal(RNN, tasks.chain(steps, 1.0))
    assert found.order == "continuous"
    assert found.instability == found.crossing == found.spinodal
    assert found.instability == pytest.approx(closed_form(steps, 0.1), rel=1e-6)


def test_the_threshold_is_a_factor_of_the_targets():
    """Twice the targets, half the factor."""
    once, twice = (theory.critical_signal(RNN, tasks.chain(3, y)) for y in (1.0, 2.0))
    assert once.instability == pytest.approx(2 * twice.instability, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "noise", "crossing"),
    [
        pytest.param(4, 10.0, 0.99, id="T=4 and strong noise"),  # the order is not a matter of T alone
        pytest.param(6, 0.1, 0.971, id="T=6"),
        pytest.param(8, 0.1, 0.903, id="T=8", marks=pytest.mark.slow),
    ],
)
def test_first_order_transitions_have_three_thresholds(steps, noise, crossing):
    """SOLVER.md: the free energies cross near .971 (T=6) and .902 (T=8) of the instability."""
    network, task = RNN.replace(noise=noise), tasks.chain(steps, 1.0)
    found = theory.critical_signal(network, task)
    assert found.order == "first order"
    assert found.spinodal < found.crossing < found.instability
    assert found.instability == pytest.approx(closed_form(steps, noise), rel=1e-6)
    assert found.crossing / found.instability == pytest.approx(crossing, abs=2e-3)
    coherent = [
        np.abs(theory.solve(network, task.scaled(factor)).kernel[0, 0, 1, 0]) > 1e-3
        for factor in (found.crossing * 0.998, found.crossing * 1.002)
    ]
    assert coherent == [False, True]


def test_without_a_shared_w_or_with_two_steps_there_is_no_transition():
    for network, steps in ((theory.Network.dnn(8), 3), (RNN, 2), (RNN.replace(scaling="standard"), 3)):
        found = theory.critical_signal(network, tasks.chain(steps, 1.0))
        assert found.order == "none"
        assert np.isinf([found.instability, found.crossing, found.spinodal]).all()


def test_problems_without_a_symmetric_branch_are_refused():
    with pytest.raises(ValueError, match="symmetric branch"):
        theory.critical_signal(RNN.replace(activation="relu"), tasks.chain(3, 1.0))
    with pytest.raises(ValueError, match="symmetric branch"):
        theory.critical_signal(RNN, tasks.rotation(4, 8))
    with pytest.raises(ValueError, match="zero targets"):
        theory.critical_signal(RNN, tasks.chain(3, 0.0))

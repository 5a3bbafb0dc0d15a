"""The critical signal: closed forms of the chain, the order of the transition, and what has none."""

import numpy as np
import pytest

import theory
from bayesnet import tasks
from theory.search.broken_branch import BrokenPath
from theory.search.settings import BranchSettings

RNN = theory.Network.rnn(8)
# Instabilities of chains, kappa = .1, found by another program.
TABLE = {
    ("erf", 1.0): {3: 1.84122, 4: 1.02462, 5: 0.76218, 6: 0.62979, 8: 0.49508},
    ("tanh", 2.0): {3: 2.34563, 4: 1.42908, 5: 1.14047, 6: 0.99731, 8: 0.85471},
}


def identity(x):
    """Linear, but for all the code knows any odd function."""
    return x


def skewed_patterns(steps: int, patterns: int) -> theory.Task:
    """An endpoint task whose patterns overlap and whose target is no eigenvector of their Gram matrix."""
    rng = np.random.default_rng(3)
    return tasks.endpoint(steps, 1.0, inputs=np.sqrt(4) * np.eye(patterns, 4) + 0.4 * rng.normal(size=(patterns, 4)))


def closed_form(steps: int, noise: float) -> float:
    """|y|_c = (kappa + K_c) / sqrt(K_c) sqrt(r_c - 1), r_c = (T-1)/(T-2), unit gains."""
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
    """The free energies cross near .971 (T=6) and .902 (T=8) of the instability."""
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


def test_no_random_start_is_needed_to_find_the_winning_branch():
    """Below the instability the symmetric branch, which the lazy start leads to, is stable and has no way out."""
    task = tasks.chain(6, 1.0)
    instability = closed_form(6, 0.1)
    for factor in (0.966, 0.975, 0.99):
        solution = theory.solve(RNN, task.scaled(factor * instability), starts=0)
        assert [branch.stable for branch in solution.branches] == [True, True]


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


@pytest.mark.parametrize(("steps", "dense_up_to"), [(4, 100), (4, 0), pytest.param(6, 100, marks=pytest.mark.slow)])
def test_the_stability_map_of_an_identity_activation_gives_the_closed_form(steps, dense_up_to):
    """By all eigenvalues of its matrix, or by Arnoldi's method."""
    settings = theory.Settings(branches=BranchSettings(dense_unknowns=dense_up_to))
    found = theory.critical_signal(RNN.replace(activation=identity), tasks.chain(steps, 1.0), settings=settings)
    assert found.instability == pytest.approx(closed_form(steps, 0.1), rel=1e-6)
    assert found.instability_error == 0


@pytest.mark.parametrize(
    ("activation", "gain_squared", "steps", "expected"),
    [
        pytest.param(*case, steps, value, marks=[] if steps == 3 else pytest.mark.slow, id=f"{case[0]}, T={steps}")
        for case, row in TABLE.items()
        for steps, value in row.items()
    ],
)
def test_instabilities_of_saturating_chains(activation, gain_squared, steps, expected):
    network = RNN.replace(activation=activation, recurrent_gain=gain_squared**0.5)
    found = theory.critical_signal(network, tasks.chain(steps, 1.0))
    assert found.instability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(skewed_patterns(3, 2), id="two patterns", marks=pytest.mark.slow),
        pytest.param(skewed_patterns(4, 3), id="three patterns", marks=pytest.mark.slow),
        pytest.param(
            theory.Task(np.eye(4)[None, :, :1] + np.eye(4)[None, [2, 3, 0, 1], :1], [[np.nan, 0.3, np.nan, 1.0]]),
            id="inputs at two steps, targets at two",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_stability_map_agrees_with_the_curvature_of_linear_networks(task):
    """Blocks of patterns, and symmetric branches that even offsets correlate."""
    exact = theory.critical_signal(RNN, task)
    found = theory.critical_signal(RNN.replace(activation=identity), task)
    assert found.instability == pytest.approx(exact.instability, rel=1e-5)


@pytest.mark.slow
def test_many_patterns_come_with_an_error_bar():
    """Four patterns hang together: points instead of grids."""
    task = skewed_patterns(3, 4)
    exact = theory.critical_signal(RNN, task)
    found = theory.critical_signal(RNN.replace(activation=identity), task)
    assert 0 < found.instability_error < 5e-3 * found.instability
    assert abs(found.instability - exact.instability) < 5 * found.instability_error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "gain_squared", "low", "high"),
    [pytest.param(identity, 1.0, 0.971, 0.971, id="identity"), pytest.param("tanh", 2.0, 0.92, 0.95, id="tanh")],
)
def test_first_order_transitions_of_other_activations(activation, gain_squared, low, high):
    """T = 6, the free energies cross at .971 of the instability (linear), between .92 and .95 (tanh)."""
    network = RNN.replace(activation=activation, recurrent_gain=gain_squared**0.5)
    found = theory.critical_signal(network, tasks.chain(6, 1.0))
    assert found.order == "first order"
    assert found.spinodal < found.crossing < found.instability
    slack = 3 * found.crossing_error
    assert low * found.instability - slack < found.crossing < high * found.instability + slack
    assert found.crossing_error < 0.02 * found.instability


@pytest.mark.slow
def test_order_and_thresholds_where_three_entries_are_integrated_exactly():
    """The transition of the chain of three steps is continuous; a path through the pitchfork shows it."""
    found = theory.critical_signal(RNN.replace(activation="tanh", recurrent_gain=2**0.5), tasks.chain(3, 1.0))
    assert found.order == "continuous"
    assert found.crossing == found.spinodal == found.instability


def test_along_what_correlations_need_not_grow_with():
    with pytest.raises(ValueError, match="along is 'noise'; allowed are 'signal' and degrees of sharing"):
        theory.critical_point(RNN, tasks.chain(3, 1.0), "noise")


@pytest.mark.parametrize("step", [0.5, 0.05], ids=["few steps", "many"])
def test_thresholds_of_a_path_in_closed_form(step):
    """f = 1 - a^2/2 + a^4 with dF/df = -a^2: a fold at a = 1/2, and free energies that meet where the area is zero.

    F along the path is the integral of -a^2 df = a^4/4 - 2 a^6/3, which is zero at a^2 = 3/8.
    """
    a = np.arange(0, 1.01, step)
    found = BrokenPath(a, 1 - a**2 / 2 + a**4, -(a**2), exact=True).thresholds()
    crossing = 1 - 3 / 16 + 9 / 64
    np.testing.assert_allclose(found, (0.9375, crossing), atol=0.02 if step == 0.5 else 1e-5)


def test_a_path_that_rises_from_the_start_has_one_threshold():
    a = np.linspace(0, 1, 5)
    assert BrokenPath(a, 2 + a**2, -(a**2), exact=True).thresholds() == (2, 2)
    with pytest.raises(RuntimeError, match="lost right at the instability"):
        BrokenPath(a[:1], 2 + a[:1], a[:1], exact=True).thresholds()

"""One root for several sets of points: what it is for sets that have roots, and for sets of which some have none."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import problem_of

import theory
from theory.laws.grid import GridSettings
from theory.search import solve_branch as solving
from theory.search.branch import Options
from theory.search.branches import find_branches
from theory.search.common_root import _covariance, solve_together
from theory.search.problem import make_laws, slope_on_laws, solve_on_laws
from theory.search.stationarity import Root

GAIN, SETS = 2**0.5, 4


def chain(steps, signal):
    inputs, targets = np.zeros((1, steps, 1)), np.full((1, steps), np.nan)
    inputs[0, 0], targets[0, -1] = 1, signal
    return theory.Task(inputs, targets)


@pytest.fixture(scope="module")
def drawn_branch():
    """The broken tanh branch on sets of draws, as if three entries were too many for a grid."""
    settings = theory.Settings(grids=GridSettings(rank=0))
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    with jax.enable_x64(True):
        found = find_branches(*problem_of(network, chain(3, 3.0)), Options(4096, SETS, settings=settings))
    return min(found, key=lambda branch: np.mean(branch.energies))


@pytest.fixture(scope="module")
def together(drawn_branch):
    """Common root, own roots to first order, sets, and the roots of the sets solved one by one."""
    problem, state = drawn_branch.found.problem, drawn_branch.found.state
    with jax.enable_x64(True):
        laws = make_laws(problem, state, 5)
        slope = slope_on_laws(problem, state, laws)
        common, own, sets = solve_together(problem, state, slope, SETS, 7)
        alone = [solve_on_laws(problem, state, laws, slope) for laws in sets]
    return common, own, alone


def test_own_roots_to_first_order_are_those_of_the_sets_one_by_one(together):
    """What is left is of second order in their distance from the common root."""
    common, own, alone = together
    assert all(root.residual < 1e-9 for root in (common, *own, *alone))
    for first_order, exact in zip(own, alone, strict=True):
        for name in ("kernel", "conjugate"):
            away = np.max(np.abs(getattr(exact, name) - getattr(common, name)))
            assert away > 1e-4
            np.testing.assert_allclose(getattr(first_order, name), getattr(exact, name), atol=0.2 * away)


def test_the_common_root_is_the_mean_of_the_own_ones(together):
    common, own, _ = together
    np.testing.assert_allclose(np.mean([root.kernel for root in own], axis=0), common.kernel, rtol=1e-6)


def test_sets_without_a_root_are_solved_together(monkeypatch, drawn_branch):
    """Where a set fails, the answer comes from all of them and says so; its error is that of separate solves."""
    problem = drawn_branch.found.problem
    solve = solving.solve_on_laws
    failing = iter([True, False, False, False])

    def one_fails(*arguments):
        root = solve(*arguments)
        return replace(root, residual=1.0) if next(failing) else root

    monkeypatch.setattr(solving, "solve_on_laws", one_fails)
    with jax.enable_x64(True):
        model = problem.model
        found = solving.solve_branch(problem, model, drawn_branch.found.state, SETS, 3)
    assert found.found.together
    assert not drawn_branch.found.together
    assert all(root.residual < 1e-9 for root in found.roots)
    energies = np.array([found.energies, drawn_branch.energies])
    means, errors = energies.mean(axis=1), energies.std(axis=1, ddof=1) / np.sqrt(SETS)
    # 12.9: once in a thousand for t with three degrees of freedom.
    assert abs(means[0] - means[1]) < 12.9 * np.hypot(*errors)


def test_a_kernel_made_indefinite_by_the_first_order_becomes_a_covariance():
    scale = np.array([1.0, 3.0])
    indefinite = np.array([[1.0, 1.1], [1.1, 1.0]]) * np.outer(scale, scale)
    values = np.linalg.eigvalsh(_covariance(indefinite, scale))
    assert values[0] > -1e-12
    fine = np.eye(2)
    assert _covariance(fine, scale) is fine


def test_a_common_search_that_fails_is_told_by_its_residual(monkeypatch, drawn_branch):
    problem, state = drawn_branch.found.problem, drawn_branch.found.state
    monkeypatch.setattr(
        "theory.search.common_root.solve_on_laws",
        lambda problem, state, laws, slope: Root(np.nan * state.kernel, state.conjugate, np.inf, 0.0),
    )
    with jax.enable_x64(True):
        _, own, _ = solve_together(problem, state, np.eye(12), 2, 0)
    assert all(np.isinf(root.residual) for root in own)
    assert jnp.isfinite(state.kernel).all()


def test_an_error_bar_that_cannot_be_had_is_no_answer(monkeypatch, drawn_branch):
    """The linear equations for the sets' own roots left unsolved would give errors of zero."""
    problem, state = drawn_branch.found.problem, drawn_branch.found.state
    monkeypatch.setattr("theory.search.common_root.solve_linear", lambda multiply, right, *rest: 0 * right)
    with jax.enable_x64(True):
        laws = make_laws(problem, state, 5)
        slope = slope_on_laws(problem, state, laws)
        common, own, _ = solve_together(problem, state, slope, SETS, 7)
    assert common.residual < 1e-9
    assert all(np.isinf(root.residual) for root in own)

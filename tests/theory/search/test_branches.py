"""The nonlinear saddle point against the exact linear one, quadrature, reference values and its own error bars."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.stats
from small_problems import problem_of, sequence

import theory
from theory.laws.grid import GridSettings
from theory.model import build_model
from theory.search import problem as problems
from theory.search.branch import Options
from theory.search.branches import find_branches
from theory.search.settings import RefreshSettings, SetSettings
from theory.search.stationarity import Root
from theory.solution import Solution, only_stable
from theory.ties import needed_part, tied_entries

GAIN = 2**0.5
DRAWS_ONLY = theory.Settings(grids=GridSettings(rank=0))  # as if one entry were too many for a grid
# Chain T=3, gw^2=2, kappa=.1, y=3, RNN, tanh: the kernel, found by two other methods.
REFERENCE = [[0.4621, 0.228, 0.198], [0.228, 0.602, 0.5215], [0.198, 0.5215, 0.8333]]


def identity(x):
    return x


def chain(steps, signal, silent=0):
    inputs = np.zeros((1, steps + silent, 1))
    inputs[0, 0] = 1
    targets = np.full((1, steps + silent), np.nan)
    targets[0, steps - 1] = signal
    return theory.Task(inputs, targets)


def flat(kernel):
    return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)


@pytest.fixture(scope="module")
def tanh_solution():
    return theory.solve(theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN), chain(3, 3.0))


@pytest.mark.slow
def test_an_identity_activation_reproduces_the_linear_solver_on_both_branches():
    network, task = theory.Network.rnn(1, activation=identity), chain(3, 4.3)
    solution, exact = theory.solve(network, task), theory.solve(network.replace(activation="linear"), task)
    assert solution.converged
    assert [b.stable for b in solution.branches] == [b.stable for b in exact.branches] == [True, False]
    for ours, theirs in zip(solution.branches, exact.branches, strict=True):
        np.testing.assert_allclose(ours.kernel, theirs.kernel, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.conjugate, theirs.conjugate, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.prediction, theirs.prediction, atol=1e-7)
        assert ours.free_energy == pytest.approx(theirs.free_energy, abs=1e-7)
    np.testing.assert_allclose(np.diagonal(flat(solution.kernel)), [2.26299, 5.71627, 14.43917], atol=1e-5)


def test_reference_values_of_tanh(tanh_solution):
    assert tanh_solution.converged
    assert tanh_solution.stable
    assert tanh_solution.residual < 1e-8
    np.testing.assert_allclose(flat(tanh_solution.kernel), REFERENCE, atol=1e-3)
    assert not tanh_solution.branches[1].stable
    # DNN free energy of the same task is that of the symmetric branch.
    assert tanh_solution.branches[1].free_energy > tanh_solution.free_energy


def test_a_slightly_broken_branch_is_not_missed():
    """Two per cent above the instability the overlap is .12 only, and the flow's own scatter hides it."""
    solution = theory.solve(theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN), chain(3, 2.4))
    assert [branch.stable for branch in solution.branches] == [True, False]
    assert solution.converged
    assert solution.kernel[0, 0, 1, 0] == pytest.approx(0.0685, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.01, 1.0323, 1.0769])
def test_every_seed_finds_the_broken_branch_close_above_the_transition(factor):
    """A start that leads back to the symmetric branch, which is unstable there, was once the end of the search."""
    found = [
        theory.solve(theory.Network.rnn(1, activation="erf"), chain(3, 1.84122 * factor), seed=s) for s in range(4)
    ]
    assert all(solution.converged and len(solution.branches) == 2 for solution in found)
    assert np.ptp([solution.free_energy for solution in found]) < 1e-6


@pytest.mark.slow
def test_little_noise_makes_no_flow_diverge():
    """kappa = .01 and seven supervised steps: the forces on the neurons are stiff. F as found with half the step."""
    task = theory.Task(
        np.eye(12)[None, 0, :, None],
        np.where(np.isin(np.arange(12), (0, 1, 3, 4, 6, 9, 11)), np.sin(np.arange(12) * np.pi / 4), np.nan)[None],
    )
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=1.2, noise=0.01)
    found = [theory.solve(network, task, seed=seed) for seed in range(2)]
    assert all(solution.converged for solution in found)
    gap = found[0].free_energy - found[1].free_energy
    assert abs(gap) < 8.6 * np.hypot(*(solution.free_energy_error for solution in found))


@pytest.mark.slow
def test_every_seed_finds_the_branch_that_stays_at_a_fixed_point():
    """Thirty steps: the last ones differ by one part in a thousand only. One answer in two was no saddle point once."""
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    found = [theory.solve(network, chain(30, 1.0), seed=seed) for seed in range(4)]
    assert all(solution.converged and solution.stable for solution in found)
    energies = np.array([(solution.free_energy, solution.free_energy_error) for solution in found])
    spread = energies[:, 0] - np.average(energies[:, 0], weights=energies[:, 1] ** -2)
    assert np.sum((spread / energies[:, 1]) ** 2) < scipy.stats.f.ppf(0.999, 3, 3 * 3) * 3


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "signal"), [(12, 5.0), (30, 3.0), (60, 1.0)])
def test_strong_signals_lead_to_a_fixed_point(steps, signal):
    """The last step repeats the one before; the readout then sees what a network of fewer steps sees.

    The approach is slow in long chains: no root is found unless additions below 1e-3 of the variance count as none.
    """
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    solution = theory.solve(network, chain(steps, signal), tolerance=0.03)
    assert solution.converged
    assert solution.stable
    assert ("follow from earlier ones" in solution.message) == (steps > 12)
    kernel, error = flat(solution.kernel), flat(solution.standard_error)
    assert kernel[-1, -2] == pytest.approx(kernel[-1, -1], abs=6 * error[-1, -1])
    shorter = theory.solve(network, chain(steps - 1, signal))
    combined = np.hypot(solution.free_energy_error, shorter.free_energy_error)
    # 12.9: once in a thousand for t with three degrees of freedom.
    assert abs(solution.free_energy - shorter.free_energy) < 12.9 * combined


def test_an_answer_that_is_unstable_has_not_converged(tanh_solution):
    unstable = only_stable(tanh_solution.branches[1])
    assert tanh_solution.branches[1].converged
    assert not unstable.converged
    assert "no stable one" in unstable.message
    assert only_stable(tanh_solution) is tanh_solution


@pytest.mark.slow
@pytest.mark.parametrize("shared", [("recurrent", "readout"), ("input",)])
def test_several_outputs_patterns_and_inputs_against_the_linear_solver(shared):
    """Six entries of which the first weights tie all, the second the two patterns of a step."""
    task = sequence()
    network = theory.Network(1, activation=identity, shared=shared)
    solution = theory.solve(network, task, points=4096, tolerance=0.05)
    exact = theory.solve(network.replace(activation="linear"), task)
    assert solution.converged
    error = solution.standard_error + 1e-6
    assert np.all(np.abs(solution.kernel - exact.kernel) < 6 * error)
    assert solution.free_energy == pytest.approx(exact.free_energy, abs=5 * solution.free_energy_error + 1e-6)


def test_solutions_survive_storage(tanh_solution):
    first, second = tanh_solution.branches
    more = np.concatenate([first.repetitions, 2 * first.repetitions])
    several = replace(tanh_solution, branches=(replace(first, repetitions=more), second))
    back = Solution.from_xarray(several.to_xarray())
    np.testing.assert_array_equal(back.standard_error, tanh_solution.standard_error)
    assert len(back.repetitions) == 2
    np.testing.assert_array_equal(back.repetitions[0], back.kernel)
    np.testing.assert_array_equal(back.branches[0].repetitions, more)
    np.testing.assert_array_equal(back.branches[1].repetitions, second.repetitions)
    assert (back.effective_sample_size, back.randomisations) == (1.0, 1)
    assert len(back.branches) == 2


@pytest.mark.slow
def test_unshared_networks_factorise(monkeypatch):
    network, task = theory.Network.dnn(1, activation="relu", recurrent_gain=GAIN), chain(2, 3.0)
    by_steps = theory.solve(network, task)
    with jax.enable_x64(True):
        assert [list(group) for group in tied_entries(build_model(network, task))] == [[0], [1]]
    monkeypatch.setattr(problems, "tied_entries", lambda model: [np.arange(2)])
    together = theory.solve(network, task)
    assert by_steps.converged
    assert by_steps.free_energy == pytest.approx(together.free_energy, abs=1e-5)
    np.testing.assert_allclose(by_steps.kernel, together.kernel, rtol=1e-4, atol=1e-4)


def test_the_last_steps_and_spare_patterns_follow_by_the_prior():
    task = theory.Task(np.ones((2, 2, 1)) * [[[1.0]], [[0.5]]], np.array([[2.0, np.nan], [np.nan, np.nan]]))
    network = theory.Network.rnn(1, activation=identity)
    reduced, kept = needed_part(build_model(network, task))
    assert (reduced.sites, reduced.patterns, list(kept)) == (1, 1, [0])
    solution, exact = theory.solve(network, task), theory.solve(network.replace(activation="linear"), task)
    excess = np.abs(solution.kernel - exact.kernel)
    assert np.all(excess <= 5 * solution.standard_error + 1e-6)
    assert solution.prediction[0, 0] == pytest.approx(exact.prediction[0, 0], abs=1e-8)


@pytest.fixture(scope="module")
def sampled_branches():
    """Both tanh branches on 32 independent sets of few points, as if three entries were too many for a grid."""
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    with jax.enable_x64(True):
        branches = find_branches(*problem_of(network, chain(3, 3.0)), Options(4096, 32, settings=DRAWS_ONLY))
    return sorted(branches, key=lambda branch: np.mean(branch.energies))


def test_draws_see_that_the_symmetric_branch_is_unstable(sampled_branches):
    assert [branch.stable for branch in sampled_branches] == [True, False]


def test_points_agree_with_quadrature_and_error_bars_cover(sampled_branches, tanh_solution):
    sampled_branch = sampled_branches[0]
    rows, columns = np.tril_indices(3)
    kernels = np.abs([root.kernel[rows, columns] for root in sampled_branch.roots])
    exact = flat(tanh_solution.kernel)[rows, columns]
    assert max(root.residual for root in sampled_branch.roots) < 1e-8
    error = kernels.std(axis=0, ddof=1) / np.sqrt(len(kernels))
    assert np.all(np.abs(kernels.mean(axis=0) - exact) < 5 * error)
    energies = np.array(sampled_branch.energies)
    spread = energies.std(ddof=1) / np.sqrt(len(energies))
    assert abs(energies.mean() - tanh_solution.free_energy) < 5 * spread
    # t intervals of eight sets of four: 90% should cover. Entries are correlated, so eight trials each, not 48.
    sets = kernels.reshape(8, 4, -1)
    half = scipy.stats.t.ppf(0.95, 3) * sets.std(axis=1, ddof=1) / 2
    covered = (np.abs(sets.mean(axis=1) - exact) < half).mean(axis=0)
    assert np.all(covered >= 4 / 8)
    assert covered.mean() > 0.7


def test_an_error_above_the_tolerance_is_not_convergence():
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    how = {"points": 2048, "randomisations": 2, "tolerance": 1e-9, "settings": DRAWS_ONLY}
    solution = theory.solve(network, chain(3, 3.0), **how)
    assert not solution.converged
    assert "NOT CONVERGED: the standard error" in solution.message
    assert np.all(np.isfinite(solution.kernel))


@pytest.mark.parametrize(("tolerance", "points"), [(1.0, 1024), (1e-9, 4096)])
def test_more_points_are_tried_where_the_first_do_not_do(tolerance, points):
    settings = replace(DRAWS_ONLY, sets=SetSettings(first=1024, enough=1024, most=4096))
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    how = {"randomisations": 2, "tolerance": tolerance, "settings": settings}
    solution = theory.solve(network, chain(3, 3.0), **how)
    assert f"sets of {points} points" in solution.message
    assert solution.converged == (tolerance == 1.0)


@pytest.mark.parametrize(
    ("setting", "value"), [("points", 10), ("randomisations", 1), ("tolerance", 0), ("seed", -1), ("points", 2.5)]
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        theory.solve(theory.Network.rnn(1, activation="tanh"), chain(2, 1.0), **{setting: value})


def bounded_domain(x):
    """Finite where activations are checked, not a number further out."""
    return jax.numpy.sqrt(16 - x**2)


def test_hopeless_input_ends_in_a_message():
    with pytest.raises(ValueError, match="not finite"):
        theory.solve(theory.Network.rnn(1, activation=bounded_domain), chain(2, 1.0))


def test_a_search_that_leads_nowhere_is_no_number(monkeypatch):
    monkeypatch.setattr(problems, "violation_slope", lambda *arguments: np.full((2, 2), np.nan))
    with pytest.raises(RuntimeError, match="no saddle point"):
        theory.solve(theory.Network.rnn(1, activation=identity), chain(2, 1.0))


@pytest.mark.slow
def test_error_bars_cover_a_long_reference():
    """Kernels and free energy of 24 seeds against one solution on 32 times the points: t intervals of 90%."""
    network, task = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN), chain(4, 2.0)
    reference = theory.solve(network, task, points=65536, randomisations=8, seed=10_000)
    pairs = np.tril_indices(4)
    quantile = scipy.stats.t.ppf(0.95, 3)
    covered = []
    for seed in range(24):
        solution = theory.solve(network, task, points=4096, seed=seed)
        assert solution.converged
        error = np.hypot(quantile * solution.standard_error, 2 * reference.standard_error)
        inside = np.append(
            (np.abs(solution.kernel - reference.kernel) < error).reshape(4, 4)[pairs],
            abs(solution.free_energy - reference.free_energy)
            < np.hypot(quantile * solution.free_energy_error, 2 * reference.free_energy_error),
        )
        covered.append(inside)
    rates = np.mean(covered, axis=0)
    print("coverage", rates)
    # 24 trials at 90%: fewer than 17 have a chance of 1 in 600; eleven rates.
    assert np.all(rates >= 17 / 24)
    assert rates.mean() > 0.82


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "steps", "signal", "error"),
    [
        ("tanh", 12, 1.0, 1e-2),
        ("tanh", 12, 3.0, 2e-2),
        ("relu", 12, 1.0, 2e-2),
        ("tanh", 30, 1.0, 2e-2),
        ("relu", 30, 1.0, 2e-2),  # some sets of points have no root of their own
    ],
)
def test_many_entries(activation, steps, signal, error):
    network = theory.Network.rnn(1, activation=activation, recurrent_gain=GAIN)
    solution = theory.solve(network, chain(steps, signal), tolerance=error)
    assert solution.converged, solution.message
    assert solution.residual < 1e-8
    assert solution.effective_sample_size > 0.3


def test_a_search_that_gets_nowhere_counts_small_additions_as_none(monkeypatch):
    """Step 3 adds 5e-4 of its variance: new at the first floor, not at the coarser one; then more points are tried."""
    task = chain(5, 1.0)
    network = theory.Network.rnn(1, activation="tanh", recurrent_gain=GAIN)
    factor = np.eye(5)
    factor[1, :2] = (1 - 5e-4) ** 0.5, 5e-4**0.5
    tried, drawn = [], []

    def draw(problem, state, *rest):
        drawn.append(problem.points)
        return ()

    def stays(problem, state, laws, slope):
        tried.append((problem.floor, problem.layout.groups[0].live, drawn[-1]))
        return Root(state.kernel, state.conjugate, 1.0, 1.0)

    monkeypatch.setattr(problems, "make_laws", draw)
    monkeypatch.setattr(problems, "slope_on_laws", lambda *arguments: np.eye(1))
    monkeypatch.setattr(problems, "solve_on_laws", stays)
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        kernel = factor @ factor.T
        problem = problems.make_problem(model, network.phi, kernel, 16)
        state = problems.State(kernel, 0 * kernel)
        with pytest.raises(problems.LostError):
            problems.settle(problem, state, 0)
    assert tried == [(1e-8, (0, 1, 2, 3, 4), 16), (1e-3, (0, 1, 3, 4), 16), (1e-3, (0, 1, 3, 4), 64)]


def test_laws_are_made_halfway_back_where_there_is_none():
    """phi(h) = h: the law of Phihat = -5 C^{-1} cannot be normalised, nor those of a half and a quarter of it."""
    network, task = theory.Network.rnn(1, activation=identity), chain(3, 1.0)
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        problem = problems.make_problem(model, network.phi, np.eye(3), 1024, DRAWS_ONLY)
        before = problems.State(np.eye(3), np.zeros((3, 3)))
        strong = problems.State(np.eye(3), -5 * np.linalg.inv(problem.cov(np.eye(3))))
        state, (law,) = problems.make_laws_halfway(problem, before, strong, 0)
        np.testing.assert_allclose(state.conjugate, strong.conjugate / 8)
        assert law.coordinates.shape == (1024, 3)
        assert np.isfinite(law.tilt).all()
        less = replace(DRAWS_ONLY, refreshes=RefreshSettings(retreats=3))
        with pytest.raises(problems.LostError, match="run away"):
            problems.make_laws_halfway(replace(problem, settings=less), before, strong, 0)

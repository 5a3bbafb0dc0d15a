"""Saddle points of linear networks: against derivatives in other coordinates, finite differences, rotated patterns."""

import jax
import numpy as np
import pytest
from noise_energy import gradient, hessian, pack
from small_problems import chain, generic_network, generic_task

from theory import Network, Task, log_evidence, solve
from theory.gaussian import search
from theory.gaussian.curvatures import lowest_curvatures
from theory.gaussian.data_directions import data_directions, lifted
from theory.gaussian.kernel_energy import Points, positive_inverse
from theory.gaussian.reduced import Reduced
from theory.gaussian.saddle_point import by_entry, reduced_kernel
from theory.gaussian.search import LinearProblem
from theory.gaussian.settings import GaussianSettings, TrustRegionSettings
from theory.gaussian.starts import random_starts
from theory.gaussian.trust_region import descend
from theory.kernels import flat_of
from theory.model import build_model, data_term, preactivation_cov
from theory.response import factorise
from theory.symmetry import sign_changes


def task_of(inputs, seed=0, outputs=2):
    """Random targets, half of them supervised besides all at the last step."""
    rng = np.random.default_rng(seed)
    supervised = rng.random(inputs.shape[:2]) < 0.5
    supervised[:, -1] = True
    return Task(inputs, rng.normal(size=(*inputs.shape[:2], outputs)), supervised)


def inputs_of(patterns, steps, dim, seed=1):
    return np.random.default_rng(seed).normal(size=(patterns, steps, dim))


def shown_first(patterns, steps, dim):
    inputs = inputs_of(patterns, steps, dim)
    inputs[:, 1:] = 0
    return inputs


LATE = inputs_of(3, 4, 2)
LATE[:, 0] = 0  # nothing has reached the first step
PROBLEMS = {
    "chain": (Network.rnn(1), chain(3, 4.3)),
    "every term": (generic_network(1, "all"), generic_task()),
    "two layers": (generic_network(1, "W and V", layers=2), generic_task()),
    "two layers of every term": (generic_network(1, "all", layers=2), generic_task()),
    "late inputs": (Network.rnn(1, leak=0.7), task_of(LATE)),
    "delay": (Network.rnn(1, delay=2), task_of(inputs_of(2, 4, 3))),
    "collinear patterns": (Network.rnn(1, noise=0.3), task_of(shown_first(2, 3, 1))),
    "more collinear patterns": (Network.rnn(1, noise=0.3), task_of(shown_first(7, 3, 2))),
    "collinear patterns, deep": (Network.dnn(1, noise=0.3), task_of(shown_first(7, 3, 2))),
    "nearly dependent steps": (Network.rnn(1), task_of(inputs_of(4, 6, 3))),
}


def points_of(name):
    network, task = PROBLEMS[name]
    reduced = Reduced.of(build_model(network, task))
    m = reduced.entries
    root = np.linalg.cholesky(reduced.lazy_kernel()) @ (
        np.eye(m) + 0.2 * np.random.default_rng(2).normal(size=(m, m)) / m**0.5
    )
    return Points(reduced, root @ root.T)


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivatives(name):
    """Derivatives along two directions against central differences, and what is the adjoint of what."""
    point = points_of(name)
    rng = np.random.default_rng(3)
    m = len(point.kernel)
    one, other = (point.step_of_noise(x + x.T) for x in rng.normal(size=(2, m, m)) / m)

    def value(size, step):
        return point.moved(size * step, size * step @ point.kernel_precision).value

    step = 1e-3
    # Whether a trial lies beyond what is positive definite does not matter: steps of any size lead to kernels.
    first = (value(step, one) - value(-step, one)) / (2 * step)
    second = (value(step, one) + value(-step, one) - 2 * point.value) / step**2
    np.testing.assert_allclose(np.sum(point.gradient * one), first, rtol=1e-3, atol=1e-5)
    along, across = point.curve(one)[0], point.curve(other)[0]
    np.testing.assert_allclose(np.sum(along * one), second, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.sum(along * other), np.sum(across * one), rtol=1e-6, atol=1e-8)
    by_noise = np.sum(point.noise_of_gradient(along) * point.noise_of_gradient(across))
    np.testing.assert_allclose(np.sum(point.precondition(along) * across), by_noise, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_expanded_is_what_the_model_says(name):
    """At some kernel that is no saddle point: C, the law of the targets and F from all entries."""
    network, task = PROBLEMS[name]
    model, point = build_model(network, task), points_of(name)
    flat = by_entry(point, model, stable=True)
    with jax.enable_x64(True):
        cov = np.asarray(preactivation_cov(model.on_device(), flat.kernel))
        data = float(data_term(model.on_device(), flat.kernel))
    np.testing.assert_allclose(flat.cov, cov, atol=1e-12 * np.max(cov))
    # On the range of C, which may be singular.
    values, vectors = np.linalg.eigh(cov)
    kept = values > 1e-7 * values[-1]
    white = vectors[:, kept] / np.sqrt(values[kept])
    ratio = np.linalg.eigvalsh(white.T @ flat.kernel @ white)
    if np.count_nonzero(kept) == point.problem.entries:
        divergence = np.sum(ratio - 1 - np.log(ratio)) / 2
        assert point.value == pytest.approx(divergence + data, rel=1e-6)


@pytest.mark.parametrize("name", ["chain", "every term", "two layers"])
def test_solutions_are_stationary_in_other_coordinates(name):
    """By derivatives of JAX in coordinates of white noise, where C has no inverse; and so is their stability."""
    network, task = PROBLEMS[name]
    solution = solve(network, task)
    assert solution.converged
    with jax.enable_x64(True):
        for branch in solution.branches:
            kernel, model = flat_of(branch.kernel), build_model(network, task).on_device()
            inverse = np.linalg.inv(factorise(np.asarray(preactivation_cov(model, kernel))))
            at = pack(np.linalg.cholesky(inverse @ kernel @ inverse.T))
            np.testing.assert_allclose(gradient(at, model), 0, atol=1e-10)
            assert branch.stable == (np.linalg.eigvalsh(np.asarray(hessian(at, model)))[0] > 0)


@pytest.mark.parametrize("name", ["chain", "every term"])
def test_how_far_a_kernel_is_from_rest_is_told_where_it_is_not_there(name):
    """To first order; nothing at the saddle point itself, and no more than the kernel where nothing was found."""
    network, task = PROBLEMS[name]
    model = build_model(network, task)
    reduced, kernel = Reduced.of(model), flat_of(solve(network, task, starts=0).kernel)
    at_rest = reduced_kernel(kernel, reduced)
    moved = at_rest * (1 + 1e-5 * np.cos(np.add.outer(np.arange(len(at_rest)), np.arange(len(at_rest)))))
    assert by_entry(Points(reduced, at_rest), model, stable=True).distance is None
    near = by_entry(Points(reduced, moved), model, stable=True)
    away = np.abs(near.kernel - kernel)
    np.testing.assert_allclose(near.distance, away, atol=1e-2 * away.max())
    far = by_entry(points_of(name), model, stable=True)
    np.testing.assert_allclose(far.distance, np.outer(*2 * [np.sqrt(np.diagonal(far.kernel))]))


def test_searches_together_end_where_each_ends_alone():
    """At every step some of them are not there any more, and some steps are refused."""
    reduced = Reduced.of(build_model(*PROBLEMS["chain"]))
    starts = Points(reduced, random_starts(reduced, 5, 0, GaussianSettings(amplitudes=(0.1, 3.0))))
    most = np.array([1000, 1000, 3, 1000, 1])
    together = descend(starts, most=most)
    for number in range(5):
        alone = descend(starts.at([number]), most=most[[number]])
        np.testing.assert_allclose(together.kernel[number], alone.kernel[0], rtol=1e-9, atol=1e-12)
    rested = most > 10
    assert np.all(together.residual[rested] < TrustRegionSettings.stationary)
    assert np.all(together.residual[~rested] > 1e-6)


def test_points_beyond_what_is_positive_definite_have_no_value():
    reduced = Reduced.of(build_model(*PROBLEMS["chain"]))
    lazy = reduced.lazy_kernel()
    values = Points(reduced, np.array([lazy, -lazy, 2 * lazy])).value
    assert np.isinf(values[1])
    np.testing.assert_allclose(values[[0, 2]], [Points(reduced, each).value for each in (lazy, 2 * lazy)])


def test_lowest_curvatures_are_those_of_the_matrix():
    """At the unstable symmetric solution of a chain: all second derivatives, column by column."""
    model = build_model(*PROBLEMS["chain"])
    point = descend(Points(Reduced.of(model), Reduced.of(model).lazy_kernel()[None])).at(0)
    assert point.residual < 1e-12
    m = len(point.kernel)
    rows, columns = np.tril_indices(m)
    units = np.zeros((len(rows), m, m))
    sizes = np.where(rows == columns, 1.0, 0.5**0.5)
    units[np.arange(len(rows)), rows, columns] = sizes
    units[np.arange(len(rows)), columns, rows] = sizes
    curved = [point.noise_of_gradient(point.curve(point.step_of_noise(unit))[0]) for unit in units]
    values = np.linalg.eigvalsh(np.einsum("aij,bij->ab", np.array(curved), units))
    lowest, steps = lowest_curvatures(point, 2, 1e-9)
    assert values[0] < 0
    np.testing.assert_allclose(lowest, values[:2], rtol=1e-6)
    np.testing.assert_allclose(np.sum(steps[0] * point.curve(steps[0])[0]), values[0], rtol=1e-6)


def test_more_patterns_than_directions_cost_no_more():
    """60 patterns in two dimensions are solved in two directions at each of three steps."""
    network, task = Network.rnn(1, noise=0.5), task_of(shown_first(60, 3, 2), outputs=1)
    solution = solve(network, task, starts=1)
    reduced = Reduced.of(build_model(network, task))
    assert reduced.entries == 6
    assert solution.converged
    assert np.linalg.matrix_rank(solution.kernel.reshape(180, 180), tol=1e-9) == 6


def _problem_of(network, task):
    model = build_model(network, task).on_device()
    return LinearProblem(model, sign_changes(model))


def test_a_branch_is_followed_over_an_unstable_one():
    with jax.enable_x64(True):
        problem = _problem_of(Network.rnn(1), chain(4, 2.0))
        symmetric = problem.find_saddle_points(0, 0)[0]
        assert not symmetric.stable
        below = problem.follow(symmetric.kernel)
    assert below.stable
    assert below.free_energy < symmetric.free_energy - 1e-3


def test_a_phase_that_no_unstable_direction_leads_to_needs_no_random_start():
    """Between spinodal, .9654, and instability, 1.0022, the symmetric branch of six steps is stable."""
    symmetric, broken = sorted(
        solve(Network.rnn(100), chain(6, 0.98), starts=0).branches, key=lambda one: abs(one.kernel[0, 0, 1, 0])
    )
    assert symmetric.stable
    assert broken.stable
    assert abs(symmetric.kernel[0, 0, 1, 0]) < 1e-6 < 0.1 < abs(broken.kernel[0, 0, 1, 0])


def test_the_best_that_was_reached_is_returned_where_the_time_is_up(monkeypatch):
    """Of the symmetric branch and the broken one, of less free energy, that searches have come to before."""
    monkeypatch.setattr(search, "time_is_up", lambda: True)
    (only,) = solve(Network.rnn(100), chain(6, 0.98), starts=0).branches
    assert abs(only.kernel[0, 0, 1, 0]) > 0.1


def test_an_inverse_by_products():
    root = np.random.default_rng(0).normal(size=(150, 200))
    matrix = root @ root.T
    np.testing.assert_allclose(positive_inverse(matrix) @ matrix, np.eye(150), atol=1e-9)


@pytest.mark.parametrize("shared", [(), ("recurrent",), ("input",)])
def test_patterns_that_nearly_coincide_are_solved_like_those_that_do(shared):
    """Also where what tells them apart is near the floor below which an entry follows from others."""
    network, found = Network(50, "linear", shared, noise=0.3), []
    for gap in (3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 0.0):
        inputs, targets = np.zeros((2, 3, 2)), np.full((2, 3, 1), np.nan)
        inputs[:, 0] = [[1.0, 0.0], [1.0, gap]]
        targets[:, -1, 0] = [1.0, -0.5]
        solution = solve(network, Task(inputs, targets))
        assert solution.converged
        found.append([solution.free_energy, log_evidence(solution).log_evidence])
    np.testing.assert_allclose(found, [found[-1]] * len(found), rtol=1e-7)


def test_targets_that_are_scaled():
    reduced = Reduced.of(build_model(*PROBLEMS["more collinear patterns"]))
    network, task = PROBLEMS["more collinear patterns"]
    again = Reduced.of(build_model(network, task.scaled(1.5)))
    scaled = reduced.with_targets(1.5)
    np.testing.assert_allclose(scaled.targets, again.targets)
    assert scaled.unexplained == pytest.approx(again.unexplained)
    assert scaled.unexplained > 0


def _told_apart(outputs=1, patterns=16, steps=3, known=(-1,), inputs_at=(0,)):
    """Random patterns, shown at some steps and told apart at others."""
    rng = np.random.default_rng(0)
    inputs, targets = np.zeros((patterns, steps, patterns)), np.full((patterns, steps, outputs), np.nan)
    for step in inputs_at:
        inputs[:, step] = rng.normal(size=(patterns, patterns))
    for step in known:
        targets[:, step] = rng.choice([-2.0, 2.0], size=(patterns, outputs))
    return Task(inputs, targets)


@pytest.mark.parametrize(
    ("network", "task"),
    [
        (Network.rnn(1), _told_apart()),
        (Network.dnn(1), _told_apart(outputs=2)),
        (Network.rnn(1, bias_gain=0.5, leak=0.7), _told_apart(known=(1, 2), inputs_at=(0, 1))),
    ],
)
def test_few_directions_of_patterns_hold_every_phase(network, task):
    """What is found by way of few directions is what a search over all of them finds, and more; to rounding error."""
    model = build_model(network, task)
    images = sign_changes(model)
    few, whole = (LinearProblem(model, images, GaussianSettings(many=many)) for many in (48, 10**6))
    directions = data_directions(model, few.reduced, few.settings)
    assert directions.shape[1] <= 10
    assert data_directions(model, whole.reduced, whole.settings) is None
    by_few, by_whole = few.find_saddle_points(4, 0), whole.find_saddle_points(4, 0)
    assert max(found.residual for found in by_few) < 1e-10
    values = np.array([[found.free_energy, found.stable] for found in by_few])
    for found in by_whole:
        assert np.min(np.abs(values - [found.free_energy, found.stable]).max(axis=1)) < 1e-8


@pytest.mark.parametrize("useful", [True, False])
def test_directions_that_miss_the_data_do_no_harm(useful, monkeypatch):
    """Nothing found in them, or starts without data: the lowest stable saddle point is found all the same."""
    model = build_model(Network.rnn(1), _told_apart())
    problem = LinearProblem(model, sign_changes(model))
    best = min(found.free_energy for found in problem.find_saddle_points(4, 0))
    other = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 2)))[0]
    monkeypatch.setattr(search, "data_directions", lambda *arguments: other)
    if not useful:
        monkeypatch.setattr(search, "lifted", lambda kernel, directions, reduced: np.full((48, 48), np.nan))
    found = problem.find_saddle_points(4, 0)
    assert min(each.free_energy for each in found) == pytest.approx(best, abs=1e-9)


def test_a_kernel_in_few_directions_is_lifted_to_all():
    """It keeps what is known in those directions and is a kernel; the prior's is lifted to the prior's."""
    model = build_model(Network.rnn(1), _told_apart())
    reduced = LinearProblem(model, sign_changes(model)).reduced
    directions = data_directions(model, reduced, GaussianSettings())
    every = np.kron(np.eye(3), directions)
    prior = reduced.expand(reduced.lazy_kernel())
    root = np.random.default_rng(0).normal(size=(every.shape[1], 2 * every.shape[1]))
    small = root @ root.T
    whole = lifted(small, directions, reduced)
    np.testing.assert_allclose(every.T @ whole @ every, small, atol=1e-8 * small.max())
    assert np.linalg.eigvalsh(whole).min() > -1e-9 * whole.max()
    np.testing.assert_allclose(lifted(every.T @ prior @ every, directions, reduced), prior, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("entries", [96, 240])
def test_many_entries(entries):
    """Twelve steps, random patterns at the first one: a broken solution below the symmetric one, to 1e-9."""
    patterns = entries // 12
    inputs = shown_first(patterns, 12, patterns)
    targets = np.full((patterns, 12), np.nan)
    targets[:, -1] = np.where(np.arange(patterns) % 2, 1.0, -1.0)
    task = Task(inputs, targets)
    solution = solve(Network.rnn(1), task)
    assert len(sign_changes(solution.model))
    assert solution.converged
    assert solution.residual <= 1e-9
    symmetric = solution.branches[-1]
    assert not symmetric.stable
    assert symmetric.residual <= 1e-9
    assert solution.free_energy < symmetric.free_energy - 0.1

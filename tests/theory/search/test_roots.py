"""Broyden's method, and Newton's where it fails, on functions whose roots are known."""

import numpy as np

from theory.search.roots import solve_linear, solve_root

ROOT = np.array([0.3, -1.2, 2.0, 0.7])
COUPLING = np.eye(4) + 0.3 * np.diag(np.ones(3), 1)


def cubic(at):
    away = at - ROOT
    return COUPLING @ (away + away**3)


def derivative_of_cubic(at, direction):
    return COUPLING @ ((1 + 3 * (at - ROOT) ** 2) * direction)


def trusted(function):
    return lambda at: (function(at), 1.0)


def unwanted(at, direction):
    raise AssertionError("Broyden's method alone finds this root")


def test_a_good_slope_needs_no_derivative():
    point, value, trust = solve_root(trusted(cubic), ROOT + 0.3, COUPLING, unwanted, 1e-12)
    np.testing.assert_allclose(point, ROOT, atol=1e-11)
    assert np.max(np.abs(value)) <= 1e-12
    assert trust == 1


def test_steps_teach_broyden_the_slope():
    """A linear equation of two unknowns, of which the slope is known badly: 2 n evaluations and the first suffice."""
    matrix, seen = np.array([[2.0, 0.5], [-0.3, 1.5]]), []

    def linear(at):
        seen.append(at)
        return matrix @ (at - ROOT[:2])

    point, *_ = solve_root(trusted(linear), np.zeros(2), 3.5 * np.eye(2), unwanted, 1e-12)
    np.testing.assert_allclose(point, ROOT[:2], atol=1e-11)
    assert len(seen) <= 5


def test_newton_takes_over_where_the_slope_points_uphill():
    wrong = COUPLING @ np.diag([-1.0, 1, 1, 1])
    tried = []

    def derivative(at, direction):
        tried.append(at)
        return derivative_of_cubic(at, direction)

    point, value, _ = solve_root(trusted(cubic), ROOT + np.array([2.0, 0, 0, 0]), wrong, derivative, 1e-12)
    assert tried
    np.testing.assert_allclose(point, ROOT, atol=1e-11)
    assert np.max(np.abs(value)) <= 1e-12


def test_without_a_root_the_best_point_is_returned():
    """(x - 1)^2 + .1 has none: the search ends near its minimum, and says by its value that it is none."""
    point, value, _ = solve_root(
        lambda at: ((at - 1) ** 2 + 0.1, 1.0), np.array([3.0]), np.eye(1), lambda at, d: 2 * (at - 1) * d, 1e-10
    )
    assert 0.1 <= value[0] < 0.2
    assert abs(point[0] - 1) < 0.35


def test_steps_keep_to_where_the_violation_can_be_trusted():
    """Full steps would lead straight to the root, through points that mean nothing."""
    seen = []

    def evaluate(at):
        seen.append(float(at[0]))
        return at, 1.0 if at[0] > 0.5 else 0.0

    point, value, trust = solve_root(evaluate, np.array([1.0]), np.eye(1), lambda at, d: d, 1e-10)
    assert min(seen) < 0.5 < point[0] < 0.6
    assert trust == 1
    assert value[0] == point[0]


def test_gmres_meets_its_tolerance_with_a_rough_inverse():
    rng = np.random.default_rng(0)
    matrix = np.eye(120) + 0.05 * rng.normal(size=(120, 120))
    rough = np.linalg.inv(matrix + 0.02 * rng.normal(size=(120, 120)))
    right = rng.normal(size=120)
    found = solve_linear(lambda x: matrix @ x, right, lambda x: rough @ x, 1e-8, 80)
    assert np.linalg.norm(matrix @ found - right) <= 1e-7 * np.linalg.norm(right)

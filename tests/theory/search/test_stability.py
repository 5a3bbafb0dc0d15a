"""Stability on draws, whose slopes are blurred: only what is negative on every set of them counts as unstable."""

import numpy as np
import pytest

from theory.search import stability
from theory.search.stationarity import Group, Layout, Root

LAYOUT = Layout(np.tanh, False, (True,), (Group((0,), (0,), "draws"),))
ROOT = Root(np.eye(1), np.zeros((1, 1)), 0.0, 1.0)


@pytest.mark.parametrize(
    ("signs", "stable"),
    [((1, 1, 1), True), ((-1, 1, 1), True), ((-1, -1, 1), True), ((1, -1, -1), True), ((-1, -1, -1), False)],
)
def test_one_set_without_a_descent_is_enough(monkeypatch, signs, stable):
    """The first sign is that of the slope at hand, the others those on the sets."""
    slopes = iter(signs[1:])
    monkeypatch.setattr(stability, "violation_slope", lambda *arguments: np.diag([next(slopes), 2.0]))
    found = stability.is_stable([ROOT, ROOT], [(None,), (None,)], None, LAYOUT, np.diag([signs[0], 2.0]))
    assert found is stable

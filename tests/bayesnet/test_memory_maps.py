"""Compiled programs are dropped where they would leave no room for others, and only there."""

import jax
import pytest

from bayesnet import memory_maps


@pytest.mark.parametrize(("most", "left"), [(0, 0), (10**9, 1)])
def test_programs_are_dropped_where_they_take_too_many_maps(monkeypatch, most, left):
    monkeypatch.setattr(memory_maps, "MOST_MAPS", most)
    program = jax.jit(lambda x: x + 1)
    program(1.0)
    memory_maps.make_room()
    assert program._cache_size() == left
    assert program(1.0) == 2

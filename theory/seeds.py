"""Seeds for the parts of a computation: no two parts, and no parts of two computations, draw the same numbers."""

from __future__ import annotations

import numpy as np


def part(seed: int, *place: int) -> int:
    """The seed of one part of the work that ``seed`` is for.

    Seeds next to one another will not do: draw 1 of seed 0 would be draw 0 of seed 1.

    Args:
        seed: of the whole, at least 0.
        place: numbers that say which part, at least 0.
    """
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1)[0])

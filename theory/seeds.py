"""Seeds: keys of JAX's random numbers, and seeds for the parts of a computation that share no draws."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

GENERATOR = "threefry2x32"


def key_of(seed: int) -> Any:
    """JAX's random key of a seed of 64 bits, which are all part of it, in and out of double precision.

    It is ``jax.random.key(seed)`` wherever that takes the seed whole.

    Args:
        seed: from 0 to 2^64 - 1.
    """
    words: Any = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
    return jax.random.wrap_key_data(words, impl=GENERATOR)


def part(seed: int, *place: int) -> int:
    """The seed of one part of the work that ``seed`` is for: no two parts, and no parts of two works, draw the same.

    Seeds next to one another will not do: draw 1 of seed 0 would be draw 0 of seed 1.

    Args:
        seed: of the whole, at least 0.
        place: numbers that say which part, at least 0.
    """
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1)[0])

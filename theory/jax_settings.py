"""JAX's settings for what is computed here, whatever the program around it has set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from theory.seeds import GENERATOR


@contextlib.contextmanager
def own_settings(float64: bool = True) -> Iterator[None]:
    """JAX as this package means it: precision, random numbers, and none of the checks that refuse valid programs.

    The settings hold within the context and in the calling thread only. Random numbers are those of the threefry
    generator in its partitionable form, so that a seed means the same draws in every program. Checks for NaN, for
    leaked tracers and for implicit promotions are off: intermediate values may be infinite or undefined where they are
    masked later, and results are checked where they are returned.

    Args:
        float64: whether in double precision, else in single.
    """
    with contextlib.ExitStack() as stack:
        for setting in (
            jax.enable_x64(float64),
            jax.default_prng_impl(GENERATOR),
            jax.threefry_partitionable(True),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.check_tracer_leaks(False),
            jax.debug_key_reuse(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            stack.enter_context(setting)
        yield

"""Compiled programs are kept in pytest's cache, for both workers, the processes that tests start, and the next run.

Most of the time of these tests is compilation. `rm -r .pytest_cache` starts afresh.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # reading back takes a tenth of compiling

# Numbers that no library but JAX makes: continuous integration checks them on one version of Python. Beginnings of test
# ids. The programs of whole files of them are optimised, as those of users are.
NUMERICS = (
    "bayesnet/samplers/test_frames.py",
    "bayesnet/samplers/test_gauge.py",
    "bayesnet/samplers/test_langevin.py",
    "bayesnet/samplers/test_split_hmc.py",
    "bayesnet/sweeping/test_phase_diagrams.py::test_the_order_parameter_rises_at_the_closed_form",
    "bayesnet/test_architectures.py",
    "bayesnet/test_bridge_sampling.py",
    "bayesnet/test_calibration.py",
    "bayesnet/test_generic_posteriors.py",
    "bayesnet/test_location.py",
    "bayesnet/test_models.py::test_weights_drawn_back",
    "bayesnet/test_outside.py::test_weights_of_draws_give_the_draws_again",
    "bayesnet/test_phases.py",
    "bayesnet/test_prior_draws.py::test_moments",
    "bayesnet/test_priors.py::test_posterior_of_sharing_and_leak",
    "bayesnet/test_priors.py::test_white_laws",
    "bayesnet/test_recorded_neurons.py",
    "bayesnet/test_weight_draws.py",
    "test_examples.py",
    "test_invariance.py",
    "theory/gaussian",
    "theory/laws",
    "theory/search",
    "theory/test_causal.py",
    "theory/test_continuation.py",
    "theory/test_differentiable.py",
    "theory/test_evidence.py",
    "theory/test_finite_width.py",
    "theory/test_fitting.py",
    "theory/test_general_model.py",
    "theory/test_generic_case.py",
    "theory/test_predictor.py",
    "theory/test_saddle.py",
    "theory/test_sensitivity.py",
    "theory/test_time_limit.py",
    "theory/test_transition.py",
    "theory/test_weight_spectrum.py",
)

# Whether these run at all is tested, with draws too few for numbers.
SMALL_RUNS = ("test_examples.py",)
# Files of half a minute and more that would come last, while one worker has nothing left to do: they begin.
LONG = ("theory/search", "theory/test_generic_case.py", "theory/test_sensitivity.py", "theory/test_transition.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(NUMERICS):
            item.add_marker(pytest.mark.numerics)
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONG))  # the others keep their order


@pytest.fixture(scope="module", autouse=True)
def _as_little_compiling_as_will_do(request):
    """Where a file does not test numerics alone, programs are compiled without optimisation, in two thirds of the time.

    So are those of the processes that it starts.
    """
    here = request.node.nodeid.removeprefix("tests/")
    if here.startswith(NUMERICS) and not here.startswith(SMALL_RUNS):
        yield
        return
    import jax  # not before the environment is set

    before = jax.config.values["jax_disable_most_optimizations"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """The slow tests of several files in one process would need more memory maps than there are."""
    from bayesnet.memory_maps import make_room  # not before the environment is set

    make_room()

"""Whatever JAX is told to do in the program around: the same numbers, and no refusal."""

import contextlib

import jax
import numpy as np
import pytest

import bayesnet as bn
import theory
from theory.jax_settings import own_settings

# With these shapes the programs of test_seeds.py and test_checkpoints.py serve here too.
TASK, TANH = bn.tasks.chain(2, 1.5), bn.Network.rnn(8, activation="tanh")
LINEAR = TANH.replace(activation="linear")
SHORT = {"num_warmup": 40, "num_samples": 20, "num_chains": 2, "progress": False}
STRICT = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_check_tracer_leaks": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
}
OTHER = {
    "jax_enable_x64": True,
    "jax_threefry_partitionable": False,
    "jax_default_prng_impl": "rbg",
    "jax_random_seed_offset": 5,
}


@contextlib.contextmanager
def set_globally(settings):
    """For all threads, unlike JAX's own contexts."""
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def results():
    posterior = bn.sample(TANH, TASK, seed=1, **SHORT)
    solution = theory.solve(TANH, TASK, points=1024, tolerance=1.0)
    exact = theory.solve(LINEAR, TASK)
    return {
        "sample": posterior["posterior"]["kernel"],
        "kernels": bn.sample(LINEAR, TASK, seed=1, **SHORT | {"num_warmup": 200})["posterior"]["kernel"],
        "float32": bn.sample(TANH, TASK, seed=1, precision="float32", **SHORT)["posterior"]["kernel"],
        "prior": bn.sample_prior(TANH, TASK, 4)["prior"]["kernel"],
        "weights": bn.draw_weights(posterior).recurrent,
        "solve": solution.kernel,
        "linear": exact.kernel,
        "nngp": theory.nngp(TANH, TASK).kernel,
        "critical": theory.critical_signal(TANH, TASK).instability,
        "linear critical": theory.critical_signal(LINEAR, TASK).instability,
        "fluctuations": theory.fluctuations(solution).kernel_cov,
        "evidence": theory.log_evidence(solution).log_evidence,
        "spectrum": theory.spectrum(solution).outliers[0],
        "neurons": solution.sample_neurons(4),
        "compare": bn.compare(posterior, solution).drop(columns="verdict"),
    }


@pytest.fixture(scope="module")
def plain():
    return results()


@pytest.mark.parametrize("settings", [STRICT, OTHER], ids=["strict", "other"])
def test_the_same_numbers_under_other_settings(settings, plain):
    with set_globally(settings):
        found = results()
    for name, values in plain.items():
        # Up to the order in which threads add: a busy machine shares sums out otherwise.
        np.testing.assert_allclose(np.asarray(found[name]), np.asarray(values), rtol=1e-13, err_msg=name)


def test_a_checkpoint_goes_on_under_other_settings(tmp_path):
    """A run stopped in the middle and resumed under another generator ends where an uninterrupted one does."""
    whole = bn.sample(TANH, TASK, seed=1, **SHORT | {"num_samples": 60})
    made = []

    def stop_at_fourth(lane, *arguments, **records):
        made.append(add(lane, *arguments, **records))
        if len(made) == 4:
            raise KeyboardInterrupt

    add = bn.samplers.checkpoints.Lane.add
    run = {**SHORT, "num_samples": 60, "seed": 1, "checkpoint": tmp_path / "draws", "chain_method": "sequential"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bn.samplers.checkpoints.Lane, "add", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            bn.sample(TANH, TASK, **run)
    with set_globally(OTHER):
        resumed = bn.sample(TANH, TASK, **run)
    np.testing.assert_array_equal(resumed["posterior"]["kernel"], whole["posterior"]["kernel"])


def test_settings_are_put_back():
    before = dict(jax.config.values)
    with own_settings():
        assert jax.numpy.ones(1).dtype == np.float64
        with own_settings(float64=False):
            assert jax.numpy.ones(1).dtype == np.float32
    assert jax.numpy.ones(1).dtype == np.float32
    assert dict(jax.config.values) == before

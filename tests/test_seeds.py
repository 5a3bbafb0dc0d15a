"""One domain of seeds for every public function: integers from 0 to 2^64 - 1, of which every bit counts."""

import jax
import numpy as np
import pytest

import bayesnet as bn
import theory
from theory.seeds import key_of

LARGEST = 2**64 - 1
TASK, NETWORK, TANH = bn.tasks.chain(2, 1.0), bn.Network.rnn(8), bn.Network.rnn(8, activation="tanh")
SHORT = {"num_warmup": 200, "num_samples": 20, "num_chains": 2, "progress": False}


@pytest.fixture(scope="module")
def solution():
    return theory.solve(NETWORK, TASK)


@pytest.fixture(scope="module")
def posterior():
    return bn.sample(NETWORK, TASK, seed=LARGEST, keep=["weights"], **SHORT)


def functions(solution, posterior):
    """Everything public that takes a seed, as functions of it alone; a number or an array comes back."""
    return {
        "solve": lambda seed: theory.solve(TANH, TASK, seed=seed, points=1024, tolerance=1.0).kernel,
        "continuation": lambda seed: theory.continuation(NETWORK, TASK, [1.0], seed=seed)["kernel"],
        "critical_signal": lambda seed: theory.critical_signal(NETWORK, TASK, seed=seed).instability,
        "fluctuations": lambda seed: theory.fluctuations(solution, seed=seed).kernel_cov,
        "draw_kernels": lambda seed: theory.fluctuations(solution).draw_kernels(2, seed),
        "theory.log_evidence": lambda seed: theory.log_evidence(solution, seed=seed).log_evidence,
        "log_bayes_factor": lambda seed: theory.log_bayes_factor(solution, solution, seed=seed),
        "spectrum": lambda seed: theory.spectrum(solution, seed=seed).outliers[0],
        "theory.predict": lambda seed: theory.predict(solution, seed=seed).mean,
        "sample_neurons": lambda seed: solution.sample_neurons(4, seed),
        "sample": lambda seed: bn.sample(NETWORK, TASK, seed=seed, **SHORT)["posterior"]["kernel"],
        "sample_prior": lambda seed: bn.sample_prior(NETWORK, TASK, 4, seed=seed)["prior"]["kernel"],
        "predict": lambda seed: bn.predict(posterior, TASK, seed=seed)["prediction"],
        "draw_weights": lambda seed: bn.draw_weights(posterior, seed=seed).recurrent,
        "draw_fields": lambda seed: bn.draw_fields(posterior, seed=seed),
        "sweep": lambda seed: bn.sweep(NETWORK, TASK, {"noise": [0.1]}, seed=seed, progress=False)["point_seed"],
        "phase_diagram": lambda seed: (
            bn.phase_diagram(NETWORK, TASK, ("factor", [1.0, 2.0]), ("noise", [0.1, 0.2]), seed=seed, progress=False)
            .sweeps["theory"]
            .dataset["point_seed"]
        ),
    }


NAMES = tuple(functions(None, None))
EXACT = ("continuation", "critical_signal", "fluctuations", "theory.log_evidence", "log_bayes_factor", "spectrum")
EXACT += ("theory.predict",)  # of linear networks: nothing is random


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [-1, LARGEST + 1, 0.5, True, "1", None, np.int64(-1)])
def test_what_is_no_seed_is_refused(name, seed, solution, posterior):
    with pytest.raises(ValueError, match=r"seed is .*; it must be an integer from 0 to 18446744073709551615"):
        functions(solution, posterior)[name](seed)


def test_the_seed_of_the_evidence_of_draws(posterior):
    with pytest.raises(ValueError, match="seed is -1; it must be an integer from 0 to"):
        bn.log_evidence(posterior, seed=-1)


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_a_seed_counts(name, solution, posterior):
    """Seeds that differ in the lowest, the 33rd and the 64th bit; integers of any type."""
    function = functions(solution, posterior)[name]
    seeds = [0, 1, 2**32, np.uint64(2**63), LARGEST] if name != "solve" else [0, np.uint64(2**63)]
    results = [np.asarray(function(seed)) for seed in seeds]
    distinct = len({result.tobytes() for result in results})
    assert distinct == (1 if name in EXACT else len(seeds))


def test_seeds_are_an_axis_of_a_sweep():
    seeds = [0, 2**63, LARGEST]
    swept = bn.sweep(NETWORK, TASK, {"seed": seeds}, progress=False)
    assert swept["seed"].values.tolist() == seeds
    assert len(set(swept["point_seed"].values.tolist())) == 3


def test_the_seed_is_stored_whole(posterior, tmp_path):
    bn.save(posterior, tmp_path / "posterior.nc")
    loaded = bn.load(tmp_path / "posterior.nc")
    assert int(loaded.attrs["seed"]) == LARGEST
    np.testing.assert_array_equal(
        loaded["weights"]["readout"][0, -1], bn.draw_weights(posterior, 0, -1, int(loaded.attrs["seed"])).readout
    )


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1])
def test_keys_of_small_seeds_are_those_of_jax(seed):
    for float64 in (False, True):
        with jax.enable_x64(float64):
            assert key_of(seed) == jax.random.key(seed)


def test_keys_do_not_depend_on_the_precision():
    for seed in (2**32, 2**63 + 5, LARGEST):
        with jax.enable_x64(True):
            wide = jax.random.key(np.uint64(seed))
            assert key_of(seed) == wide
        np.testing.assert_array_equal(jax.random.key_data(key_of(seed)), [seed >> 32, seed % 2**32])

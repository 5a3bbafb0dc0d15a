"""One point: its key, its seed, what is measured there."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet.sampling import version_of
from bayesnet.sweeping.points import Point, empty_values, measure_point
from theory.activation_identity import UserFunction
from theory.function_digests import code_digest

VERSION = version_of("bayesnet")
SHORT = {"num_warmup": 30, "num_samples": 30, "num_chains": 2}


def half_tanh(x):
    return jnp.tanh(x) / 2


half_tanh_of_module = half_tanh


POINT = Point({"noise": 0.1}, bn.Network.rnn(16), bn.tasks.chain(2, 1.5), "both", 3, SHORT, {"starts": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"network": bn.Network.rnn(17)},
        {"network": bn.Network.dnn(16)},
        {"network": bn.Network.rnn(16, activation=half_tanh)},
        {"task": bn.tasks.chain(2, 1.6)},
        {"task": bn.Task(POINT.task.inputs, [[[1.0], [1.5]]], [[False, True]])},
        {"measure": "posterior"},
        {"seed": 4},
        {"sampling": {**SHORT, "num_samples": 31}},
        {"solving": {"starts": 2}},
    ],
)
def test_all_that_determines_the_outcome_enters_the_key(changes):
    assert replace(POINT, **changes).key != POINT.key


def test_the_place_in_the_grid_and_kinds_of_numbers_do_not_enter_the_key():
    numbers = {name: np.int64(value) for name, value in SHORT.items()}
    assert replace(POINT, labels={"factor": 2.0}, sampling=numbers).key == POINT.key


def test_the_version_and_the_code_of_an_activation_enter_the_key(monkeypatch):
    def half_tanh(x):
        return jnp.tanh(x) / 3

    other = UserFunction(f"{__name__}:half_tanh", code_digest(half_tanh), None, half_tanh)
    networks = [bn.Network.rnn(16, activation=function) for function in (half_tanh_of_module, other)]
    assert [network.activation.name for network in networks] == [f"{__name__}:half_tanh"] * 2
    assert len({replace(POINT, network=network).key for network in networks}) == 2
    monkeypatch.setattr("bayesnet.sweeping.points.version_of", lambda package: "99.0")
    assert replace(POINT).key != POINT.key


def test_every_problem_has_a_seed_of_its_own_whatever_the_settings():
    others = [replace(POINT, seed=4), replace(POINT, network=bn.Network.rnn(17))]
    assert len({POINT.own_seed, *(other.own_seed for other in others)}) == 3
    assert replace(POINT, sampling=None, measure="theory").own_seed == POINT.own_seed
    assert 0 <= POINT.own_seed < 2**31


def test_a_record_is_plain_and_holds_what_the_dataset_expects():
    """The lazy limit, which compiles little; `test_sweeps` looks at saddle points and posteriors."""
    lazy = POINT.network.replace(scaling="standard")
    theory_only = replace(POINT, network=lazy, measure="theory", sampling=None)
    record = measure_point(theory_only, VERSION)
    assert record["error"] == ""
    assert json.loads(json.dumps(record)) == record
    scalars, columns = empty_values("theory")
    assert set(record["scalars"]) == set(scalars)
    assert set(record["table"]) == set(columns)
    solution = theory.solve(lazy, POINT.task)
    assert record["scalars"]["free_energy"] == solution.free_energy
    assert record["scalars"]["converged"] is True
    assert record["table"]["theory"]["kernel[t=2, mu=1]"] == solution.kernel[1, 0, 1, 0]


def test_what_goes_wrong_becomes_part_of_the_record():
    failed = measure_point(replace(POINT, measure="theory", solving={"starts": -1}), VERSION)
    assert failed["error"].startswith("ValueError: starts is -1")
    assert "Traceback" in failed["traceback"]
    assert failed["table"] == {}


def test_a_worker_of_another_version_refuses():
    assert "this worker has bayesnet" in measure_point(POINT, "0.0.0")["error"]

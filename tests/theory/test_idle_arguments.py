"""Arguments that would have no effect are refused by name, before anything is solved or drawn."""

import numpy as np
import pytest

import theory

TASK = theory.Task(np.ones((1, 2, 1)), np.array([[np.nan, 2.0]]))
LINEAR, TANH = theory.Network.rnn(8), theory.Network.rnn(8, activation="tanh")


@pytest.fixture(scope="module")
def solution():
    return theory.solve(LINEAR, TASK, starts=0)


@pytest.mark.parametrize("idle", [{"points": 2048}, {"randomisations": 2}, {"tolerance": 0.1}])
def test_of_sets_of_draws(idle):
    (name,) = idle
    refused = pytest.raises(ValueError, match=rf"^{name} is .* acts on networks that are not linear only: leave it out")
    with refused:
        theory.solve(LINEAR, TASK, **idle)
    with refused:
        theory.continuation(LINEAR, TASK, [1.0, 2.0], **idle)
    if name != "tolerance":
        with refused:
            theory.critical_signal(LINEAR, TASK, **idle)
        with refused:
            theory.critical_sharing(LINEAR, TASK, **idle)


def test_of_starts():
    with pytest.raises(ValueError, match=r"^starts is 2; it acts on linear networks only: leave it out here"):
        theory.solve(TANH, TASK, starts=2)


@pytest.mark.parametrize(
    "function", [theory.fluctuations, theory.log_evidence, theory.predict, theory.spectrum, theory.sensitivity]
)
def test_of_neurons(function, solution):
    with pytest.raises(ValueError, match=r"^neurons is 2048; it acts on networks that are not linear only"):
        function(solution, neurons=2048)


def test_settings_are_settings():
    with pytest.raises(ValueError, match=r"^settings is dict; it must be a Settings"):
        theory.solve(LINEAR, TASK, settings={"paths": 1})

"""Every public function refuses what is not a network, a task, a solution or a posterior, and names the argument."""

import pytest

import bayesnet as bn
import theory

NETWORK, TASK = bn.Network.rnn(8), bn.tasks.chain(2, 1.0)


@pytest.mark.parametrize("function", [theory.solve, theory.nngp, theory.critical_signal, bn.sample, bn.sample_prior])
def test_network_and_task(function):
    with pytest.raises(ValueError, match="network is str; it must be a Network"):
        function("rnn", TASK)
    with pytest.raises(ValueError, match="task is Network; it must be a Task"):
        function(NETWORK, NETWORK)


def test_network_and_task_of_a_continuation():
    with pytest.raises(ValueError, match="network is Task; it must be a Network"):
        theory.continuation(TASK, NETWORK, [1.0])
    with pytest.raises(ValueError, match="task is NoneType; it must be a Task"):
        theory.continuation(NETWORK, None, [1.0])


@pytest.mark.parametrize("function", [theory.fluctuations, theory.spectrum, theory.predict, theory.log_evidence])
def test_solution(function):
    with pytest.raises(ValueError, match="solution is Task; it must be a Solution"):
        function(TASK)


@pytest.mark.parametrize("function", [bn.draw_weights, bn.draw_fields, bn.log_evidence, bn.to_arviz])
def test_posterior(function):
    with pytest.raises(ValueError, match="posterior is dict"):
        function({"kernel": 1.0})


def test_posterior_beside_something_else():
    solution = theory.solve(NETWORK, TASK)
    with pytest.raises(ValueError, match="posterior is int"):
        bn.compare(3, solution)
    with pytest.raises(ValueError, match="posterior is int"):
        bn.predict(3, TASK)
    with pytest.raises(ValueError, match="posterior is int"):
        bn.weigh_phases(3, solution)
    with pytest.raises(ValueError, match="solution is Network"):
        bn.compare(3, NETWORK)
    with pytest.raises(ValueError, match="solution is Network"):
        bn.weigh_phases(3, NETWORK)

"""Derivatives of a solution against finite differences of problems solved anew."""

import numpy as np
import pytest
from small_problems import as_general, chain, generic_network, generic_task

import theory
from theory import Network, Task
from theory.parameters import network_at
from theory.sensitivity import current_values

CASES = {
    "every term": (generic_network(8, "all"), generic_task()),
    "broken symmetry": (Network.rnn(8, noise=0.3), chain(3, 3.0)),
}


def solved(network, task, near):
    """The solution with the kernel nearest to that of another one."""
    found = theory.solve(network, task)
    return min(found.branches or (found,), key=lambda one: np.abs(one.kernel - near.kernel).max())


@pytest.mark.parametrize(("network", "task"), CASES.values(), ids=CASES)
def test_derivatives_by_every_number_of_a_linear_network(network, task):
    solution = theory.solve(network, task)
    found = theory.sensitivity(solution)
    values = current_values(network)
    assert set(found.free_energy) == set(values)
    for name, value in values.items():
        if value == 0 or (value == 1 and (name == "leak" or name.startswith("shared."))):
            continue  # one-sided: see below
        step = 1e-4
        both = [solved(network_at(network, {name: value + sign * step}), task, solution) for sign in (-1, 1)]
        slope = {
            part: (np.asarray(getattr(both[1], part)) - np.asarray(getattr(both[0], part))) / (2 * step)
            for part in ("free_energy", "kernel", "prediction")
        }
        for part, difference in slope.items():
            ours = np.asarray(getattr(found, part)[name])
            np.testing.assert_allclose(ours, difference, atol=2e-5 * (1 + np.abs(difference).max()), err_msg=name)
    assert not any(found.standard_error.values())


def test_one_sided_derivatives():
    """At the ends of their range: shared in full, no process noise, no leak."""
    network, task = CASES["broken symmetry"]
    solution = theory.solve(network, task)
    found = theory.sensitivity(solution)
    for name, sign in (("shared.recurrent", -1), ("shared.readout", -1), ("leak", -1), ("residual", 1)):
        value, step = current_values(network)[name], 4e-6
        near = [solved(network_at(network, {name: value + sign * at}), task, solution) for at in (step, step / 2)]
        for part in ("free_energy", "kernel", "prediction"):
            here = np.asarray(getattr(solution, part))
            far, closer = (np.asarray(getattr(one, part)) - here for one in near)
            difference = sign * (4 * closer - far) / step  # to second order
            ours = np.asarray(getattr(found, part)[name])
            np.testing.assert_allclose(ours, difference, atol=2e-4 * (1 + np.abs(difference).max()), err_msg=name)
    assert found.free_energy["process_noise"] == 0  # it enters squared


def test_derivatives_by_targets_and_inputs():
    network, task = CASES["every term"]
    solution = theory.solve(network, task)
    found = theory.sensitivity(solution)
    assert found.free_energy["noise"] == pytest.approx(-np.sum(solution.dual**2) / 2)
    step = 1e-4
    for place in ((0, 1, 0), (1, 2, 1)):
        shifted = []
        for sign in (1, -1):
            targets = np.array(task.targets)
            targets[place] += sign * step
            shifted.append(theory.solve(network, Task(task.inputs, targets, task.supervised), starts=1).free_energy)
        assert found.targets[place] == pytest.approx((shifted[0] - shifted[1]) / (2 * step), abs=1e-6)
    for place in ((0, 0, 1), (1, 1, 4), (0, 2, 2)):
        shifted = []
        for sign in (1, -1):
            inputs = np.array(task.inputs)
            inputs[place] += sign * step
            shifted.append(theory.solve(network, Task(inputs, task.targets, task.supervised), starts=1).free_energy)
        assert found.inputs[place] == pytest.approx((shifted[0] - shifted[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("activation", ["linear", "relu", "erf"])
def test_drawn_neurons_agree(activation):
    """A linear network by neurons gives what its closed form gives; others what problems solved anew give."""
    task = chain(2, 1.5)
    network = Network.rnn(8, activation=activation, bias_gain=0.4, noise=0.5)
    if activation == "linear":
        exact = theory.solve(network, task)
        reference = theory.sensitivity(exact)
        found = theory.sensitivity(as_general(exact), neurons=16384)
        for name in reference.free_energy:
            error = found.standard_error[name]
            assert abs(found.free_energy[name] - reference.free_energy[name]) < 6 * error + 1e-6, name
            gap = np.abs(found.kernel[name] - reference.kernel[name])
            assert (gap < 8 * found.kernel_error[name] + 1e-4).all(), name
        return
    solution = theory.solve(network, task)
    found = theory.sensitivity(solution, neurons=16384)
    for name, step in (("noise", 0.05), ("recurrent_gain", 0.05)):
        value = current_values(network)[name]
        both = [theory.solve(network_at(network, {name: value + sign * step}), task) for sign in (1, -1)]
        difference = (both[0].free_energy - both[1].free_energy) / (2 * step)
        statistical = np.hypot(*(one.free_energy_error for one in both)) / (2 * step)
        assert abs(found.free_energy[name] - difference) < 5 * np.hypot(found.standard_error[name], statistical) + 2e-3
        difference = (both[0].kernel - both[1].kernel) / (2 * step)
        statistical = np.hypot(*(one.standard_error for one in both)) / (2 * step)
        bound = 6 * np.hypot(found.kernel_error[name], statistical) + 0.02
        assert (np.abs(found.kernel[name] - difference) < bound).all(), name


def test_what_has_no_derivative_is_refused():
    network, task = CASES["broken symmetry"]
    with pytest.raises(ValueError, match=r"^solution is not a stable saddle point"):
        theory.sensitivity(theory.nngp(network, task))
    with pytest.raises(ValueError, match=r"^solution is int"):
        theory.sensitivity(3)
    layered = Network.rnn(8, layers=2, recurrent_gain=(1.0, 1.2), shared={"input": [[1.0, 0.5], [0.5, 1.0]]})
    assert {"recurrent_gain", "shared.input"} & set(current_values(layered)) == set()

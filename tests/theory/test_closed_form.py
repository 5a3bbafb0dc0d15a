"""The closed form of the critical signal, against the reference number and the numerical instability."""

import numpy as np
import pytest

import theory
from bayesnet import Network, Task, tasks
from theory.closed_form import closed_form_instability, closed_form_sharing


@pytest.mark.parametrize(
    ("steps", "critical"), [(3, 2.863782), (4, 1.622417), (5, 1.213310), (6, 1.002163), (8, 0.778367)]
)
def test_reference_numbers(steps, critical):
    """Those of the numerical instability (`tests/theory/test_saddle.py`)."""
    found = closed_form_instability(Network.rnn(8, noise=0.1), tasks.chain(steps, 1.0))
    np.testing.assert_allclose(found, critical, atol=6e-7)


def test_gains_and_noise_enter_as_a_change_of_units():
    """With gains the network of unit gains in which h is measured in units of its own size and y in those of f:
    y / a, kappa / a^2, a = gv gu gw^(T-1)."""
    unit = closed_form_instability(Network.rnn(8, noise=0.1), tasks.chain(5, 1.0))
    gains = {"recurrent_gain": 1.2, "input_gain": 0.7, "readout_gain": 1.5}
    size = 1.5 * 0.7 * 1.2**4
    found = closed_form_instability(Network.rnn(8, noise=0.1 * size**2, **gains), tasks.chain(5, 2.0))
    np.testing.assert_allclose(found, unit * size / 2.0, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "task"),
    [
        (Network.rnn(8, noise=0.4, recurrent_gain=1.2, input_gain=0.7, readout_gain=1.5), tasks.chain(4, 0.5)),
        (Network(8, shared={"recurrent"}, noise=1.0), tasks.endpoint(3, 2.0)),
    ],
)
def test_the_symmetric_solution_is_stable_below_and_unstable_above(network, task):
    critical = theory.critical_signal(network, task).instability
    np.testing.assert_allclose(closed_form_instability(network, task), critical, rtol=1e-5)


@pytest.mark.parametrize(("steps", "critical"), [(3, 0.730255), (4, 0.556463)])
def test_critical_degrees_of_sharing(steps, critical):
    """Below it a network behaves as if it shared nothing: y = 4.3, kappa = .1; and the way back, to the signal."""
    network, task = Network.rnn(8, noise=0.1), tasks.chain(steps, 4.3)
    found = closed_form_sharing(network, task)
    assert found == pytest.approx(critical, abs=6e-7)
    partly = Network.rnn(8, noise=0.1, shared={"recurrent": found})
    assert closed_form_instability(partly, task) == pytest.approx(1, rel=1e-9)
    assert closed_form_sharing(network, tasks.chain(steps, 1.0)) == np.inf
    assert theory.critical_sharing(network, task).instability == pytest.approx(found, abs=1e-6)


SKEWED = tasks.endpoint(3, 1.0, inputs=[[1.0, 0.5], [0.0, 1.0]])
LATER = Task([[[1.0], [0.5], [0.0]]], [[np.nan, np.nan, 1.0]])


@pytest.mark.parametrize(
    ("network", "task"),
    [
        (Network.rnn(8, activation="tanh"), tasks.chain(3, 1.0)),
        (Network.rnn(8, scaling="standard"), tasks.chain(3, 1.0)),
        (Network.dnn(8), tasks.chain(3, 1.0)),
        (Network.rnn(8, noise=50.0), tasks.chain(3, 1.0)),
        (Network.rnn(8), tasks.chain(2, 1.0)),
        (Network.rnn(8), tasks.chain(3, 0.0)),
        (Network.rnn(8), tasks.rotation(4, 3.0)),
        (Network.rnn(8), SKEWED),
        (Network.rnn(8), LATER),
        (Network.rnn(8, noise=45.0, shared={"recurrent": 0.5}), tasks.chain(3, 1.0)),  # y(r) folds from 39.2 on
        (Network.rnn(8, leak=0.9), tasks.chain(3, 1.0)),
        (Network.rnn(8, bias_gain=0.1), tasks.chain(3, 1.0)),
        (Network.rnn(8, layers=2), tasks.chain(3, 1.0)),
        (Network.rnn(8, shared={"recurrent": theory.Drift(2.0)}), tasks.chain(3, 1.0)),
    ],
)
def test_it_keeps_to_where_it_holds(network, task):
    assert closed_form_instability(network, task) is None

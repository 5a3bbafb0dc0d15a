"""The closed form of the critical signal, against the reference number and the numerical instability."""

import numpy as np
import pytest

import theory
from bayesnet import Network, Task, tasks
from bayesnet.sweeping.critical_chain import closed_form_instability


def test_reference_number():
    found = closed_form_instability(Network.rnn(8, noise=0.1), tasks.chain(3, 1.0))
    np.testing.assert_allclose(found, 2.86378, rtol=1e-6)


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
    ],
)
def test_it_keeps_to_where_it_holds(network, task):
    assert closed_form_instability(network, task) is None

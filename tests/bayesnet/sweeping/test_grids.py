"""Grids: axes, labels, the points they make, and what is refused before any of them is measured."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayesnet import Network, Task, tasks
from bayesnet.sweeping.grids import _task_arguments, make_points, read_axes

RNN = Network.rnn(32)
CHAIN = tasks.chain(3, 2.0)


def half_tanh(x):
    return jnp.tanh(x) / 2


def points_of(grid, task=CHAIN, measure="theory", network=RNN, **settings):
    return make_points(network, task, read_axes(grid), measure, **settings)


def only_axis(name, values):
    return read_axes({name: values})[0]


def test_points_are_every_combination_with_the_last_axis_fastest():
    points = points_of({"noise": [0.1, 1.0], "factor": np.array([1.0, 2.0, 3.0])})
    assert [(p.labels["noise"], p.labels["factor"]) for p in points] == [
        (0.1, 1.0), (0.1, 2.0), (0.1, 3.0), (1.0, 1.0), (1.0, 2.0), (1.0, 3.0)
    ]  # fmt: skip
    assert points[4].network == RNN.replace(noise=1.0)
    assert points[4].task == CHAIN.scaled(2.0)


def test_an_axis_may_be_a_field_of_the_task_a_seed_or_an_argument_of_the_function_that_makes_it():
    other = Task(CHAIN.inputs, 3 * CHAIN.targets)
    points = points_of({"targets": [CHAIN.targets, other.targets], "seed": [4, 5]})
    assert [p.task for p in points] == [CHAIN, CHAIN, other, other]
    assert [p.seed for p in points] == [4, 5, 4, 5]
    made = points_of({"steps": [2, 4], "noise": [0.5], "factor": [3.0]}, lambda steps: tasks.chain(steps, 1.0))
    assert [p.task for p in made] == [tasks.chain(2, 3.0), tasks.chain(4, 3.0)]
    assert made[0].network.noise == 0.5
    both = points_of({"width": [8, 9]}, lambda width: tasks.chain(3, float(width)))
    assert [(p.network.width, p.task) for p in both] == [(8, tasks.chain(3, 8.0)), (9, tasks.chain(3, 9.0))]


def test_labels():
    assert only_axis("noise", np.linspace(0, 1, 3)).labels == (0.0, 0.5, 1.0)
    assert all(type(label) is float for label in only_axis("noise", np.linspace(0, 1, 3)).labels)
    assert only_axis("shared", [{"readout", "recurrent"}, ()]).labels == ("recurrent+readout", "none")
    assert only_axis("shared", {"RNN": ["recurrent"], "DNN": []}).labels == ("RNN", "DNN")
    assert only_axis("activation", ["tanh", half_tanh]).labels == ("tanh", f"{__name__}:half_tanh")
    assert only_axis("targets", [CHAIN.targets, CHAIN.targets]).labels == (1, 2)
    assert only_axis("rule", [True, False]).labels == ("True", "False")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "at least one axis"),
        ([("noise", [1.0])], "at least one axis"),
        ({1: [1.0]}, "axis 1"),
        ({"noise": []}, "'noise' is empty"),
        ({"noise": 0.1}, "'noise' is 0.1"),
        ({"noise": np.array(0.1)}, "'noise' is array"),
        ({"activation": "tanh"}, "'activation' is 'tanh'"),
        ({"noise": {0.1, 0.2}}, "'noise' is {"),
        ({"noise": [0.1, 0.2, 0.1]}, "'noise' has the value 0.1 twice"),
        ({"noise": [0.1, -1.0]}, "'noise' has the value -1.0: noise is -1.0"),
        ({"noise": [float("nan")]}, "'noise' has the value nan"),
        ({"width": [64, 64.5]}, "'width' has the value 64.5: width"),
        ({"activation": ["tanh", "swish"]}, "'activation' has the value 'swish'"),
        ({"shared": {"all": "all"}}, "'shared' has the value 'all'"),
        ({"factor": [1.0, float("inf")]}, "'factor' has the value inf"),
        ({"factor": ["large"]}, "'factor' has the value 'large'"),
        ({"seed": [0, -1]}, "'seed' has the value -1"),
        ({"width": range(0, 10**19, 2)}, "axis 'width' with 5000000000000000000 values takes at least"),
        ({"color": [1.0]}, "'color' is unknown; allowed are width, activation, .*factor"),
        ({"steps": [3]}, "'steps' is unknown"),
        ({"targets": [np.ones((1, 2))]}, "no point at targets=1: targets"),
        ({"noise": [0.1], "targets": [CHAIN.targets, np.ones(3)]}, "no point at noise=0.1, targets=2: targets"),
    ],
)
def test_bad_grids_are_refused_naming_axis_and_value(grid, message):
    with pytest.raises(ValueError, match=message):
        points_of(grid)


@pytest.mark.parametrize(
    ("task", "grid", "message"),
    [
        (None, {"noise": [0.1]}, "task is NoneType"),
        (lambda steps: CHAIN, {"noise": [0.1]}, "task needs 'steps', which is no axis"),
        (lambda factor: CHAIN, {"factor": [1.0]}, "task has the argument 'factor'"),
        (lambda steps: tasks.chain(steps, 1.0), {"steps": [3, 0]}, "no point at steps=0: steps is 0"),
        (lambda steps: 3, {"steps": [3]}, "task returned int"),
        (lambda error: CHAIN, {"error": [3]}, "'error' has the name of a variable"),
        (lambda theory: CHAIN, {"theory": [3]}, "'theory' has the name of a variable"),
        (lambda steps: 1 / 0, {"steps": [3]}, "no point at steps=3: division by zero"),
    ],
)
def test_bad_tasks_are_refused(task, grid, message):
    with pytest.raises(ValueError, match=message):
        points_of(grid, task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "rnn"}, "network is str"),
        ({"seed": -1}, "seed is -1"),
        ({"solving": {"step": 1}}, "solving has the key 'step'; allowed are starts"),
        ({"solving": {"seed": 1}}, "give seed to the sweep"),
        ({"solving": [1]}, r"solving is \[1\]"),
        ({"measure": "posterior", "sampling": {"draws": 1}}, "sampling has the key 'draws'"),
        ({"measure": "posterior", "sampling": {"num_samples": 0}}, "num_samples is 0"),
        (
            {"measure": "both", "sampling": {"coordinates": "kernels"}, "network": Network.rnn(2)},
            "no point at noise=0.1",
        ),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        points_of({"noise": [0.1]}, **arguments)


def test_a_value_refused_only_in_combination_is_named_with_its_place():
    with pytest.raises(ValueError, match="no point at width=2: coordinates is 'kernels'"):
        points_of({"width": [3, 2]}, measure="posterior", sampling={"coordinates": "kernels"})


def test_a_task_is_made_of_the_axes_that_its_function_takes():
    """By name, or all that there are; the factor is its targets' and never its own."""
    axes = read_axes({"steps": [2, 3], "noise": [0.1], "factor": [1.0]})
    assert _task_arguments(lambda steps: tasks.chain(steps, 1.0), axes) == ("steps",)
    assert _task_arguments(lambda steps, **others: tasks.chain(steps, 1.0), axes) == ("steps", "noise")
    assert _task_arguments(lambda **others: tasks.chain(2, 1.0), axes) == ("steps", "noise")
    assert _task_arguments(lambda: tasks.chain(2, 1.0), axes) == ()
    assert _task_arguments(CHAIN, axes) == ()

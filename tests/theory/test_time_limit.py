"""Searches that are cut short: what they return is said not to be converged, with an error that covers the truth."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

import theory
from theory import Network, Task, clock
from theory.search import solve_branch
from theory.search.stability import is_stable


def task_of(steps=3):
    inputs, targets = np.zeros((2, steps, 2)), np.full((2, steps), np.nan)
    inputs[:, 0], targets[:, -1] = [[1.0, 0.5], [-0.5, 1.0]], [2.0, -1.0]
    return Task(inputs, targets)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_what_has_been_reached_is_returned(activation, monkeypatch):
    judged_on = []

    def judge(roots, sets, *arguments):
        judged_on.append((len(roots), len(sets)))
        return is_stable(roots, sets, *arguments)

    monkeypatch.setattr(solve_branch, "is_stable", judge)
    network, task = Network.rnn(100, activation=activation, bias_gain=0.3), task_of()
    whole = theory.solve(network, task)
    judged_on.clear()
    short = theory.solve(network, task, time_limit=1e-9)
    assert judged_on == ([] if activation == "linear" else [(1, 1)])  # each takes as long as many steps
    assert whole.converged
    assert whole.status == "converged"
    assert "time" not in whole.message
    assert "stopped by the time limit of 1e-09 s" in short.message
    away = np.abs(short.kernel - whole.kernel)
    scale = np.sqrt(np.einsum("spsp->sp", whole.kernel))
    relative = (away / np.einsum("sp,tq->sptq", scale, scale)).max()
    assert relative < 5 * np.hypot(short.relative_error, whole.relative_error)
    if activation == "linear":  # not even begun
        assert not short.converged
        assert short.status in ("unsolved", "unstable")
        assert relative > 0.5
    assert np.isfinite(short.free_energy)
    assert np.isfinite(short.prediction).all()


def test_larger_sets_are_left_where_the_time_is_up(monkeypatch):
    """The solution on smaller sets comes back, imprecise as it is."""
    lines = []

    def is_up(own):
        own.ran_out = any("set 4" in line for line in lines)
        return own.ran_out

    monkeypatch.setattr(clock.Clock, "is_up", is_up)
    network = Network.rnn(100, activation="tanh", bias_gain=0.3)
    solution = theory.solve(network, task_of(), tolerance=1e-5, time_limit=100.0, progress=lines.append)
    assert solution.status == "imprecise"
    assert "16384 points" in solution.message
    assert "stopped by the time limit of 100 s" in solution.message


@pytest.mark.parametrize("watched", [True, False])
def test_a_long_search_speaks_up_where_somebody_watches(watched, monkeypatch):
    """Unasked: after ten seconds, and then every ten."""
    now, lines = [0.0], []
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(clock, "watched", lambda: watched)
    monkeypatch.setattr(clock, "progress_line", lambda: lines.append)
    with clock.timed(None, None):
        for second in range(0, 32, 2):
            now[0] = float(second)
            clock.report("searching")
    assert [line.split()[0] for line in lines] == (["10.0", "20.0", "30.0"] if watched else [])


def test_progress_goes_where_it_is_asked_for(capsys):
    lines = []
    theory.solve(Network.rnn(100), task_of(), progress=lines.append)
    assert lines
    assert all(" s  " in line for line in lines)
    assert capsys.readouterr().err == ""
    theory.solve(Network.rnn(100), task_of(), progress=True)
    assert "searches, largest residual" in capsys.readouterr().err
    theory.solve(Network.rnn(100), task_of())
    assert capsys.readouterr().err == ""


def test_a_search_within_a_search_keeps_to_its_clock():
    with clock.timed(1e-9) as outer:
        time.sleep(1e-3)
        with clock.timed(100.0) as inner:
            assert inner is outer
            assert clock.time_is_up()
        assert clock.ran_out() == 1e-9
    assert clock.ran_out() is None
    assert not clock.time_is_up()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_limit": 0.0}, "time_limit is 0.0; it must be a positive"),
        ({"time_limit": "1 h"}, "time_limit is '1 h'"),
        ({"progress": "yes"}, "progress is 'yes'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.solve(Network.rnn(100), task_of(), **arguments)

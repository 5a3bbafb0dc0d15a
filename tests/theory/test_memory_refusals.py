"""What cannot fit into memory is refused in words before anything is computed."""

import re

import pytest
from small_problems import chain

import theory
from theory import memory
from theory.memory import in_words, require_memory


def test_bytes_in_words():
    assert [in_words(number) for number in (0, 999, 2500, 8e9, 3.2e13, 1.6e19)] == [
        "0 bytes",
        "999 bytes",
        "2.5 kB",
        "8 GB",
        "32 TB",
        "1.6e+04 PB",
    ]


def test_the_limit_is_the_smallest_of_those_that_are_set(tmp_path, monkeypatch):
    machine = memory.memory_limit()
    assert 1e8 < machine < 1e15
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTROL_GROUPS", (str(group), str(tmp_path / "nowhere")))
    for text, limit in (("max\n", machine), ("1000000\n", 1e6)):
        group.write_text(text)
        assert memory.memory_limit() <= limit
    assert memory.memory_limit() == 1e6
    with pytest.raises(ValueError, match=re.escape("work takes at least 2 MB of memory, and there are 1 MB; rest")):
        require_memory("work", 2e6, "rest")
    require_memory("work", 1e6, "rest")


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("function", [theory.nngp, theory.critical_signal, theory.solve])
def test_tasks_whose_kernels_do_not_fit(function, activation, monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 1e9)
    with pytest.raises(ValueError, match=re.escape("task has steps x patterns = 9000 x 1 entries")):
        function(theory.Network.rnn(8, activation=activation), chain(9000, 1.0))


def test_numbers_that_cannot_be_meant():
    network, task = theory.Network.rnn(8), chain(2, 1.0)
    solution = theory.solve(network, task)
    with pytest.raises(ValueError, match=r"num 1000000000000 .* takes at least"):
        solution.sample_neurons(10**12)
    with pytest.raises(ValueError, match=r"num 1000000000000 .* takes at least"):
        theory.fluctuations(solution).draw_kernels(10**12)
    with pytest.raises(ValueError, match="starts 1000000000000 takes at least"):
        theory.solve(network, task, starts=10**12)
    for points in (10**12, 10**15):
        with pytest.raises(ValueError, match=f"points {points} .* takes at least"):
            theory.solve(network.replace(activation="tanh"), task, points=points)

"""Worker processes: answers, errors, deaths, shares of the cores, and that they end when they should."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import jax
import pytest

from bayesnet.sweeping import executors
from bayesnet.sweeping.executors import LocalProcesses, WorkerDied, connect_dask

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def describe(delay=0.0):
    time.sleep(delay)
    return os.getpid(), sorted(os.sched_getaffinity(0)), jax.config.jax_compilation_cache_dir


def divide(one, other):
    return one / other


def unpicklable():
    return lambda: None


def die(marker=None):
    """Kill the own process: always, or only where the marker does not exist yet."""
    if marker is None or not Path(marker).exists():
        if marker is not None:
            Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@pytest.fixture(scope="module")
def pool():
    with LocalProcesses(2) as executor:
        # Both processes start side by side; all tests share them.
        wait([executor.submit(divide, 1, 1) for _ in range(4)])
        yield executor


def test_answers_and_errors(pool):
    assert list(pool.map(divide, [6, 8], [2, 4])) == [3, 2]
    assert pool.submit(divide, 1, other=4).result() == 0.25
    with pytest.raises(ZeroDivisionError):
        pool.submit(divide, 1, 0).result()
    for function in (unpicklable, lambda: 1):
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            pool.submit(function).result()
    assert pool.submit(divide, 4, 2).result() == 2


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_each_process_has_its_share_of_the_cores_and_all_have_one_cache(pool):
    seen = [future.result() for future in [pool.submit(describe, 0.3) for _ in range(4)]]
    shares = {pid: cores for pid, cores, _ in seen}
    assert len(shares) == 2
    assert sorted(core for cores in shares.values() for core in cores) == CORES
    assert {cache for _, _, cache in seen} == {jax.config.values["jax_compilation_cache_dir"]}  # this process's own
    assert os.getpid() not in shares
    assert sorted(os.sched_getaffinity(0)) == CORES  # this process keeps all of them


def test_a_call_that_kills_its_worker_is_made_again(pool, tmp_path):
    once = pool.submit(die, tmp_path / "died")
    others = [pool.submit(divide, number, 1) for number in range(10)]
    assert once.result() == "alive"
    assert [future.result() for future in others] == list(range(10))


@pytest.mark.slow
def test_a_call_that_always_kills_its_worker_fails_alone(pool):
    always = pool.submit(die)
    others = [pool.submit(divide, number, 1) for number in range(10)]
    with pytest.raises(WorkerDied, match="3 attempts"):
        always.result()
    assert [future.result() for future in others] == list(range(10))


PARENT = """
import os, sys, time
from bayesnet.sweeping import executors
from bayesnet.sweeping.executors import LocalProcesses
if __name__ == "__main__":
    executor = LocalProcesses(1)
    print(executor.submit(os.getpid).result(), flush=True)
    executor.submit(time.sleep, 600)
    time.sleep(600)
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_an_error_in_the_block_does_not_wait_for_the_calls_under_way():
    futures = []

    def interrupted():
        with LocalProcesses(1) as executor:
            futures.extend(executor.submit(time.sleep, 600) for _ in range(2))
            time.sleep(0.2)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert futures[1].cancelled()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("jobs", [0, 1.5, True])
def test_bad_numbers_of_jobs_are_refused(jobs):
    with pytest.raises(ValueError, match="jobs is"):
        LocalProcesses(jobs)
    with pytest.raises(ValueError, match="cores is empty"):
        LocalProcesses(1, cores=[])


def test_dask_missing_or_unreachable_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'bayesnet\[dask\]'"), connect_dask("tcp://127.0.0.1:1"):
        pass


def test_cores_where_the_system_does_not_tell_whose_they_are(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, cores in ((3, [0, 1, 2]), (None, [0])):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert executors._own_cores() == cores


UNGUARDED = """
import bayesnet as bn
print("runs")
with bn.executors.LocalProcesses(2) as executor:
    bn.sweep(bn.Network.rnn(8), bn.tasks.chain(2, 1.0), {"noise": [0.1, 0.2, 0.3]}, executor=executor, progress=False)
"""


@pytest.mark.parametrize("how", ["file", "standard input"])
def test_a_main_program_without_a_guard_gets_one_error_that_says_what_to_write(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command, text = ([sys.executable, str(script)], None) if how == "file" else ([sys.executable, "-"], UNGUARDED)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ConnectionError: the executor broke down (WorkersCannotStart: a worker process ended before"
    )
    assert "if __name__ == '__main__':" in last

"""Sweeps on a real local Dask cluster of several worker processes, one of which is killed in mid-run."""

import os
import signal
import threading
import time

import pytest
import xarray as xr

import bayesnet as bn
from bayesnet.sweeping.executors import connect_dask

dask = pytest.importorskip("dask", reason="dask is not installed (pip install 'bayesnet[dask]')")
distributed = pytest.importorskip("distributed", reason="dask is not installed (pip install 'bayesnet[dask]')")

pytestmark = pytest.mark.filterwarnings("default")  # what Dask warns of is not ours

GRID = {"noise": [0.1, 0.3, 0.5, 1.0], "factor": [1.0, 2.0, 3.0]}
SETTINGS = {"sampling": {"num_warmup": 60, "num_samples": 20, "num_chains": 2}, "solving": {"starts": 0}}


def run(**options):
    swept = bn.sweep(bn.Network.rnn(16), bn.tasks.chain(3, 1.0), GRID, "both", progress=False, **SETTINGS, **options)
    return swept.drop_vars("seconds")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as local:
        yield local


@pytest.fixture(scope="module")
def here():
    return run()


def test_a_cluster_gives_the_same_as_this_process(cluster, here):
    with connect_dask(cluster.scheduler_address) as executor:
        xr.testing.assert_identical(run(executor=executor), here)


def test_a_worker_killed_in_mid_run_is_made_up_for(cluster, here, tmp_path):
    killed = []

    def kill_one():
        while not list(tmp_path.glob("points/*/*.json")):
            time.sleep(0.01)
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            # A worker that is measuring right now.
            busy = [address for address, tasks in client.processing().items() if tasks]
            pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with connect_dask(cluster.scheduler_address) as executor:
        swept = run(executor=executor, store=tmp_path)
    killer.join()
    assert killed
    xr.testing.assert_identical(swept, here)


def test_no_scheduler_at_the_address_is_an_error():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(OSError),
        connect_dask("tcp://127.0.0.1:9"),
    ):
        pass

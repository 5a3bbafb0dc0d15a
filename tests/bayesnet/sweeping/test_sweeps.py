"""sweep: the Dataset, restarts, failures, executors, interrupts and kills."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
import theory
from bayesnet.observables import order_parameter
from bayesnet.sweeping import points, sweeps
from bayesnet.sweeping.datasets import gather
from bayesnet.sweeping.grids import make_points, read_axes
from bayesnet.sweeping.points import blank_record, measure_point
from bayesnet.sweeping.sweeps import measure_grid, sweep

RNN = bn.Network.rnn(16)
CHAIN = bn.tasks.chain(3, 1.0)
GRID = {"noise": [0.1, 1.0], "factor": [1.0, 3.0]}
QUICK = {"solving": {"starts": 0}, "progress": False}
SHORT = {"num_warmup": 30, "num_samples": 30, "num_chains": 2}


@pytest.fixture
def unsolvable(monkeypatch):
    monkeypatch.setattr(points, "solve", mock.Mock(side_effect=RuntimeError("no saddle point")))


def untimed(dataset):
    return dataset.drop_vars("seconds")


@pytest.fixture(scope="module")
def whole():
    """The theory over `GRID`, uninterrupted, without a store."""
    return sweep(RNN, CHAIN, GRID, **QUICK)


def test_the_dataset_holds_the_theory_of_every_point(whole):
    assert dict(whole.sizes) == {"noise": 2, "factor": 2, "observable": len(whole["observable"])}
    assert whole["free_energy"].dims == ("noise", "factor")
    assert (whole["outcome"] == "done").all()
    assert (whole["seconds"] > 0).all()
    assert (whole["error"] == "").all()
    for noise in GRID["noise"]:
        for factor in GRID["factor"]:
            network, task = RNN.replace(noise=noise), CHAIN.scaled(factor)
            here = whole.sel(noise=noise, factor=factor)
            solution = theory.solve(network, task, starts=0)
            np.testing.assert_allclose(here["free_energy"], solution.free_energy, rtol=1e-10)
            kernel = solution.kernel[:, 0, :, 0]
            np.testing.assert_allclose(here["theory"].sel(observable="kernel[t=3, mu=1]"), kernel[2, 2], rtol=1e-8)
            expected = order_parameter(network, task).evaluate(solution.kernel, solution.prediction)
            np.testing.assert_allclose(here["order_parameter"], expected, rtol=1e-6, atol=1e-12)
            assert here["converged"]


def test_the_order_parameter_tells_the_phases_apart(whole):
    """2.86378 is critical at kappa = .1."""
    assert whole["order_parameter"].sel(noise=0.1, factor=1.0) < 1e-10
    assert whole["order_parameter"].sel(noise=0.1, factor=3.0) > 0.05


def test_a_point_does_not_depend_on_the_rest_of_the_grid(whole):
    alone = sweep(RNN, CHAIN, {"factor": [3.0], "noise": [1.0]}, **QUICK)
    xr.testing.assert_identical(untimed(alone).isel(noise=0, factor=0), untimed(whole).sel(noise=1.0, factor=3.0))


def test_observables_of_tasks_of_several_depths_are_joined():
    """Of records made up here: two steps at one point, three at the other, the last not measured yet."""
    axes = read_axes({"steps": [2, 3, 4]})
    points = make_points(RNN, lambda steps: bn.tasks.chain(steps, 1.0), axes, "theory")
    records = {
        point.key: {**blank_record(), "table": {"theory": {f"k{t}": 10.0 * steps + t for t in range(1, steps + 1)}}}
        for steps, point in zip((2, 3), points, strict=False)
    }
    joined = gather(axes, points, records)
    assert joined["observable"].values.tolist() == ["k1", "k2", "k3"]
    np.testing.assert_array_equal(joined["theory"], [[21, 22, np.nan], [31, 32, 33], [np.nan] * 3])
    assert joined["outcome"].values.tolist() == ["done", "done", "missing"]


@pytest.fixture(scope="module")
def both():
    return sweep(RNN, CHAIN, {"seed": [0, 1]}, "both", sampling=SHORT, **QUICK)


def test_posterior_and_comparison_can_be_repeated_by_hand_with_the_seed_of_the_point(both):
    seeds = both["point_seed"].values.tolist()
    assert len(set(seeds)) == 2
    posterior = bn.sample(RNN, CHAIN, seed=seeds[1], progress=False, **SHORT)
    table = bn.compare(posterior, theory.solve(RNN, CHAIN, starts=0, seed=seeds[1]))
    here = both.sel(seed=1)
    assert here["observable"].values.tolist() == list(table.index)
    for name in table:
        np.testing.assert_array_equal(here[name].values, table[name].values, err_msg=name)
    assert set(both["status"].values.tolist()) == {"FAIL"}  # too few draws, and it says so
    assert not np.array_equal(both["mean"].sel(seed=0), here["mean"])
    square = posterior["posterior"]["overlap"].to_numpy()[:, :, :, 0, :, 0] ** 2
    largest = np.max([square[..., 0, 1], square[..., 0, 2], square[..., 1, 2]], axis=0)
    np.testing.assert_allclose(here["order_parameter_mean"], largest.mean(), rtol=1e-12)


def test_the_dataset_survives_netcdf(both, tmp_path):
    both.to_netcdf(tmp_path / "both.nc", engine="h5netcdf")
    back = xr.load_dataset(tmp_path / "both.nc", engine="h5netcdf")
    xr.testing.assert_equal(back, both)
    assert back.attrs == both.attrs


def test_a_finished_sweep_measures_nothing_again_and_a_larger_one_only_what_is_new(whole, tmp_path, monkeypatch):
    first = sweep(RNN, CHAIN, GRID, store=tmp_path, **QUICK)
    xr.testing.assert_identical(untimed(first), untimed(whole))
    measured = []

    def count(point, version):
        measured.append(dict(point.labels))
        return measure_point(point, version)

    monkeypatch.setattr(sweeps, "measure_point", count)
    xr.testing.assert_identical(sweep(RNN, CHAIN, GRID, store=tmp_path, **QUICK), first)
    assert measured == []
    larger = sweep(RNN, CHAIN, {"factor": [3.0, 2.0, 1.0], "noise": [1.0]}, store=tmp_path, **QUICK)
    assert measured == [{"factor": 2.0, "noise": 1.0}]
    one = untimed(larger).sel(noise=1.0, factor=3.0)
    xr.testing.assert_identical(one, untimed(first).sel(noise=1.0, factor=3.0))
    saved = sorted(tmp_path.glob("sweep-*.nc"))
    assert len(saved) == 2
    assert any(xr.load_dataset(path, engine="h5netcdf").equals(first) for path in saved)


def test_an_interrupt_keeps_what_is_done_and_the_resumed_sweep_ends_the_same(whole, tmp_path, monkeypatch):
    def interrupted(point, version):
        if point.labels == {"noise": 1.0, "factor": 1.0}:
            raise KeyboardInterrupt
        return measure_point(point, version)

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "measure_point", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(RNN, CHAIN, GRID, store=tmp_path, **QUICK)
    partial = xr.load_dataset(next(tmp_path.glob("sweep-*.nc")), engine="h5netcdf")
    assert partial["outcome"].values.tolist() == [["done", "done"], ["missing", "missing"]]
    assert np.isnan(partial["free_energy"].sel(noise=1.0)).all()
    resumed = measure_sweep(tmp_path)
    assert resumed.reused == 2
    xr.testing.assert_identical(untimed(resumed.dataset), untimed(whole))


def measure_sweep(store, **options):
    axes = read_axes(GRID)
    points = make_points(RNN, CHAIN, axes, "theory", solving=QUICK["solving"])
    return measure_grid(axes, points, store=store, progress=False, **options)


def test_a_failed_point_is_recorded_and_stands_until_it_is_retried(whole, tmp_path, monkeypatch):
    def fails(point, version):
        if point.labels["factor"] == 3.0:
            return {**measure_point(point, "0.0.0")}
        return measure_point(point, version)

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "measure_point", fails)
        failed = measure_sweep(tmp_path)
    assert failed.failed == 2
    assert "2 failed" in failed.summary
    assert failed.dataset["outcome"].sel(factor=3.0).values.tolist() == ["failed", "failed"]
    assert "RuntimeError" in str(failed.dataset["error"].sel(factor=3.0, noise=0.1).values)
    assert np.isnan(failed.dataset["theory"].sel(factor=3.0)).all()
    assert not failed.dataset["converged"].sel(factor=3.0).any()
    assert not failed.trusted
    again = measure_sweep(tmp_path)
    assert (again.failed, again.reused) == (2, 4)
    retried = measure_sweep(tmp_path, retry_failed=True)
    assert (retried.failed, retried.reused) == (0, 2)
    xr.testing.assert_identical(untimed(retried.dataset), untimed(whole))


def test_a_sweep_of_which_everything_fails_still_has_its_variables(tmp_path, unsolvable):
    swept = sweep(RNN, CHAIN, {"noise": [0.1]}, progress=False, store=tmp_path)
    assert (swept["outcome"] == "failed").all()
    assert np.isnan(swept["free_energy"]).all()
    assert swept["theory"].dims == ("noise", "observable")
    path = next(tmp_path.glob("sweep-*.nc"))
    assert xr.load_dataset(path, engine="h5netcdf")["error"].values[0] == "RuntimeError: no saddle point"


def test_any_executor_gives_the_same(whole, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        xr.testing.assert_identical(untimed(sweep(RNN, CHAIN, GRID, executor=executor, **QUICK)), untimed(whole))


class Breaking(Executor):
    """Answers the first call and breaks on the second; the third cannot even be sent."""

    def __init__(self, error):
        self.calls, self.error = 0, error

    def submit(self, function, /, *args, **kwargs):
        self.calls += 1
        future = Future()
        if self.calls == 1:
            future.set_result(function(*args, **kwargs))
        else:
            future.set_exception(self.error)
        return future


def test_an_executor_that_breaks_down_ends_the_sweep_and_blames_no_point(whole, tmp_path):
    with pytest.raises(ConnectionError, match=r"broke down .* 1 of 4 points were done; start the same sweep again"):
        sweep(RNN, CHAIN, GRID, store=tmp_path, executor=Breaking(BrokenExecutor("pool died")), **QUICK)
    resumed = measure_sweep(tmp_path)
    assert (resumed.failed, resumed.reused) == (0, 1)
    xr.testing.assert_identical(untimed(resumed.dataset), untimed(whole))


def test_a_call_that_its_executor_cannot_answer_is_a_failed_point(tmp_path):
    swept = sweep(RNN, CHAIN, GRID, executor=Breaking(TypeError("cannot pickle")), **QUICK)
    assert (swept["outcome"] == "failed").sum() == 3
    assert "TypeError: cannot pickle" in swept["error"].values


def test_two_sweeps_at_once_in_one_store(whole, tmp_path):
    results = {}

    def run(name, grid):
        results[name] = sweep(RNN, CHAIN, grid, store=tmp_path, **QUICK)

    grids = {"one": GRID, "same": GRID, "transposed": {name: GRID[name][::-1] for name in ("factor", "noise")}}
    threads = [threading.Thread(target=run, args=item) for item in grids.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("one", "same"):
        xr.testing.assert_identical(untimed(results[name]), untimed(whole))
    other = results["transposed"].transpose(*whole.dims).sortby(["noise", "factor"])
    xr.testing.assert_identical(untimed(other), untimed(whole))
    assert len(list(tmp_path.glob("points/*/*.json"))) == 4
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_comparison_that_fails_leaves_theory_and_posterior(monkeypatch, tmp_path):
    monkeypatch.setattr(points, "compare", mock.Mock(side_effect=np.linalg.LinAlgError("singular")))
    swept = sweep(RNN, CHAIN, {"noise": [0.1]}, "both", sampling=SHORT, store=tmp_path, **QUICK).isel(noise=0)
    assert swept["error"].item() == "LinAlgError: singular"
    assert swept["status"].item() == "FAIL"  # thirty draws
    for name in ("order_parameter", "free_energy", "order_parameter_mean", "theory", "theory_error", "mean", "mcse"):
        assert np.isfinite(swept[name]).all()
    assert np.isnan(swept["z_sd"]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solving": {"starts": -1}}, "noise=0.1: starts is -1"),
        ({"solving": {"tolerance": 0.0}}, "noise=0.1: tolerance is 0.0"),
        ({"sampling": {"num_samples": 0}}, "noise=0.1: num_samples is 0"),
        ({"executor": 5}, "executor is int"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_are_checked_before_the_first_point(settings, words, monkeypatch, tmp_path):
    monkeypatch.setattr(sweeps, "_measure", lambda *arguments: pytest.fail("measured"))
    with pytest.raises(ValueError, match=re.escape(words)):
        sweep(RNN, CHAIN, {"noise": [0.1, 0.2]}, "both", progress=False, store=tmp_path / "store", **settings)
    assert not (tmp_path / "store").exists()


def test_progress_counts_points_and_names_failures(capsys, tmp_path, unsolvable):
    def run():
        sweep(RNN, CHAIN, {"noise": [0.1, 0.2]}, progress=True, store=tmp_path)
        return capsys.readouterr().err

    shown = run()
    assert "2/2" in shown
    assert re.findall(r"failed=(\d+)", shown)[-1] == "2"
    assert "failed at noise=0.2: RuntimeError: no saddle point" in shown
    assert "failed=2" in run()  # those in the store count too


def test_activations_that_worker_processes_would_not_find_are_refused_first(monkeypatch):
    main = sys.modules["__main__"]

    def prompted(x):
        return jnp.sin(x)

    local = prompted
    monkeypatch.setattr(main, "prompted", prompted, raising=False)
    with ProcessPoolExecutor(1) as executor:
        for activation in (lambda x: jnp.sin(x), local):
            with pytest.raises(ValueError, match=r"^activation '.*' cannot be sent to worker processes .*; define it"):
                sweep(RNN.replace(activation=activation), CHAIN, GRID, executor=executor)
        monkeypatch.setattr(prompted, "__module__", "__main__")
        monkeypatch.setattr(prompted, "__qualname__", "prompted")
        monkeypatch.delattr(main, "__file__", raising=False)
        with pytest.raises(ValueError, match=r"^activation '__main__:prompted' cannot be sent .*at a prompt"):
            sweep(RNN.replace(activation=prompted), CHAIN, GRID, executor=executor)


OWN_FUNCTION = """
import jax.numpy as jnp
import bayesnet as bn

def half_sine(x):
    return jnp.sin(x) / 2

if __name__ == "__main__":
    network = bn.Network.rnn(16, scaling="standard", activation=half_sine)
    with bn.executors.LocalProcesses(1) as executor:
        found = [bn.sweep(network, bn.tasks.chain(2, 1.0), {"noise": [0.1]}, executor=e) for e in (executor, None)]
    print(*found[0]["error"].values, *(f["free_energy"].item() for f in found), *found[0]["point_seed"].values)
"""


def test_a_function_of_the_script_itself_goes_to_worker_processes(tmp_path):
    (tmp_path / "script.py").write_text(OWN_FUNCTION)
    run = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=True)
    in_worker, here, _ = run.stdout.split()
    assert in_worker == here


@pytest.mark.parametrize("measure", ["", "Theory", None])
def test_an_unknown_measure_is_refused(measure):
    with pytest.raises(ValueError, match="measure is"):
        sweep(RNN, CHAIN, GRID, measure)


KILLED = """
import sys
import time
import bayesnet as bn
from bayesnet.sweeping import points, sweeps
from bayesnet.sweeping.executors import LocalProcesses

def slowly(point, version, measure=sweeps.measure_point):
    time.sleep(0.2)
    return measure(point, version)

if __name__ == "__main__":
    store, measure, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    settings = {"solving": {"starts": 0}, "progress": False}
    if measure == "both":
        settings["sampling"] = {"num_warmup": 20, "num_samples": 20, "num_chains": 2}
    grid = {"noise": [0.1, 0.2, 0.3, 0.4], "factor": [1.0, 2.0, 3.0]}
    network, task = bn.Network.rnn(16), bn.tasks.chain(3, 1.0)
    if jobs == 1:
        sweeps.measure_point = slowly
        bn.sweep(network, task, grid, measure, store=store, **settings)
    else:
        with LocalProcesses(jobs) as executor:
            bn.sweep(network, task, grid, measure, store=store, executor=executor, **settings)
"""


def points_in(store):
    return {path: path.read_bytes() for path in store.glob("points/*/*.json")}


def finish_in_spite_of_kills(script, store, jobs, kills, rng):
    """Kill the script at random moments, start it again, at last let it end; how often it was killed."""
    killed, before = 0, {}
    for attempt in range(kills + 1):
        command = [sys.executable, str(script), str(store), "both", str(jobs)]
        with subprocess.Popen(command, start_new_session=True) as process:
            if attempt < kills:
                # At any moment of the start, or of the measurement of one of the first two points.
                further = rng.choice([0, 1, 1, 2])
                while process.poll() is None and len(points_in(store)) < len(before) + further:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 5 if further == 0 else 0.5))
                # The whole session, or the parent alone: its workers must not go on writing.
                if process.poll() is None:
                    (os.killpg if attempt % 2 else os.kill)(process.pid, signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
        after = points_in(store)
        assert before.items() <= after.items()  # nothing lost, nothing measured again
        before = after
    return killed


def result_of(store):
    return xr.load_dataset(next(store.glob("sweep-*.nc")), engine="h5netcdf")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_kills_at_random_moments_lose_nothing(tmp_path, jobs):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    rng = random.Random(jobs)
    finish_in_spite_of_kills(script, tmp_path / "whole", jobs, 0, rng)
    assert finish_in_spite_of_kills(script, tmp_path / "killed", jobs, 8, rng) >= 5
    killed, whole = (result_of(tmp_path / name) for name in ("killed", "whole"))
    xr.testing.assert_identical(untimed(killed), untimed(whole))
    assert set(killed["outcome"].values.ravel()) == {"done"}


def test_a_killed_sweep_resumes(tmp_path):
    """One kill, as soon as a point is in the store."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    store = tmp_path / "store"
    with subprocess.Popen([sys.executable, str(script), str(store), "theory", "1"]) as process:
        while process.poll() is None and not list(store.glob("points/*/*.json")):
            time.sleep(0.01)
        process.kill()
    before = points_in(store)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= len(before) < 12
    grid = {"noise": [0.1, 0.2, 0.3, 0.4], "factor": [1.0, 2.0, 3.0]}
    resumed = sweep(RNN, CHAIN, grid, store=store, **QUICK)
    assert before.items() <= points_in(store).items()
    xr.testing.assert_identical(untimed(resumed), untimed(sweep(RNN, CHAIN, grid, **QUICK)))

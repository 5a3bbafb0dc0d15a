"""`bayesnet sweep` and `bayesnet phase-diagram`: configurations, what they write, print and return."""

from unittest import mock

import numpy as np
import pytest
import xarray as xr

from bayesnet import Network, cli, tasks
from bayesnet.sweeping import commands, points, sweeps
from bayesnet.sweeping.grids import make_points, read_axes
from bayesnet.sweeping.sweep_config import DEFAULT_DIAGRAM, build_sweep_config

CONFIG = """
[task]
name = "chain"
signal = 1.0

[network]
width = 16
scaling = "standard" # its theory is the lazy limit, which compiles little

[grid]
steps = [3]
noise = [0.1, 1.0]
factor = { start = 1.0, stop = 3.0, num = 2 }

[solving]
starts = 0
"""
SHORT = ["--set", "sampling.num_warmup=30", "--set", "sampling.num_samples=30", "--set", "sampling.num_chains=2"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return str(path)


def test_sweep_writes_a_dataset_and_the_same_command_takes_everything_from_the_store(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["sweep", file, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "4 of 4 points done; 0 failed; 0 from the store; 4 theory solutions converged" in shown.out
    assert shown.out.splitlines()[-1] == str(out / "sweep.nc")
    assert "4/4" in shown.err
    data = xr.load_dataset(out / "sweep.nc", engine="h5netcdf")
    assert data["steps"].values.tolist() == [3]
    assert data["noise"].values.tolist() == [0.1, 1.0]
    assert data["factor"].values.tolist() == [1.0, 3.0]
    assert cli.main(["sweep", file, "--out", str(out)]) == 0
    assert "4 from the store" in capsys.readouterr().out
    xr.testing.assert_identical(xr.load_dataset(out / "sweep.nc", engine="h5netcdf"), data)


def test_failed_points_and_with_strict_unconverged_ones_are_an_exit_status(file, tmp_path, capsys, monkeypatch):
    out = ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(points, "solve", mock.Mock(side_effect=RuntimeError("no saddle point")))
    assert cli.main(["sweep", file, *out]) == 1
    shown = capsys.readouterr()
    assert "4 failed" in shown.out
    assert "failed at steps=3, noise=1.0, factor=3.0: RuntimeError: no saddle point" in shown.err
    assert cli.main(["sweep", file, "--retry-failed", *out]) == 1
    assert "0 from the store" in capsys.readouterr().out
    few = ["--set", "grid.noise=[0.1]", "--set", "grid.factor=[1.0]", "--set", "sweep.measure=posterior", *SHORT]
    assert cli.main(["sweep", file, *few, *out]) == 0
    assert "1 FAIL" in capsys.readouterr().out
    assert cli.main(["sweep", file, *few, *out, "--strict"]) == 1


def test_phase_diagram_draws_what_the_file_or_the_options_say(file, tmp_path, capsys):
    out = tmp_path / "out"
    small = ["--set", "grid.factor=[1.0, 2.0]", "--set", "grid.noise=[0.1, 1.0]", "--set", "task.steps=3"]
    small += ["--set", "network.width=16", "--set", "network.scaling=standard"]
    assert cli.main(["phase-diagram", *small, "--posterior", "1x1", *SHORT, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert [line.split(":")[0] for line in shown.splitlines()[:3]] == ["theory", "critical line", "posterior"]
    assert shown.splitlines()[-2:] == [str(out / "phase_diagram.png"), str(out / "phase_diagram.nc")]
    assert sorted(path.name for path in out.iterdir()) == ["phase_diagram.nc", "phase_diagram.png", "store"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sweep", "nowhere.toml"], "nowhere.toml"),
        (["sweep", "FILE", "--set", "grid.noise=[0.1, -1]"], "'noise' has the value -1"),
        (["sweep", "FILE", "--set", "grid.noise=[]"], "'noise' is empty"),
        (["sweep", "FILE", "--set", "grid.color=[1]"], "'color' is unknown"),
        (["sweep", "FILE", "--set", "grid={}", "--set", "task.steps=2"], "grid is {}"),
        (["sweep", "FILE", "--set", "grid.noise={start=1, stop=2, num=0}"], "noise.num is 0"),
        (["sweep", "FILE", "--set", "grid.noise={start=0, stop=2, num=3, spacing='log'}"], "both must be positive"),
        (["sweep", "FILE", "--set", "sweep.measure=all"], "measure is 'all'"),
        (["sweep", "FILE", "--set", "sweep.mesure=both"], "mesure is unknown"),
        (["sweep", "FILE", "--set", "network.depth=3"], "depth is unknown"),
        (["sweep", "FILE", "--set", "networks.RNN=[]"], "table [networks] is unknown"),
        (["sweep", "FILE", "--set", "task.color=3"], "color is unknown"),
        (["sweep", "FILE", "--set", "task.name=maze"], "name is 'maze'"),
        (["sweep", "FILE", "--jobs", "0"], "--jobs is 0"),
        (["sweep", "FILE", "--set", "solving.points=10"], "points is 10"),
        (["sweep", "FILE", "--set", "solving.tolerance=0"], "tolerance is 0"),
        (["sweep", "FILE", "--set", "sweep.seed=-1"], "seed is -1"),
        (["sweep", "FILE", "--dask", "nonsense"], "address of the Dask scheduler is 'nonsense'"),
        (["phase-diagram", "FILE"], "a phase diagram needs two"),
        (["phase-diagram", "FILE", "--set", "grid.width=[1, 2]"], "--set 'grid={X = [...], Y = [...]}'"),
        (["phase-diagram", "--set", "grid={}"], "a phase diagram needs two"),
        (["phase-diagram", "--posterior", "five"], "--posterior is 'five'"),
        (["phase-diagram", "--posterior", "50x50"], "posterior is 50"),
    ],
)
def test_errors_are_one_line_with_status_2_and_measure_nothing(arguments, word, file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [file if argument == "FILE" else argument for argument in arguments]
    assert cli.main([*arguments, "--out", str(out)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("bayesnet: error: ")
    assert word in lines[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("assignments", "axes"),
    [
        ([], ["factor", "noise"]),
        (["grid.factor=[1.0, 2.0]"], ["factor", "noise"]),
        (["grid.recurrent_gain=[1.0, 2.0]"], ["factor", "recurrent_gain"]),
        (["grid.input_gain=[1.0, 2.0]", "grid.recurrent_gain=[1.0, 2.0]"], ["input_gain", "recurrent_gain"]),
        (["grid.noise=[1.0, 2.0]", "grid.recurrent_gain=[1.0, 2.0]"], ["noise", "recurrent_gain"]),
        (["grid={noise = [1.0, 2.0], factor = [1.0, 2.0]}"], ["noise", "factor"]),
    ],
)
def test_axes_of_the_default_diagram_are_replaced_by_those_that_are_named(assignments, axes, monkeypatch, tmp_path):
    drawn = []

    def phase_diagram(network, task, x, y, posterior, **settings):
        drawn.append([x[0], y[0]])
        raise ValueError("enough")

    monkeypatch.setattr(commands, "phase_diagram", phase_diagram)
    options = [part for assignment in assignments for part in ("--set", assignment)]
    assert cli.main(["phase-diagram", *options, "--out", str(tmp_path / "out")]) == 2
    assert drawn == [axes]
    assert DEFAULT_DIAGRAM["grid"].keys() == {"factor", "noise"}


def test_an_interrupt_says_where_finished_points_are(file, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "_measure", interrupted)
    assert cli.main(["sweep", file, "--out", str(tmp_path / "out")]) == 130
    kept, last = capsys.readouterr().err.strip().splitlines()[-2:]
    store = tmp_path / "out" / "store"
    assert kept.endswith(f"finished points are kept in {store}; the same command goes on from them")
    assert last == "bayesnet: interrupted; no file is half-written"


def test_usage_errors(file):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", file, "--jobs", "2", "--dask", "tcp://localhost:8786"])
    assert stop.value.code == 2


def test_the_default_diagram_is_a_valid_configuration():
    config = build_sweep_config(DEFAULT_DIAGRAM)
    assert config.network == Network.rnn(1000)
    assert len(make_points(config.network, config.task, read_axes(config.grid), "theory")) == 400


def test_ranges_labels_and_arguments_of_the_task():
    config = build_sweep_config(
        {
            "task": {"name": "rotation", "steps": 4},
            "grid": {
                "noise": {"start": 0.1, "stop": 10.0, "num": 3, "spacing": "log"},
                "shared": {"RNN": ["recurrent", "input", "readout"], "DNN": []},
                "period": [3.0, 4.0],
                "signal": [2.0],
            },
        }
    )
    np.testing.assert_allclose(config.grid["noise"], [0.1, 1.0, 10.0])
    points = make_points(config.network, config.task, read_axes(config.grid), "theory")
    assert len(points) == 12
    assert points[1].task == tasks.rotation(4, 4.0, signal=2.0)
    assert points[1].labels["shared"] == "RNN"
    assert points[3].network == Network.dnn(512, noise=0.1)

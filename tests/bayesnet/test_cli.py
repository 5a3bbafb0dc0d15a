"""The command line: what it prints, writes and returns."""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from unittest import mock

import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet import cli, figures
from bayesnet.config import default_tables
from bayesnet.samplers.checkpoints import Lane

SMALL = ["--width", "16", "--num-warmup", "50", "--num-samples", "50", "--num-chains", "2"]
SMALL += ["--set", "task.patterns=2", "--set", "task.steps=2"]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A strict `bayesnet report` on two digits with two steps: output directory, exit status, what it printed."""
    out = tmp_path_factory.mktemp("report") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = cli.main(["report", *SMALL, "--save", "--strict", "--out", str(out)])
    return out, status, shown.getvalue()


def test_report_writes_the_report_its_summary_and_the_saved_runs(small_run):
    out, _, _ = small_run
    written = sorted(path.name for path in out.iterdir())
    assert written == ["DNN-theory.nc", "DNN.nc", "RNN-theory.nc", "RNN.nc", "report.html", "summary.json"]
    posterior = bn.load(out / "RNN.nc")
    assert posterior["posterior"].sizes["draw"] == 50
    assert bn.compare(posterior, bn.load(out / "RNN-theory.nc")).shape[0] > 0


def test_a_failed_gate_is_said_and_has_status_1_when_strict(small_run):
    """One hundred draws cannot have an effective sample size of 400."""
    out, status, shown = small_run
    assert json.loads((out / "summary.json").read_text())["status"] == "FAIL"
    assert status == 1
    assert shown.startswith("FAIL: ")
    assert "ESS" in shown
    assert shown.splitlines()[-1] == str(out / "report.html")


def test_config_prints_every_default_as_toml(capsys):
    assert cli.main(["config"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    told = {(name, key): value for name, table in default_tables().items() for key, value in table.items()}
    assert {(name, key): value for name, table in printed.items() for key, value in table.items()} == {
        place: value for place, value in told.items() if value is not None
    }


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.toml"], "nowhere.toml"),
        (["nowhere.npz"], "nowhere.npz"),
        (["--width", "0"], "width"),
        (["--activation", "sigmoid"], "activation"),
        (["--activation", "tanh", "--coordinates", "kernels"], "coordinates"),
        (["--set", "task.signal"], "--set"),
        (["--set", "task.color=3"], "color"),
        (["--num-samples", "-1"], "num_samples"),
        (["--seed", "-1"], "seed"),
        (["--width", "1099511627776", "--coordinates", "fields"], "memory"),
        (["--set", "networks={' ' = []}"], "[networks] ' '"),
        (["--set", "network=5"], "--set is 'network=5'"),
        (["NUMBER", "--width", "4"], "[network] is 5"),
        (["NUMBER", "--set", "task.steps=1"], "[task] is 5"),
        (["DEEP"], "nested too deeply"),
        (["--activation", "ends_the_program:phi"], "cannot be imported: SystemExit: 3"),
    ],
)
def test_errors_are_one_line_with_status_2_and_write_nothing(arguments, word, tmp_path, capsys, monkeypatch):
    (tmp_path / "number.toml").write_text("network = 5\ntask = 5\n")
    (tmp_path / "deep.toml").write_text("task.steps = " + 5000 * "[" + 5000 * "]")
    (tmp_path / "ends_the_program.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    files = {"NUMBER": str(tmp_path / "number.toml"), "DEEP": str(tmp_path / "deep.toml")}
    out = tmp_path / "out"
    assert cli.main(["report", *(files.get(argument, argument) for argument in arguments), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()  # nothing before it: no sampling has begun
    assert line.startswith("bayesnet: error: ")
    assert word in line
    assert not out.exists()


def test_a_fault_of_our_own_is_one_line_too(monkeypatch, capsys):
    def fault(tables):
        raise KeyError("nothing")

    monkeypatch.setattr(cli, "build_config", fault)
    assert cli.main(["report"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        line
        == "bayesnet: error: KeyError: 'nothing' (a fault of bayesnet's own; python -X dev -m bayesnet shows where)"
    )


@pytest.mark.parametrize("failure", [RuntimeError("lost"), MemoryError(), np.linalg.LinAlgError("singular")])
def test_a_theory_that_cannot_be_had_is_a_sentence_in_the_report(failure, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(theory, "solve", mock.Mock(side_effect=failure))
    for name in ("task_pictures", "result_pictures", "sampler_pictures"):
        monkeypatch.setattr(figures, name, lambda runs: [])
    assert cli.main(["report", *SMALL, "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    sentence = f"the theory could not be solved: {type(failure).__name__}: {failure}".strip()
    for network in summary["networks"].values():
        assert network["theory"] is None
        assert network["no_theory"] == sentence
    assert sentence in (tmp_path / "report.html").read_text()
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("failure", [RuntimeError("no picture"), KeyboardInterrupt(), OSError("disk full")])
@pytest.mark.parametrize("option", [[], ["--save"], ["--checkpoint"]])
def test_a_report_that_fails_keeps_what_was_sampled(failure, option, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(theory, "solve", mock.Mock(side_effect=RuntimeError("lost")))
    monkeypatch.setattr(bn, "report", mock.Mock(side_effect=failure))
    out, checkpoint = tmp_path / "out", str(tmp_path / "draws")
    arguments = [*option, *([checkpoint] if option == ["--checkpoint"] else [])]
    assert cli.main(["report", *SMALL, *arguments, "--out", str(out)]) == (130 if str(failure) == "" else 2)
    *_, kept, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("bayesnet: ")
    assert str(failure) in last
    if checkpoint in arguments:
        assert kept == f"bayesnet: kept what was drawn in {checkpoint}; the same command goes on from it"
    else:
        assert kept == f"bayesnet: kept the posterior of DNN in {out / 'DNN.nc'}"
        assert bn.load(out / "RNN.nc")["posterior"].sizes["draw"] == 50


def test_an_output_path_that_is_a_file_is_an_error(tmp_path, capsys):
    (tmp_path / "out").write_text("kept")
    assert cli.main(["report", "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out").read_text() == "kept"
    assert "bayesnet: error: " in capsys.readouterr().err


def test_paths_of_the_home_folder(tmp_path, capsys, monkeypatch):
    """For every path of the command line."""
    places = {}

    def noticed(network, task, checkpoint=None, **settings):
        places["checkpoint"] = checkpoint
        places["out"] = (tmp_path / "home" / "out").is_dir()
        raise ValueError("enough seen")

    home = tmp_path / "home"
    home.mkdir()
    (home / "run.toml").write_text('[task]\nfile = "~/task.npz"\n')
    bn.tasks.chain(2, 1.0).to_npz(home / "task.npz")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bn, "sample", noticed)
    assert cli.main(["report", "~/run.toml", "--out", "~/out", "--checkpoint", "~/ck"]) == 2
    assert "enough seen" in capsys.readouterr().err
    assert places == {"checkpoint": home / "ck" / "RNN.checkpoint", "out": True}
    grid = ["--set", "grid.noise=[]", "--out", "~/out", "--store", "~/store"]
    assert cli.main(["phase-diagram", *grid]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert sorted(path.name for path in home.iterdir()) == ["run.toml", "task.npz"], "nothing is left of refusals"


def test_an_interrupt_leaves_no_half_written_file(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(bn, "sample", interrupted)
    assert cli.main(["report", *SMALL, "--out", str(tmp_path)]) == 130
    assert not list(tmp_path.iterdir())
    assert "interrupted" in capsys.readouterr().err


def test_a_real_interrupt_ends_the_run_within_a_block_and_leaves_nothing(tmp_path):
    """SIGINT while chains run in threads: they must not be waited for to the end."""
    out = tmp_path / "out"
    # A job started in the background of a shell ignores SIGINT, and its children inherit that: ask for it back.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import bayesnet.cli as cli; "
    arguments = ["report", "--num-warmup", "1000000", "--out", str(out)]
    command = [sys.executable, "-c", listen + f"raise SystemExit(cli.main({arguments}))"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "sampling" in process.stderr.readline()
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert shown.strip().endswith("interrupted; no file is half-written")
    assert not out.exists()


def test_a_killed_report_goes_on_from_its_checkpoint(tmp_path, capsys, monkeypatch):
    """What was sampled before is read back: only the second network is drawn the second time."""
    place, drawn, add = tmp_path / "draws", set(), Lane.add

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    def watched(lane, *arguments, **records):
        drawn.add(lane._directory.name)
        add(lane, *arguments, **records)

    command = ["report", *SMALL, "--out", str(tmp_path / "out"), "--checkpoint", str(place)]
    with monkeypatch.context() as patched:
        patched.setattr(theory, "solve", interrupted)
        assert cli.main(command) == 130
    assert [path.name for path in place.iterdir()] == ["RNN.checkpoint"]
    monkeypatch.setattr(Lane, "add", watched)
    assert cli.main(command) == 0  # not strict: a failed gate is no failure
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "FAIL"
    assert drawn == {"DNN.checkpoint"}
    assert (tmp_path / "out" / "report.html").exists()
    assert cli.main([*command, "--seed", "1"]) == 2
    assert "seed is 0 there and 1 here" in capsys.readouterr().err


def test_usage_errors_exit_with_status_2():
    result = subprocess.run([sys.executable, "-m", "bayesnet", "paint"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert re.search("paint", result.stderr)


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in (*cli.OPTIONS, "--out", "--set", "--strict", "--save"):
        assert option in shown

"""Configurations: defaults, merging, and what is refused."""

import tomllib

import numpy as np
import pytest

from bayesnet import tasks
from bayesnet.config import build_config, default_tables, read_tables, to_toml
from theory import Network


def test_the_default_is_the_digits_task_at_width_512():
    config = build_config({})
    assert config.task == tasks.digits()
    assert config.networks == {"RNN": Network.rnn(512), "DNN": Network.dnn(512)}
    assert config.sampling["num_chains"] == 4


def test_printed_defaults_read_back_as_the_defaults():
    tables = tomllib.loads(to_toml(default_tables()))
    assert tables == default_tables()
    assert build_config(tables) == build_config({})


def test_tables_are_merged_over_the_defaults():
    config = build_config(
        {
            "task": {"name": "chain", "steps": 3, "signal": 2.0},
            "network": {"width": 16},
            "networks": {"only W": ["recurrent"]},
            "sampling": {"seed": 7},
        }
    )
    assert config.task == tasks.chain(3, 2.0)
    assert config.networks == {"only W": Network(16, shared={"recurrent"})}
    assert config.sampling == build_config({}).sampling | {"seed": 7}


def test_a_task_file_is_found_beside_its_configuration(tmp_path):
    tasks.chain(2, 1.0).to_npz(tmp_path / "task.npz")
    (tmp_path / "run.toml").write_text('[task]\nfile = "task.npz"\n')
    for file in ("run.toml", "task.npz"):
        assert build_config(read_tables(tmp_path / file)).task == tasks.chain(2, 1.0)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"tusk": {}}, ["[tusk]", "[task]"]),
        ({"task": 3}, ["[task]", "table"]),
        ({"task": {"name": "sorting"}}, ["[task] name", "'sorting'", "'digits'"]),
        ({"task": {"name": "chain", "steps": 3}}, ["'chain'", "needs signal"]),
        ({"task": {"name": "chain", "steps": 3, "signal": 1.0, "period": 2}}, ["[task] period", "steps, signal"]),
        ({"task": {"file": "a.npz", "steps": 3}}, ["file", "alone"]),
        ({"task": {"file": 3}}, ["[task] file", "path"]),
        ({"task": {"signal": float("nan")}}, ["signal"]),
        ({"network": {"depth": 3}}, ["[network] depth", "width"]),
        ({"network": {"width": 0}}, ["width", "from 1"]),
        ({"networks": {}}, ["[networks]", "empty"]),
        ({"networks": {"RNN": "recurrent"}}, ["[networks] RNN", "list"]),
        ({"networks": {"RNN": ["weights"]}}, ["'weights'", "'recurrent'"]),
        ({"networks": {"../RNN": []}}, ["../RNN", "letters"]),
        ({"networks": {"RNN": [], "RNN-theory": []}}, ["'RNN'", "'RNN-theory'", "RNN-theory.nc", "rename"]),
        ({"networks": {"RNN-Theory": [], "rnn": []}}, ["'rnn'", "'RNN-Theory'", "rnn-theory.nc"]),
        ({"networks": {"a": [], "A": []}}, ["'a'", "'A'"]),
        ({"sampling": {"draws": 3}}, ["[sampling] draws", "num_samples"]),
    ],
)
def test_malformed_tables_are_refused_by_name(tables, words):
    with pytest.raises(ValueError) as refusal:
        build_config(tables)
    for word in words:
        assert word in str(refusal.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text("[task\n")
    (tmp_path / "run2.toml").write_bytes(np.arange(99, dtype=np.uint8).tobytes() + b"\xff\xfe")
    for name in ("run.toml", "run2.toml"):
        with pytest.raises(ValueError, match="is not TOML"):
            read_tables(tmp_path / name)

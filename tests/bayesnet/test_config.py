"""Configurations: defaults, merging, and what is refused."""

import tomllib

import numpy as np
import pytest

from bayesnet import tasks
from bayesnet.config import assign, build_config, default_tables, read_tables, to_toml
from theory import Network


def test_the_default_is_the_digits_task_at_width_512():
    config = build_config({})
    assert config.task == tasks.digits()
    assert config.networks == {"RNN": Network.rnn(512), "DNN": Network.dnn(512)}
    assert config.sampling["num_chains"] == 4


def set_defaults():
    """The defaults that are values; TOML has no None."""
    tables = default_tables().items()
    return {name: {key: value for key, value in table.items() if value is not None} for name, table in tables}


def test_printed_defaults_read_back_as_the_defaults():
    tables = tomllib.loads(to_toml(default_tables()))
    assert tables == set_defaults()
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
        ({"task": {"file": "a.npz", "steps": 3}}, ["file", "factor", "steps"]),
        ({"network": 5}, ["[network] is 5", "table"]),
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
        ({"networks": {" ": []}}, ["[networks] ' '", "letter or digit"]),
        ({"networks": {"RNN ": []}}, ["[networks] 'RNN '", "no space at the end"]),
        ({"networks": {".": []}}, ["[networks] '.'", "letter or digit"]),
        ({"networks": {"R" * 300: []}}, ["[networks] 'RRRR", "200 bytes"]),
        ({"networks": {"R\n": []}}, ["[networks] 'R\\n'", "letters"]),
        ({"networks": {"RNN": [], "rnn": []}}, ["'RNN' and 'rnn'", "rename one"]),
        ({"networks": {"RNN-theory": [], "RNN": []}}, ["'RNN-theory' and 'RNN'", "rename one"]),
        ({"sampling": {"draws": 3}}, ["[sampling] draws", "num_samples"]),
        ({"sampling": {"num_samples": 0}}, ["network 'RNN'", "num_samples is 0"]),
        ({"sampling": {"num_samples": 10**9}}, ["network 'RNN'", "num_samples 1000000000", "memory"]),
        ({"sampling": {"seed": -1}}, ["seed is -1", "18446744073709551615"]),
        ({"sampling": {"keep": ["biases"]}}, ["keep", "'weights'"]),
        ({"sampling": {"coordinates": "kernels"}, "network": {"activation": "tanh"}}, ["coordinates", "kernels"]),
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


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text("task.steps = " + 5000 * "[" + 5000 * "]")
    with pytest.raises(ValueError, match="is nested too deeply"):
        read_tables(tmp_path / "run.toml")


def test_a_task_file_takes_a_factor(tmp_path):
    tasks.chain(2, 1.5).to_npz(tmp_path / "task.npz")
    tables = read_tables(tmp_path / "task.npz")
    assign(tables, "task.factor=2")
    assert build_config(tables).task == tasks.chain(2, 3.0)
    assign(tables, "task.factor=much")
    with pytest.raises(ValueError, match=r"\[task\] factor is 'much'; it must be a finite real number"):
        build_config(tables)


def test_assignments_put_values_and_whole_tables_in_place():
    tables = {"network": {"width": 3}}
    assert assign(tables, "network.width=4") == ("network", "width")
    assert assign(tables, "network.activation=tanh") == ("network", "activation")
    assert assign(tables, "grid={noise = [1.0, 2.0]}") == ("grid", "")
    assert assign(tables, "grid.factor=[1,\n2]") == ("grid", "factor")
    assert tables == {
        "network": {"width": 4, "activation": "tanh"},
        "grid": {"noise": [1.0, 2.0], "factor": [1, 2]},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task.signal", "TABLE.KEY=VALUE"),
        (".signal=1", "TABLE.KEY=VALUE"),
        ("task.=1", "TABLE.KEY=VALUE"),
        ("grid=[1]", "TABLE={KEY = VALUE, ...}"),
        ("task.signal=1\nsteps=2", "one value"),
        ("task.signal=1\n[network]", "one value"),
        ("task.signal=" + 5000 * "[", "nested too deeply"),
        ("network.width=4", "[network] is 5"),
    ],
)
def test_malformed_assignments_are_refused(text, words):
    with pytest.raises(ValueError) as refusal:
        assign({"network": 5}, text)
    assert words in str(refusal.value)

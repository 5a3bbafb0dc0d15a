"""Checkpoints: a run that dies at any moment goes on bitwise; whatever is wrong with a checkpoint is said."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from bayesnet import Network, sample, sampling, tasks
from bayesnet.samplers import chains
from bayesnet.samplers.checkpoints import Lane, describe_run, open_checkpoint, pack, unpack

NETWORK = Network(8, activation="tanh")
TASK = tasks.chain(2, 1.5)
RUN = {"num_warmup": 40, "num_samples": 60, "num_chains": 2, "num_latents": 3, "seed": 5, "progress": False}
LONG = {**RUN, "num_samples": 1_500}
WORKER = f"""
import sys
from bayesnet import Network, sample, tasks
sample(Network(8, activation="tanh"), tasks.chain(2, 1.5), checkpoint=sys.argv[1], **{LONG!r})
"""


LINEAR = Network(8)
FRAMED = {**RUN, "num_warmup": 200}


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def uninterrupted():
    return sample(NETWORK, TASK, **RUN)


@pytest.fixture(scope="module")
def framed():
    schedule = chains.make_schedule(sampling.make_settings(LINEAR, TASK, **settings_of(FRAMED)))
    assert [index for index, block in enumerate(schedule) if block.fit_frame] == [13, 14, 15]
    return sample(LINEAR, TASK, **FRAMED)


def assert_same_draws(one, other):
    for group in ("posterior", "posterior_predictive", "sample_stats", "log_likelihood", "latents"):
        for name, values in one[group].data_vars.items():
            np.testing.assert_array_equal(values, other[group][name], err_msg=name)


def blocks_of(directory, name):
    path = directory / f"{name}.state"
    return int(np.load(path)["blocks"][0]) if path.exists() else 0


def start_and_kill(directory, blocks):
    """Run LONG in a process of its own until its second chain has ``blocks`` blocks on disk, then SIGKILL."""
    with subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 900
        while blocks_of(directory, "chain-1") < blocks:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < limit
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_resumes_bitwise(tmp_path):
    """SIGKILL in the middle of sampling, in another process; the same call here ends with the uninterrupted draws."""
    start_and_kill(tmp_path, 10)
    done = blocks_of(tmp_path, "chain-1")
    total = len(chains.make_schedule(sampling.make_settings(NETWORK, TASK, **settings_of(LONG))))
    assert 10 <= done < total
    resumed = sample(NETWORK, TASK, checkpoint=tmp_path, **LONG)
    assert_same_draws(resumed, sample(NETWORK, TASK, **LONG))
    assert blocks_of(tmp_path, "chain-1") == total
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_a_run_killed_again_and_again_resumes_bitwise(tmp_path):
    for blocks in (1, 3, 15, 30, 45):
        start_and_kill(tmp_path, blocks)
    resumed = sample(NETWORK, TASK, checkpoint=tmp_path, **LONG)
    assert_same_draws(resumed, sample(NETWORK, TASK, **LONG))


def settings_of(run):
    defaults = {"coordinates": "auto", "sampler": "nuts", "target_accept": 0.8, "max_tree_depth": 10, "anneal": True}
    defaults |= {"precision": "float64", "chain_method": "parallel"}
    return {**defaults, **{name: value for name, value in run.items() if name not in ("seed", "progress")}}


@pytest.mark.parametrize("moment", ["before the draws", "before the state", "after the state"])
@pytest.mark.parametrize("method", ["sequential", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_a_crash_at_any_moment_costs_at_most_a_block(tmp_path, monkeypatch, moment, method):
    """Every third write fails: the run needs many starts, and none of them draws a committed block again."""
    whole = sample(NETWORK, TASK, chain_method=method, **RUN)
    write, replace, calls, drawn = Lane._write, os.replace, [0], []

    def fail_at(where):
        calls[0] += moment == where
        if moment == where and calls[0] % 3 == 0:
            raise Crash

    def failing_write(lane, state, records):
        fail_at("before the draws")
        drawn.append((lane.name, lane.blocks))
        write(lane, state, records)
        fail_at("after the state")

    def failing_replace(source, target):
        if str(target).endswith(".state"):
            fail_at("before the state")
        replace(source, target)

    monkeypatch.setattr(Lane, "_write", failing_write)
    monkeypatch.setattr(os, "replace", failing_replace)
    crashes = 0
    while True:
        try:
            tree = sample(NETWORK, TASK, chain_method=method, checkpoint=tmp_path, **RUN)
            break
        except Crash:
            crashes += 1
    assert crashes > 3
    assert_same_draws(tree, whole)
    repeated = len(drawn) - len(set(drawn))
    assert repeated == (crashes if moment == "before the state" else 0)


@pytest.mark.parametrize("blocks", [14, 17])
def test_frames_are_part_of_a_checkpoint(tmp_path, framed, monkeypatch, blocks):
    """Kernels, whose frame is fitted before blocks 13, 14 and 15: stopped with 14 on disk, in between, and after."""
    add = Lane.add

    def failing_add(lane, *arguments, **records):
        if lane.blocks == blocks:
            raise Crash
        add(lane, *arguments, **records)

    monkeypatch.setattr(Lane, "add", failing_add)
    with pytest.raises(Crash):
        sample(LINEAR, TASK, checkpoint=tmp_path, **FRAMED)
    monkeypatch.setattr(Lane, "add", add)
    assert_same_draws(sample(LINEAR, TASK, checkpoint=tmp_path, **FRAMED), framed)


def test_a_complete_checkpoint_is_read_back(tmp_path, uninterrupted, monkeypatch):
    """No chain is followed; the wall time is that of the run. Chains in turn are the same run as chains in threads."""
    first = sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    monkeypatch.setattr(Lane, "add", lambda *arguments, **records: pytest.fail("a block was drawn"))
    again = sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    in_turn = sample(NETWORK, TASK, checkpoint=tmp_path, chain_method="sequential", **RUN)
    for tree in (first, again, in_turn):
        assert_same_draws(tree, uninterrupted)
        assert tree.attrs["wall_time"] == first.attrs["wall_time"] > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        ({"num_samples": 61}, "settings.num_samples is 60 there and 61 here"),
        ({"sampler": "hmc"}, "settings.sampler is 'nuts' there and 'hmc' here"),
        ({"chain_method": "vectorized"}, "settings.chain_method is 'parallel' there"),
        ({"network": NETWORK.replace(width=9)}, "network.width is 8 there and 9 here"),
        ({"task": tasks.chain(2, 1.6)}, "task"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, uninterrupted, monkeypatch, change, named):
    sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(sampling, "run_chains", lambda *arguments: pytest.fail("a chain was started"))
    with pytest.raises(ValueError, match=r"^checkpoint .* belongs to another run: ") as refused:
        sample(**{"network": NETWORK, "task": TASK, "checkpoint": tmp_path, **RUN, **change})
    assert named in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_paths_that_cannot_be_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "run_chains", lambda *arguments: pytest.fail("a chain was started"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    for name in ("other", ".mine.0123.tmp", ".run.json.tmp"):
        (tmp_path / "full" / name).write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    for path, error, words in (
        (3, ValueError, "^checkpoint is 3; it must be the name of a directory"),
        (tmp_path / "file", ValueError, "^checkpoint .* is a file"),
        (tmp_path / "full", ValueError, "^checkpoint .* holds other files"),
        ("a\0b", ValueError, "^checkpoint is 'a.x00b'"),
        (tmp_path / "file" / "below", OSError, "^checkpoint .* cannot be written"),
        ("/proc/nowhere", OSError, "^checkpoint .* cannot be written"),
    ):
        with pytest.raises(error, match=words):
            sample(NETWORK, TASK, checkpoint=path, **RUN)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / ".run.json.0123abcd.tmp").write_text("of a run that was killed before it wrote anything")
    directory = open_checkpoint("~/ck", {"run": {}, "versions": {}})
    assert directory == tmp_path / "ck"
    assert [path.name for path in directory.iterdir()] == ["run.json"]
    assert os.listdir(tmp_path) == ["ck"]


def test_no_directory_is_left_of_a_run_that_was_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="num_samples is 0"):
        sample(NETWORK, TASK, checkpoint=tmp_path / "a" / "b", **{**RUN, "num_samples": 0})

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"^checkpoint .* cannot be written: disk full"):
        sample(NETWORK, TASK, checkpoint=tmp_path / "a" / "b", **RUN)
    assert os.listdir(tmp_path) == []


def described(activation):
    return describe_run(Network(8, activation=activation).to_dict(), TASK, {}, 5, {})


def test_the_network_is_compared_by_what_it_is(tmp_path):
    """Not by the fields that version 0.1.0 had, nor by the name of a function."""
    old = described("tanh")
    names = ("width", "activation", "recurrent_gain", "input_gain", "readout_gain", "noise", "scaling")
    old["run"]["network"] = {name: old["run"]["network"][name] for name in names}
    old["run"]["network"]["shared"] = ["recurrent", "input", "readout"]
    open_checkpoint(tmp_path / "old", old)
    assert open_checkpoint(tmp_path / "old", described("tanh")) == tmp_path / "old"

    def closing_over(value):
        return lambda x: value * jnp.sin(x)

    open_checkpoint(tmp_path / "own", described(closing_over(1.0)))
    open_checkpoint(tmp_path / "own", described(closing_over(1.0)))
    with pytest.raises(ValueError, match=r"belongs to another run: network\.activation_digest is "):
        open_checkpoint(tmp_path / "own", described(closing_over(2.0)))


def written_lane(directory):
    """A lane with two blocks on disk."""
    lane, rng = Lane("chain 0", directory), np.random.default_rng(0)
    for block in range(2):
        draws = pack({"lp": rng.normal(size=5), "kernel": rng.normal(size=(5, 2, 2)), "n": np.arange(5) + block})
        latents = pack({"z": rng.normal(size=(1, 3))})
        lane.add(5, 1.0 + block, {"a": np.arange(3.0), "b": np.int64(block)}, draws=draws, latents=latents)
    return lane


def test_every_damage_to_a_lane_is_noticed(tmp_path):
    lane = written_lane(tmp_path)
    rng = np.random.default_rng(1)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            cut = content[: int(rng.integers(len(content)))]
            for damaged in (bytes(changed), cut):
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match=r"^checkpoint .* is damaged at chain 0 \("):
                    Lane("chain 0", tmp_path)
        path.write_bytes(content)
    back = Lane("chain 0", tmp_path)
    assert (back.blocks, back.made) == (lane.blocks, lane.made)
    for kind in ("draws", "latents"):
        np.testing.assert_array_equal(np.concatenate(lane.records[kind]), back.records[kind][0])


def as_version_0_1_0(directory, position, leaves, draws):
    """A lane without checksums."""
    with open(directory / "chain-0.state", "wb") as file:
        for array in (pack({name: np.array([value]) for name, value in position.items()}), leaves, draws[:0]):
            np.save(file, array)
        np.save(file, np.empty(0))
    draws.tofile(directory / "chain-0.draws")


def test_lanes_of_version_0_1_0(tmp_path):
    """They are read and gone on with; draws that are not finite were never written."""
    position = {"blocks": 1, "made": 5, "seconds": 1.0, "draws": 5, "latents": 0}
    leaves, draws = pack({"leaf 0": np.arange(3.0)[None]}), pack({"lp": np.arange(5.0)})
    as_version_0_1_0(tmp_path, position, leaves, draws)
    lane = Lane("chain 0", tmp_path)
    np.testing.assert_array_equal(lane.records["draws"][0], draws)
    lane.add(5, 2.0, {"a": np.arange(3.0)}, draws=draws)
    assert len(Lane("chain 0", tmp_path).records["draws"][0]) == 10
    for wrong, words in (
        ({**position, "draws": 6}, "draws are missing"),
        ({**position, "draws": 10**12}, "draws are missing"),
        ({name: value for name, value in position.items() if name != "blocks"}, "blocks"),
    ):
        as_version_0_1_0(tmp_path, wrong, leaves, draws)
        with pytest.raises(ValueError, match=rf"^checkpoint .* is damaged at chain 0 \(.*{words}"):
            Lane("chain 0", tmp_path)
    as_version_0_1_0(tmp_path, position, leaves, pack({"lp": np.array([0, 1, np.nan, 3, 4])}))
    with pytest.raises(ValueError, match=r"draws are not finite"):
        Lane("chain 0", tmp_path)


@pytest.mark.parametrize("name", ["chain-0.state", "chain-0.draws", "chain-0.latents", "run.json"])
def test_links_in_a_checkpoint_are_not_written_through(tmp_path, name):
    secret, directory = tmp_path / "secret", tmp_path / "checkpoint"
    directory.mkdir()
    open_checkpoint(directory, {"run": {}, "versions": {}})
    (directory / name).unlink(missing_ok=True)
    secret.write_text("kept")
    (directory / name).symlink_to(secret)
    with pytest.raises(ValueError, match=r"^checkpoint .* is damaged at .*link"):
        Lane("chain 0", open_checkpoint(directory, {"run": {}, "versions": {}}))
    assert secret.read_text() == "kept"


def test_a_link_that_comes_later_is_not_written_through(tmp_path):
    secret, lane = tmp_path / "secret", Lane("chain 0", tmp_path)
    secret.write_text("kept")
    (tmp_path / "chain-0.draws").symlink_to(secret)
    with pytest.raises(OSError, match=r"^checkpoint .* could not be written"):
        lane.add(1, 1.0, {"a": np.zeros(1)}, draws=pack({"lp": np.zeros(1)}))
    assert secret.read_text() == "kept"
    assert lane.blocks == 0


def test_damaged_checkpoints_are_refused(tmp_path, uninterrupted):
    sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    for name, content in (
        ("chain-1.state", b"garbage"),
        ("chain-1.state", (tmp_path / "chain-1.state").read_bytes()[:-100]),
        ("chain-0.draws", (tmp_path / "chain-0.draws").read_bytes()[:-1]),
        ("chain-0.latents", None),
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b"[" * 100_000),
        ("run.json", b'{"run": {}, "versions": 3}'),
        ("run.json", b"\xff\xfe"),
    ):
        path = tmp_path / name
        sound = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^checkpoint .* is damaged"):
            sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
        path.write_bytes(sound)
    assert_same_draws(sample(NETWORK, TASK, checkpoint=tmp_path, **RUN), uninterrupted)


def test_a_full_disk_stops_the_run_with_all_that_was_drawn(tmp_path):
    """A limit on the size of files stands for the full disk; with room again the run goes on to the same draws."""
    run = {**RUN, "num_samples": 300}
    whole = sample(NETWORK, TASK, checkpoint=tmp_path / "whole", **run)
    size = (tmp_path / "whole" / "chain-0.draws").stat().st_size
    assert (tmp_path / "whole" / "chain-0.state").stat().st_size < size / 2
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match=r"^checkpoint .*: chain \d could not be written .* intact there"):
            sample(NETWORK, TASK, checkpoint=tmp_path / "part", **run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert max(blocks_of(tmp_path / "part", name) for name in ("chain-0", "chain-1")) > 10
    assert_same_draws(sample(NETWORK, TASK, checkpoint=tmp_path / "part", **run), whole)


def test_other_versions_go_on_with_a_warning(tmp_path, uninterrupted):
    sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    marker = tmp_path / "run.json"
    description = json.loads(marker.read_text())
    description["versions"]["jax"] = "0.0.1"
    marker.write_text(json.dumps(description))
    with pytest.warns(UserWarning, match=r"was begun with jax 0\.0\.1: "):
        sample(NETWORK, TASK, checkpoint=tmp_path, **RUN)
    assert json.loads(marker.read_text()) == description


def test_records_come_back():
    arrays = {"a": np.arange(6.0).reshape(3, 2), "b": np.array([True, False, True]), "c": np.arange(3, dtype=np.int32)}
    back = unpack(
        [pack({name: values[:2] for name, values in arrays.items()}), pack({n: v[2:] for n, v in arrays.items()})]
    )
    for name, values in arrays.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)

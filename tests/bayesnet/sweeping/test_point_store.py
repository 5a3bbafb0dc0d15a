"""The store: records appear whole or not at all."""

import json
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
from bayesnet.sweeping.point_store import PointStore
from bayesnet.sweeping.points import Point, blank_record

POINT = Point({"noise": 0.1}, bn.Network.rnn(16), bn.tasks.chain(2, 1.5), "theory", 0, None, {"starts": 1})
RECORD = {**blank_record(), "scalars": {"free_energy": 0.1 + 0.2, "residual": math.inf}, "seconds": 1.5}


@pytest.fixture
def store(tmp_path):
    return PointStore(tmp_path / "store")


def files_of(store):
    return [path for path in store.directory.rglob("*") if path.is_file()]


def test_a_record_comes_back_exactly(store):
    assert store.read(POINT) is None
    store.write(POINT, RECORD)
    back = PointStore(store.directory).read(POINT)
    assert {name: back[name] for name in RECORD} == RECORD
    assert back["specification"]["network"]["width"] == 16
    assert len(files_of(store)) == 1
    assert store.read(replace(POINT, seed=1)) is None


def test_nan_comes_back(store):
    store.write(POINT, {**RECORD, "table": {"mean": {"f": math.nan}}})
    assert math.isnan(store.read(POINT)["table"]["mean"]["f"])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"key": "other"}', b"[" * 100_000])
def test_what_is_not_a_record_of_the_point_counts_as_not_there(store, content):
    store.write(POINT, RECORD)
    files_of(store)[0].write_bytes(content)
    with pytest.warns(UserWarning, match=r"^store: '.*json' is damaged \(.*; its point is measured again"):
        assert store.read(POINT) is None
    store.write(POINT, RECORD)
    assert store.read(POINT) is not None


def test_every_damage_to_a_record_is_noticed(store):
    table = {"mean": {"f": 1.5, "g": math.nan}, "verdict": {"f": "agrees"}}
    store.write(POINT, {**RECORD, "table": table})
    path, rng = files_of(store)[0], np.random.default_rng(0)
    content, whole = path.read_bytes(), repr(store.read(POINT))
    for _ in range(300):
        changed = bytearray(content)
        changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(changed), content[: int(rng.integers(len(content)))]):
            path.write_bytes(damaged)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                record = store.read(POINT)
            assert (record is None and len(caught) == 1) or repr(record) == whole


def test_records_of_version_0_1_0_are_read_if_they_are_whole(store):
    """They have no checksum."""
    store.write(POINT, RECORD)
    path = files_of(store)[0]
    old = json.loads(path.read_text())
    del old["sha256"]
    path.write_text(json.dumps(old))
    assert store.read(POINT) == old
    for change in ({"table": []}, {"table": {"mean": 3}}, {"scalars": {"a": None}}, {"seconds": "1"}, {"error": 3}):
        path.write_text(json.dumps({**old, **change}))
        with pytest.warns(UserWarning, match="is damaged"):
            assert store.read(POINT) is None


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_record(store, monkeypatch, failure):
    store.write(POINT, RECORD)

    def fail(*arguments):
        raise failure

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(type(failure)):
        store.write(POINT, {**RECORD, "seconds": 2.0})
    assert store.read(POINT)["seconds"] == 1.5
    assert len(files_of(store)) == 1


def test_many_writers_and_readers_of_one_point(store):
    """Every reader finds a whole record, whoever wrote it."""
    store.write(POINT, RECORD)

    def work(number):
        PointStore(store.directory).write(POINT, {**RECORD, "seconds": float(number)})
        return PointStore(store.directory).read(POINT) is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert len(files_of(store)) == 1


def test_a_dataset_is_replaced_whole(store):
    for value in (1.0, 2.0):
        path = store.write_dataset("abc", xr.Dataset({"x": value}))
    assert path == store.directory / "sweep-abc.nc"
    assert xr.load_dataset(path, engine="h5netcdf")["x"] == 2.0
    assert files_of(store) == [path]


def test_bad_directories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="store is 3"):
        PointStore(3)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^store .* is a file"):
        PointStore(tmp_path / "file")

"""Posteriors and solutions written to netCDF come back as they were; nothing else does."""

import json

import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
from bayesnet.sampling import network_of, task_of
from theory import Solution


def test_a_posterior_comes_back(posteriors, small_task, tmp_path):
    bn.save(posteriors["RNN"], tmp_path / "rnn.nc")
    back = bn.load(tmp_path / "rnn.nc")
    xr.testing.assert_identical(back, posteriors["RNN"])
    assert task_of(back) == small_task
    assert network_of(back) == bn.Network.rnn(256)
    assert json.loads(back.attrs["settings"]) == json.loads(posteriors["RNN"].attrs["settings"])
    assert list(tmp_path.iterdir()) == [tmp_path / "rnn.nc"]


def test_weights_can_be_drawn_from_a_stored_posterior(posteriors, tmp_path):
    bn.save(posteriors["DNN"], tmp_path / "dnn.nc")
    for one, other in zip(
        bn.draw_weights(bn.load(tmp_path / "dnn.nc")), bn.draw_weights(posteriors["DNN"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["RNN", "DNN"])
def test_a_solution_comes_back_with_its_branches(solutions, tmp_path, name):
    bn.save(solutions[name], tmp_path / "solution.nc")
    back = bn.load(tmp_path / "solution.nc")
    assert isinstance(back, Solution)
    assert len(back.branches) == len(solutions[name].branches)
    for one, other in zip((back, *back.branches), (solutions[name], *solutions[name].branches), strict=True):
        assert (one.network, one.task, one.message) == (other.network, other.task, other.message)
        assert (one.kind, one.stable, one.converged) == (other.kind, other.stable, other.converged)
        assert (one.free_energy, one.residual) == (other.free_energy, other.residual)
        for array in ("kernel", "conjugate", "preactivation_cov", "prediction", "dual"):
            np.testing.assert_array_equal(getattr(one, array), getattr(other, array))


def test_the_broken_branch_is_among_those_stored(solutions):
    assert len(solutions["RNN"].branches) > 1


@pytest.mark.parametrize("content", [b"", b"not a netCDF file", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "garbage.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a netCDF file"):
        bn.load(path)


def test_other_content_is_refused(tmp_path):
    xr.Dataset({"x": ("i", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="neither a posterior nor a solution"):
        bn.load(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        bn.load(tmp_path / "missing.nc")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        bn.load(tmp_path)
    with pytest.raises(ValueError, match=r"^value is dict"):
        bn.save({}, tmp_path / "dict.nc")


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(chain_posterior, tmp_path, monkeypatch, failure):
    path = tmp_path / "posterior.nc"
    bn.save(chain_posterior, path)
    before = path.read_bytes()

    def fail(*arguments, **settings):
        raise failure

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(type(failure)):
        bn.save(chain_posterior, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before

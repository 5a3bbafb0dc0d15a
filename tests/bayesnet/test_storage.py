"""Posteriors and solutions written to netCDF come back as they were; nothing else does."""

import contextlib
import datetime
import gc
import io
import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayesnet as bn
import theory
from bayesnet.netcdf import write_netcdf
from bayesnet.sampling import network_of, task_of
from bayesnet.sweeping.phase_diagrams import PhaseDiagram
from theory import Solution, activation_identity


@pytest.fixture(scope="module")
def prior():
    return bn.sample_prior(bn.Network.rnn(64), bn.tasks.chain(2, 1.5), 20)


@pytest.fixture(scope="module")
def lazy():
    """The cheapest solution there is."""
    return theory.nngp(bn.Network.rnn(64), bn.tasks.chain(2, 1.5))


def as_version_0_1_0(value, path):
    """A file as version 0.1.0 wrote it: no checksum; and no digest of an activation."""
    value.to_netcdf(path, engine="h5netcdf")


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


def views_of_buffers():
    """Views of a BytesIO that are not released: in a reference cycle the buffer may go first, and complains."""
    views = []
    for thing in gc.get_objects():
        if isinstance(thing, memoryview):
            with contextlib.suppress(ValueError):  # it is released
                views += [thing] if isinstance(thing.obj, type(io.BytesIO().getbuffer().obj)) else []
    return views


SAVING = {
    "netcdf": lambda task, place: write_netcdf(place / "a.nc", xr.Dataset({"x": ("i", np.arange(3.0))}), sealed=True),
    "npz": lambda task, place: task.to_npz(place / "a.npz"),
    "picture": lambda task, place: PhaseDiagram.save(SimpleNamespace(draw=Figure, dataset=xr.Dataset()), place / "a"),
}


@pytest.mark.parametrize("kind", SAVING)
def test_a_failed_write_is_over_at_once(small_task, tmp_path, monkeypatch, kind):
    """No view of a buffer outlives the write, though the exception holds the frames that it has passed."""

    def fail(path, partial):
        raise OSError("disk full")

    complaints = []
    monkeypatch.setattr("os.replace", fail)
    monkeypatch.setattr("sys.unraisablehook", lambda complaint: complaints.append(complaint.exc_value))
    gc.collect()
    before = len(views_of_buffers())
    complaints.clear()
    with pytest.raises(OSError, match="disk full") as caught:
        SAVING[kind](small_task, tmp_path)
    assert len(views_of_buffers()) == before
    caught.value.cycle = caught  # as a frame holds an exception that it has caught
    del caught
    gc.collect()
    assert complaints == []  # of Python 3.13; older ones are silent


def test_prior_draws_come_back(prior, tmp_path):
    bn.save(prior, tmp_path / "prior.nc")
    xr.testing.assert_identical(bn.load(tmp_path / "prior.nc"), prior)


def test_files_of_version_0_1_0_are_read(one_step_posterior, lazy, tmp_path):
    as_version_0_1_0(one_step_posterior, tmp_path / "posterior.nc")
    xr.testing.assert_identical(bn.load(tmp_path / "posterior.nc"), one_step_posterior)
    as_version_0_1_0(lazy.to_xarray(), tmp_path / "solution.nc")
    xr.testing.assert_identical(bn.load(tmp_path / "solution.nc").to_xarray(), lazy.to_xarray())


def test_what_was_read_can_be_saved_again(one_step_posterior, tmp_path):
    """Also where a user has set an encoding that rounds, and added attributes, variables and groups."""
    tree = one_step_posterior.copy(deep=True)
    tree.attrs.update(note="ü", number=2**64 - 1, list=[1.0, 2.0], names=["a", "b"])
    tree["posterior/kernel"].attrs["units"] = "days since 2000-01-01"
    tree["posterior/kernel"].encoding = {"dtype": "float32"}
    tree["mine"] = xr.DataTree(xr.Dataset({"label": ("i", ["a", "bc"]), "flag": ("i", [True, False])}))
    bn.save(tree, tmp_path / "one.nc")
    back = bn.load(tmp_path / "one.nc")
    bn.save(back, tmp_path / "two.nc")
    again = bn.load(tmp_path / "two.nc")
    xr.testing.assert_identical(again, back)
    xr.testing.assert_equal(back, tree)
    assert {**back.attrs, "list": [1.0, 2.0], "names": ["a", "b"]} == tree.attrs
    assert back["posterior/kernel"].attrs == tree["posterior/kernel"].attrs


NOT_HELD = [None, True, np.True_, {}, {"a": 1}, datetime.datetime(2026, 1, 1), 1j, [], [[1]], ["a", 1], [None], {1}]
NOT_HELD += ["a\0b", "\ud800", 2**64, -(2**63) - 1, b"bytes", np.array(1.0), np.ones((2, 2)), object()]


@pytest.mark.parametrize("value", NOT_HELD, ids=lambda value: repr(value)[:20])
def test_attributes_that_netcdf_cannot_hold_are_refused_by_name(prior, tmp_path, value):
    for place, named in (("/", "'mine'"), ("prior", "'mine' of group 'prior'")):
        tree = prior.copy()
        tree[place].attrs["mine"] = value
        with pytest.raises(ValueError, match=f"^value has the attribute {named}, which is "):
            bn.save(tree, tmp_path / "prior.nc")
    tree = prior.copy(deep=True)
    tree["prior/kernel"].attrs["mine"] = value
    with pytest.raises(ValueError, match=r"^value has the attribute 'mine' of variable 'prior/kernel', which is "):
        bn.save(tree, tmp_path / "prior.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [3, "", "a/b", "a\0b", "bayesnet_format", "coordinates"])
def test_names_of_attributes_that_netcdf_has_no_place_for(prior, tmp_path, name):
    tree = prior.copy()
    tree.attrs[name] = 1
    with pytest.raises(ValueError, match=r"^value has an attribute named "):
        bn.save(tree, tmp_path / "prior.nc")


@pytest.mark.parametrize("name", ["_FillValue", "scale_factor", "missing_value", "dtype", "coordinates"])
def test_attributes_that_would_change_the_numbers_are_refused(prior, tmp_path, name):
    tree = prior.copy(deep=True)
    tree["prior/kernel"].attrs[name] = 0.5
    with pytest.raises(ValueError, match=f"^value has an attribute named '{name}' of variable 'prior/kernel'"):
        bn.save(tree, tmp_path / "prior.nc")


@pytest.mark.parametrize("values", [np.array(["2026-01-01"], "M8[ns]"), np.array([1j]), np.array([{}], object)])
def test_variables_that_netcdf_cannot_hold_are_refused_by_name(prior, tmp_path, values):
    tree = prior.copy()
    tree["mine"] = xr.DataTree(xr.Dataset({"when": ("i", values)}))
    with pytest.raises(ValueError, match=r"^value has the variable 'when' of group 'mine'"):
        bn.save(tree, tmp_path / "prior.nc")


def test_what_load_would_refuse_is_not_saved(one_step_posterior, tmp_path):
    for tree in (
        xr.DataTree(),
        xr.DataTree(xr.Dataset({"kernel": 1.0, "conjugate": 1.0})),
        one_step_posterior["posterior"],
        one_step_posterior.isel(chain=0),
        xr.DataTree.from_dict({"posterior": one_step_posterior["posterior"].to_dataset()}),
    ):
        with pytest.raises(ValueError, match=r"^value is no posterior that can be read again: it"):
            bn.save(tree, tmp_path / "some.nc")
    part = one_step_posterior.isel(draw=slice(10), missing_dims="ignore")
    del part["latents"]
    bn.save(part, tmp_path / "part.nc")
    xr.testing.assert_identical(bn.load(tmp_path / "part.nc"), part)


@pytest.mark.parametrize("kind", ["posterior", "solution"])
def test_every_damage_is_noticed(one_step_posterior, lazy, tmp_path, kind):
    """Random flips of bits, stretches of zeros, truncations, additions."""
    path = tmp_path / "a.nc"
    bn.save({"posterior": one_step_posterior, "solution": lazy}[kind], path)
    content, rng = path.read_bytes(), np.random.default_rng(0)

    def damaged():
        changed = bytearray(content)
        place = int(rng.integers(len(content)))
        for _ in range(100):
            changed[place] ^= 1 << int(rng.integers(8))
            yield bytes(changed)
            changed, place = bytearray(content), int(rng.integers(len(content)))
        for _ in range(20):
            yield content[: int(rng.integers(len(content)))]
            start = int(rng.integers(len(content)))
            zeroed = content[:start] + bytes(min(50, len(content) - start)) + content[start + 50 :]
            yield zeroed if zeroed != content else content[:-1]
        yield content + b"x"
        yield content[:-1]

    for changed in damaged():
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"^path '.*a\.nc'"):
            bn.load(path)
    path.write_bytes(content)
    bn.load(path)


@pytest.mark.parametrize("kind", ["posterior", "solution"])
def test_damage_to_files_without_a_checksum_is_an_error_in_words_or_none(one_step_posterior, lazy, tmp_path, kind):
    """As version 0.1.0 wrote them: what is not noticed has changed numbers only, or nothing at all."""
    path = tmp_path / "a.nc"
    as_version_0_1_0({"posterior": one_step_posterior, "solution": lazy.to_xarray()}[kind], path)
    content, rng = path.read_bytes(), np.random.default_rng(1)
    refused = []
    for place in rng.integers(len(content), size=60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            bn.load(path)
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert all(message.startswith("path ") for message in refused)


def test_a_file_that_another_program_wrote_anew_is_refused(one_step_posterior, tmp_path):
    bn.save(one_step_posterior, tmp_path / "a.nc")
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as opened:
        opened.load().to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="was written anew by another program"):
        bn.load(tmp_path / "b.nc")


def leads_out(kind, path, secret):
    """Make one variable of a file, or one more, refer to another place."""
    with h5py.File(secret, "w") as other:
        other["x"] = np.ones((1, 1, 1, 1))
    raw = secret.with_suffix(".raw")
    raw.write_bytes(np.ones(1).tobytes())
    with h5py.File(path, "r+") as file:
        del file["conjugate"]
        if kind == "external link":
            file["conjugate"] = h5py.ExternalLink(secret, "/x")
        elif kind == "soft link":
            file["conjugate"] = h5py.SoftLink("/kernel")
        elif kind == "external storage":
            file.create_dataset("conjugate", (1, 1, 1, 1), float, external=[(raw, 0, 8)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((1, 1, 1, 1), float)
            layout[:] = h5py.VirtualSource(secret, "x", (1, 1, 1, 1))
            file.create_virtual_dataset("conjugate", layout)
        elif kind == "twice":
            file["conjugate"] = file["kernel"]
        elif kind == "ring":
            file.create_group("ring")["again"] = file["/"]
        elif kind == "a type":
            file["conjugate"] = np.dtype(float)
        elif kind == "not held":
            file.create_dataset("conjugate", (200_000, 200_000, 1, 1), float, chunks=(100, 100, 1, 1))
        elif kind == "compressed":
            file.create_dataset("conjugate", data=np.zeros((9, 9, 9, 9)), compression="gzip")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("external link", "is a link, which is not followed"),
        ("soft link", "is a link, which is not followed"),
        ("external storage", "lies in another file, which is not read"),
        ("virtual", "lies in another file, which is not read"),
        ("twice", "is in the file twice"),
        ("ring", "is in the file twice"),
        ("a type", "is neither a group nor an array"),
        ("not held", "is declared with 320000000000 bytes, of which the file holds 0"),
        ("compressed", "is compressed"),
    ],
)
def test_nothing_beyond_the_file_is_read(lazy, tmp_path, kind, words):
    as_version_0_1_0(lazy.to_xarray(), tmp_path / "a.nc")
    leads_out(kind, tmp_path / "a.nc", tmp_path / "secret.h5")
    assert (tmp_path / "a.nc").stat().st_size < 100_000
    with pytest.raises(
        ValueError, match=rf"^path '.*a\.nc' is not a netCDF file of bayesnet: /(conjugate|ring).* {words}"
    ):
        bn.load(tmp_path / "a.nc")


SMALL_DISK = """
import resource, sys
import bayesnet as bn
import theory
lazy = theory.nngp(bn.Network.rnn(64), bn.tasks.chain(2, 1.5))
bn.save(lazy, sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    bn.save(lazy, sys.argv[1])
except OSError as error:
    print(error)
print("still there", bn.load(sys.argv[1]).kind)
"""


def test_a_full_disk_ends_neither_the_process_nor_the_old_file(tmp_path):
    """A limit on the size of files stands for the full disk; HDF5 itself would end the process a little later."""
    run = subprocess.run([sys.executable, "-c", SMALL_DISK, str(tmp_path / "a.nc")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "a.nc'" in run.stdout
    assert "still there lazy limit" in run.stdout
    assert len(list(tmp_path.iterdir())) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000


def test_paths(lazy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    bn.save(lazy, "~/a.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]
    assert bn.load("~/a.nc").kind == "lazy limit"
    for value in (None, 3, "", "a\0b", b"a.nc"):
        for use in (lambda path: bn.save(lazy, path), bn.load):
            with pytest.raises(ValueError, match=r"^path is "):
                use(value)
    for value in (tmp_path, tmp_path / "none" / "a.nc"):
        with pytest.raises(ValueError, match=r"^path "):
            bn.save(lazy, value)


def half_sine(x):
    return jnp.sin(x) / 2


def with_network(tree, network):
    """The same numbers as if they were of another network."""
    copy = tree.copy()
    copy.attrs["network"] = json.dumps(network)
    return copy


def test_activations_of_the_users_own(one_step_posterior, lazy, tmp_path, monkeypatch):
    def sine(x):
        return jnp.sin(x)

    monkeypatch.setattr(activation_identity, "_used", {})
    for function, found in ((half_sine, True), (sine, False)):
        network = bn.Network.rnn(64, activation=function)
        bn.save(with_network(one_step_posterior, network.to_dict()), tmp_path / "posterior.nc")
        bn.save(theory.nngp(network, lazy.task), tmp_path / "solution.nc")
        for path in (tmp_path / "posterior.nc", tmp_path / "solution.nc"):
            activation_identity._used.clear()
            if not found:
                with pytest.raises(ValueError, match=r"^path .*activation '.*sine' is no function of a module"):
                    bn.load(path)
                with pytest.raises(ValueError, match=r"^path .*activation '.*sine' is another function"):
                    bn.load(path, activations=[lambda x: 2 * x, wrong_of(function)])
            back = bn.load(path) if found else bn.load(path, activations=function)
            assert (back.network if isinstance(back, Solution) else network_of(back)) == network


def wrong_of(function):
    """Another function of the same name."""
    wrong = lambda x: 3 * x  # noqa: E731
    wrong.__qualname__, wrong.__module__ = function.__qualname__, "elsewhere"
    return wrong


def test_a_file_runs_nothing(one_step_posterior, tmp_path):
    """Neither at load, nor when what was loaded is used."""
    for name, digest in (("unittest.__main__:x", "source:0"), ("unittest.__main__:x", None), ("sys:exit", None)):
        network = {**bn.Network.rnn(64).to_dict(), "activation": name}
        network |= {} if digest is None else {"activation_digest": digest}
        tree = with_network(one_step_posterior, network)
        as_version_0_1_0(tree, tmp_path / "a.nc")
        for use in (
            lambda: bn.load(tmp_path / "a.nc"),
            lambda tree=tree: bn.to_arviz(tree),
            lambda tree=tree: bn.report(tree, None, tmp_path / "r.html"),
            lambda tree=tree: bn.save(tree, tmp_path / "b.nc"),
        ):
            with pytest.raises(ValueError, match="activation"):
                use()
        assert "unittest.__main__" not in sys.modules


def test_a_posterior_of_version_0_1_0_with_a_function(one_step_posterior, tmp_path):
    """It has a name only; once handed over, the function is known by its digest."""
    network = bn.Network.rnn(64, activation=half_sine)
    old = {name: value for name, value in network.to_dict().items() if name != "activation_digest"}
    as_version_0_1_0(with_network(one_step_posterior, old), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"activations=\[half_sine\]"):
        bn.load(tmp_path / "a.nc")
    assert network_of(bn.load(tmp_path / "a.nc", activations=[half_sine])) == network

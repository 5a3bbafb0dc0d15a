"""Task: what it takes, what it refuses, its Gram matrix and its file."""

import io
import os
import zipfile
from dataclasses import FrozenInstanceError

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from theory import Network, Task

P, T, D, O = 2, 3, 4, 2  # noqa: E741
INPUTS = np.random.default_rng(0).normal(size=(P, T, D))
TARGETS = np.arange(P * T * O, dtype=float).reshape(P, T, O)


def changed(array, index, value):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


def test_stored_arrays():
    task = Task(INPUTS.astype("f4").tolist(), TARGETS[:, :, 0].astype(np.int32))
    assert (task.patterns, task.steps, task.input_dim, task.output_dim, task.entries) == (P, T, D, 1, P * T)
    assert [a.dtype for a in (task.inputs, task.targets, task.supervised)] == [np.float64, np.float64, bool]
    assert task.targets.shape == (P, T, 1)
    assert task.supervised.all()
    np.testing.assert_array_equal(task.inputs, INPUTS.astype("f4"))
    assert Task(INPUTS[:, :, 0], TARGETS) == Task(INPUTS[:, :, :1], TARGETS)  # one input dimension


def test_arrays_are_copies_and_read_only():
    inputs = INPUTS.copy()
    task = Task(inputs, TARGETS)
    inputs[:] = 0
    np.testing.assert_array_equal(task.inputs, INPUTS)
    arrays = (task.inputs, task.targets, task.supervised)
    for array in (*arrays, task.input_kernel, task.supervised_entries, task.supervised_targets):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(FrozenInstanceError):
        task.inputs = inputs


def test_labelled_arrays_are_taken():
    frame = pd.DataFrame(TARGETS[:, :, 0])
    task = Task(xr.DataArray(INPUTS, dims=("pattern", "step", "x")), frame, xr.DataArray(frame > 0))
    assert task == Task(INPUTS, TARGETS[:, :, 0], TARGETS[:, :, 0] > 0)


class Tensor:
    """As much of a PyTorch tensor as matters: NumPy may not touch one that requires a gradient, nor bfloat16."""

    def __init__(self, values, grad=True, half=False):
        self.values, self.grad, self.half, self.shape = np.asarray(values), grad, half, np.shape(values)

    def detach(self):
        return Tensor(self.values, False, self.half)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values.astype(np.float32), self.grad)

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.half:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


HALVES = np.round(2 * INPUTS) / 2  # exact in every precision


@pytest.mark.parametrize(
    "inputs",
    [
        jnp.asarray(HALVES, jnp.bfloat16),
        jnp.asarray(HALVES, jnp.float16),
        Tensor(HALVES),
        Tensor(HALVES, half=True),
        np.ma.masked_array(HALVES, np.zeros((P, T, D), bool)),
        HALVES.astype(np.longdouble),
        HALVES.astype(">f4"),
        xr.DataArray(HALVES),
    ],
    ids=["bfloat16", "float16", "tensor", "bfloat16 tensor", "unmasked", "long double", "big endian", "labelled"],
)
def test_arrays_of_other_libraries_are_taken_exactly(inputs):
    assert Task(inputs, TARGETS) == Task(HALVES, TARGETS)


def test_masked_and_missing_targets_are_unknown():
    known = np.array([[1.0, np.nan, 2.0], [3.0, 4.0, 5.0]])
    for targets in (
        np.ma.masked_invalid(known),
        np.ma.masked_array(np.nan_to_num(known).astype(int), np.isnan(known)),
        pd.DataFrame([[1, None, 2], [3, 4, 5]], dtype="Int64"),
        pd.DataFrame([[1, None, 2], [3, 4, 5]], dtype="Float32"),
    ):
        task = Task(INPUTS, targets)
        assert task == Task(INPUTS, known)
        assert not task.supervised[0, 1]
    whole = pd.DataFrame([[True, False, True]] * P, dtype="boolean")
    assert Task(INPUTS, TARGETS, whole).supervised.tolist() == [[True, False, True]] * P


def test_real_tensors_are_taken():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = torch.tensor(HALVES, dtype=dtype, requires_grad=True)
        assert Task(inputs, TARGETS) == Task(HALVES, TARGETS)
        assert Task(torch._neg_view(2 * inputs / -2), TARGETS) == Task(HALVES, TARGETS)  # a sign put off
    for odd in (inputs.to_sparse(), inputs.to(torch.complex64).conj(), torch.ones(HALVES.shape, device="meta")):
        with pytest.raises(ValueError, match=r"^inputs (is not a rectangular|has dtype complex64)"):
            Task(odd, TARGETS)
    for number in (torch.tensor(0.5, requires_grad=True), torch.tensor(0.5, dtype=torch.bfloat16)):
        plain = Network.rnn(4, leak=0.5, shared={"recurrent": 0.5}, recurrent_gain=0.5)
        assert Network.rnn(4, leak=number, shared={"recurrent": number}, recurrent_gain=number) == plain
    correlation = torch.tensor([[1.0, 0.5], [0.5, 1.0]], requires_grad=True)
    expected = Network.rnn(4, shared={"input": correlation.tolist()})
    assert Network.rnn(4, shared={"input": correlation}) == expected


def test_equal_numbers_are_equal_whatever_their_bytes():
    """Minus zero, and NaN with a sign or another payload."""
    targets = changed(TARGETS, (0, 1), np.nan)
    inputs = changed(INPUTS, (0, 0), 0.0)
    task, same = Task(inputs, targets), Task(changed(inputs, (0, 0), -0.0), -targets).scaled(-1)
    assert task == same
    assert hash(task) == hash(same)
    other = targets.view(np.int64) | np.where(np.isnan(targets), 1, 0)
    assert task == Task(inputs, other.view(float))


def test_supervised_by_default_where_targets_are_known():
    targets = changed(TARGETS, (0, 1), np.nan)
    task = Task(INPUTS, targets)
    assert (task.supervised == [[True, False, True], [True, True, True]]).all()
    kept_back = Task(INPUTS, targets, task.supervised & [[True], [False]])
    np.testing.assert_array_equal(kept_back.targets, targets)
    assert kept_back.supervised.sum() == 2


def test_time_major_entries():
    task = Task(INPUTS, TARGETS, np.array([[True, False, True], [False, True, True]]))
    np.testing.assert_array_equal(task.supervised_entries, [0, 3, 4, 5])
    np.testing.assert_array_equal(task.supervised_targets, [TARGETS[0, 0], TARGETS[1, 1], TARGETS[0, 2], TARGETS[1, 2]])
    np.testing.assert_allclose(task.input_kernel, np.einsum("ptd,qsd->tpsq", INPUTS, INPUTS) / D, atol=1e-14)


def test_equal_and_hashed_by_content():
    task, same = Task(INPUTS, TARGETS), Task(INPUTS.copy(), TARGETS.copy())
    assert task == same
    assert hash(task) == hash(same)
    assert task != Task(INPUTS, TARGETS + 1)
    assert task != Task(INPUTS.reshape(P, T, D), TARGETS[:, :, :1])
    assert task != Task(INPUTS, TARGETS, TARGETS[:, :, 0] > 0)
    assert task != "task"


BAD_INPUTS = {
    "rank": (INPUTS[0, 0], "shape"),
    "0-d": (np.float64(1), "shape"),
    "no patterns": (INPUTS[:0], "at least 1"),
    "no dimensions": (INPUTS[:, :, :0], "at least 1"),
    "empty list": ([], "shape"),
    "NaN": (changed(INPUTS, (1, 2, 3), np.nan), r"not finite at .*\(1, 2, 3\)"),
    "inf": (changed(INPUTS, (1, 0, 0), -np.inf), r"not finite at .*\(1, 0, 0\)"),
    "overflow": (changed(INPUTS, (1, 0, 0), 1e200), "too large"),
    "long double": (np.full((P, T, D), np.longdouble(10) ** 400), "not finite"),
    "big integer": ([[[10**400] * D] * T] * P, "dtype object"),
    "complex": (INPUTS + 0j, "dtype complex"),
    "object": (INPUTS.astype(object), "dtype object"),
    "string": (INPUTS.astype(str), "dtype <U"),
    "boolean": (INPUTS > 0, "dtype bool"),
    "dates": (np.zeros((P, T, D), "M8[D]"), "dtype datetime"),
    "ragged": ([[[1.0], [1.0]], [[1.0]]], "not a rectangular"),
    "masked": (np.ma.masked_array(INPUTS, INPUTS > 0), "masked entries, the first at"),
    "integers beyond float64": (np.full((P, T, D), 2**53 + 1), "the integer 9007199254740993, which no float64"),
    "none": (None, "dtype object"),
    "dictionary": ({"x": 1}, "dtype object"),
    "series": (pd.Series([1.0]), "shape"),
}
BAD_TARGETS = {
    "rank 1": (TARGETS[0, 0], "shape"),
    "rank 4": (TARGETS[None], "shape"),
    "other P": (TARGETS[:1], r"\(1, 3\) but inputs has \(2, 3\)"),
    "other T": (TARGETS[:, :2, 0], r"\(2, 2\) but inputs has \(2, 3\)"),
    "transposed": (TARGETS[:, :, 0].T, "must agree"),
    "no outputs": (TARGETS[:, :, :0], "at least 1"),
    "inf": (changed(TARGETS, (0, 1, 1), np.inf), r"infinite at .*\(0, 1, 1\)"),
    "some outputs": (changed(TARGETS, (1, 2, 0), np.nan), r"some outputs only at .*\(1, 2\)"),
    "complex": (TARGETS * 1j, "dtype complex"),
    "object": ([[None] * T] * P, "dtype object"),
    "text column": (pd.DataFrame({"a": ["1", "2"], "b": ["3", "4"], "c": ["5", "6"]}), "dtype"),
    "string": ([["+", "-", "+"]] * P, "dtype <U"),
    "ragged": ([[1.0, 2.0, 3.0], [1.0]], "not a rectangular"),
    "masked text": (np.ma.masked_array([["a"] * T] * P, np.eye(P, T)), "masked entries, the first at"),
}
BAD_MASKS = {
    "integers": (np.ones((P, T), int), "dtype int"),
    "floats": (np.ones((P, T)), "dtype float"),
    "string": ("all", "dtype <U"),
    "object": ([[None] * T] * P, "dtype object"),
    "0-d": (True, "shape"),
    "one row": (np.ones(T, bool), "shape"),
    "transposed": (np.ones((T, P), bool), "shape"),
    "per output": (np.ones((P, T, O), bool), "shape"),
    "empty": (np.ones((0, T), bool), "shape"),
    "nothing": (np.zeros((P, T), bool), "False everywhere"),
    "ragged": ([[True, True, False], [True]], "not a rectangular"),
    "masked": (np.ma.masked_array(np.ones((P, T), bool), np.ones((P, T), bool)), "masked entries, the first at"),
    "missing": (pd.DataFrame([[True, None, True]] * P, dtype="boolean"), "missing entries, the first at"),
}


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs(inputs, message):
    with pytest.raises(ValueError, match=f"^inputs .*{message}"):
        Task(inputs, TARGETS)


@pytest.mark.parametrize(("targets", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_targets(targets, message):
    with pytest.raises(ValueError, match=f"^targets .*{message}"):
        Task(INPUTS, targets)


@pytest.mark.parametrize(("mask", "message"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=f"^supervised .*{message}"):
        Task(INPUTS, TARGETS, mask)


def test_supervised_needs_a_target():
    targets = changed(TARGETS, (0, 1), np.nan)
    with pytest.raises(ValueError, match=r"^supervised is True at .*\(0, 1\) where targets is NaN"):
        Task(INPUTS, targets, np.ones((P, T), bool))
    with pytest.raises(ValueError, match=r"^supervised is False everywhere"):
        Task(INPUTS, np.full((P, T), np.nan))


def test_scaled():
    task = Task(INPUTS, changed(TARGETS, (0, 1), np.nan))
    np.testing.assert_array_equal(task.scaled(np.float32(2)).targets, 2 * task.targets)
    assert (task.scaled(0).supervised == task.supervised).all()


@pytest.mark.parametrize(
    "factor", [np.nan, np.inf, 1e308, 1j, "2", True, None, [2.0], 10**400], ids=lambda v: repr(v)[:12]
)
def test_bad_factor(factor):
    with pytest.raises(ValueError, match=r"^factor is "):
        Task(INPUTS, TARGETS).scaled(factor)


def test_file_round_trip(tmp_path):
    task = Task(INPUTS, changed(TARGETS, (0, 1), np.nan), TARGETS[:, :, 0] > 5)
    for name in ("task.npz", "no suffix"):
        task.to_npz(tmp_path / name)
        assert Task.from_npz(str(tmp_path / name)) == task
    np.savez_compressed(tmp_path / "own.npz", inputs=INPUTS, targets=TARGETS, other=1)
    assert Task.from_npz(tmp_path / "own.npz") == Task(INPUTS, TARGETS)
    assert sorted(os.listdir(tmp_path)) == ["no suffix", "own.npz", "task.npz"]


def write_nothing(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("inputs = 1")


def write_array(path):
    with open(path, "wb") as file:
        np.save(file, INPUTS)


def write_pickles(path):
    np.savez(path, inputs=np.array([{}]), targets=TARGETS)


def write_truncated(path):
    Task(INPUTS, TARGETS).to_npz(path)
    path.write_bytes(path.read_bytes()[:-40])


def write_damaged(path):
    np.savez_compressed(path, inputs=INPUTS, targets=TARGETS)
    content = bytearray(path.read_bytes())
    content[80:100] = b"\xff" * 20
    path.write_bytes(bytes(content))


def write_declared(path):
    """A few bytes that say that they are 800 GB."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs.npy", buffer.getvalue())


def write_without_targets(path):
    np.savez(path, inputs=INPUTS)


def write_directory(path):
    path.mkdir()


WRITERS = [write_nothing, write_text, write_array, write_pickles, write_truncated, write_damaged]
WRITERS += [write_without_targets, write_directory, write_declared]


@pytest.mark.parametrize("write", WRITERS)
def test_files_that_are_no_task(tmp_path, write):
    path = tmp_path / "task.npz"
    write(path)
    with pytest.raises(ValueError, match=r"^path .*task\.npz"):
        Task.from_npz(path)


def test_file_with_an_invalid_task(tmp_path):
    np.savez(tmp_path / "task.npz", inputs=INPUTS, targets=TARGETS, supervised=np.ones((P, T)))
    with pytest.raises(ValueError, match=r"^supervised has dtype float64"):
        Task.from_npz(tmp_path / "task.npz")


@pytest.mark.parametrize("path", [None, 3, ["task.npz"]])
def test_path_must_be_a_path(path):
    with pytest.raises(ValueError, match=r"^path is "):
        Task.from_npz(path)
    with pytest.raises(ValueError, match=r"^path is "):
        Task(INPUTS, TARGETS).to_npz(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError):
        Task.from_npz(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"^path .* is a directory"):
        Task(INPUTS, TARGETS).to_npz(tmp_path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "task.npz"
    old = Task(INPUTS, TARGETS)
    old.to_npz(path)

    def fail(file, **arrays):
        file.write(b"PK\x03\x04 half a file")
        raise error

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(type(error)):
        old.scaled(2).to_npz(path)
    monkeypatch.undo()
    assert Task.from_npz(path) == old
    assert os.listdir(tmp_path) == ["task.npz"]

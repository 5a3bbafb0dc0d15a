"""Task: sequences of inputs, their targets, and which (pattern, step) entries are supervised."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from theory import arguments, display, files
from theory.arrays import plain_array, real_array
from theory.memory import require_memory

KERNELS = 4  # matrices between all entries that any computation needs at the same time


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Patterns of T steps: what the network sees and what it is asked to say.

    Args:
        inputs: x, real array (P, T, D): patterns, steps, input dimensions; finite. D matters only through the
            input kernel x_t . x_s / D. Where D is 1, (P, T) will do.
        targets: y, real array (P, T) or (P, T, O). NaN, masked or missing where no target is known.
        supervised: boolean array (P, T): the entries that enter the likelihood. By default those whose target
            is not NaN. A target that is known but not supervised is kept as truth for scoring.

    Arrays of NumPy, JAX, PyTorch, xarray and pandas are taken, of any type of real numbers. The stored arrays are
    float64 (P, T, D), (P, T, O) and boolean (P, T), read-only. Tasks compare and hash by content.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """

    inputs: np.ndarray
    targets: np.ndarray
    supervised: np.ndarray = None  # type: ignore[assignment]  # the default is derived from the targets

    def __post_init__(self) -> None:
        inputs = real_array(
            "inputs", self.inputs, "(patterns, steps) or (patterns, steps, input dimensions)", ranks=(2, 3)
        )
        inputs = inputs if inputs.ndim == 3 else inputs[:, :, None]
        targets = real_array(
            "targets", self.targets, "(patterns, steps) or (patterns, steps, outputs)", (2, 3), missing=True
        )
        targets = targets if targets.ndim == 3 else targets[:, :, None]
        if not np.isfinite(inputs).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(inputs))[0])
            raise ValueError(f"inputs is not finite at (pattern, step, dimension) {where}; all must be finite")
        if not np.isfinite(_squared_norms(inputs)).all():
            raise ValueError("inputs is too large: some |x|^2 overflows; scale the inputs so that |x|^2/D is about 1")
        if targets.shape[:2] != inputs.shape[:2]:
            raise ValueError(
                f"targets has (patterns, steps) {targets.shape[:2]} but inputs has {inputs.shape[:2]}; they must agree"
            )
        if np.isinf(targets).any():
            where = tuple(int(i) for i in np.argwhere(np.isinf(targets))[0])
            raise ValueError(f"targets is infinite at (pattern, step, output) {where}; allowed: finite, or NaN")
        missing = np.isnan(targets)
        partial = missing.any(-1) & ~missing.all(-1)
        if partial.any():
            where = tuple(int(i) for i in np.argwhere(partial)[0])
            raise ValueError(
                f"targets is NaN in some outputs only at (pattern, step) {where}; allowed: all outputs known or all NaN"
            )
        supervised = _boolean_mask(self.supervised, ~missing.any(-1))
        forbidden = supervised & missing.any(-1)
        if forbidden.any():
            where = tuple(int(i) for i in np.argwhere(forbidden)[0])
            raise ValueError(f"supervised is True at (pattern, step) {where} where targets is NaN; give the target")
        if not supervised.any():
            raise ValueError(
                "supervised is False everywhere; at least one (pattern, step) must be supervised (where new inputs are "
                "only to be predicted, targets of zero do: they score the answer and nothing else)"
            )
        for name, array in (("inputs", inputs), ("targets", targets), ("supervised", supervised)):
            object.__setattr__(self, name, _read_only(array))

    @property
    def patterns(self) -> int:
        """P."""
        return self.inputs.shape[0]

    @property
    def steps(self) -> int:
        """T."""
        return self.inputs.shape[1]

    @property
    def input_dim(self) -> int:
        """D."""
        return self.inputs.shape[2]

    @property
    def output_dim(self) -> int:
        """O."""
        return self.targets.shape[2]

    @property
    def entries(self) -> int:
        """n = T P, the number of (step, pattern) entries; flattened entry t P + mu is pattern mu at step t."""
        return self.steps * self.patterns

    @cached_property
    def input_kernel(self) -> np.ndarray:
        """Gram matrix of the inputs, x_t^mu . x_s^nu / D, of shape (T, P, T, P)."""
        self.require_kernel_memory()
        flat = self.inputs.transpose(1, 0, 2).reshape(self.entries, self.input_dim)
        gram = flat @ flat.T / self.input_dim
        return _read_only(gram.reshape(self.steps, self.patterns, self.steps, self.patterns))

    def require_kernel_memory(self, layers: int = 1) -> None:
        """Refuse a task whose kernels, a few (n, n) matrices, cannot fit into memory.

        Args:
            layers: of the network, each of which has entries of its own.

        Raises:
            ValueError: naming the number of entries, what they take and what there is.
        """
        of_layers = "" if layers == 1 else f" in each of {layers} layers"
        require_memory(
            f"task has steps x patterns = {self.steps} x {self.patterns} entries{of_layers}; "
            "what computes with their kernels",
            KERNELS * 8.0 * (layers * self.entries) ** 2,
            "give fewer steps or patterns",
        )

    @cached_property
    def has_input(self) -> np.ndarray:
        """Boolean (P, T): whether any input has been nonzero up to this step; before that h = 0."""
        return np.logical_or.accumulate(np.any(self.inputs != 0, axis=-1), axis=1)

    @cached_property
    def supervised_entries(self) -> np.ndarray:
        """Flattened, time-major indices t P + mu of the supervised entries, ascending."""
        return _read_only(np.flatnonzero(self.supervised.T.ravel()))

    @cached_property
    def supervised_targets(self) -> np.ndarray:
        """The targets (number supervised, O) in the order of `supervised_entries`."""
        flat = self.targets.transpose(1, 0, 2).reshape(self.entries, self.output_dim)
        return _read_only(flat[self.supervised_entries])

    def scaled(self, factor: float) -> Task:
        """The same task with its targets multiplied by ``factor``, a finite real number."""
        number = arguments.real("factor", factor)
        with np.errstate(over="ignore", invalid="ignore"):
            targets = self.targets * number
        if not np.isfinite(targets[np.isfinite(self.targets)]).all():
            raise ValueError(f"factor is {factor!r}; the targets times it must be finite")
        return Task(self.inputs, targets, self.supervised)

    def to_npz(self, path: str | os.PathLike) -> None:
        """Write inputs, targets and supervised to a NumPy archive, replacing ``path`` only once complete.

        Raises:
            ValueError: if ``path`` is no path, or a directory, or lies in one that does not exist.
            OSError: if the file cannot be written.
        """
        target = files.new_file("path", path)
        buffer = io.BytesIO()
        np.savez(buffer, inputs=self.inputs, targets=self.targets, supervised=self.supervised)
        files.write_file(target, buffer.getvalue())

    @classmethod
    def from_npz(cls, path: str | os.PathLike) -> Task:
        """Read what `to_npz` wrote; "supervised" may be absent. Pickled content is refused.

        Raises:
            ValueError: if the file is not such an archive or its content is no valid task.
            FileNotFoundError: if there is no such file.
        """
        path = files.user_path("path", path)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("inputs", "targets", "supervised") if name in archive}
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # whatever zip, zlib and the array headers raise on damaged bytes
            raise ValueError(f"path {str(path)!r} is not a task archive (.npz without pickles): {error}") from None
        for name in ("inputs", "targets"):
            if name not in arrays:
                raise ValueError(f"path {str(path)!r} has no array {name!r}; it needs 'inputs' and 'targets'")
        return cls(**arrays)

    def __repr__(self) -> str:
        return display.task_text(self)

    def _repr_html_(self) -> str:
        return display.task_html(self)

    def _content(self) -> tuple:
        arrays = (self.inputs, self.targets, self.supervised)
        return tuple((array.shape, array.tobytes()) for array in arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _squared_norms(inputs: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (inputs**2).sum(-1)


def _boolean_mask(value: Any, default: np.ndarray) -> np.ndarray:
    if value is None:
        return default
    mask = plain_array("supervised", value, "(patterns, steps)")
    if mask.dtype != np.bool_:
        raise ValueError(f"supervised has dtype {mask.dtype}; it must be boolean")
    if mask.shape != default.shape:
        raise ValueError(f"supervised has shape {mask.shape}; it must be (patterns, steps) {default.shape}")
    return np.array(mask, order="C")

"""Checkpoints: what every chain of a run has drawn and where it stands, on disk after each block.

A checkpoint is a directory. ``run.json`` says what is sampled. Each lane (a chain, or all chains in lockstep) has
``.draws`` and ``.latents``, records of fixed size one after the other, and ``.state``, the state of its sampler. The
records of a block are written before the state, which is replaced in one go: it alone decides how many blocks count,
and what a killed run left behind them is overwritten. It ends with its checksum and holds those of the records.
Randomness is part of the state or a function of the seed and the draw, so a resumed run ends bitwise where an
uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from theory import files
from theory.network import Network
from theory.task import Task

MARKER = "run.json"


class Lane:
    """What a chain, or all of them in lockstep, have drawn: in memory and, where there is a checkpoint, on disk.

    Args:
        name: "chain 0", "chain 1", ... or "chains".
        directory: of the checkpoint, from which the lane goes on; None for none.

    Attributes:
        blocks: complete blocks of the schedule.
        made: draws in them, warm-up included, of all the lane's chains together.
        seconds: time spent on them.
        records: "draws" and "latents", arrays of records (`pack`), to be concatenated.

    Raises:
        ValueError: if the files are damaged.
    """

    def __init__(self, name: str, directory: Path | None = None):
        self.name, self.blocks, self.made, self.seconds = name, 0, 0, 0.0
        self.records: dict[str, list[np.ndarray]] = {"draws": [], "latents": []}
        self._directory = directory
        self._leaves: list[np.ndarray] = []
        self._digests = {kind: hashlib.sha256() for kind in self.records}
        if directory is None:
            return
        files.remove_leftovers(self._path("state"))
        try:
            self._refuse_links()
            if self._path("state").exists():
                self._read()
        except Exception as error:  # NumPy raises almost anything on damaged headers
            raise ValueError(
                f"checkpoint {str(directory)!r} is damaged at {name} ({error}); remove it to start anew"
            ) from None

    def add(self, made: int, seconds: float, state: Any, **records: np.ndarray) -> None:
        """Count a block as complete; ``records`` are its "draws" and "latents", none where nothing is kept.

        Raises:
            OSError: if the block cannot be written; those before it stay.
        """
        before = self.blocks, self.made, self.seconds
        self.blocks, self.made, self.seconds = self.blocks + 1, self.made + made, seconds
        if self._directory is not None:
            try:
                self._write(state, records)
            except OSError as error:
                self.blocks, self.made, self.seconds = before
                raise OSError(
                    f"checkpoint {str(self._directory)!r}: {self.name} could not be written ({error}); its first "
                    f"{self.made} draws, warm-up included, are intact there: the same call goes on from them"
                ) from error
        for kind, new in records.items():
            self.records[kind].append(new)

    def state(self, template: Any) -> Any:
        """The state after the last block read from disk, as a pytree like ``template`` (shapes and types)."""
        leaves, structure = jax.tree.flatten(template)
        wanted = [jax.eval_shape(_plain, leaf) for leaf in leaves]
        if [(w.shape, w.dtype) for w in wanted] != [(leaf.shape, leaf.dtype) for leaf in self._leaves]:
            raise ValueError(
                f"checkpoint {str(self._directory)!r} is of another version of the sampler; remove it to start anew"
            )
        restored = [_like(leaf, value) for leaf, value in zip(leaves, self._leaves, strict=True)]
        return jax.tree.unflatten(structure, restored)

    def _path(self, kind: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{self.name.replace(' ', '-')}.{kind}"

    def _refuse_links(self) -> None:
        for kind in ("state", *self.records):
            if self._path(kind).is_symlink():
                raise ValueError(f"{self._path(kind).name} is a link, which is not followed")

    def _write(self, state: Any, records: dict[str, np.ndarray]) -> None:
        numbers = {kind: sum(map(len, earlier)) for kind, earlier in self.records.items()}
        digests = {kind: digest.copy() for kind, digest in self._digests.items()}
        for kind, new in records.items():
            content = new.tobytes()
            with open(self._path(kind), "r+b", opener=_open_or_make) as file:
                file.seek(numbers[kind] * new.dtype.itemsize)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            digests[kind].update(content)
            numbers[kind] += len(new)
        position: dict[str, Any] = {"blocks": self.blocks, "made": self.made, "seconds": self.seconds, **numbers}
        position |= {f"{kind} sha256": digest.hexdigest().encode() for kind, digest in digests.items()}
        leaves = {f"leaf {i}": np.asarray(_plain(leaf))[None] for i, leaf in enumerate(jax.tree.leaves(state))}
        latest = [records.get(kind, earlier[-1] if earlier else np.empty(0)) for kind, earlier in self.records.items()]
        layouts = [part[:0] for part in latest]
        buffer = io.BytesIO()
        for array in (pack({name: np.array([value]) for name, value in position.items()}), pack(leaves), *layouts):
            np.save(buffer, array)
        files.write_file(self._path("state"), buffer.getvalue(), sealed=True)
        self._digests = digests

    def _read(self) -> None:
        with open(self._path("state"), "rb") as file:
            sealed = files.check_seal(file) is not None
            content = io.BytesIO(file.read())
        position, leaves, *layouts = (np.load(content) for _ in range(2 + len(self.records)))
        if not sealed and "draws sha256" in position.dtype.names:
            raise ValueError("the checksum of its state is missing")
        self.blocks, self.made, self.seconds = (position[name][0].item() for name in ("blocks", "made", "seconds"))
        self._leaves = [leaves[name][0] for name in leaves.dtype.names]
        for (kind, records), layout in zip(self.records.items(), layouts, strict=True):
            number = position[kind][0].item()
            if number:
                records.append(self._read_records(kind, layout.dtype, number))
                self._digests[kind].update(records[0].view(np.uint8).data)
            if sealed and position[f"{kind} sha256"][0] != self._digests[kind].hexdigest().encode():
                raise ValueError(f"{kind} are other ones than were written")
            # Version 0.1.0 wrote no checksums.
            if not sealed and number and not all(np.isfinite(records[0][name]).all() for name in layout.dtype.names):
                raise ValueError(f"{kind} are not finite")

    def _read_records(self, kind: str, dtype: np.dtype, number: int) -> np.ndarray:
        path = self._path(kind)
        if not path.exists() or path.stat().st_size < number * dtype.itemsize:
            raise ValueError(f"{kind} are missing")
        return np.fromfile(path, dtype, number)


def _open_or_make(path: str, flags: int) -> int:
    """The file itself: where a link has taken its place, that is an error."""
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def pack(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Arrays with a common leading axis as one array of records."""
    number = len(next(iter(arrays.values())))
    packed = np.empty(number, [(name, values.dtype, values.shape[1:]) for name, values in arrays.items()])
    for name, values in arrays.items():
        packed[name] = values
    return packed


def unpack(records: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `pack`, of several stretches one after the other."""
    names = records[0].dtype.names or ()
    return {name: np.concatenate([part[name] for part in records]) for name in names}


def describe_run(network: dict, task: Task, settings: dict, seed: int, versions: dict[str, str]) -> dict[str, Any]:
    """What makes a run the same run, and the versions it was begun with."""
    digest = hashlib.sha256()
    for array in (task.inputs, task.targets, task.supervised):
        digest.update(repr(array.shape).encode() + array.tobytes())
    run = {"network": network, "task (sha256)": digest.hexdigest()[:16], "settings": settings, "seed": seed}
    return json.loads(json.dumps({"run": run, "versions": versions}))


def open_checkpoint(path: Any, description: dict[str, Any]) -> Path:
    """The directory ``path``, made where it does not exist, for the run that `describe_run` describes.

    Raises:
        ValueError: if ``path`` is no directory, holds other files, or belongs to another run.
        OSError: if it cannot be written.
    """
    directory = files.directory_path("checkpoint", path)
    marker = directory / MARKER
    try:
        if marker.is_symlink():
            raise ValueError(f"checkpoint {str(path)!r} is damaged at {MARKER} (it is a link); remove it to start anew")
        if marker.exists():
            description = _same_run(directory, marker.read_bytes(), description)
        elif directory.exists():
            left = files.leftover_pattern(MARKER)  # of a run that was killed before it wrote anything
            if any(not left.fullmatch(entry.name) for entry in directory.iterdir()):
                raise ValueError(f"checkpoint {str(path)!r} holds other files; give an empty or a new directory")
        # Written even where it is there already: what cannot be written is better known now than after a block.
        with files.made_directory(directory):
            files.write_file(marker, json.dumps(description, indent=1).encode())
    except OSError as error:
        raise OSError(f"checkpoint {str(path)!r} cannot be written: {error}") from error
    return directory


def _same_run(directory: Path, text: bytes, here: dict[str, Any]) -> dict[str, Any]:
    """The description in a checkpoint, if it is that of this run."""
    try:
        there = json.loads(text)
        run, versions = dict(there["run"]), dict(there["versions"])
        if _same_network(run.get("network"), here["run"].get("network")):
            run["network"] = here["run"]["network"]
        found = dict(_flat(run))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"checkpoint {str(directory)!r} is damaged at {MARKER}; remove it to start anew") from None
    wanted = dict(_flat(here["run"]))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"checkpoint {str(directory)!r} belongs to another run: {name} is {found.get(name)!r} there and "
                f"{wanted.get(name)!r} here; give another directory, or the arguments it was made with"
            )
    changed = [f"{name} {old}" for name, old in versions.items() if here["versions"].get(name) != old]
    if changed:
        warnings.warn(
            f"checkpoint {str(directory)!r} was begun with {', '.join(changed)}: what is drawn now belongs to the same "
            "posterior, but need not be bitwise what those versions draw",
            stacklevel=3,
        )
    return there


def _same_network(there: Any, here: Any) -> bool:
    """Whether two descriptions are of equal networks, whatever fields one of them leaves at their defaults."""
    try:
        return Network.from_dict(there) == Network.from_dict(here)
    except ValueError:
        return False


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A leaf of a state as numbers."""
    return random.key_data(leaf) if _is_key(leaf) else leaf


def _like(template: Any, value: np.ndarray) -> Any:
    """Numbers back as a leaf of a state."""
    return random.wrap_key_data(jnp.asarray(value)) if _is_key(template) else value

"""Files: every path that a user gives, and how a file comes to be there: whole or not at all.

A file is made in memory, written to a temporary name beside its own, brought to disk, and renamed. A process may be
killed at any moment, and a disk be full: what was there before stays. What a killed process has left behind is removed
by the next one that writes the same file; a lock tells it from what another process is just writing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SEAL = b"\nbayesnet sha256 "
SEAL_LENGTH = len(SEAL) + 64 + 1
LONG_DEAD = 86_400.0  # seconds, where there are no locks
LONGEST_NAME = 180  # bytes of a name that its temporary name repeats; systems allow 255 in all


def user_path(name: str, value: Any, what: str = "the name of a file") -> Path:
    """A path as the user means it: ``~`` is the home folder.

    Args:
        name: of the argument, for messages.
        value: what the user gave.
        what: it must be.

    Raises:
        ValueError: if it is no path, or holds a NUL character, or a home folder that is not known.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{name} is {value!r}; it must be {what}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{name} is {value!r}; there is no such home folder") from None


def new_file(name: str, value: Any) -> Path:
    """The path of a file to be written, an older one being replaced.

    Raises:
        ValueError: as in `user_path`; if it is a directory, or lies in one that does not exist.
    """
    path = user_path(name, value)
    if path.is_dir():
        raise ValueError(f"{name} {str(path)!r} is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{name} {str(path)!r} lies in a directory that does not exist; create it first")
    return path


def directory_path(name: str, value: Any) -> Path:
    """The path of a directory, there or not.

    Raises:
        ValueError: as in `user_path`; if it is a file.
    """
    path = user_path(name, value, "the name of a directory")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name} {str(path)!r} is a file; it must be the name of a directory")
    return path


@contextlib.contextmanager
def made_directory(path: Path) -> Iterator[Path]:
    """A directory, made where it is missing; what was made and is still empty goes again when something goes wrong."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    except BaseException:
        for place in made:
            with contextlib.suppress(OSError):  # it is not empty
                place.rmdir()
        raise


def write_file(path: Path, content: bytes | memoryview, sealed: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        path: in a directory that exists.
        content: of the file.
        sealed: whether its checksum follows the content, for `check_seal`.

    Raises:
        OSError: naming the file, if it cannot be written; what was there stays.
    """
    _write({path: [content, _seal_of(hashlib.sha256(content))] if sealed else [content]})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files; all of them are on disk before the first takes the place of an older one, in their order.

    Raises:
        OSError: naming the file that cannot be written; what was there stays.
    """
    _write({path: [content] for path, content in contents.items()})


def _write(contents: Mapping[Path, list[bytes | memoryview]]) -> None:
    with contextlib.ExitStack() as stack:
        partials = {}
        for path, parts in contents.items():
            remove_leftovers(path)
            with _naming(path):
                partials[path] = stack.enter_context(_written(path, parts))
        for path, partial in partials.items():
            with _naming(path):
                os.replace(partial, path)


@contextlib.contextmanager
def _written(path: Path, parts: list[bytes | memoryview]) -> Iterator[Path]:
    """A temporary file beside ``path``, held until it has been renamed, or else removed."""
    while True:
        # Its own name for every writer: other threads, processes and machines may write the same file.
        partial = path.with_name(f".{_repeated(path.name)}.{uuid.uuid4().hex}.tmp")
        try:
            with open(partial, "xb") as file:
                hold(file)
                if not os.fstat(file.fileno()).st_nlink:
                    continue  # taken for a leftover in the moment before it was locked
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # an open file cannot be renamed there
                yield partial
            return
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name the file that the user knows, not a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes have left of a file."""
    pattern = leftover_pattern(path.name)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    remove_if_abandoned(Path(entry.path))


def leftover_pattern(name: str) -> re.Pattern[str]:
    """The names of temporary files of a file with this name."""
    return re.compile(rf"\.{re.escape(_repeated(name))}\.[0-9a-f]+\.tmp")


def hold(file: BinaryIO) -> None:
    """Lock a file until it is closed, so that `remove_if_abandoned` leaves it alone."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)


def remove_if_abandoned(path: Path) -> bool:
    """Remove a file that no running process holds; whether it was one."""
    if fcntl is None:
        abandoned = time.time() - path.stat().st_mtime > LONG_DEAD
        if abandoned:
            path.unlink()
        return abandoned
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
        return True


def _repeated(name: str) -> str:
    """A name, or a digest of it where a temporary name could not repeat it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def _seal_of(digest: Any) -> bytes:
    return SEAL + digest.hexdigest().encode() + b"\n"


def check_seal(file: BinaryIO) -> int | None:
    """Compare an open file with the checksum at its end; leaves the file at its beginning.

    Returns:
        How many bytes come before the checksum; None where there is none.

    Raises:
        ValueError: if they differ.
    """
    length = file.seek(0, os.SEEK_END) - SEAL_LENGTH
    seal = b""
    if length >= 0:
        file.seek(length)
        seal = file.read(SEAL_LENGTH)
    file.seek(0)
    if not seal.startswith(SEAL):
        return None
    digest, left = hashlib.sha256(), length
    while left:
        part = file.read(min(left, 1 << 20))
        if not part:
            break
        digest.update(part)
        left -= len(part)
    file.seek(0)
    if seal != _seal_of(digest):
        raise ValueError("it is damaged: its checksum is another one than when it was written")
    return length

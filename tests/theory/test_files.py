"""Files appear whole or not at all; paths mean what the user means; what killed processes leave behind goes."""

import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from theory import files

KILLED = """
import os, sys
from pathlib import Path
from theory import files
os.replace = lambda *paths: (print("writing", flush=True), sys.stdin.read())
files.write_file(Path(sys.argv[1]), b"half")
"""


def names(directory):
    return sorted(os.listdir(directory))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("name", ["a.nc", "n" * 255, "ü" * 127, "a b[*]?.nc"])
def test_written_and_replaced(tmp_path, name, sealed):
    path = tmp_path / name
    for content in (b"one", b"", b"three" * 500_000):
        files.write_file(path, memoryview(content), sealed)
        assert path.read_bytes()[: len(content)] == content
        with open(path, "rb") as file:
            assert files.check_seal(file) == (len(content) if sealed else None)
            assert file.tell() == 0
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("failure", [OSError("no"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.nc"
    files.write_file(path, b"old")

    def fail(*arguments):
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(failure)):
        files.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.nc"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "a.nc"
    files.write_file(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"'.*/a\.nc'$"):
            files.write_file(path, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.nc"]


def test_leftovers_of_killed_processes_go_and_nothing_else(tmp_path):
    path = tmp_path / "a.nc"
    kept = [".a.nc.tmp", ".a.nc.notes.tmp", ".b.nc.0123.tmp", "a.nc.0123.tmp", ".a.ncx.0123.tmp"]
    for name in [*kept, ".a.nc.0123abcdef.tmp", ".a.nc.4711.tmp"]:
        (tmp_path / name).write_bytes(b"x")
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        files.write_file(path, b"whole")
        writing = set(names(tmp_path)) - {"a.nc", *kept}
        assert len(writing) == 1, "the temporary file of a process that is alive stays, all others are gone"
        process.kill()
    files.write_file(path, b"whole")
    assert names(tmp_path) == sorted(["a.nc", *kept])


def test_many_writers_of_one_file(tmp_path):
    path = tmp_path / "a.nc"
    files.write_file(path, bytes(100_000))

    def work(number):
        files.write_file(path, bytes([number]) * 100_000)
        content = path.read_bytes()
        return len(content) == 100_000 and len(set(content)) == 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert names(tmp_path) == ["a.nc"]


def test_every_change_of_a_sealed_file_is_seen(tmp_path):
    path = tmp_path / "a.nc"
    files.write_file(path, bytes(range(200)), sealed=True)
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with open(path, "rb") as file:
            if place in range(200, 200 + len(files.SEAL)):
                assert files.check_seal(file) is None
                continue
            with pytest.raises(ValueError, match="damaged"):
                files.check_seal(file)


@pytest.mark.parametrize("value", [None, 3, b"a", "", "a\0b", ["a"], "~nobody-of-this-name/a"])
@pytest.mark.parametrize("check", [files.user_path, files.new_file, files.directory_path])
def test_what_is_no_path_is_refused(check, value):
    with pytest.raises(ValueError, match=r"^path is "):
        check("path", value)


def test_paths_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.new_file("path", "~/a.nc") == tmp_path / "a.nc"
    assert files.new_file("path", Path("~/a.nc")) == tmp_path / "a.nc"
    assert files.directory_path("path", "~/made/later") == tmp_path / "made" / "later"


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for check, path, words in (
        (files.new_file, tmp_path, "is a directory"),
        (files.new_file, tmp_path / "none" / "a.nc", "directory that does not exist"),
        (files.new_file, tmp_path / "file" / "a.nc", "directory that does not exist"),
        (files.directory_path, tmp_path / "file", "is a file"),
    ):
        with pytest.raises(ValueError, match=rf"^path .*{words}"):
            check("path", path)


def test_directories_that_were_made_go_again_where_nothing_is_in_them(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    with pytest.raises(KeyError), files.made_directory(path):  # noqa: PT012
        assert path.is_dir()
        raise KeyError
    assert names(tmp_path) == []
    with pytest.raises(KeyError), files.made_directory(path):  # noqa: PT012
        (path.parent / "kept").write_text("")
        raise KeyError
    assert names(path.parent) == ["kept"]
    with files.made_directory(path):
        pass
    with pytest.raises(KeyError), files.made_directory(path):
        raise KeyError
    assert path.is_dir(), "it was there before"


def test_without_locks_only_what_is_old_counts_as_left_behind(tmp_path, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(files, "fcntl", None)
    for name, age in ((".a.nc.01.tmp", 0), (".a.nc.02.tmp", 2 * files.LONG_DEAD)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    files.write_file(tmp_path / "a.nc", b"new")
    assert names(tmp_path) == [".a.nc.01.tmp", "a.nc"]

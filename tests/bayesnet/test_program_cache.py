"""Compiled programs of the command line: kept where that is safe, read back, never in the way."""

import os
import stat
import sys

import jax
import jax.numpy as jnp
import pytest

from bayesnet import cli, program_cache
from bayesnet.program_cache import cache_directory, kept_programs


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache directory of this test, and JAX without one of its own."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv(program_cache.VARIABLE, str(tmp_path / "made" / "kept"))
    monkeypatch.setattr(program_cache, "WORTH_KEEPING", 0.0)
    yield tmp_path / "made" / "kept"
    jax.config.update("jax_compilation_cache_dir", before)
    program_cache.compilation_cache.reset_cache()


def compiled_anew():
    """A program that no test has compiled; a new function each time, which JAX finds by its text alone."""
    return float(jax.jit(lambda x: jnp.sin(x) * 0.123 + jnp.arange(7.0).sum())(1.0))


def test_programs_are_kept_and_read_back(kept):
    settings = {name: jax.config.values[name] for name in ("jax_compilation_cache_dir",)}
    with kept_programs():
        compiled_anew()
    first = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert first
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    with kept_programs():
        compiled_anew()
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == first
    assert {name: jax.config.values[name] for name in settings} == settings


@pytest.mark.parametrize("mode", [0o500, 0o777, 0o770])
def test_directories_that_are_not_safe_are_left_alone(kept, mode, monkeypatch):
    """Not writable, or writable for others: the command runs without."""
    kept.mkdir(parents=True)
    kept.chmod(mode)
    if mode == 0o500:
        monkeypatch.setattr(os, "access", lambda path, how: False)  # root may write anywhere
    with kept_programs():
        compiled_anew()
    assert not list(kept.iterdir())


def test_what_is_no_directory_of_ones_own_is_left_alone(kept):
    kept.parent.mkdir()
    elsewhere = kept.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    kept.symlink_to(elsewhere)
    with kept_programs():
        compiled_anew()
    assert not list(elsewhere.iterdir())
    kept.unlink()
    kept.write_text("a file")
    with kept_programs():
        compiled_anew()
    assert kept.read_text() == "a file"


def test_a_cache_of_jax_comes_first(kept, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    with kept_programs():
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    assert not kept.exists()


def test_where_programs_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(program_cache.VARIABLE, "")
    assert cache_directory() is None
    monkeypatch.delenv(program_cache.VARIABLE)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "bayesnet" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "bayesnet" / "compiled"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home
    assert cache_directory() is None


def test_the_oldest_go_first(tmp_path):
    for age, name in enumerate(("new", "older", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    program_cache._trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "older"]


def test_the_command_line_keeps_programs(kept, monkeypatch, capsys):
    monkeypatch.setattr(cli, "default_tables", lambda: compiled_anew() and {})
    assert cli.main(["config"]) == 0
    assert list(kept.iterdir())

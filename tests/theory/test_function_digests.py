"""Digests of functions: equal where nothing differs, different where anything that a function depends on does."""

import functools
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.function_digests import code_digest, source_digest

GAIN = 1.0
TABLE = np.arange(3.0)
SETTINGS = {"gain": 1.0, "shifts": [0.0, 1.0]}
HOLDER = types.SimpleNamespace(gain=1.0, other=object())


def helper(x):
    return GAIN * jnp.tanh(x)


def phi(x):
    """What most of the tests below look at."""
    return helper(x) + TABLE[0] + SETTINGS["gain"] * HOLDER.gain


def closing_over(value):
    def inner(x):
        return value * x

    return inner


def made_from(text):
    """A function made of text, as at a prompt: without source."""
    namespace = {"jnp": jnp, "jax": jax}
    exec(text, namespace)
    return namespace["f"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GAIN", 2.0),
        ("GAIN", 1),
        ("TABLE", np.arange(1.0, 4)),
        ("TABLE", np.arange(3)),
        ("SETTINGS", {"gain": 1.0, "shifts": [0.0, 2.0]}),
        ("HOLDER", types.SimpleNamespace(gain=1.5)),
        ("helper", jnp.sin),
        ("helper", lambda x: GAIN * jnp.tanh(x) + 0),
    ],
)
def test_whatever_a_function_finds_among_its_globals_counts(monkeypatch, name, value):
    before = code_digest(phi), source_digest(phi)
    assert before == (code_digest(phi), source_digest(phi))
    monkeypatch.setitem(globals(), name, value)
    assert code_digest(phi) != before[0]
    assert source_digest(phi) != before[1]
    monkeypatch.undo()
    assert before == (code_digest(phi), source_digest(phi))


def test_what_a_function_does_not_use_does_not_count(monkeypatch):
    before = code_digest(phi)
    monkeypatch.setitem(globals(), "phi_2", 3.0)
    monkeypatch.setattr(HOLDER, "other", 5)
    assert code_digest(phi) == before


def test_closures_and_defaults_count():
    assert code_digest(closing_over(1.0)) == code_digest(closing_over(1.0)) != code_digest(closing_over(2.0))
    assert source_digest(closing_over(1.0)) == source_digest(closing_over(1.0)) != source_digest(closing_over(2.0))
    defaults = [code_digest(made_from(f"def f(x, a={a}, *, b={b}): return a * x + b")) for a in (1, 2) for b in (1, 2)]
    assert len(set(defaults)) == 4


def test_what_wraps_a_function_is_looked_through():
    functions = [wrap(closing_over(a)) for wrap in (jax.jit, jax.checkpoint, jax.custom_jvp) for a in (1.0, 2.0)]
    functions += [functools.partial(jax.nn.leaky_relu, negative_slope=a) for a in (0.1, 0.2)]
    digests = [code_digest(function) for function in functions]
    assert len(set(digests)) == len(digests)

    def with_slope(slope):
        function = jax.custom_jvp(helper)
        function.defjvps(lambda tangent, value, x: slope * tangent)
        return function

    assert code_digest(with_slope(1.0)) == code_digest(with_slope(1.0)) != code_digest(with_slope(2.0))


def test_layout_and_comments_count_for_neither_digest_of_a_file(tmp_path, monkeypatch):
    texts = ["def f(x):\n    return 2.0 * x\n", "# moved\n\ndef f( x ):\n    # doubles\n    return (2.0*x)\n"]
    texts += ["def f(x):\n    return 3.0 * x\n"]
    found = []
    for number, text in enumerate(texts):
        path = tmp_path / f"version_{number}.py"
        path.write_text(text)
        namespace = {"__name__": "user"}
        exec(compile(text, str(path), "exec"), namespace)
        found.append((code_digest(namespace["f"]), source_digest(namespace["f"])))
    assert found[0] == found[1]
    assert None not in found[0]
    assert not set(found[0]) & set(found[2])


def test_source_that_has_changed_since_is_not_that_of_the_code(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("def f(x):\n    return 3.0 * x\n")
    namespace = {"__name__": "user"}
    exec(compile("def f(x):\n    return 2.0 * x\n", str(path), "exec"), namespace)
    assert source_digest(namespace["f"]) is None
    assert code_digest(namespace["f"]) == code_digest(made_from("def f(x): return 2.0 * x"))


def test_a_function_without_source_is_told_by_its_code():
    one, same, other = (made_from(f"f = lambda x: jnp.{name}(x)") for name in ("sin", "sin", "cos"))
    assert source_digest(one) is None
    assert code_digest(one) == code_digest(same) != code_digest(other)


def test_another_process_finds_the_same_digests():
    script = "import tests.theory.test_function_digests as t; print(t.code_digest(t.phi), t.source_digest(t.phi))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{code_digest(phi)} {source_digest(phi)}"


class Callable:
    def __call__(self, x):
        return x


def test_what_cannot_be_told_from_its_like_is_named():
    instance, unknown = Callable(), object()
    for function, words in (
        (instance, "an object of type Callable"),
        (instance.__call__, "an object of type method"),
        (lambda x: instance(x), "instance, an object of type Callable"),
        (closing_over(unknown), "value, an object of type object"),
    ):
        with pytest.raises(ValueError, match=words):
            code_digest(function)

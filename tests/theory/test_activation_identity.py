"""Which activation a network has: told by the function itself, found again without importing or calling anything."""

import importlib
import json
import pickle
import posixpath
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_problems import chain
from theory import Network, nngp
from theory import activation_identity as module

SCALE = 1.0


def scaled(x):
    return SCALE * jnp.sin(x)


def closing_over(value):
    def phi(x):
        return value * jnp.tanh(x)

    return phi


@pytest.fixture
def forgetful(monkeypatch):
    """As if this process had used no function as an activation so far."""
    monkeypatch.setattr(module, "_used", {})


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Writes, imports and reloads a module of the user's; the name of each is its own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text, name="users_activations"):
        (tmp_path / f"{name}.py").write_text(f"import jax\nimport jax.numpy as jnp\n{text}\n")
        importlib.invalidate_caches()
        return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)

    yield write
    for name in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[name]


def stored(network):
    return json.loads(json.dumps(network.to_dict()))


def test_a_function_defined_anew_makes_another_network():
    first, second, again = (Network(8, closing_over(value)) for value in (1.0, 2.0, 1.0))
    assert str(first.activation) == str(second.activation)
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    task = chain(2, 1.0)
    kernels = [nngp(network, task).kernel for network in (first, second, first)]
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert not np.allclose(kernels[0], kernels[1])
    assert [Network.from_dict(stored(network)) for network in (first, second)] == [first, second]


def test_a_reloaded_module_gives_the_same_network_only_if_its_text_is_the_same(user_module):
    text = "def phi(x):\n    return jnp.sin(x)"
    networks = [Network(8, user_module(t).phi) for t in (text, text + "  # a remark", text.replace("sin", "tanh"))]
    assert networks[0] == networks[1] != networks[2]


def test_a_function_that_has_changed_is_not_used_for_an_older_network(monkeypatch):
    network = Network(8, scaled)
    before = network.phi.function(1.0)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(ValueError, match=r"^activation '.*:scaled' has changed since its network was made"):
        nngp(network, chain(2, 1.0))
    anew = Network(8, scaled)
    assert anew != network
    np.testing.assert_allclose(anew.phi.function(1.0), 2 * before)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jnp.tanh, "tanh"),
        (jax.nn.relu, "relu"),
        (jax.lax.erf, "erf"),
        ("jax.numpy:tanh", "tanh"),
        (jax.nn.gelu, "jax.nn:gelu"),
        (jax.nn.swish, "jax.nn:silu"),
        (jnp.arctan, "jax.numpy:arctan"),
        ("jax._src.nn.functions:gelu", "jax.nn:gelu"),
    ],
)
def test_functions_of_jax_have_the_name_under_which_it_has_them_in_public(function, name):
    network = Network(8, function)
    assert network.activation == name
    assert Network.from_dict(stored(network)) == network


def test_the_name_is_that_under_which_a_module_has_it(user_module):
    users = user_module("phi = lambda x: 2 * x\ncompiled = jax.jit(phi)\ndef outer(x): return x * 1.5")
    assert [str(Network(8, f).activation) for f in (users.phi, users.compiled, users.outer)] == [
        f"users_activations:{name}" for name in ("phi", "compiled", "outer")
    ]
    assert str(Network(8, lambda x: x).activation).endswith("<lambda>")


def test_found_again_in_a_module_that_has_been_imported(user_module, forgetful, monkeypatch):
    text = "@jax.jit\ndef phi(x):\n    return jnp.sin(x)"
    network = Network(8, user_module(text).phi)
    module._used.clear()
    calls = []
    monkeypatch.setattr(module, "check_elementwise", lambda *arguments: calls.append(arguments))
    assert Network.from_dict(stored(network)) == network
    assert not calls
    user_module(text.replace("sin", "tanh"))
    module._used.clear()
    with pytest.raises(ValueError, match=r"another function than the one of that name now.*activations=\[phi\]"):
        Network.from_dict(stored(network))


IMPORTS = """
import sys
from theory import Network
from tests.theory.test_activation_identity import refusal_of
print(refusal_of({{"width": 8, "activation": {name!r}, "activation_digest": {digest!r}}}))
print({module!r} in sys.modules)
"""


def refusal_of(fields):
    try:
        return Network.from_dict(fields)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("digest", ["source:0", None])
def test_nothing_is_imported(tmp_path, digest):
    """A module that would end the process, were it imported."""
    script = IMPORTS.format(name="unittest.__main__:x", digest=digest, module="unittest.__main__")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert "activations=[x]" in run.stdout
    assert run.stdout.endswith("False\n")


@pytest.mark.parametrize("name", ["sys:exit", "os:abort", "posixpath:isabs", "no:thing", "", ":", "jax:clear_caches"])
@pytest.mark.parametrize("digest", ["source:0", None, 3, ["source:0"]])
def test_what_is_named_is_neither_called_nor_trusted(name, digest):
    """Not even where the digest is right, in modules of Python's own."""
    fields = {"width": 8, "activation": name, "activation_digest": digest}
    assert refusal_of(fields).startswith("activation ")
    if name in ("sys:exit", "posixpath:isabs"):
        function = {"sys:exit": sys.exit, "posixpath:isabs": posixpath.isabs}[name]
        assert refusal_of({**fields, "activation_digest": module.code_digest(function)}).startswith("activation ")


def test_functions_handed_over(forgetful):
    network = Network(8, closing_over(1.0))
    module._used.clear()
    assert "no function of a module that has been imported" in refusal_of(stored(network))
    for offer in (closing_over(1.0), [jnp.sin, closing_over(1.0)], (closing_over(1.0), closing_over(2.0))):
        module._used.clear()
        assert Network.from_dict(stored(network), offer) == network
    module._used.clear()
    for wrong in ([closing_over(2.0)], [scaled], [scaled, closing_over(2.0)]):
        with pytest.raises(ValueError, match=r"^activation .* is another function than the one handed over"):
            Network.from_dict(stored(network), wrong)
    for offer in ("tanh", 3, [3]):
        with pytest.raises(ValueError, match=r"^activation"):
            Network.from_dict(stored(network), offer)


def test_code_of_another_python_is_named_as_the_reason(forgetful):
    fields = {"width": 8, "activation": f"{__name__}:scaled", "activation_digest": "python 3.5:0"}
    assert "stored by python 3.5" in refusal_of(fields)


def test_a_function_typed_at_a_prompt_has_no_source_to_compare(forgetful):
    typed = {"jnp": jnp}
    exec("def scaled(x): return 1.0 * jnp.sin(x)", typed)
    from_file = stored(Network(8, scaled))
    with pytest.raises(ValueError, match="its source was stored, and this one has none to compare"):
        Network.from_dict({**from_file, "activation": "elsewhere:scaled"}, typed["scaled"])
    from_prompt = Network(8, typed["scaled"])
    module._used.clear()
    assert Network.from_dict(stored(from_prompt), typed["scaled"]) == from_prompt


def test_a_function_of_another_script_is_to_be_handed_over(forgetful):
    fields = {"width": 8, "activation": "__main__:no_such_function", "activation_digest": "source:0"}
    assert "define it there, and hand it over as activations=[no_such_function]" in refusal_of(fields)


def test_what_version_0_1_0_stored(forgetful):
    """A name and no digest: enough for what is built in, not for a function of the user's."""
    assert Network.from_dict({"width": 8, "activation": "jax._src.nn.functions:gelu"}).activation == "jax.nn:gelu"
    fields = {"width": 8, "activation": f"{__name__}:scaled"}
    assert "activations=[scaled]" in refusal_of(fields)
    assert Network.from_dict(fields, scaled) == Network(8, scaled)


def test_networks_go_to_other_processes(user_module):
    users = user_module("def phi(x):\n    return jnp.sin(x)\n@jax.custom_jvp\ndef ruled(x):\n    return 1.0 * x")
    users.ruled.defjvps(lambda t, y, x: t)
    for function in (users.phi, users.ruled, scaled):
        network = Network(8, function)
        assert pickle.loads(pickle.dumps(network)) == network
    sent = pickle.dumps(Network(8, users.phi))
    user_module("def phi(x):\n    return jnp.cos(x)")
    with pytest.raises(ValueError, match="is another function in this process than in the one that sent it"):
        pickle.loads(sent)


def test_what_an_activation_depends_on_must_have_a_digest():
    unknown = {"gain": object()}
    with pytest.raises(ValueError, match=r"^activation .* depends on unknown, an object of type object"):
        Network(8, lambda x: x if unknown else -x)

"""Which activation a network has: how functions are told apart, what is stored of them, how they are found again.

A built-in activation and a public function of JAX are known by name. A function of the user's own is known by itself:
by a digest of its code and of all that it depends on, so that a function defined anew makes another network, with
programs, draws and files of its own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax

from theory.activations import BUILT_IN, PUBLIC, Activation, check_elementwise, is_odd
from theory.function_digests import PYTHON, code_digest, source_digest

FUNCTIONS = (types.FunctionType, functools.partial, jax.custom_jvp, jax.custom_vjp, type(jax.jit(lambda x: x)))
_used: dict[tuple[str, str], UserFunction] = {}  # what this process has used as an activation


@dataclass(frozen=True)
class UserFunction:
    """An elementwise function of the user's own, which is the same as another one if both name and code agree.

    Attributes:
        name: "module:name".
        code: digest of its code and of all that it depends on (`theory.function_digests`).
        source: digest of its source text instead, which is the same in other versions of Python; None where no source
            is at hand.
        function: the function itself.
    """

    name: str
    code: str
    source: str | None = field(default=None, compare=False)
    function: Callable = field(default=BUILT_IN["linear"].function, compare=False)

    @property
    def digest(self) -> str:
        """What files and checkpoints keep beside the name."""
        return self.source or self.code

    def __call__(self, x: Any) -> Any:
        # Asked whenever a program is traced: what has been compiled for this function stays that of this function.
        if code_digest(self.function) != self.code:
            raise ValueError(
                f"activation {self.name!r} has changed since its network was made, or something that it uses has; "
                "make the network anew"
            )
        return self.function(x)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return repr(self.name)

    def __reduce__(self) -> tuple:
        importable = not self.name.startswith("__main__") and _look_up(self.name) is self.function
        return _unpickle, (self.name, self.code, self.source, None if importable else self.function)


def canonical_activation(activation: Any) -> str | UserFunction:
    """The name of a built-in activation or of a public function of JAX ("jax.nn:gelu"), else a `UserFunction`.

    Args:
        activation: such a name, "module:name" of any function, which is imported, or a function.

    Raises:
        ValueError: for an unknown name, something that is not callable, not an elementwise JAX function, or depends on
            something that cannot be told from its like.
    """
    if isinstance(activation, UserFunction):
        return activation
    allowed = f"allowed are {', '.join(map(repr, BUILT_IN))}, 'module:name', or an elementwise JAX function"
    function, name = activation, None
    if isinstance(activation, str):
        if activation in BUILT_IN:
            return activation
        if ":" not in activation:
            raise ValueError(f"activation is {activation!r}; {allowed}")
        function, name = _import_function(activation), activation
    if not callable(function):
        raise ValueError(f"activation is {activation!r}; {allowed}")
    check_elementwise(function, activation)
    return _public_name(function) or _identify(function, name)


def stored_activation(activation: Any) -> dict[str, str]:
    """What `find_activation` finds the activation of a network by."""
    if isinstance(activation, str):
        return {"activation": activation}
    return {"activation": activation.name, "activation_digest": activation.digest}


def find_activation(name: str, digest: str | None, activations: Any = ()) -> str | UserFunction:
    """The activation that a file or a result names. Nothing is imported and no function called.

    It may be a built-in or public function of JAX; a function of ``activations``; one that this process has used as an
    activation; or one of a module that has been imported already. Its digest has to be the stored one.

    Args:
        name, digest: of `stored_activation`; no digest where bayesnet 0.1.0 wrote it.
        activations: functions that the user hands over; one, or several.

    Raises:
        ValueError: saying what to do, if there is no such function, or another one of its name.
    """
    if not isinstance(name, str) or not isinstance(digest, str | None):
        raise ValueError(f"activation is {name!r} with the digest {digest!r}; both must be text")
    offered = [canonical_activation(function) for function in _offered(activations)]
    own = [function for function in offered if isinstance(function, UserFunction)]
    short = name.rpartition(":")[2]
    way_out = f"hand it over as activations=[{short if short.isidentifier() else 'function'}]"
    if digest is None:
        same_name = [f for f in own if f.name.partition(":")[2] == short]
        found = name if name in BUILT_IN else _public_name(_look_up(name)) if name.startswith("jax.") else None
        if found is None and not same_name:
            raise ValueError(
                f"activation {name!r} was stored without what tells it from other functions of that name; {way_out}"
            )
        return found or same_name[0]
    for function in [*own, *(f for f in (_used.get((name, digest)),) if f is not None)]:
        if digest in (function.code, function.source):
            return function
    there, module = _look_up(name), name.partition(":")[0]
    defined = issubclass(type(there), FUNCTIONS) and module.partition(".")[0] not in sys.stdlib_module_names
    reason = "that one cannot be compared"
    if defined:
        with contextlib.suppress(ValueError):
            function = _identify(there, name)
            if digest in (function.code, function.source):
                return function
            reason = _why(digest, function)
    if own:
        nearest = max(own, key=lambda function: function.name.partition(":")[2] == short)
        reason = _why(digest, nearest)
        raise ValueError(f"activation {name!r} is another function than the one handed over, {nearest}: {reason}")
    if defined:
        raise ValueError(f"activation {name!r} is another function than the one of that name now: {reason}; {way_out}")
    if module == "__main__":
        raise ValueError(f"activation {name!r} is a function of a script or a notebook: define it there, and {way_out}")
    raise ValueError(
        f"activation {name!r} is no function of a module that has been imported, and none is imported for what is read "
        f"from a file: import {module} first, or {way_out}"
    )


def resolve_activation(activation: Any) -> Activation:
    """The `Activation` behind what `canonical_activation` returned."""
    if isinstance(activation, str) and activation in BUILT_IN:
        return BUILT_IN[activation]
    function = _look_up(activation) if isinstance(activation, str) else activation
    return Activation(function, odd=is_odd(function))


def _identify(function: Callable, name: str | None) -> UserFunction:
    name = name or _name_of(function)
    try:
        found = UserFunction(name, code_digest(function), source_digest(function), function)
    except ValueError as error:
        raise ValueError(
            f"activation {name!r} depends on {error}, which cannot be told from others of its type; allowed are "
            "modules, functions, numbers, text, arrays, and lists and dictionaries of them"
        ) from None
    _used[name, found.digest] = found
    return found


def _name_of(function: Any) -> str:
    """ "module:name", the name being that under which the module has it, where it has it."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    module = str(getattr(inner, "__module__", None) or "unknown")
    name = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", None) or type(inner).__qualname__
    if _look_up(f"{module}:{name}") is not function:
        names = [key for key, value in list(vars(sys.modules.get(module, object)).items()) if value is function]
        name = names[0] if names else name
    return f"{module}:{name}"


def _public_name(function: Any) -> str | None:
    """The built-in name of a function, or where JAX has it in public; None for all others."""
    for built_in, known in BUILT_IN.items():
        if known.function is function:
            return built_in
    own = getattr(function, "__name__", None)
    for module in PUBLIC:
        for candidate in ([own] if isinstance(own, str) else []) + list(vars(module)):
            if not candidate.startswith("_") and vars(module).get(candidate) is function:
                return f"{module.__name__}:{candidate}"
    return None


def _look_up(name: str) -> Any:
    """What an imported module has under a name; None if there is nothing. Nothing runs."""
    module, _, attribute = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        held = getattr(found, "__dict__", None) if isinstance(found, types.ModuleType | type) else None
        found = None if held is None else held.get(part)
    return found


def _offered(activations: Any) -> list:
    if isinstance(activations, str) or not (callable(activations) or isinstance(activations, Iterable)):
        raise ValueError(f"activations is {activations!r}; it must be a function or a list of functions")
    return [activations] if callable(activations) else list(activations)


def _why(digest: str, function: UserFunction) -> str:
    """Why a stored digest is not that of a function."""
    kind = digest.rpartition(":")[0]
    if kind == "source" and function.source is None:
        return "its source was stored, and this one has none to compare, as at a prompt; define it in a file"
    if kind not in ("source", PYTHON):
        return f"its code was stored by {kind}, and code compares within one version only; here is {PYTHON}"
    return "what it computes, or what it depends on, differs"


def _unpickle(name: str, code: str, source: str | None, function: Callable | None) -> UserFunction:
    function = _import_function(name) if function is None else function
    if code_digest(function) != code:
        raise ValueError(
            f"activation {name!r} is another function in this process than in the one that sent it; both must have the "
            f"same version of {name.partition(':')[0]}, and of Python"
        )
    return UserFunction(name, code, source, function)


def _import_function(name: str) -> Callable:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # importing runs the module, which may raise anything
        raise ValueError(f"activation {name!r} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ValueError(f"activation {name!r} is not a function")
    return found

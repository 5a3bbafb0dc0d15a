"""What tells one function from another: digests of its code, or of its source, with everything it depends on.

A function is more than its name. Its digest covers its code, its defaults, the numbers, text and arrays that it finds
in its closure and its globals, and the functions of the user's own that it calls, in the same way. Modules, and
functions of installed packages other than its own, enter by name. Nothing is called and nothing is imported.

Code is exact within one version of Python; source text, with neither comments nor layout, also between versions.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
PYTHON = f"python {sys.version_info.major}.{sys.version_info.minor}"


def code_digest(function: Any) -> str:
    """ "python 3.12:<sha256>", of the bytecode.

    Raises:
        ValueError: if the function depends on something that has no such digest, naming it.
    """
    return f"{PYTHON}:{_digest(function, by_source=False)}"


def source_digest(function: Any) -> str | None:
    """ "source:<sha256>"; None where some source text is not at hand, or is no longer that of the code.

    Raises:
        ValueError: as in `code_digest`.
    """
    try:
        return f"source:{_digest(function, by_source=True)}"
    except _NoSource:
        return None


class _NoSource(Exception):
    """There is no source text that compiles to the code."""


class _Unknown(Exception):
    """Something that cannot be told from its like, and the name under which the function finds it."""

    def __init__(self, value: Any):
        self.kind, self.name = type(value).__qualname__, ""


class _Walk:
    """Through a function and what it depends on: which of the two digests, and what has been met on the way."""

    def __init__(self, function: Any, by_source: bool):
        self.by_source = by_source
        self.met: dict[int, tuple[int, Any]] = {}  # by id, with the objects, so that no other one takes over an id
        package = str(getattr(function, "__module__", None)).partition(".")[0]
        self.own_package = None if package in ("jax", "jaxlib") else package

    def enters_by_name(self, module: str, file: str) -> bool:
        """Whether code of this module and file comes with Python or an installed package other than the function's."""
        if module.partition(".")[0] == self.own_package:
            return False
        if file.startswith("<"):
            return file.startswith("<frozen")
        path = Path(file)
        packages = {"site-packages", "dist-packages"} & set(path.parts)
        return bool(packages) or any(path.is_relative_to(place) for place in INSTALLED)


def _digest(function: Any, by_source: bool) -> str:
    digest = hashlib.sha256()
    try:
        for part in _describe(function, _Walk(function, by_source)):
            digest.update(f"{len(part)}:".encode() + part.encode("utf-8", "surrogatepass"))
    except _Unknown as error:
        named = f"{error.name}, " if error.name else ""
        raise ValueError(f"{named}an object of type {error.kind}") from None
    return digest.hexdigest()[:32]


def _describe(value: Any, walk: _Walk) -> Iterator[str]:
    if isinstance(value, PLAIN):
        yield f"{type(value).__name__} {value!r}"
        return
    if id(value) in walk.met:
        yield f"met {walk.met[id(value)][0]}"
        return
    if isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise _Unknown(value)
        yield f"array {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    elif isinstance(value, tuple | list | set | frozenset | dict):
        walk.met[id(value)] = len(walk.met), value
        yield f"{type(value).__name__} {len(value)}"
        entries = list(value.items()) if isinstance(value, dict) else list(value)
        for entry in sorted(entries, key=repr) if isinstance(value, set | frozenset) else entries:
            yield from _describe(entry, walk)
    elif name := _installed_name(value, walk):
        yield f"installed {name}"
    else:
        walk.met[id(value)] = len(walk.met), value
        yield from _describe_callable(value, walk)


def _describe_callable(value: Any, walk: _Walk) -> Iterator[str]:
    if isinstance(value, functools.partial):
        yield "partial"
        yield from _describe((value.func, value.args, value.keywords), walk)
    elif isinstance(value, jax.custom_jvp):
        yield "custom_jvp"
        yield from _describe((value.fun, value.jvp), walk)
    elif isinstance(value, jax.custom_vjp):
        yield "custom_vjp"
        yield from _describe((value.fun, value.fwd, value.bwd), walk)
    elif type(value).__module__.startswith("jax") and hasattr(value, "__wrapped__"):
        yield "compiled"
        yield from _describe(value.__wrapped__, walk)
    elif isinstance(value, types.FunctionType):
        yield "function"
        code, module = value.__code__, str(value.__globals__.get("__name__"))
        by_name = walk.enters_by_name(module, code.co_filename)
        if by_name:
            yield f"{module}:{code.co_qualname}"
        else:
            text = _source_of(code, code.co_filename) if walk.by_source else _code_text(code)
            if text is None:
                raise _NoSource
            yield text
        yield from _describe((value.__defaults__, value.__kwdefaults__), walk)
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            yield from _describe_named(name, _contents(cell), walk)
        if not by_name:
            for name, used in _globals_of(code, value.__globals__):
                yield from _describe_named(name, used, walk)
    else:
        raise _Unknown(value)


def _describe_named(name: str, value: Any, walk: _Walk) -> Iterator[str]:
    yield name
    try:
        yield from _describe(value, walk)
    except _Unknown as error:
        error.name = error.name or name
        raise


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _globals_of(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that code uses, each followed through modules and objects to what is used of it."""
    instructions = [instruction for part in _codes_in(code) for instruction in dis.get_instructions(part)]
    found = {}
    for place, instruction in enumerate(instructions):
        if instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or instruction.argval not in namespace:
            continue
        name, value = str(instruction.argval), namespace[instruction.argval]
        for following in instructions[place + 1 :]:
            if following.opname not in ("LOAD_ATTR", "LOAD_METHOD") or isinstance(value, types.FunctionType):
                break
            held = getattr(value, "__dict__", {})
            if following.argval not in held:
                break
            name, value = f"{name}.{following.argval}", held[following.argval]
        found[name] = value
    yield from sorted(found.items())


def _code_text(code: types.CodeType) -> str:
    constants = [_code_text(c) if isinstance(c, types.CodeType) else _constant_text(c) for c in code.co_consts]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_code, constants, counts, names, code.co_exceptiontable))


def _constant_text(value: Any) -> str:
    # The order of a set of strings differs between processes.
    return f"set {sorted(map(repr, value))}" if isinstance(value, frozenset) else f"{type(value).__name__} {value!r}"


@functools.lru_cache(maxsize=256)
def _source_of(code: types.CodeType, file: str) -> str | None:
    """The source of a function in one fixed layout, if it compiles to this very code: files change after an import."""
    wanted = _code_text(code)
    try:
        # The whole file: what a function compiles to depends on the imports and the functions around it.
        tree = ast.parse("".join(inspect.findsource(code)[0]))
        lines = {c.co_firstlineno for c in _codes_in(compile(tree, file, "exec")) if _code_text(c) == wanted}
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and code.co_name == "<lambda>":
            line = node.lineno
        elif isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            node.decorator_list = []  # what they made of the function is described by itself
        else:
            continue
        if line in lines:
            texts.add(ast.unparse(node))
    return texts.pop() if len(texts) == 1 else None


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes_in(constant)


def _installed_name(value: Any, walk: _Walk) -> str | None:
    """ "module:name" of what is found under its own name in an installed module; else None."""
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if module is None or not isinstance(name, str):
        return None
    # A module without a file is compiled into Python, or the user's: a prompt, a notebook.
    file = getattr(module, "__file__", None)
    by_name = file is not None and walk.enters_by_name(module.__name__, file)
    if not by_name and module.__name__ not in sys.builtin_module_names:
        return None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return f"{module.__name__}:{name}" if found is value else None

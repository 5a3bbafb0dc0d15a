"""Docstrings of bayesnet are plain text with indented formulas: made into what Sphinx reads, before Napoleon.

Indented blocks after an empty line are formulas or code and become literal blocks; characters that mean something in
reStructuredText only are escaped elsewhere.
"""

import dataclasses
import re

SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields|Source):")
NAMED = re.compile(r"^    [\w, ]+:")  # an argument, an attribute or an exception
MARKUP = re.compile(r"(``.*?``|`[^`]+`)")


def escaped(line: str) -> str:
    parts = MARKUP.split(line)
    plain = [re.sub(r"([|*\\]|(?<=\w)_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    parts[::2] = plain
    return "".join(parts)


def rewritten(lines: list[str]) -> list[str]:
    """The docstring with literal blocks marked and markup escaped."""
    made: list[str] = []
    # Indentation of the running text; of the literal block, where in one.
    outer, literal = 0, None
    in_section = False
    for number, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            made.append(line)
            continue
        if literal is not None and depth >= literal:
            made.append(line)
            continue
        literal = None
        after_gap = number > 0 and not lines[number - 1].strip()
        bullet = line.lstrip().startswith(("- ", "* "))
        if SECTION.match(line):
            in_section = True
        elif depth == 0 and after_gap:
            in_section = False
        if after_gap and depth > outer and not bullet and not in_section:
            literal = depth
            made += [" " * outer + ".. code-block:: text", "", line]
            continue
        outer = depth if not in_section else outer
        if SECTION.match(line):
            name, rest = line.split(":", 1)
            if name == "Source" and rest.strip():  # on one line, as everywhere here
                made += ["Source:", f"    {escaped(rest.strip())}"]
                continue
        name = NAMED.match(line).group() if in_section and NAMED.match(line) else ""
        made.append(name + escaped(line[len(name) :]))
    return made


def process(app, what, name, thing, options, lines) -> None:
    lines[:] = rewritten(lines)


def without_fields(app, what, name, thing, options, signature, returned):
    """No signature for classes that are results: their docstring lists attributes, and nobody calls them.

    Settings list attributes too; all of theirs have a default.
    """
    if what != "class" or "Attributes:" not in (thing.__doc__ or ""):
        return None
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else []
    # Where the two are one, both are missing.
    if not fields or any(field.default is field.default_factory for field in fields):
        return "", returned
    return None


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", process, priority=100)  # Napoleon has 500
    app.connect("autodoc-process-signature", without_fields)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

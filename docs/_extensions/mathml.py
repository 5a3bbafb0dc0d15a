"""Formulas as MathML, made from TeX at build time: browsers set it without a script, so that nothing is fetched.

The font, STIX Two Math, comes with the package ziamath and is copied into the site.
"""

import re
import shutil
from importlib.resources import files
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

log = logging.getLogger(__name__)
# The converter's name of an environment, and space where TeX leaves some.
KNOWN = {"{aligned}": "{align*}", r"\sim": r"\;\sim\;", r"\ln ": r"\ln\, "}
UPRIGHT = re.compile(r"<mi>(&#x003(?:9[1-9A-F]|A[0-9]);)</mi>")  # capital Greek letters
# MathML Core knows letters of another style by their own code points only.
STYLES = {"script": 0x1D49C, "double-struck": 0x1D538, "bold": 0x1D400}
LETTERLIKE = {
    "script": dict(zip("BEFHILMR", "ℬℰℱℋℐℒℳℛ", strict=True)),
    "double-struck": {"N": "ℕ", "R": "ℝ"},
    "bold": {},
}


def styled(match: re.Match) -> str:
    style, letter = match.groups()
    return f"<mi>{LETTERLIKE[style].get(letter) or chr(STYLES[style] + ord(letter) - ord('A'))}</mi>"


def mathml_of(tex: str, display: str, node) -> str:
    for name, known in KNOWN.items():
        tex = tex.replace(name, known)
    try:
        made = convert(tex, display=display)
    except Exception as error:
        log.warning("cannot convert %r: %s", tex, error, location=node)
        return ""
    if "\\" in made or "&</mi>" in made:
        log.warning("a command is unknown in %r", tex, location=node)
    made = UPRIGHT.sub(r'<mi mathvariant="normal">\1</mi>', made)
    return re.sub(r'<mi mathvariant="(script|double-struck|bold)">([A-Z])</mi>', styled, made)


def visit_inline(writer, node) -> None:
    writer.body.append(mathml_of(node.astext(), "inline", node))
    raise SkipNode


def visit_display(writer, node) -> None:
    writer.body.append(
        f'<div class="formula">{mathml_of(node.astext(), "block", node)}</div>\n'
    )
    raise SkipNode


def copy_font(app, error) -> None:
    if error is None and app.builder.format == "html":
        place = Path(app.outdir) / "_static" / "STIXTwoMath-Regular.ttf"
        with (
            (files("ziamath") / "fonts" / place.name).open("rb") as source,
            place.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.connect("build-finished", copy_font)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Every tutorial can be downloaded as a Jupyter notebook, made from its page when the site is built."""

from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook

FOLDER = "tutorials/"
PLACE = "_static/notebooks"
LINK = '\n<a class="notebook" href="../{place}/{name}.ipynb" download>Download this page as a notebook</a>\n'


def is_notebook(docname: str) -> bool:
    return docname.startswith(FOLDER) and not docname.endswith("index")


def add_link(app, docname: str, source: list[str]) -> None:
    """Below the title."""
    if is_notebook(docname):
        lines = source[0].split("\n")
        title = next(number for number, line in enumerate(lines) if line.startswith("# "))
        link = LINK.format(place=PLACE, name=docname.removeprefix(FOLDER))
        source[0] = "\n".join([*lines[: title + 1], link, *lines[title + 1 :]])


def write_notebooks(app, error) -> None:
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / PLACE
    folder.mkdir(parents=True, exist_ok=True)
    for docname in filter(is_notebook, app.env.found_docs):
        page = Path(app.srcdir) / f"{docname}.md"
        notebook = read_myst_markdown_notebook(page.read_text(encoding="utf-8"))
        nbformat.validate(notebook)
        nbformat.write(notebook, folder / f"{page.stem}.ipynb")


def setup(app) -> dict:
    app.connect("source-read", add_link)
    app.connect("build-finished", write_notebooks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

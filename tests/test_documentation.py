"""The documentation is checked by running it (the examples: test_examples.py)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Pages with Python blocks; notebooks are run when the site is built.
ALL_PAGES = [page for folder in (".", "how_to") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]
PAGES = [page for page in ALL_PAGES if "```python" in page.read_text()]


def run_snippets(page):
    """Execute the Python blocks of a page in order, in one namespace, and return it."""
    names: dict = {}
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(snippet, page.name, "exec"), names)
    return names


def test_the_readme_snippets_run_in_order(capsys):
    run_snippets(ROOT / "README.md")
    assert "agree" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_the_docs_run_in_order(page, capsys):
    run_snippets(page)
    printed = capsys.readouterr().out
    for promised in re.findall(r"^print\(.*\)  # ([-.\d]+)$", page.read_text(), re.MULTILINE):
        assert re.search(rf"{re.escape(promised)}\d*", printed)


def test_the_readme_prints_both_commands_where_ci_looks_for_them():
    text = (ROOT / "README.md").read_text()
    for marker, ending in (("report", "bayesnet report"), ("tests", "-m pytest")):
        command = re.search(rf"<!-- command: {marker} -->\n    (.+)\n", text)
        assert command
        assert command.group(1).endswith(ending)

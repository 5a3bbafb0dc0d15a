"""The documentation is checked by running it: README snippets and every example at small size."""

import importlib.util
import json
import re
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_snippets_run_in_order(capsys):
    names: dict = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    assert "agree" in capsys.readouterr().out
    assert names["kernel"].shape == (100, 3, 1, 3, 1)


def test_the_readme_prints_both_commands_where_ci_looks_for_them():
    text = (ROOT / "README.md").read_text()
    for marker, ending in (("report", "bayesnet report"), ("tests", "-m pytest")):
        command = re.search(rf"<!-- command: {marker} -->\n    (.+)\n", text)
        assert command
        assert command.group(1).endswith(ending)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_quickly_without_a_verdict(path, tmp_path, capsys):
    matplotlib.use("Agg")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--quick", "--width", "64", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("NO VERDICT")
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "NO VERDICT"
    assert list(tmp_path.glob("*.png"))

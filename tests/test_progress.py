"""Progress is a widget in a notebook that has ipywidgets, and text elsewhere."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import tqdm
import tqdm.notebook

from bayesnet.progress import progress_bar, progress_shown
from theory.progress import progress_line


@pytest.fixture
def notebook(monkeypatch):
    """The kernel of a notebook, as far as the packages look at it; what is displayed in it."""
    displayed = []
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=displayed.append))
    return displayed


def add_widgets(monkeypatch):
    module = ModuleType("ipywidgets")
    module.__spec__ = ModuleSpec("ipywidgets", None)
    module.Label = SimpleNamespace
    monkeypatch.setitem(sys.modules, "ipywidgets", module)
    monkeypatch.setattr(tqdm.notebook, "tqdm", lambda **options: ("widget", options))


def test_a_notebook_with_widgets(notebook, monkeypatch, capsys):
    add_widgets(monkeypatch)
    assert progress_shown(None)
    assert progress_bar(total=3) == ("widget", {"total": 3})
    show = progress_line()
    show("first")
    show("second")
    assert [label.value for label in notebook] == ["second"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kernel", [True, False])
def test_text_elsewhere(kernel, request, monkeypatch, capsys):
    """In a notebook without ipywidgets, and with ipywidgets outside of notebooks."""
    if kernel:
        displayed = request.getfixturevalue("notebook")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        displayed = []
        add_widgets(monkeypatch)
    with progress_bar(total=2) as bar:
        bar.update(2)
    progress_line()("where it stands")
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "where it stands\n" in shown
    assert not displayed


def test_a_hidden_bar_displays_nothing(notebook, monkeypatch, capsys):
    add_widgets(monkeypatch)
    with progress_bar(total=2, disable=True) as bar:
        bar.update(2)
    assert not notebook
    assert capsys.readouterr().err == ""

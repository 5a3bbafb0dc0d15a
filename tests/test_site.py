"""The documentation site, without building it: whatever is public has its place, and links lead somewhere."""

import inspect
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import bayesnet
import theory

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page for ending in ("md", "rst") for page in DOCS.rglob(f"*.{ending}") if "_build" not in page.parts)
MARKDOWN = [page for page in PAGES if page.suffix == ".md"]
REFERENCE = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.rst"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("package", [bayesnet, theory], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package):
    listed = set(re.findall(rf"^   {package.__name__}\.([\w.]+)$", REFERENCE, re.MULTILINE))
    documented = set(re.findall(r"auto(?:function|class|module):: (?:bayesnet\.|theory\.)?([\w.]+)", REFERENCE))
    same_elsewhere = {"Network", "Task", "theory", "__version__"} if package is bayesnet else set()
    modules = {name for name in package.__all__ if inspect.ismodule(getattr(package, name))}
    for name in sorted(set(package.__all__) - same_elsewhere):
        if name in modules:
            assert name in documented, f"{package.__name__}.{name} is on no page of docs/api"
        else:
            assert name in listed | {f"models.{name}"}, f"{package.__name__}.{name} is in no table of docs/api"
            assert name in documented, f"{package.__name__}.{name} is described on no page of docs/api"


def test_every_page_is_in_a_table_of_contents_and_every_entry_exists():
    entries = set()
    for page in MARKDOWN:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.strip() and not line.startswith(":"):
                    entries.add((page.parent / line.strip()).resolve())
    pages = {page.with_suffix("").resolve() for page in PAGES}
    assert entries - pages == set()
    assert pages - entries == {(DOCS / "index").resolve()}


def anchors_of(page):
    """The anchors that MyST makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_internal_links_resolve(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_pictures_exist_and_captions_are_short(page):
    for path, body in re.findall(r"```\{figure\} (\S+)\n(.*?)```", page.read_text(), re.DOTALL):
        assert (page.parent / path).exists()
        assert ":alt:" in body
        caption = body.split("\n\n", 1)[1]
        assert 1 <= len(re.findall(r"[.?!](?:\s|$)", caption)) <= 5, f"{path}: {caption}"


def test_nothing_is_fetched_from_elsewhere():
    """No script, style or font of another host: the site works offline."""
    sources = [DOCS / "conf.py", *(DOCS / "_static").glob("*"), *(DOCS / "_extensions").glob("*.py")]
    for source in sources:
        assert not re.search(r"https?://(?!www\.w3\.org)", source.read_text()), source

"""Building the pages: only when something has changed, and a plain word where it cannot be done."""

import shutil
from pathlib import Path

import pytest

from deploy.local import pages
from deploy.local.errors import StackError

NPM = """#!/bin/sh
echo "$*" >> calls
if [ "$1" = ci ]; then mkdir -p node_modules; else mkdir -p dist; cp page dist/page; fi
exit {status}
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    """A folder that is all of PATH, with a node that is new enough."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "cp"):
        (folder / name).symlink_to(shutil.which(name))
    add(folder, "node", "#!/bin/sh\necho v22.12.0\n")
    add(folder, "npm", NPM.format(status=0))
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "dashboard"
    folder.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc", "page"):
        (folder / name).write_text(name)
    return folder


def add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def calls(sources: Path) -> list[str]:
    """What npm was called for since the last look, and forget it: it is no source."""
    file = sources / "calls"
    found = [line.split(" --")[0] for line in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def test_pages_are_built_when_sources_change_and_packages_fetched_when_these_do(tools, sources, monkeypatch):
    monkeypatch.setattr(pages, "_NOT_SOURCES", {*pages._NOT_SOURCES, "calls"})
    assert not pages.built(sources)
    pages.build(sources)
    assert pages.built(sources) and calls(sources) == ["ci", "run build"]
    pages.build(sources)
    assert calls(sources) == []
    (sources / "page").write_text("another")
    assert not pages.built(sources)
    pages.build(sources)
    assert pages.built(sources) and calls(sources) == ["run build"]
    assert (sources / "dist" / "page").read_text() == "another"
    (sources / "package-lock.json").write_text("another")
    pages.build(sources)
    assert calls(sources) == ["ci", "run build"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("node", None, "node not found: install Node.js 20.19 or newer"),
        ("npm", None, "npm not found: install Node.js 20.19 or newer"),
        ("node", "#!/bin/sh\necho v18.20.4\n", r"node is too old \(v18.20.4\)"),
    ],
)
def test_without_a_node_that_will_do_it_says_what_to_install(tools, sources, name, text, told):
    (tools / name).unlink()
    if text:
        add(tools, name, text)
    with pytest.raises(pages.PagesMissing, match=told):
        pages.build(sources)


def test_a_build_that_fails_is_told_with_what_npm_said_and_tried_again(tools, sources):
    add(tools, "npm", "#!/bin/sh\necho no such type; exit 1\n")
    with pytest.raises(StackError, match=r"(?s)npm could not fetch.*no such type"):
        pages.build(sources)
    assert not pages.built(sources)


def test_pages_that_are_built_need_no_node(tools, sources, monkeypatch):
    monkeypatch.setattr(pages, "_NOT_SOURCES", {*pages._NOT_SOURCES, "calls"})
    pages.build(sources)
    (tools / "node").unlink()
    pages.build(sources)

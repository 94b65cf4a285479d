"""The browser is found, or installed where that can be done, or asked for in a plain word."""

import os
import shutil
from pathlib import Path

import pytest

from deploy.chromium import ChromiumMissing, path

APT_GET = """#!/bin/sh
echo "$1" >> {folder}/calls
[ "$1" = update ] && exit 100
for word in "$@"; do
  if [ "$word" = chromium ]; then {works} && echo '#!/bin/sh' > {folder}/chromium && chmod +x {folder}/chromium; fi
done
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    """A folder that is all of PATH: no browser in it."""
    for name in ("sh", "chmod"):
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().split() if file.exists() else []


def test_a_browser_that_is_there_is_used(tools):
    add(tools, "apt-get", APT_GET.format(folder=tools, works="true"))
    add(tools, "google-chrome", "#!/bin/sh\n")
    assert path() == str(tools / "google-chrome") and calls(tools) == []


def test_a_missing_browser_is_installed_also_from_lists_that_cannot_be_brought_up_to_date(tools):
    add(tools, "apt-get", APT_GET.format(folder=tools, works="true"))
    assert path() == str(tools / "chromium") and calls(tools) == ["update", "install"]


def test_where_it_cannot_be_installed_it_says_what_to_do(tools, monkeypatch):
    told = "install it"
    with pytest.raises(ChromiumMissing, match=told):  # no apt-get
        path()
    add(tools, "apt-get", APT_GET.format(folder=tools, works="false"))
    with pytest.raises(ChromiumMissing, match=told):
        path()
    assert calls(tools) == ["update", "install"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ChromiumMissing, match=told):
        path()
    assert calls(tools) == ["update", "install"], "an ordinary user is not made to wait for a refusal"

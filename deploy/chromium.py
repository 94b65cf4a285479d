"""The browser of the browser tests and of the screenshots: the system's Chromium, driven by Playwright's core.

`python -m deploy.chromium` puts it there where that can be done (as root, with apt-get), else says what to install.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADVICE = "Chromium not found, which the browser tests drive: install it (apt-get install chromium)"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No page's timers are slowed down for being in the background: none is in the foreground here.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
)


class ChromiumMissing(Exception):
    """There is no Chromium, and it could not be installed; the message says what to do."""


def path() -> str:
    """The program, installed if need be. Raises ChromiumMissing."""
    if found := _found():
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [
            "apt-get",
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "chromium",
            "fonts-dejavu-core",
        ]
        for command in (["apt-get", "update", "-q"], install):
            subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if found := _found():
            return found
    raise ChromiumMissing(ADVICE)


def _found() -> str | None:
    return next((where for name in NAMES if (where := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser, without a window. Raises ChromiumMissing."""
    program = path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    try:
        print(path())
    except ChromiumMissing as missing:
        sys.exit(f"make: {missing}")

"""`python -m deploy.screenshots`: pictures of every view into docs/screenshots, light and dark, wide and narrow.

They are of a stack of its own, real from end to end, below a temporary folder. Its generator sends about a thousand
events a second, in waves, for WARM_UP_S, so that lines have a shape: the history is by the minute.
"""

import argparse
import json
import math
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page

from deploy.chromium import chromium
from deploy.local import pages
from deploy.local.__main__ import step
from deploy.local.home import Home
from deploy.local.services import REPOSITORY
from deploy.local.stack import Stack

WARM_UP_S = 840
"""As much of the history as is shown; less will do to try things."""
WAVE_S, RATE_EVERY_S = 300, 5
SIZES = {"wide": (1440, 900), "narrow": (360, 780)}
VIEWS = {"live": "#/live", "history": "#/history", "pipeline": "#/pipeline"}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--into", type=Path, default=REPOSITORY / "docs" / "screenshots", help="folder of the pictures"
    )
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP_S, help="seconds of events before the first picture"
    )
    parser.add_argument("--api", help="pictures of a stack that runs already: the dashboard's address")
    parser.add_argument("--generator", help="and that of the generator's page")
    given = parser.parse_args(arguments)
    given.into.mkdir(parents=True, exist_ok=True)
    if given.api and given.generator:
        take_all(given.api, given.generator, given.into)
        return 0
    pages.build()
    with tempfile.TemporaryDirectory(prefix="hotpath-screenshots-") as folder:
        Path(folder).chmod(0o711)  # Postgres may have to run as another user
        stack = Stack(Home(Path(folder) / "home"))
        try:
            stack.up(step)
            settings = stack.settings()
            with step(f"sending events for {given.warm_up:.0f} s"):
                live_a_little(settings["HOTPATH_GENERATOR_URL"], given.warm_up)
            take_all(settings["HOTPATH_API_URL"], settings["HOTPATH_GENERATOR_URL"], given.into)
        finally:
            stack.clean(step)
    return 0


def live_a_little(generator: str, seconds: float) -> None:
    """Change the rate as if days took WAVE_S and some of them had an event."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        wave = math.sin(2 * math.pi * passed / WAVE_S) + 0.4 * math.sin(2 * math.pi * passed / 67)
        rate = 1_000 * (1 + 0.5 * wave) + (2_500 if passed % 420 > 400 else 0)
        _press(generator, round(rate))
        time.sleep(RATE_EVERY_S)
    _press(generator, 1_000)  # one of the page's buttons


def _press(generator: str, rate: int) -> None:
    body = json.dumps({"rate": rate, "bots": True, "malformed": True}).encode()
    request = urllib.request.Request(
        f"{generator}/api/v1/state", body, {"Content-Type": "application/json"}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=5).close()


def take_all(api: str, generator: str, into: Path) -> None:
    """Every view in both schemes and both sizes."""
    with chromium() as browser:
        for scheme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                page = _open(browser, scheme, width, height)
                for name, hash_ in VIEWS.items():
                    page.goto(f"{api}/{hash_}")
                    if name == "history":
                        page.get_by_role("button", name="15 min").click()
                    elif name == "pipeline":
                        page.get_by_label("Range of the ledger").select_option("last 15 min")
                    _settle(page)
                    _take(page, into / f"{name}-{size}-{scheme}.png", full=size == "wide")
                page.goto(generator)
                _settle(page)
                _take(page, into / f"generator-{size}-{scheme}.png", full=size == "wide")
                page.close()


def _open(browser: Browser, scheme: str, width: int, height: int) -> Page:
    return browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)


def _settle(page: Page) -> None:
    page.wait_for_selector("[data-testid=status]")
    page.wait_for_timeout(6_000)  # small lines that begin when the page is opened get a shape


def _take(page: Page, path: Path, full: bool) -> None:
    page.screenshot(path=path, full_page=full)
    print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

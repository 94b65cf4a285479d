"""The generator's page in a real browser: its buttons, its console, and what it says while Kafka is away."""

import pytest

from tests.browser.conftest import System, Watched
from tests.browser.test_dashboard import check
from tests.support.pipeline import wait_until


@pytest.fixture
def page(system: System, visit) -> Watched:
    """The page, of a generator that sends nothing yet."""
    system.generator.settled()
    watched = visit(system.generator.url)
    wait_until(lambda: watched.word() == "Stopped", "it says that nothing is sent")
    return watched


@pytest.mark.parametrize(("rate", "grouped"), [(100, False), (1_000, False), (10_000, True)])
def test_a_button_is_reached_and_every_event_is_in_the_console(
    system: System, page: Watched, rate: int, grouped: bool
):
    before = system.generator.state()["delivered"]
    page.page.get_by_role("button", name=f"{rate:,} events per second", exact=True).click()
    wait_until(lambda: page.number("target") == rate, "the target is shown")
    # The machine does other things, too: that a rate is held is shown elsewhere.
    wait_until(lambda: page.number("reached") > 0.5 * rate, f"{rate}/s are nearly reached", 60)
    # Without waiting for two quiet frames, as click() does: a busy machine with an open console may have none.
    page.page.get_by_role("button", name="Stop").dispatch_event("click")
    wait_until(lambda: page.word() == "Stopped", "it has stopped", 60)
    delivered = system.generator.settled()["delivered"] - before
    wait_until(lambda: page.events() >= delivered, f"all {delivered} events are in the console")
    assert page.events() == delivered
    assert (page.groups > 0) is grouped
    wait_until(
        lambda: page.number("sent") == system.generator.state()["sent"], "the page counts what was sent"
    )
    assert page.number("failed") == 0
    wait_until(lambda: page.page.locator(".newest tbody tr").count() == 12, "the newest are listed")
    assert page.errors == []


def test_two_pages_show_the_same_generator(system: System, page: Watched, visit):
    other = visit(system.generator.url)
    page.page.get_by_role("button", name="100 events per second", exact=True).click()
    wait_until(lambda: other.number("target") == 100 and other.word() == "Sending", "the other page follows")
    bots = other.page.get_by_label("Bots")
    was = bots.is_checked()
    bots.click()
    wait_until(lambda: page.page.get_by_label("Bots").is_checked() is not was, "and this one the other")
    assert system.generator.state()["bots"] is not was
    other.page.get_by_role("button", name="Stop").click()
    wait_until(lambda: page.word() == "Stopped", "both have stopped")


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1920)])
def test_the_page_fits_and_is_accessible(system: System, visit, axe, scheme: str, width: int):
    watched = visit(system.generator.url, scheme=scheme, width=width)
    watched.page.get_by_role("button", name="100 events per second", exact=True).click()
    wait_until(lambda: watched.page.locator(".newest tbody tr").count(), "events are listed")
    check(watched, axe)
    assert watched.errors == []
    system.generator.settled()

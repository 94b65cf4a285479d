"""The dashboard in a real browser, over a real system: it moves, agrees with the API, says what it does not know."""

import json
import subprocess
from datetime import datetime

import pytest

from deploy.local import pages
from tests.browser.conftest import PARTITIONS, System, Watched
from tests.support.pipeline import wait_until
from tests.support.services import ServiceProcess

VIEWS = ("live", "history", "pipeline")


@pytest.fixture
def flowing(system: System) -> System:
    """The system while events flow, and live."""
    system.generator.change(rate=300, bots=True, malformed=True)
    wait_until(lambda: system.api.ask("/api/v1/summary")[0] == 200, "the API has numbers", 60)
    return system


def live(system: System, visit, **how) -> Watched:
    watched = visit(f"{system.api.url}/#/live", **how)
    wait_until(lambda: watched.word() == "Live", "the page is live")
    return watched


def shown(watched: Watched) -> dict:
    """The numbers of the live view."""
    bars = watched.page.locator(".top-pages li")
    return {
        "users": watched.number("active-users"),
        "pages": [
            (
                bar.locator(".bar-name").inner_text(),
                int(bar.locator(".bar-value").inner_text().split()[0].replace(",", "")),
            )
            for bar in bars.all()
        ],
    }


def of(summary: dict) -> dict:
    """The same of the API's reply."""
    pages = [(page["page_url"], page["views"]) for page in summary["top_pages"]["pages"][:5]]
    return {"users": summary["active_users"]["value"], "pages": pages}


def test_the_sources_pass_their_own_tests():
    pages.build()
    done = subprocess.run(["npm", "test"], cwd=pages.FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_numbers_move_and_agree_with_the_api(flowing: System, visit):
    watched = live(flowing, visit)
    wait_until(lambda: watched.number("events-per-s") > 100, "the rate is shown")
    first = shown(watched)
    assert len(first["pages"]) == 5
    wait_until(lambda: shown(watched)["pages"] != first["pages"], "the views of pages move")
    assert watched.page.locator(".hero canvas").count() == 1
    assert watched.text("workers").split() == ["2", "of", "2"]

    flowing.generator.settled()
    flowing.pipeline.wait_until_applied()

    def agree() -> bool:
        before = of(flowing.summary())
        return before == shown(watched) and before == of(flowing.summary())

    wait_until(agree, "page and API show the same")
    assert watched.number("lag") == 0
    assert watched.errors == []


def test_a_user_is_looked_up_by_the_keyboard_alone(flowing: System, visit):
    watched = live(flowing, visit)
    users = wait_until(lambda: flowing.summary()["top_users"]["users"], "somebody has a session")
    user = users[0]["user_id"]
    keyboard = watched.page.keyboard
    keyboard.press("Tab")
    assert watched.page.locator(":focus").inner_text() == "Skip to the numbers"
    keyboard.press("Enter")
    for _ in range(10):
        keyboard.press("Tab")
        if watched.page.locator(":focus").get_attribute("type") == "search":
            break
    keyboard.type(user)
    keyboard.press("Enter")
    found = watched.page.get_by_test_id("one-user")
    found.locator("tbody tr").first.wait_for()
    expected = flowing.api.ask(f"/api/v1/users/{user}/sessions")[1]
    assert expected["user_id"] == user
    named = {session["session_id"] for session in expected["sessions"]}

    def sessions() -> set[str]:
        return set(found.locator("tbody td:first-child").all_inner_texts())

    wait_until(lambda: named <= sessions(), f"{named} are shown")
    assert watched.errors == []


HOSTILE = [
    "/<script>document.title = 'run'</script><img src=x onerror=alert(1)>",
    "https://example.org/" + "a-long-path/" * 169,
    "/\u202egnp.elif",
    "/\u0645\u0631\u062d\u0628\u0627",
    "/\u200b",
]


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 2560)])
def test_names_that_try_to_break_the_page_are_shown_as_they_are_in_numbers_of_long_ago(
    flowing: System, visit, axe, scheme: str, width: int
):
    """Of the longest names and large numbers, that are behind and then cut off."""
    summary = flowing.summary()
    summary |= {"as_of": "2026-01-01T00:00:00Z", "lag_events": 123_456_789}
    summary["top_pages"]["pages"] = [{"page_url": url, "views": 12_345_678} for url in HOSTILE]
    users = ["x" * 128, "<b>bold</b>", "\u202enimda"]
    summary["top_users"]["users"] = [{"user_id": user, "active_sessions": 3} for user in users]
    watched = visit("about:blank", scheme=scheme, width=width)
    page = watched.page
    body = f"event: summary\ndata: {json.dumps(summary)}\n\n"
    page.route("**/api/v1/stream", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto(f"{flowing.api.url}/#/live")
    wait_until(lambda: page.locator(".bars li").count() == 5, "the pages are shown")
    names = page.locator(".bar-name").all_inner_texts()
    assert names[:3] == [HOSTILE[0], HOSTILE[1], "/‹U+202E›gnp.elif"] and names[4] == "/‹U+200B›"
    assert "123,456,789" in watched.text("lag")
    check(watched, axe)

    page.get_by_role("button", name="x" * 128).press("Enter")
    page.get_by_text("0 active sessions").wait_for()
    assert page.locator(":focus").inner_text().startswith("x" * 128), "the focus goes where the user is told"
    check(watched, axe)
    page.get_by_role("button", name="Back to the list").press("Enter")
    wait_until(lambda: page.locator(":focus").get_attribute("data-testid") == "top-users", "and back")
    assert page.title() == "Live · hotpath" and watched.errors == []


def test_history_and_its_range_picker(flowing: System, visit):
    watched = visit(f"{flowing.api.url}/#/history")
    page = watched.page
    wait_until(
        lambda: page.locator(".figure .tile-value").first.inner_text() not in ("", "0"), "events are shown"
    )
    assert page.locator(".chart canvas").count() == 1
    wait_until(lambda: page.locator(".bars li").count() >= 5, "the range's pages are shown")
    page.get_by_role("button", name="6 hours").click()
    page.get_by_role("heading", name="per 5 min").wait_for()
    page.reload()
    page.get_by_role("heading", name="per 5 min").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as hotpath-history.csv").click()
    assert saved.value.suggested_filename == "hotpath-history.csv"
    page.get_by_role("button", name="From … to").click()
    page.get_by_label("From", exact=True).fill("2020-01-02T00:00")
    page.get_by_label("to", exact=True).fill("2020-01-01T00:00")
    page.get_by_role("button", name="Show").click()
    assert "begin before it ends" in page.get_by_role("alert").inner_text()
    assert watched.errors == []


def test_the_history_says_what_took_too_long_to_count_and_what_is_an_earlier_answer(flowing: System, visit):
    watched = visit(f"{flowing.api.url}/history")
    page = watched.page
    page.get_by_role("heading", name="Events and users per minute").wait_for()

    def left_out(route) -> None:
        """The API's own reply, as it is when Postgres is too slow for all but one of the queries."""
        reply = route.fetch()
        body = reply.json()
        steps = [step | {"events": None, "users": None} for step in body["steps"]]
        route.fulfill(response=reply, json=body | {"steps": steps, "top_pages": None})

    page.route("**/api/v1/history*", left_out)
    page.get_by_role("button", name="15 min").click()
    page.get_by_role("heading", name="Events per minute").wait_for()
    figures = page.locator(".figure").all_inner_texts()
    assert [figure.split("\n")[2] == "–" for figure in figures] == [True, False, True, True], figures
    assert page.get_by_text("it would take too long").count() == 4
    assert page.locator(".chart canvas").count() == 1, "what is known is drawn"
    assert watched.errors == []

    page.route("**/api/v1/history*", lambda route: route.abort())
    page.get_by_role("button", name="6 hours").click()
    page.get_by_text("The history cannot be read.").wait_for()
    assert page.locator(".stack.old .chart").count() == 1
    page.get_by_role("button", name="Save as hotpath-history.csv").click()
    page.get_by_role("alert").get_by_text("The server cannot be reached.", exact=True).last.wait_for()
    assert watched.failures == []


def test_a_range_of_the_past_comes_by_itself_when_the_api_is_back(flowing: System, visit):
    watched = visit("about:blank")
    page = watched.page
    page.route("**/api/v1/history*", lambda route: route.abort())
    page.goto(f"{flowing.api.url}/#/history?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")
    page.get_by_text("The history cannot be read.").wait_for()
    page.unroute("**/api/v1/history*")
    page.get_by_text("Nothing came in this range.").wait_for()
    assert page.get_by_label("From", exact=True).input_value().startswith("2026-01-0")
    assert watched.failures == []


def test_the_pipeline_view_shows_workers_a_ledger_that_adds_up_and_raw_bytes(flowing: System, visit, axe):
    flowing.pipeline.topic.produce([(None, b"   "), (None, b""), (None, "\u00ad\u00a0".encode())])
    wait_until(
        lambda: flowing.pipeline.query("SELECT count(*) FROM quarantine")[0][0] > 25,
        "enough is in quarantine",
    )
    watched = visit(f"{flowing.api.url}/#/pipeline")
    page = watched.page
    workers = page.get_by_test_id("workers-table").locator("tbody tr")
    wait_until(lambda: workers.count() == 2, "both workers are shown")
    assert all(
        "running" in row and f"{PARTITIONS // 2} partitions" in row for row in workers.all_inner_texts()
    )
    page.get_by_test_id("equation").wait_for()
    assert "both sides are equal" in watched.text("verdict")
    terms = page.locator(".term-value").all_inner_texts()
    received, *parts = [int(term.replace(",", "")) for term in terms]
    assert received == sum(parts) and len(parts) > 2

    rows = page.get_by_test_id("quarantine").locator("tbody tr")
    page.get_by_label("Only this class").select_option("not_json")
    wait_until(
        lambda: set(page.locator(".tag").all_inner_texts()) == {"not json"}, "only that class is shown"
    )
    page.get_by_label("Only this class").select_option("empty")
    # Nothing to see is something to tell.
    for name in ("(3 spaces)", "(nothing)"):
        page.get_by_role("button", name=name, exact=True).first.wait_for()
    check(watched, axe)
    page.get_by_label("Only this class").select_option("not_json")
    page.get_by_role("button", name="‹U+00AD›‹U+00A0›", exact=True).wait_for()
    page.get_by_label("Only this class").select_option("")
    with page.expect_response(lambda response: "cursor=" in response.url):
        page.get_by_role("button", name="Older").click()
    page.get_by_text("page 2").wait_for()
    page.locator('[data-testid="quarantine"][aria-busy="false"]').wait_for()
    rows.first.get_by_role("button").click()
    page.locator(".dump").wait_for()
    assert page.locator(".dump").inner_text().startswith(("0000  ", "(no bytes)"))
    assert watched.errors == []


def test_it_says_that_redis_is_away_and_recovers_by_itself(flowing: System, visit):
    watched = live(flowing, visit)
    before = watched.number("active-users")
    flowing.redis.kill()
    try:
        wait_until(lambda: watched.word() == "No live numbers", "it says that Redis is away")
        told = watched.text("banner")
        assert "Redis" in told and "old" in told
        assert watched.number("active-users") > 0, f"the last numbers stay, marked as old, as {before} was"
        assert watched.page.locator(".live-grid.old").count() == 1
    finally:
        flowing.redis.start()
    wait_until(lambda: watched.word() == "Live", "it is live again", 60)
    assert watched.page.locator(".live-grid.old").count() == 0
    assert watched.errors == [], "a stream that says `unavailable` is no error"


def test_it_reconnects_when_the_api_was_killed(flowing: System, visit):
    watched = live(flowing, visit)
    flowing.api.kill()
    try:
        wait_until(lambda: watched.word() == "Cut off", "it says that it is cut off")
        assert "Trying again" in watched.text("banner")
    finally:
        flowing.api.start()
    wait_until(lambda: watched.word() == "Live", "it is live again", 60)
    assert watched.failures == [] and all("ERR_" in text for text in watched.errors), watched.errors


def test_a_token_is_asked_for_kept_and_used(flowing: System, visit):
    api = ServiceProcess("api", "HOTPATH_API", {**flowing.settings, "HOTPATH_API_TOKEN": "s3cret"})
    api.start()
    try:
        watched = visit(f"{api.url}/#/live")
        page = watched.page
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.keyboard.press("Enter")
        assert "does not know that token" in page.get_by_role("alert").inner_text()
        page.get_by_role("textbox", name="Token").fill("s3cret")
        page.keyboard.press("Enter")
        wait_until(lambda: watched.word() == "Live", "the page is live")
        page.reload()
        wait_until(lambda: watched.word() == "Live", "it is live after a reload, unasked")
        assert page.evaluate("localStorage.length") == 0
    finally:
        api.kill()


def check(watched: Watched, axe: str) -> None:
    """No scrolling sideways, and nothing serious to say for axe."""
    page = watched.page
    width, seen = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= seen, f"{page.url} is {width} px wide in a window of {seen}"
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (fault["id"], fault["help"], [node["html"][:120] for node in fault["nodes"]][:3])
        for fault in report["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == [], json.dumps(serious, indent=1)


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 360), ("dark", 1920), ("light", 1920), ("dark", 360)]
)
def test_every_view_fits_and_is_accessible_in_both_schemes(
    flowing: System, visit, axe, scheme: str, width: int
):
    watched = live(flowing, visit, scheme=scheme, width=width)
    for view in VIEWS:
        watched.page.goto(f"{flowing.api.url}/#/{view}")
        watched.page.locator("main h2").first.wait_for()
        wait_until(lambda: watched.page.locator(".loading").count() == 0, "it is loaded")
        check(watched, axe)
    dark = watched.page.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert dark == scheme
    watched.page.get_by_role("button", name="scheme").click()
    assert watched.page.evaluate("getComputedStyle(document.documentElement).colorScheme") != scheme
    assert watched.errors == []
    assert datetime.fromisoformat(flowing.summary()["as_of"])

"""`hotpath top`: what the workers do, live in the terminal, from the supervisor's status.

It reads /status and nothing else, so it sees what the API's pipeline view sees. It keeps the replies of the last few
seconds: what an event costs, and what becomes of the events, are told of those, not of the whole life of a worker.
"""

import collections
import signal
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException, InvalidURL

import orjson
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hotpath.console import exit_code_of
from hotpath.errors import ConfigError, Unavailable
from hotpath.events import EventClass
from hotpath.settings import PipelineSettings, load
from hotpath.shm.control import STAGES

PROGRAM = "hotpath top"
COSTS_OVER_S = 10.0
"""Costs are means over so many seconds: long enough for a few flushes, short enough to see a change."""
RING_BAR_WIDTH = 6
SILENT_S = 5
"""A worker's loops go round many times a second; one that is silent for so long is shown as such."""
STATE_STYLES = {"running": "green", "starting": "yellow", "draining": "yellow", "paused": "yellow"}
# Loopback needs no proxy, whatever the environment says.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class TopSettings(BaseSettings):
    """Where the supervisor is, and how often to look."""

    model_config = SettingsConfigDict(
        env_prefix="HOTPATH_",
        frozen=True,
        extra="ignore",
        cli_implicit_flags="toggle",
        cli_shortcuts={"status-url": "url", "top-interval-s": "interval", "top-once": "once"},
    )

    status_url: str = Field("", description="where the supervisor serves its status; empty: host and port")
    status_host: str = PipelineSettings.model_fields["status_host"]
    status_port: int = PipelineSettings.model_fields["status_port"]
    top_interval_s: float = Field(1, ge=0.1, le=3_600, description="seconds from one look to the next")
    top_once: bool = Field(False, description="print one table and end")

    @property
    def url(self) -> str:
        """The address of the status itself."""
        base = self.status_url or f"http://{self.status_host}:{self.status_port}"
        return base.rstrip("/").removesuffix("/status") + "/status"


def fetch(url: str, timeout_s: float = 2) -> dict:
    """The supervisor's status. Raises Unavailable when none is served there, ConfigError when `url` is none."""
    try:
        with _DIRECTLY.open(url, timeout=timeout_s) as reply:
            status = orjson.loads(reply.read())
    except orjson.JSONDecodeError:
        raise Unavailable(f"what answers at {url} is no supervisor") from None
    except (ValueError, InvalidURL) as error:
        raise ConfigError(f"--url {url}: {error}") from None
    except (OSError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise Unavailable(
            f"no supervisor answers at {url} ({reason}); is it running, and is HOTPATH_STATUS_URL right?"
        ) from None
    if not isinstance(status, dict) or "workers" not in status:
        raise Unavailable(f"what answers at {url} is no supervisor")
    return status


class Recent:
    """The replies of the last seconds, to tell what changed since: of each life of a worker alone."""

    def __init__(self) -> None:
        self._replies: collections.deque[tuple[float, dict[int, dict]]] = collections.deque()

    def since(self, status: dict) -> dict[int, dict]:
        """Per worker, by its index, what it has done lately; of one just met, since it started."""
        now = time.monotonic()
        living = {worker["worker"]: worker for worker in status["workers"] if "received" in worker}
        while self._replies and now - self._replies[0][0] > COSTS_OVER_S:
            self._replies.popleft()
        found = {index: self._of(worker, now) for index, worker in living.items()}
        self._replies.append((now, living))
        return found

    def _of(self, worker: dict, now: float) -> dict:
        then, before = now - max(worker["uptime_s"], 0.1), {}
        for at, living in self._replies:
            known = living.get(worker["worker"], {})
            if known.get("pid") == worker["pid"] and known["received"] <= worker["received"]:
                then, before = at, known
                break
        seconds = max(now - then, 0.001)
        stages, classes = before.get("stage_cpu_s", {}), before.get("classes", {})
        return {
            "seconds": seconds,
            "received": worker["received"] - before.get("received", 0),
            "cpu_s": worker.get("cpu_s", 0) - before.get("cpu_s", 0),
            "stage_cpu_s": {name: worker["stage_cpu_s"][name] - stages.get(name, 0) for name in STAGES},
            "classes": {name: count - classes.get(name, 0) for name, count in worker["classes"].items()},
        }


def tables(status: dict, recent: Recent) -> Group:
    """The whole picture: what each worker does, what it costs, and what became of the messages.

    Raises Unavailable when the status is that of another version of this program.
    """
    workers = status["workers"]
    try:
        since = recent.since(status)
        return Group(_states(workers), Text(), _costs(workers, since), Text(), _classes(workers, since))
    except (KeyError, TypeError) as error:
        raise Unavailable(f"the supervisor is of another version: its status lacks {error}") from None


def _table(*headings: str, left: int = 1, title: str | None = None) -> Table:
    """A table that fits 80 columns; all but the first `left` columns hold numbers."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right", no_wrap=True)
    return table


def _states(workers: list[dict]) -> Table:
    headings = ("worker", "state", "events/s", "lag", "Redis lag", "ring", "", "flush ms", "restarts")
    table = _table(*headings, left=2)
    for worker in workers:
        name, restarts = str(worker["worker"]), _count(worker["restarts"])
        if "received" not in worker:
            state = worker["state"].replace("waiting to restart", "restarting")
            table.add_row(name, Text(state, style="red"), *[""] * 6, restarts)
            continue
        used, slots = worker["ring_used"], worker["ring_slots"]
        table.add_row(
            name,
            _state(worker),
            *(_count(worker[column]) for column in ("events_per_s", "lag_events", "redis_lag_events")),
            ProgressBar(slots, used, width=RING_BAR_WIDTH),
            f"{used}/{slots}",
            f"{worker['flush_last_s'] * 1_000:.0f} ~{worker['flush_mean_s'] * 1_000:.0f}",
            restarts,
        )
    sums = [_count(_sum(workers, name)) for name in ("events_per_s", "lag_events", "redis_lag_events")]
    table.add_row("all", "", *sums, "", "", "", _count(_sum(workers, "restarts")), style="bold")
    return table


def _state(worker: dict) -> Text:
    away = [name for name, fault in (("Kafka", "kafka_down"), ("Redis", "redis_away")) if worker[fault]]
    if away:
        return Text("no " + ", ".join(away), style="red")
    if worker["heartbeat_age_s"] > SILENT_S:
        return Text(f"silent {worker['heartbeat_age_s']:.0f} s", style="red")
    return Text(worker["state"], style=STATE_STYLES.get(worker["state"], ""))


def _costs(workers: list[dict], since: dict[int, dict]) -> Table:
    title = "CPU, µs an event; CPU, %; memory, and of it bot counts, MiB"
    table = _table("", *STAGES, "all", "CPU", "MiB", "bots", title=title)
    for worker in workers:
        lately = since.get(worker["worker"])
        if lately is None:
            continue
        table.add_row(
            str(worker["worker"]),
            *_microseconds(lately["stage_cpu_s"], lately["received"]),
            f"{100 * lately['cpu_s'] / lately['seconds']:.0f}",
            _mebibytes(worker.get("rss_bytes", 0)),
            _mebibytes(worker["bot_counts_bytes"]),
        )
    stages = {name: sum(lately["stage_cpu_s"][name] for lately in since.values()) for name in STAGES}
    table.add_row(
        "all",
        *_microseconds(stages, _sum(list(since.values()), "received")),
        f"{sum(100 * lately['cpu_s'] / lately['seconds'] for lately in since.values()):.0f}",
        _mebibytes(_sum(workers, "rss_bytes")),
        _mebibytes(_sum(workers, "bot_counts_bytes")),
        style="bold",
    )
    return table


def _classes(workers: list[dict], since: dict[int, dict]) -> Table:
    """Since the workers started, and a second lately; classes that never came are left out.

    The most frequent first: a low terminal cuts the end off.
    """
    table = _table("class", "messages", "share", "a second")
    counts = {
        c.label: sum(worker.get("classes", {}).get(c.label, 0) for worker in workers) for c in EventClass
    }
    total = sum(counts.values())
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            rate = sum(lately["classes"][name] / lately["seconds"] for lately in since.values())
            table.add_row(name, f"{count:,}", f"{100 * count / total:.2f} %", _count(rate))
    rate = sum(sum(lately["classes"].values()) / lately["seconds"] for lately in since.values())
    table.add_row("all", f"{total:,}", "", _count(rate), style="bold")
    return table


def _microseconds(stage_cpu_s: dict[str, float], events: int) -> list[str]:
    if not events:
        return ["-"] * (len(STAGES) + 1)
    each = [1e6 * stage_cpu_s[name] / events for name in STAGES]
    return [f"{cost:.2f}" for cost in [*each, sum(each)]]


def _sum(rows: list[dict], name: str) -> float:
    return sum(row.get(name, 0) for row in rows)


def _count(number: float) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 1e7 else f"{number:,.0f}"


def _mebibytes(nbytes: float) -> str:
    return f"{nbytes / 2**20:,.0f}"


class Screen:
    """What is shown now: the newest tables, and whether the supervisor still answers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._recent = Recent()
        self._tables: RenderableType = Text()
        self._answered_at: float | None = None

    def look(self) -> RenderableType:
        """Ask the supervisor and return the whole screen; one that is away is said to be, and asked again."""
        try:
            status = fetch(self._url)
            self._tables = tables(status, self._recent)
        except Unavailable as away:
            return Group(Text(self._absence(away), style="bold red"), Text(), self._tables)
        self._answered_at = time.monotonic()
        heading = Text.assemble(("hotpath", "bold"), f"  supervisor {status['pid']} at {self._url}")
        return Group(heading, Text(), self._tables)

    def _absence(self, away: Unavailable) -> str:
        if self._answered_at is None:
            return f"{away}; trying again"
        return f"{away}; trying again, and showing what was {time.monotonic() - self._answered_at:.0f} s ago"


def watch(screen: Screen, console: Console, interval_s: float) -> None:
    """Show the screen again and again, until Ctrl-C; below each other where there is no terminal."""
    if not console.is_terminal:
        while True:
            console.print(screen.look(), Text())
            time.sleep(interval_s)
    live = Live(screen.look(), console=console, screen=True, auto_refresh=False)
    try:  # not `with`: Ctrl-C while it draws for the first time would leave the terminal on our screen
        live.start(refresh=True)
        while True:
            time.sleep(interval_s)
            live.update(screen.look(), refresh=True)
    finally:
        live.stop()


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    settings = load(TopSettings, arguments, PROGRAM)
    console = Console(highlight=False)
    if settings.top_once:
        console.print(tables(fetch(settings.url), Recent()))
        return
    # As by Ctrl-C: the terminal must get its own screen back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        watch(Screen(settings.url), console, settings.top_interval_s)
    except KeyboardInterrupt:
        return  # the way to leave


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())

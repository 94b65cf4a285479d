"""One browser and one whole system for the tests of this folder: supervisor, API and generator over private servers.

The pages are built first, as `make up` does it. Playwright keeps an event loop running in this thread while its
browser is open: no test here uses asyncio.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from deploy.chromium import chromium
from deploy.local import pages
from deploy.local.kafka import KafkaServer
from deploy.local.redis_server import RedisServer
from tests.support.pipeline import ROOT, Pipeline, Topic
from tests.support.servers import start_redis
from tests.support.services import GeneratorProcess, ServiceProcess

AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
PARTITIONS = 4


@dataclass
class System:
    """What the pages show."""

    api: ServiceProcess
    generator: GeneratorProcess
    redis: RedisServer
    pipeline: Pipeline
    settings: dict[str, str]

    def summary(self) -> dict:
        status, body = self.api.ask("/api/v1/summary")
        assert status == 200, body
        return body


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def system(servers_home, kafka: KafkaServer, databases) -> Iterator[System]:
    pages.build()
    redis = start_redis(servers_home)
    database = databases.create()
    kafka.create_topic("browser", PARTITIONS)
    topic = Topic(kafka.bootstrap, kafka.client_options, "browser", PARTITIONS)
    with Pipeline(topic, database, redis.url) as pipeline:
        settings = {
            "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
            "HOTPATH_TOPIC": topic.name,
            "HOTPATH_POSTGRES_DSN": database,
            "HOTPATH_REDIS_URL": redis.url,
            "HOTPATH_STATUS_URL": pipeline.status_url,
            "HOTPATH_GENERATOR_RATE": "0",
            "HOTPATH_GENERATOR_USERS": "2000",
        }
        api = ServiceProcess("api", "HOTPATH_API", settings)
        generator = GeneratorProcess(settings)
        try:
            api.start()
            generator.start()
            yield System(api, generator, redis, pipeline, settings)
        finally:
            api.kill()
            generator.kill()
    redis.kill()
    databases.drop(database)
    kafka.delete_topic("browser")


@dataclass
class Watched:
    """A page, and all that it said and asked for."""

    page: Page
    red: list[str] = field(default_factory=list)
    groups: int = 0
    logged: set[str] = field(default_factory=set)
    """The first word of every line that was logged, those in groups included."""
    failures: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def hear(self, message: ConsoleMessage) -> None:
        """Take what the page says, once: at ten thousand lines a second they cannot be gone through again."""
        if message.type in ("error", "warning"):
            self.red.append(message.text)
        elif message.type == "startGroupCollapsed":
            self.groups += 1
        elif message.type == "log":
            self.logged.update(line.partition(" ")[0] for line in message.text.split("\n"))

    def events(self) -> int:
        """Different events in the console by now, by partition and offset.

        Playwright hands messages over only while it is asked something.
        """
        self.page.evaluate("0")
        return sum(1 for word in self.logged if word.replace(":", "").isdigit())

    @property
    def errors(self) -> list[str]:
        """What the console shows in red, exceptions included: breaches of the content policy are among them."""
        self.page.evaluate("0")
        return self.red + self.failures

    def text(self, test_id: str) -> str:
        return self.page.get_by_test_id(test_id).inner_text()

    def number(self, test_id: str) -> float:
        """The number that a tile shows, its unit aside; -1 while it shows none."""
        digits = "".join(c for c in self.text(test_id).split("/")[0] if c.isdigit() or c == ".")
        return float(digits) if digits else -1

    def word(self) -> str:
        return self.page.get_by_test_id("status").get_attribute("data-word") or ""


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """`visit(url, scheme="dark", width=360)`: a new page; at the end none of them may have asked another host."""
    opened: list[Watched] = []

    def visit(url: str, *, scheme: str = "light", width: int = 1280, height: int = 900) -> Watched:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        watched = Watched(page)
        page.on("console", lambda message: watched.hear(message))
        page.on("pageerror", lambda error: watched.failures.append(str(error)))
        page.on("request", lambda request: watched.hosts.add(request.url.split("/")[2]))
        page.goto(url)
        opened.append(watched)
        return watched

    yield visit
    for watched in opened:
        own = watched.page.url.split("/")[2]
        assert {host for host in watched.hosts if host} <= {own}
        watched.page.close()


@pytest.fixture(scope="session")
def axe() -> str:
    return Path(AXE).read_text()

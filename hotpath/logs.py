"""What an operator does about logs: `python -m hotpath.logs list`, `retire`, `skip`.

list    where Postgres stands in each log of the topic, and what Kafka has of it
retire  the topic was made anew: give the logs of its other incarnations up. Their history stays, they leave the live
        views, and workers begin the new topic at its beginning. What they held and was not read is lost. Giving them
        up can be undone: workers that find the old incarnation again (a wrong HOTPATH_KAFKA_BOOTSTRAP) go on with it.
skip    retention has passed where Postgres is: enter the loss in the ledger and continue at what Kafka still has

`retire` and `skip` change only what a worker would stop at (exit code 5), and refuse while the log's owner is there.
"""

import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import psycopg
from pydantic import Field
from pydantic_settings import CliImplicitFlag
from rich.console import Console
from rich.table import Table

from hotpath import sql
from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import ConfigError, HotpathError
from hotpath.kafka import describe_topic, log_ranges
from hotpath.preflight import check_postgres
from hotpath.settings import Settings, load
from hotpath.workers import logs
from hotpath.workers.logs import RETENTION_PASSED, LogHandle

log = logging.getLogger(__name__)

PROGRAM = "python -m hotpath.logs"
WIDTH_IN_FILES = 160
ACTIONS = ("list", "retire", "skip")


class LogsSettings(Settings):
    """How logs are shown."""

    json_: CliImplicitFlag[bool] = Field(
        False, alias="json", description="list: print JSON instead of a table"
    )


@dataclass(frozen=True)
class LogReport:
    """A log as Postgres has it, and the offsets that Kafka holds of it: [low, high), None where it holds nothing."""

    log_id: int
    topic_id: str
    partition: int
    next_offset: int
    epoch: int
    watermark_s: int
    retired_at: datetime | None
    updated_at: datetime
    owner: str
    held: bool
    low: int | None = None
    high: int | None = None

    @property
    def state(self) -> str:
        """What is the matter with it, in a word or two."""
        if self.retired_at is not None:
            return "given up"
        if self.low is None:
            return "other incarnation"
        if self.next_offset < self.low:
            return "retention passed"
        return "log shortened" if self.next_offset > self.high else "ok"

    @property
    def lag(self) -> int | None:
        """Offsets that Kafka holds beyond Postgres's."""
        return None if self.high is None else max(0, self.high - max(self.next_offset, self.low))

    def as_json(self) -> dict[str, object]:
        return vars(self) | {"state": self.state, "lag": self.lag}


def read_logs(settings: Settings, connection: psycopg.Connection, topic_id: str) -> list[LogReport]:
    """Every log of the topic, the present incarnation's with what Kafka has. Raises Unavailable."""
    rows = connection.execute(sql.QUERIES["topic_logs"], {"topic": settings.topic}).fetchall()
    ranges = log_ranges(settings, [row[2] for row in rows if row[1] == topic_id])
    nothing = (None, None)
    return [LogReport(*row, *(ranges[row[2]] if row[1] == topic_id else nothing)) for row in rows]


def retire(connection: psycopg.Connection, topic: str, topic_id: str, reports: list[LogReport]) -> int:
    """Give up the logs of the topic's other incarnations; how many. Raises HotpathError while one is owned."""
    others = [report for report in reports if report.retired_at is None and report.topic_id != topic_id]
    _refuse_held(others)
    for report in others:
        log.info(
            "giving up partition %d of topic %s: what followed offset %d in it was not read",
            report.partition,
            report.topic_id,
            report.next_offset,
        )
    return logs.retire_other_incarnations(connection, topic, topic_id) if others else 0


def skip(connection: psycopg.Connection, reports: list[LogReport]) -> int:
    """Enter what retention has taken in the ledger; in how many logs. Raises HotpathError while one is owned."""
    passed = [report for report in reports if report.state == "retention passed"]
    _refuse_held(passed)
    with connection.transaction():
        for report in passed:
            handle = LogHandle(
                report.log_id, report.partition, report.epoch, report.next_offset, report.watermark_s
            )
            logs.record_loss(connection, handle, report.low, RETENTION_PASSED)
            log.info(
                "partition %d: offsets %d to %d are entered as lost",
                report.partition,
                report.next_offset,
                report.low - 1,
            )
    return len(passed)


def _refuse_held(reports: list[LogReport]) -> None:
    held = next((report for report in reports if report.held), None)
    if held is not None:
        raise HotpathError(
            f"partition {held.partition} (log {held.log_id}) has an owner, {held.owner}: stop its supervisor first"
        )


def _table(reports: list[LogReport]) -> Table:
    table = Table("partition", "log", "state", "next offset", "Kafka holds", "lag", "watermark", "owner")
    for report in reports:
        watermark = datetime.fromtimestamp(report.watermark_s, UTC)
        table.add_row(
            str(report.partition),
            str(report.log_id),
            report.state
            if report.state in ("ok", "retention passed")
            else f"{report.state} {report.topic_id}",
            f"{report.next_offset:,}",
            "" if report.low is None else f"{report.low:,} to {report.high:,}",
            "" if report.lag is None else f"{report.lag:,}",
            f"{watermark:%Y-%m-%d %H:%M:%S}" if report.watermark_s else "",
            f"{report.owner}{'' if report.held else ' (gone)'}",
        )
    return table


def run(arguments: list[str]) -> None:
    """The command. Raises HotpathError."""
    action, given = "list", arguments
    if arguments and not arguments[0].startswith("-"):
        action, *given = arguments
    if action not in ACTIONS:
        raise ConfigError(f"there is no {action!r}; there are {', '.join(ACTIONS)}; see {PROGRAM} --help")
    settings = load(LogsSettings, given, f"{PROGRAM} {'|'.join(ACTIONS)}")
    configure_logging(settings, "logs")
    check_postgres(settings)
    topic = describe_topic(settings)
    with psycopg.connect(
        settings.postgres_dsn, autocommit=True, application_name="hotpath logs"
    ) as connection:
        reports = read_logs(settings, connection, topic.topic_id)
        if action == "retire":
            count = retire(connection, topic.name, topic.topic_id, reports)
            print(f"{count} logs of other incarnations of topic {topic.name!r} were given up")
        elif action == "skip":
            print(f"losses were entered for {skip(connection, reports)} logs of topic {topic.name!r}")
        elif settings.json_:
            print(orjson.dumps([report.as_json() for report in reports], option=orjson.OPT_INDENT_2).decode())
        else:
            Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES).print(_table(reports))


def main() -> int:
    return exit_code_of(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())

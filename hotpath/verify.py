"""Proves that Postgres and Redis hold what Kafka's log says: `hotpath verify [--from ... --to ...] [--full] [--json]`.

It reads the log itself, decides by the same rules what must have become of every message, and compares: events and
late events row by row, quarantine, bot activity, the ledger and `partition_state` by class and range, and every live
view. The order on a live pipeline, in which nothing has to stand still:

1. the live views are read from Redis, each log between two looks at the offset that is applied
2. Postgres's snapshot is taken: it reaches at least as far
3. each log is read up to the next_offset of the snapshot, and compared with it
4. at the end of each log, what was read of its live views is compared with what the log says they must hold

Exit code 0 when all is proven, 1 with the first differences, 2 and 3 when a setting is wrong or a server away.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource
from rich.console import Console
from rich.progress import Progress

from hotpath.console import CommandParser, configure_logging
from hotpath.errors import HotpathError, Unavailable
from hotpath.events import EventClass
from hotpath.kafka import admin_client, describe_topic, log_ranges
from hotpath.preflight import check_postgres, check_redis
from hotpath.proof.bot_activity import BotActivityRows
from hotpath.proof.event_rows import EventRows
from hotpath.proof.findings import Findings
from hotpath.proof.history import compare_pages
from hotpath.proof.ledger import LedgerRows
from hotpath.proof.log_proof import LogProof, Manner, Stored
from hotpath.proof.messages import LogReader
from hotpath.proof.plan import BEYOND, FIRST, Bounds, LogPlan, Planner, parse_bound, parse_partitions
from hotpath.proof.quarantine_rows import QuarantineRows
from hotpath.proof.report import print_report
from hotpath.proof.snapshot import RowStream, Snapshot, Span
from hotpath.proof.view_proof import ViewProof
from hotpath.settings import PipelineSettings, load
from hotpath.views.postgres import open_logs

PROGRAM = "hotpath verify"
WIDTH_IN_FILES = 160


@dataclass(frozen=True)
class Options:
    """What is to be proven, and how."""

    bounds: Bounds = field(default_factory=Bounds)
    partitions: str = ""
    full: bool = False
    seed: int = 1
    as_json: bool = False


def prove(settings: PipelineSettings, options: Options, console: Console) -> Findings:
    """All of it. Raises HotpathError; `console` shows the progress."""
    check_postgres(settings)
    check_redis(settings)
    try:
        return _prove(settings, options, console)
    except psycopg.Error as error:
        raise Unavailable(f"Postgres: {' '.join(str(error).split())}") from error
    except redis.RedisError as error:
        raise Unavailable(f"Redis: {error}") from error
    except KafkaException as error:
        raise Unavailable(f"Kafka: {error.args[0].str()}") from error


def _prove(settings: PipelineSettings, options: Options, console: Console) -> Findings:
    findings = Findings()
    topic = describe_topic(settings)
    partitions = parse_partitions(options.partitions, topic.partitions)
    reader = LogReader(settings)
    views = ViewProof(settings, findings)
    snapshot = None
    try:
        views.read(_logs(settings, topic.topic_id, partitions))  # 1
        snapshot = Snapshot(settings.postgres_dsn)  # 2
        ranges = log_ranges(settings, partitions)
        planner = Planner(snapshot, reader, topic, settings, findings)
        plans = planner.plans(partitions, options.bounds, ranges)
        manner = Manner(settings, options.seed, options.full, _compacted(settings), datetime.now(UTC))
        _prove_logs(plans, manner, snapshot, reader, views, findings, console)  # 3, 4
        _find_strays(snapshot, plans, findings)
        compare_pages(snapshot, manner.now - timedelta(days=settings.retention_history_days), findings)
        views.compare_list(open_logs(snapshot.connection))
    finally:
        reader.close()
        views.close()
        if snapshot is not None:
            snapshot.close()
    return findings


def _logs(settings: PipelineSettings, topic_id: str, partitions: list[int]) -> list[tuple[int, str]]:
    """(log_id, topic/partition) of the logs whose views are to be compared."""
    snapshot = Snapshot(settings.postgres_dsn)
    try:
        rows = snapshot.query("proof_logs")
    finally:
        snapshot.close()
    return [
        (row[0], f"{row[1]}/{row[3]}")
        for row in rows
        if row[1:3] == (settings.topic, topic_id) and row[3] in partitions and not row[6]
    ]


def _prove_logs(
    plans: list[LogPlan],
    manner: Manner,
    snapshot: Snapshot,
    reader: LogReader,
    views: ViewProof,
    findings: Findings,
    console: Console,
) -> None:
    spans = [Span(plan.log_id, plan.first_offset, plan.next_offset) for plan in plans]
    log_ids = [span.log_id for span in spans]
    firsts = [span.first_offset for span in spans]
    nexts = [span.next_offset for span in spans]
    compacted = manner.compacted
    streams = [RowStream(snapshot, query, spans) for query in ("proof_event_rows", "proof_late_event_rows")]
    quarantine = snapshot.rows("proof_quarantine", log_ids=log_ids, firsts=firsts, nexts=nexts)
    stored = Stored(
        EventRows("events", EventClass.ACCEPTED, streams[0], compacted, findings),
        EventRows("late_events", EventClass.LATE, streams[1], compacted, findings),
        QuarantineRows(quarantine, compacted, findings),
        LedgerRows(snapshot.rows("proof_ledger", log_ids=log_ids, firsts=firsts)),
        BotActivityRows(snapshot.rows("proof_bot_activity", log_ids=log_ids)),
    )
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("reading the log", total=sum(nexts) - sum(firsts))
            for plan in plans:
                progress.update(task, description=f"partition {plan.partition}")
                LogProof(
                    plan,
                    manner,
                    snapshot,
                    reader,
                    stored,
                    views,
                    findings,
                    lambda offsets: progress.advance(task, offsets),
                ).run()
    finally:
        for stream in streams:
            stream.close()


def _find_strays(snapshot: Snapshot, plans: list[LogPlan], findings: Findings) -> None:
    """Rows that belong to no offset that was compared, and to none that was left out for a reason."""
    partition_of = {plan.log_id: plan.partition for plan in plans}
    outside = snapshot.query(
        "proof_outside",
        log_ids=list(partition_of),
        firsts=[plan.first_offset if plan.from_beginning else FIRST for plan in plans],
        nexts=[plan.next_offset if plan.to_end else BEYOND for plan in plans],
    )
    for table, log_id, offset in outside:
        findings.differ(
            table, partition_of[log_id], offset, "", "none, the log has not been read there", "a row"
        )
    for table, log_id, count in snapshot.query("proof_strays"):
        findings.differ(
            table, None, None, f"log {log_id}", "no rows, there is no such log", f"{count:,} rows"
        )


def _compacted(settings: PipelineSettings) -> bool:
    """Whether Kafka removes messages of the topic that others have superseded."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic)
    try:
        answer = admin_client(settings).describe_configs([resource], request_timeout=10)[resource].result(11)
    except (KafkaException, TimeoutError):
        return False  # not everybody may ask; the proof is only stricter without
    return "compact" in answer["cleanup.policy"].value


def parse(arguments: list[str]) -> tuple[Options, PipelineSettings]:
    """Options and settings from flags. Raises ConfigError."""
    parser = CommandParser(
        PROGRAM,
        "Prove that Postgres and Redis hold what Kafka's log says.",
        "Retention and --quarantine-rows-max must be those of the workers.",
    )
    parser.add_argument(
        "--from",
        dest="begin",
        default="",
        help="first offset of each partition, or a time of appending: 2026-03-15T14:30:00Z",
    )
    parser.add_argument("--to", dest="end", default="", help="offset or time to stop before")
    parser.add_argument("--partitions", default="", help="like 0,4-7; all unless told")
    parser.add_argument("--full", action="store_true", help="judge every message by the plain reference, too")
    parser.add_argument(
        "--seed", type=int, default=1, help="chooses the users whose messages are judged twice (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, rest = parser.parse_known_args(arguments)
    bounds = Bounds(parse_bound("--from", given.begin), parse_bound("--to", given.end))
    options = Options(bounds, given.partitions, given.full, abs(given.seed), given.json)
    return options, load(PipelineSettings, rest, PROGRAM)


def run(arguments: list[str]) -> int:
    """The command; its exit code. Raises HotpathError."""
    options, settings = parse(arguments)
    configure_logging(settings, "verify")
    began = time.monotonic()
    findings = prove(settings, options, Console(stderr=True))
    seconds = time.monotonic() - began
    if options.as_json:
        print(json.dumps(findings.as_json() | {"seconds": round(seconds, 3)}))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = WIDTH_IN_FILES
        print_report(console, findings, seconds)
    return 0 if findings.proven else 1


def main() -> int:
    try:
        return run(sys.argv[1:])
    except HotpathError as error:
        print(f"hotpath: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

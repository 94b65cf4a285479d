"""Messages that were refused, for people: `hotpath quarantine list|show|replay`.

list                          the latest of them, by class, partition, time
show PARTITION/OFFSET         one message: what is known of it, and its bytes, whole while Kafka has them
replay [PARTITION/OFFSET]     send one, or all that the flags choose, again; see replay.py
"""

import json
import re
import sys
from argparse import Namespace
from contextlib import closing
from datetime import UTC, datetime

import psycopg
from confluent_kafka import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotpath import sql
from hotpath.console import CommandParser, configure_logging
from hotpath.errors import ConfigError, HotpathError, Unavailable
from hotpath.events import QUARANTINED
from hotpath.kafka import describe_topic
from hotpath.preflight import check_postgres
from hotpath.replay import Fetcher, Outcome, Quarantined, Replay
from hotpath.settings import Settings, load

PROGRAM = "hotpath quarantine"
LIMIT = 50
REFUSALS_SHOWN_MAX = 20
WIDTH_IN_FILES = 160
HEX_BYTES = 16
"""Bytes of a line of a hexdump."""


def parse(arguments: list[str]) -> tuple[Namespace, Settings]:
    """What to do, and the settings. Raises ConfigError."""
    parser = CommandParser(PROGRAM, "List, show and replay messages that were refused.")
    parser.add_argument("action", choices=("list", "show", "replay"))
    parser.add_argument("place", nargs="?", metavar="PARTITION/OFFSET", help="one message")
    labels = [event_class.label for event_class in QUARANTINED]
    parser.add_argument("--class", dest="event_class", choices=labels, help="of this class")
    parser.add_argument("--partition", type=int, help="of this partition")
    parser.add_argument("--since", help="stored at or after this time, like 2026-03-15T14:30:00Z")
    parser.add_argument("--until", help="stored before this time")
    parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="list: one JSON object a line")
    parser.add_argument("--dry-run", action="store_true", help="replay: only say what would be sent")
    parser.add_argument(
        "--force", action="store_true", help="replay: also under the same rules, and once more"
    )
    given, rest = parser.parse_known_args(arguments)
    given.since, given.until = _time("--since", given.since), _time("--until", given.until)
    given.offset = None
    if given.place is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", given.place)
        if match is None:
            raise ConfigError(f"{given.place!r} is no PARTITION/OFFSET like 3/17; see {PROGRAM} --help")
        given.partition, given.offset = int(match[1]), int(match[2])
    elif given.action == "show":
        raise ConfigError(f"show needs a PARTITION/OFFSET like 3/17; {PROGRAM} list has them")
    if given.limit < 1:
        raise ConfigError(f"--limit: {given.limit} is no number of messages")
    return given, load(Settings, rest, PROGRAM)


def _time(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{flag}: {text!r} is no time like 2026-03-15T14:30:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def find(connection: psycopg.Connection, settings: Settings, given: Namespace) -> list[Quarantined]:
    """The rows that are asked for, the latest first."""
    parameters = {
        "topic": settings.topic,
        "class": given.event_class,
        "partition": given.partition,
        "offset": given.offset,
        "since": given.since,
        "until": given.until,
        "limit": given.limit,
    }
    return [Quarantined(*row) for row in connection.execute(sql.QUERIES["quarantined"], parameters)]


def list_rows(rows: list[Quarantined], as_json: bool) -> None:
    """Print them."""
    if as_json:
        for row in rows:
            print(json.dumps(_facts(row)))
        return
    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("message", "left"),
        ("class", "left"),
        ("bytes", "right"),
        ("stored (UTC)", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("why")
    for row in rows:
        why = row.detail if row.replayed_at is None else f"{row.detail} (replayed {_stamp(row.replayed_at)})"
        place = f"{row.partition}/{row.offset}"
        table.add_row(place, row.event_class, f"{row.payload_size:,}", _stamp(row.stored_at), Text(why))
    console = Console(highlight=False)
    console.print(table, width=None if console.is_terminal else WIDTH_IN_FILES)


def show(row: Quarantined, message: Message | None) -> None:
    """Print what is known of a message; `message` as Kafka has it, or None."""
    for name, value in _facts(row).items():
        print(f"{name + ':':<14}{value}")
    payload = row.payload
    if message is not None:
        key = message.key()
        print(f"{'key:':<14}{'none' if key is None else _readable(key)}")
        for name, value in message.headers() or ():
            print(f"{'header:':<14}{name}={'none' if value is None else _readable(value)}")
        payload = message.value()
    elif row.payload_size > len(payload):
        print(f"Kafka has it no more; the first {len(payload):,} bytes:")
    print()
    print("(null)" if payload is None else _readable(payload))


def _facts(row: Quarantined) -> dict[str, object]:
    return {
        "partition": row.partition,
        "offset": row.offset,
        "class": row.event_class,
        "detail": row.detail,
        "bytes": row.payload_size,
        "stored_at": _stamp(row.stored_at),
        "replayed_at": row.replayed_at and _stamp(row.replayed_at),
    }


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _readable(data: bytes) -> str:
    """Text where the bytes are text, else a hexdump."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return hexdump(data)
    # Control characters, also those of other scripts' directions, could make a terminal lie.
    return (
        text if all(character.isprintable() or character in "\n\t" for character in text) else hexdump(data)
    )


def hexdump(data: bytes) -> str:
    """Lines of offset, bytes in hexadecimal, and the characters of those that are ASCII."""
    lines = []
    for at in range(0, len(data), HEX_BYTES):
        piece = data[at : at + HEX_BYTES]
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{at:08x}  {piece.hex(' '):<{3 * HEX_BYTES}} {characters}")
    return "\n".join(lines)


def replay(rows: list[Quarantined], running: Replay, dry_run: bool) -> int:
    """Replay rows, the oldest first, and tell what became of each; how many were refused."""
    refused = sent = 0
    for outcome in running.run(sorted(rows, key=lambda row: (row.stored_at, row.partition, row.offset))):
        if outcome.refusal:
            refused += 1
            if refused <= REFUSALS_SHOWN_MAX:
                print(f"hotpath: {_place(outcome)}: {outcome.refusal}", file=sys.stderr)
            continue
        sent += 1
        went = "would be sent again" if dry_run else f"sent again as {outcome.partition}/{outcome.offset}"
        print(f"{_place(outcome)}: {went}")
    if refused > REFUSALS_SHOWN_MAX:
        print(f"hotpath: ... and {refused - REFUSALS_SHOWN_MAX:,} more were not", file=sys.stderr)
    print(f"{sent:,} {'would be ' if dry_run else ''}sent again, {refused:,} not")
    return refused


def _place(outcome: Outcome) -> str:
    return f"{outcome.row.partition}/{outcome.row.offset} ({outcome.row.event_class})"


def run(arguments: list[str]) -> int:
    """The command; its exit code. Raises HotpathError."""
    given, settings = parse(arguments)
    configure_logging(settings, "quarantine")
    check_postgres(settings)
    with psycopg.connect(settings.postgres_dsn, autocommit=True, application_name=PROGRAM) as connection:
        rows = find(connection, settings, given)
        if given.offset is not None and not rows:
            raise HotpathError(f"quarantine has no message {given.place} of topic {settings.topic!r}")
        if given.action == "list":
            list_rows(rows, given.json)
            return 0
        topic_id = describe_topic(settings).topic_id
        if given.action == "show":
            row = rows[0]
            with closing(Fetcher(settings)) as fetcher:
                show(row, fetcher.fetch(row.partition, row.offset) if row.topic_id == topic_id else None)
            return 0
        with closing(
            Replay(settings, topic_id, connection, force=given.force, dry_run=given.dry_run)
        ) as running:
            return 1 if replay(rows, running, given.dry_run) else 0


def main() -> int:
    try:
        return run(sys.argv[1:])
    except HotpathError as error:
        print(f"hotpath: {error}", file=sys.stderr)
        return error.exit_code
    except psycopg.Error as error:
        print(f"hotpath: Postgres: {' '.join(str(error).split())}", file=sys.stderr)
        return Unavailable.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Postgres alone: the rows of a finished run, copied once more by as many writers, with nothing before it.

This is the upper bound of any sink on this machine: binary COPY, prepared buffers, one transaction a writer,
into a fresh database of the same schema.
"""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psycopg

_COLUMNS = "log_id, kafka_offset, ts, user_id, event_type, page_url, session_id"


@dataclass(frozen=True)
class RawCopy:
    """What it took."""

    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def rows_of(dsn: str, writers: int) -> list[list[bytes]]:
    """The binary COPY streams of all events of a database, as one list of buffers for each writer."""
    query = f"COPY (SELECT {_COLUMNS} FROM events WHERE log_id %% %s = %s) TO STDOUT (FORMAT binary)"
    streams = []
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        for writer in range(writers):
            with cursor.copy(query, (writers, writer)) as copy:
                streams.append(joined(bytes(piece) for piece in copy))
    return streams


def joined(pieces, buffer_bytes: int = 1 << 20) -> list[bytes]:
    """Postgres sends a row at a time: buffers of about a megabyte instead."""
    buffers, waiting, size = [], [], 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= buffer_bytes:
            buffers.append(b"".join(waiting))
            waiting, size = [], 0
    return [*buffers, b"".join(waiting)]


def copy_raw(dsn: str, streams: list[list[bytes]]) -> RawCopy:
    """Copy each stream into `events` of the database, all at once. Raises what a writer raised."""
    counts: list[int] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(len(streams) + 1)

    def write(buffers: list[bytes]) -> None:
        try:
            with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
                ready.wait(30)
                with cursor.copy(f"COPY events ({_COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
                    for buffer in buffers:
                        copy.write(buffer)
                counts.append(cursor.rowcount)
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=write, args=(buffers,)) for buffers in streams]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait(30)
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if errors:
        raise errors[0]
    return RawCopy(sum(counts), seconds)

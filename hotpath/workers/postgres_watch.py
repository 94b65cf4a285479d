"""Watches that Postgres can be reached from here, whatever the sinks wait for.

A worker's own sessions cannot tell: a statement that takes long, waits for a lock, or was sent into a dead connection
all look the same for many seconds. So a session of its own asks for nothing once a second. State owned: that session,
its thread, and the moment of the last answer.
"""

import logging
import threading
import time

import psycopg

from hotpath import sql
from hotpath.settings import PipelineSettings

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
CONNECT_TIMEOUT_S = 2
"""libpq's least."""


class PostgresWatch:
    """Asks in a thread; the thread may hang in a dead connection, and then the answers are as old as they look."""

    def __init__(self, settings: PipelineSettings, worker: int) -> None:
        self._dsn = settings.postgres_dsn
        self._name = f"hotpath worker {worker} watches"
        self._answered_at = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="postgres-watch", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """Seconds since Postgres last answered."""
        return time.monotonic() - self._answered_at

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with psycopg.connect(
                    self._dsn,
                    autocommit=True,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    application_name=self._name,
                ) as connection:
                    while not self._closed.is_set():
                        connection.execute(sql.QUERIES["ask_nothing"])
                        self._answered_at = time.monotonic()
                        self._closed.wait(INTERVAL_S)
            except psycopg.Error as error:
                log.debug("Postgres does not answer: %s", error)
                self._closed.wait(INTERVAL_S / 4)

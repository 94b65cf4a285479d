"""Errors that a person meets, each with the exit code of a process that ends by it.

A message says what happened, to what, and what to do about it, in one line.
"""


class HotpathError(Exception):
    """Any failure that is explained rather than traced."""

    exit_code = 1


class ConfigError(HotpathError):
    """A setting is missing or cannot be used."""

    exit_code = 2


class Unavailable(HotpathError):
    """Kafka, Postgres, Redis or the schema is not there."""

    exit_code = 3


class Fenced(HotpathError):
    """Another owner has taken over a log of this worker: it must not write any more."""

    exit_code = 4


class LogLost(HotpathError):
    """The log does not hold the messages that Postgres is to continue with."""

    exit_code = 5

    def __init__(self, message: str, partition: int | None = None) -> None:
        """`partition`: the only one at fault; None when it is the whole topic."""
        super().__init__(message)
        self.partition = partition


class LogShorter(LogLost):
    """Kafka ends before the offset that Postgres is to continue with."""

    def __init__(self, message: str, partition: int, next_offset: int) -> None:
        """`next_offset`: where Postgres is in `partition`."""
        super().__init__(message, partition)
        self.next_offset = next_offset


class PositionLost(HotpathError):
    """Kafka does not hold the offset to read on from; a fresh start finds out why, and what may be done."""

    exit_code = 7


class WorkersFailed(HotpathError):
    """Workers could not be started or kept alive."""

    exit_code = 6

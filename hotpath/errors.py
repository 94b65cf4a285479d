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


class WorkersFailed(HotpathError):
    """Workers could not be started or kept alive."""

    exit_code = 6

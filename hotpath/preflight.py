"""What must be there before anything starts: Kafka and the topic, Postgres and its schema, Redis."""

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hotpath import migrate
from hotpath.errors import ConfigError, Unavailable
from hotpath.kafka import describe_topic
from hotpath.settings import Settings

CONNECT_TIMEOUT_S = 5


def check_servers(settings: Settings) -> None:
    """Raises Unavailable or ConfigError with one line that names the first server at fault and the setting."""
    describe_topic(settings, CONNECT_TIMEOUT_S)
    check_postgres(settings)
    check_redis(settings)


def check_postgres(settings: Settings) -> None:
    """Raises Unavailable when Postgres or the schema is not there."""
    try:
        connection = psycopg.connect(settings.postgres_dsn, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise Unavailable(f"Postgres: {reason}; is it running, and is HOTPATH_POSTGRES_DSN right?") from None
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"HOTPATH_POSTGRES_DSN is not a DSN: {' '.join(str(error).split())}") from None
    with connection:
        migrate.check(connection)
    connection.close()


def check_redis(settings: Settings) -> None:
    """Raises Unavailable when Redis is not there, ConfigError when the URL is none."""
    try:
        client = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ConfigError(f"HOTPATH_REDIS_URL cannot be used: {error}") from None
    try:
        client.ping()
    except redis.RedisError as error:
        raise Unavailable(f"Redis: {error}; is it running, and is HOTPATH_REDIS_URL right?") from None
    finally:
        client.close()

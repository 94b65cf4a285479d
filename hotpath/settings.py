"""Every setting, its default and its reason: read from HOTPATH_* and from command-line flags.

One frozen object is made at a process's start and handed down; nothing else reads the environment.
"""

import json
import re
import socket
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from hotpath.errors import ConfigError
from hotpath.events import STEP_S


def _whole_steps(value: int) -> int:
    if value % STEP_S:
        raise ValueError(f"must be a multiple of {STEP_S}, the seconds of a step")
    return value


def _redis_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    _ = parts.port  # raises ValueError itself when it is none
    return value


def _machine_name(value: str) -> str:
    name = value or socket.gethostname()
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}", name):
        raise ValueError("must be up to 200 letters, digits, _, . and - (it becomes part of a name in Kafka)")
    return name


MachineName = Annotated[str, AfterValidator(_machine_name)]
WindowSeconds = Annotated[int, Field(ge=STEP_S), AfterValidator(_whole_steps)]


def _client_options(given: object) -> object:
    """A Kafka client's options from the text of a variable or flag: a JSON object, or key=value,key=value."""
    if isinstance(given, str):
        text = given.strip()
        given = _json_object(text) if text.startswith("{") else _pairs(text)
    if isinstance(given, dict):
        return {name: _option_text(value) for name, value in given.items()}
    return given


def _json_object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"must be a JSON object or key=value,...: {error}") from None


def _pairs(text: str) -> dict[str, str]:
    """key=value,...: what stands behind a key's first = is its value; values with commas need JSON."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise ValueError("must be a JSON object or key=value,...; values that hold commas need JSON")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _option_text(value: object) -> object:
    """Numbers and truth values of JSON, as librdkafka writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


ClientOptions = Annotated[dict[str, str], NoDecode, BeforeValidator(_client_options)]


class Rules(BaseSettings):
    """The numbers that decide what becomes of a message; the ledger names the set it was written under."""

    model_config = SettingsConfigDict(env_prefix="HOTPATH_", frozen=True, extra="ignore")

    future_max_s: int = Field(60, ge=0, description="seconds an event may be ahead of its append time")
    late_max_s: int = Field(300, ge=0, description="seconds an event may be behind its log's watermark")
    bot_page_views_max: int = Field(
        10, ge=1, le=60_000, description="page views of one user in one second that are kept"
    )
    bot_counters: Literal["local", "redis"] = Field(
        "local", description="redis: share bot counts between workers, for topics not keyed by user_id"
    )
    active_users_window_s: WindowSeconds = Field(300, description="window of the active users, seconds")
    top_pages_window_s: WindowSeconds = Field(900, description="window of the top pages, seconds")
    sessions_window_s: WindowSeconds = Field(300, description="window of active sessions, seconds")

    def rules(self) -> dict[str, int | str]:
        """These settings alone, as the table `rules` stores them."""
        return {name: getattr(self, name) for name in Rules.model_fields}


class Settings(Rules):
    """What every process of the pipeline needs to know."""

    kafka_bootstrap: str = Field(
        "127.0.0.1:9092", min_length=1, description="Kafka's bootstrap servers, host:port,..."
    )
    # What may hold a password is not repeated in messages: repr=False.
    kafka_options: ClientOptions = Field(
        default_factory=dict,
        repr=False,
        description="any librdkafka settings, as JSON or key=value,...: security.protocol=SASL_SSL",
    )
    topic: str = Field("events", min_length=1, description="the topic that holds the events")
    partitioner: Literal["murmur2", "crc32"] = Field(
        "murmur2",
        description="how producers map keys to partitions: murmur2 (Java clients, our generator) or crc32",
    )
    group: str = Field(
        "hotpath",
        min_length=1,
        description="consumer group: shows progress, and gives partitions to workers with --assign group",
    )
    postgres_dsn: str = Field(
        "postgresql://127.0.0.1:5432/hotpath",
        repr=False,
        description="Postgres, as a URL or libpq key=value string",
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis, redis:// or rediss:// or unix://"
    )
    redis_prefix: str = Field(
        "hotpath", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="first part of every key in Redis"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")


class PipelineSettings(Settings):
    """What the supervisor and its workers need beside that."""

    procs: int = Field(2, ge=1, le=1024, description="worker processes")
    assign: Literal["pinned", "group"] = Field(
        "pinned",
        description="who gives partitions to workers: pinned, partition p to worker p mod procs of the only "
        "supervisor; or group, Kafka's consumer group to the workers of all supervisors",
    )
    machine: MachineName = Field(
        "",
        validate_default=True,
        description="name of this supervisor among those of the group: stable over restarts, no two alike; "
        "empty: the host's name",
    )
    group_session_s: float = Field(
        6,
        ge=1,
        description="a worker that Kafka has not heard of for so long loses its partitions to others; brokers "
        "refuse less than 6 unless told",
    )
    group_handover_s: float = Field(
        5, gt=0, description="time to commit what was read before partitions go to another worker"
    )
    group_postgres_away_s: float = Field(
        4,
        gt=0,
        description="a worker that Postgres has not answered for so long leaves the group: others may reach it",
    )
    status_host: str = Field("127.0.0.1", description="where /metrics, /healthz and /status are served")
    status_port: int = Field(9464, ge=0, le=65_535, description="their port; 0 takes any free one")
    flush_interval_ms: int = Field(
        200,
        ge=1,
        le=60_000,
        description="longest time an event waits for its block to be flushed; 2.5 times as long from 5,000 events on",
    )
    block_rows_max: int = Field(
        32_768,
        ge=1,
        le=1_000_000,
        description="events of a block, one Postgres transaction; more is hardly faster, and waits longer",
    )
    block_arena_mib: int = Field(8, ge=1, le=1024, description="MiB for the strings of a block")
    ring_slots: int = Field(6, ge=2, le=1024, description="blocks of a worker's ring")
    chunk_rows_max: int = Field(
        2_000, ge=1, le=100_000, description="messages decoded at once; more fall out of the CPU's L2 cache"
    )
    quarantine_rows_max: int = Field(
        1_000, ge=0, description="quarantine rows stored per flush and class; all are counted all the same"
    )
    hang_deadline_s: float = Field(30, gt=0, description="a worker without a heartbeat so long is killed")
    drain_deadline_s: float = Field(20, gt=0, description="time to flush and commit after SIGTERM")
    restart_backoff_max_s: float = Field(5, gt=0, description="longest pause before a worker is restarted")
    on_loss: Literal["stop", "record"] = Field(
        "stop",
        description="when Kafka's retention has passed where Postgres is: stop, or record the loss in the ledger "
        "and go on",
    )
    stay_when_given_up: bool = Field(
        False,
        description="where the exit code would be 4 or 5, stay, unhealthy, until stopped: for containers that are "
        "started again whatever the code",
    )
    statement_timeout_s: float = Field(
        20, gt=0, description="longest a Postgres statement may take; must be below the hang deadline"
    )
    redis_timeout_s: float = Field(1.0, gt=0, description="longest wait for a reply of Redis")
    view_lag_max_s: int = Field(
        3_600,
        ge=STEP_S,
        description="event time that live views keep beyond their windows for logs that are behind",
    )
    maintenance_interval_s: float = Field(
        10, gt=0, description="pause between looks at time partitions, index summaries and retention"
    )
    retention_events_days: int = Field(30, ge=1, description="days that events are kept")
    retention_late_days: int = Field(30, ge=1, description="days that late events are kept")
    retention_quarantine_days: int = Field(7, ge=1, description="days that quarantine rows are kept")
    retention_bot_activity_days: int = Field(30, ge=1, description="days that bot activity is kept")
    retention_history_days: int = Field(
        400, ge=1, description="days that counts by minute and by page and minute are kept"
    )
    retention_ledger_days: int = Field(
        7, ge=1, description="days after which ledger rows are merged by the hour"
    )
    clock_file: str = Field(
        "", description="for tests: a file of eight bytes, microseconds by which the wall clock is wrong"
    )


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load(kind: type[AnySettings], arguments: list[str], program: str) -> AnySettings:
    """Settings of `kind` from flags (a setting's name in kebab case) over HOTPATH_* over the defaults.

    `--help` lists them all and exits. Raises ConfigError, which names the first setting at fault.
    """
    try:
        return kind(
            _cli_parse_args=arguments,
            _cli_prog_name=program,
            _cli_kebab_case=True,
            _cli_show_env_vars=True,
            _cli_exit_on_error=False,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            # A rule over several settings: its input is all of them, passwords included, so it is not shown.
            raise ConfigError(f"{fault['msg']}; see {program} --help") from None
        name = str(fault["loc"][0])
        known = kind.model_fields.get(name)
        given = f", not {fault['input']!r}" if known is None or known.repr else ""
        raise ConfigError(
            f"{flag(name)} (or {kind.model_config['env_prefix']}{name.upper()}): {fault['msg']}{given}; "
            f"see {program} --help"
        ) from None
    except SettingsError as error:
        raise ConfigError(f"{error}; see {program} --help") from None


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def environment(settings: BaseSettings) -> dict[str, str]:
    """The HOTPATH_* variables from which `load` makes an equal object: how settings reach a child process."""
    return {
        f"HOTPATH_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json").items()
    }

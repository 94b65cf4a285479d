"""What the API replies, as models: the OpenAPI document and the tests are made from them.

Endpoints build plain dictionaries of these shapes; checking each reply against its model is the tests' work, not
that of every request. Times are RFC 3339 in UTC, offsets and counts whole numbers.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hotpath.events import QUARANTINED, EventClass

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2024-03-15T14:30:00Z"])]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0)]
ClassName = Literal[tuple(c.label for c in EventClass)]
RefusedClassName = Literal[tuple(c.label for c in QUARANTINED)]


class Reply(BaseModel):
    """A reply, or a part of one: it has these fields and no others."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Fault(Reply):
    code: str = Field(description="for programs; does not change", examples=["invalid_parameter"])
    parameter: str | None = Field(description="the parameter at fault, if one is")
    message: str = Field(description="for people; may change")


class Error(Reply):
    """What every reply that is no success says."""

    error: Fault


class Conditions(Reply):
    """Under which the live numbers beside it hold."""

    as_of: Time = Field(description="every event up to here is in the numbers; never moves back")
    lag_events: Count = Field(description="messages in Kafka that are not in the numbers yet")
    stale: bool = Field(
        description="whether these are the last good numbers, because new ones cannot be read"
    )
    age_s: Rate | None = Field(
        None, description="only if stale: for how many seconds no new numbers could be read"
    )


class Committed(Reply):
    """Under which the numbers of Postgres beside it hold."""

    as_of: Time = Field(description="all that was committed to Postgres up to here is in the numbers")
    lag_events: Count | None = Field(
        description="messages in Kafka that were not in Postgres yet; null while not every worker tells"
    )


class Windowed(Conditions):
    window_s: Seconds = Field(description="length of the window that ends at as_of, seconds")


class PageViews(Reply):
    page_url: str
    views: Annotated[int, Field(ge=1)] = Field(description="page views in the window")


class UserSessions(Reply):
    user_id: str
    active_sessions: Annotated[int, Field(ge=1)] = Field(description="different sessions in the window")


class Session(Reply):
    session_id: str
    last_seen: Time = Field(description="when the ten seconds begin that hold the session's latest event")


class ActiveUsers(Windowed):
    """Different users with an event in the window."""

    active_users: Count


class TopPages(Windowed):
    """Pages by page views in the window, the most viewed first; equal ones by the bytes of page_url."""

    pages: list[PageViews]


class Sessions(Windowed):
    """A user's sessions with an event in the window, the latest first; none for a user never seen."""

    user_id: str
    active_sessions: Count
    sessions: list[Session]


class TopUsers(Windowed):
    """Users by active sessions, the most first; equal ones by the bytes of user_id."""

    users: list[UserSessions]


class Moment(Reply):
    at: Time
    value: Count


class ActiveUsersTile(Reply):
    window_s: Seconds
    value: Count = Field(description="different users with an event in the window")
    line: list[Moment] = Field(
        description="what `value` was, at most every ten seconds of the last 15 minutes; gaps where it was not read"
    )


class TopPagesTile(Reply):
    window_s: Seconds
    pages: list[PageViews] = Field(description="the ten most viewed pages")


class TopUsersTile(Reply):
    window_s: Seconds
    users: list[UserSessions] = Field(description="the ten users with the most active sessions")


class Workers(Reply):
    up: Count = Field(description="workers that run")
    total: Count = Field(description="workers that should")


class Summary(Conditions):
    """All numbers of one moment: one look at the views."""

    age_s: Rate = Field(description="for how many seconds no new numbers could be read; 0 unless stale")
    read_at: Time = Field(description="when the numbers were read, by this server's clock")
    active_users: ActiveUsersTile
    top_pages: TopPagesTile
    top_users: TopUsersTile
    events_per_s: Rate | None = Field(
        description="messages a second that the workers read lately; while the supervisor is away: that came into the "
        "views; null when that is not known yet"
    )
    accepted_per_s: Rate | None = Field(description="of these, accepted; null while the supervisor is away")
    workers: Workers | None = Field(description="null while the supervisor is away")


class Step(Reply):
    at: Time = Field(description="when the step begins")
    events: Count | None = Field(
        description="messages of any class whose flush was committed in the step; null where that would take too long"
    )
    accepted: Count = Field(description="accepted events whose own time lies in the step")
    page_views: Count = Field(description="of these, page views")
    users: Count | None = Field(description="different users of these; null where that would take too long")


class History(Committed):
    """Per step what came in; and the most viewed pages of the whole range, by events' own time."""

    from_: Time = Field(alias="from", description="the first step's begin")
    to: Time = Field(description="the last step's end")
    step_s: Seconds
    steps: list[Step] = Field(description="every step of the range, the first one first")
    top_pages: list[PageViews] | None = Field(
        description="the ten most viewed pages of the range; null where that would take too long"
    )


class WorkerLog(Reply):
    log_id: Count
    partition: Count
    epoch: Count
    consumed: Count = Field(description="next offset to read")
    committed: Count = Field(description="next offset to commit to Postgres")
    applied: Count = Field(description="next offset to bring into the live views")
    log_end: Count = Field(description="the partition's end when last heard of")
    watermark_s: Count = Field(description="greatest event time so far, seconds since 1970")


class Routing(Reply):
    sampled: Count = Field(description="messages whose key and partition were looked at")
    wrong_key: Count = Field(description="of these, not keyed by user_id")
    wrong_partition: Count = Field(description="of these, not in their key's partition")


class Worker(Reply):
    """One worker; counters are since its start. A worker that is not running has only the first fields."""

    model_config = ConfigDict(extra="ignore")

    worker: Count = Field(description="its number")
    state: str = Field(
        description="starting, running, paused, draining, stopped, waiting to restart, given up"
    )
    restarts: Count
    logs: list[WorkerLog] = Field(description="the partitions it works on")
    pid: Count | None = None
    uptime_s: Rate | None = None
    heartbeat_age_s: Rate | None = None
    events_per_s: Rate | None = Field(None, description="messages a second, over the last seconds")
    received: Count | None = None
    classes: dict[ClassName, Count] | None = Field(None, description="messages by the class they ended in")
    lag_events: Count | None = Field(None, description="messages not yet in Postgres")
    redis_lag_events: Count | None = Field(None, description="in Postgres, not yet in the live views")
    ring_used: Count | None = Field(None, description="blocks waiting in the ring")
    ring_slots: Count | None = Field(None, description="blocks that the ring holds")
    redis_away: bool | None = None
    kafka_down: bool | None = None
    back_pressure: Count | None = Field(None, description="times the ring was full")
    postgres_retries: Count | None = None
    redis_heals: Count | None = Field(None, description="gaps filled and views rebuilt")
    blocks_committed: Count | None = None
    rows_committed: Count | None = None
    flush_mean_s: Rate | None = None
    flush_last_s: Rate | None = None
    stage_cpu_s: dict[str, Rate] | None = Field(None, description="CPU seconds by stage")
    routing: Routing | None = None
    bot_counts_bytes: Count | None = None
    slots_bytes: Count | None = None
    assignments: Count | None = Field(None, description="times it took partitions over")
    fenced: Count | None = Field(None, description="times it found a partition taken over by another")
    held_back: Count | None = Field(None, description="partitions of the group that it does not take yet")
    cpu_s: Rate | None = None
    rss_bytes: Count | None = None


class Pipeline(Reply):
    """The workers, as their supervisor tells."""

    state: Literal["up", "away"] = Field(description="away: the supervisor does not answer, see `message`")
    message: str | None
    at: Time = Field(description="when it was asked")
    events_per_s: Rate | None
    accepted_per_s: Rate | None
    workers: list[Worker]


class LedgerMinute(Reply):
    """Messages by class, of the flushes committed in one minute: received is the sum of the others."""

    at: Time
    received: Count
    accepted: Count
    too_large: Count
    empty: Count
    not_json: Count
    not_object: Count
    missing_field: Count
    wrong_type: Count
    bad_value: Count
    bad_timestamp: Count
    future: Count
    late: Count
    bot: Count


class Loss(Reply):
    """Offsets that could not be read any more."""

    at: Time
    topic: str
    partition: Count
    first_offset: Count
    next_offset: Count
    reason: str


class Ledger(Committed):
    """Minutes in which something was committed. Rows older than a week are merged by the hour."""

    from_: Time = Field(alias="from")
    to: Time
    step_s: Seconds
    minutes: list[LedgerMinute]
    losses: list[Loss] = Field(description="the first hundred of the range")


class QuarantineRow(Reply):
    stored_at: Time
    topic: str
    partition: Count
    offset: Count
    class_: RefusedClassName = Field(alias="class")
    detail: str = Field(description="which rule was broken, in words")
    payload_size: Count = Field(description="bytes of the whole message")
    payload: str = Field(
        description="the first 1,024 bytes, base64", json_schema_extra={"contentEncoding": "base64"}
    )
    payload_text: str | None = Field(
        description="the same as text; null where it is not UTF-8 (a character cut off at the end is left out)"
    )


class Quarantine(Committed):
    """Messages that did not become events, the latest first."""

    rows: list[QuarantineRow]
    next_cursor: str | None = Field(description="give it as `cursor` for the next rows; null after the last")


class Health(Reply):
    status: Literal["ok", "ready"]

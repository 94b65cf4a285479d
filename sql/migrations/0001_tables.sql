-- The tables. Rows reach `events`, `late_events` and `quarantine` only together with the ledger row that counts
-- them and the new next_offset of their log: one transaction per flush (see hotpath/workers/postgres_sink.py).

create table rules (
    rules_id integer generated always as identity primary key,
    rules jsonb not null unique,
    first_used_at timestamptz not null default now()
);
comment on table rules is 'Sets of settings that decide what becomes of a message.';
comment on column rules.rules_id is 'Number of the set, named by the ledger.';
comment on column rules.rules is 'The settings and their values.';
comment on column rules.first_used_at is 'When a worker first wrote under this set.';

create table partition_state (
    log_id integer generated always as identity primary key,
    topic text not null,
    topic_id text not null,
    partition integer not null check (partition >= 0),
    next_offset bigint not null check (next_offset >= 0),
    epoch bigint not null check (epoch >= 1),
    watermark_s bigint not null default 0 check (watermark_s between 0 and 4102444799),
    backend_pid integer,
    backend_start timestamptz,
    owner text not null,
    rules_id integer not null references rules,
    retired_at timestamptz,
    updated_at timestamptz not null default now(),
    unique (topic, topic_id, partition)
) with (fillfactor = 50);
comment on table partition_state is
    'One row per log (a partition of one incarnation of a topic): where its worker continues, and who that is. '
    'Half-filled pages, because every flush updates its rows and the new versions should stay on their page.';
comment on column partition_state.log_id is 'Number of the log, in every other table.';
comment on column partition_state.topic is 'Name of the topic.';
comment on column partition_state.topic_id is 'Kafka''s id of the topic: another one after it was deleted and made anew.';
comment on column partition_state.partition is 'Kafka''s number of the partition.';
comment on column partition_state.next_offset is 'Every message below is accounted for; the worker continues here.';
comment on column partition_state.epoch is 'Raised by each takeover; who holds an older one must not write.';
comment on column partition_state.watermark_s is
    'Greatest second of an accepted or bot event, in seconds since 1970; 0 before the first.';
comment on column partition_state.backend_pid is 'Server process of the owner''s session, for the next owner to end.';
comment on column partition_state.backend_start is 'When that process began: tells it from a later one of the same number.';
comment on column partition_state.owner is 'The worker that holds the log, for people to read.';
comment on column partition_state.rules_id is 'The rules that the owner works by.';
comment on column partition_state.retired_at is 'When an operator gave the log up; null while it counts.';
comment on column partition_state.updated_at is 'When the row was last changed.';

create table events (
    log_id integer not null,
    kafka_offset bigint not null,
    ts timestamptz not null,
    user_id text not null,
    event_type text not null,
    page_url text not null,
    session_id text not null,
    constraint events_offset check (kafka_offset >= 0),
    constraint events_lengths check (
        octet_length(user_id) between 1 and 128
        and octet_length(event_type) between 1 and 64
        and octet_length(page_url) between 1 and 2048
        and octet_length(session_id) between 1 and 128
    )
) partition by range (ts);
comment on table events is
    'Accepted events, in partitions of one day (UTC) by event time. Columns stand in the order in which COPY sends them.';
comment on column events.log_id is 'The log that the message stood in.';
comment on column events.kafka_offset is 'Its offset there.';
comment on column events.ts is 'Event time.';
comment on column events.user_id is 'Who.';
comment on column events.event_type is 'What: page_view is ranked by page.';
comment on column events.page_url is 'Where.';
comment on column events.session_id is 'In which of the user''s sessions.';

-- A row without a day of its own goes here and is moved when its day is made. Days lie within these years, so
-- that only this partition needs the check: it also keeps out infinity, which is what NaT would become.
create table events_default partition of events (
    constraint events_default_ts check (ts >= '2000-01-01 00:00:00+00' and ts < '2100-01-01 00:00:00+00')
) default;
comment on table events_default is 'Accepted events of days without a partition.';

-- One index for three questions: rows of some seconds, of some offsets of a log, of both. The multi range
-- summaries survive late rows and interleaved logs; minmax does not. A B-tree would double the cost of a flush.
create index events_brin on events using brin (
    ts timestamptz_minmax_multi_ops,
    log_id int4_minmax_multi_ops,
    kafka_offset int8_minmax_multi_ops
) with (pages_per_range = 32);

create table late_events (
    log_id integer not null,
    kafka_offset bigint not null,
    ts timestamptz not null,
    user_id text not null,
    event_type text not null,
    page_url text not null,
    session_id text not null,
    stored_at timestamptz not null default now(),
    constraint late_events_offset check (kafka_offset >= 0),
    constraint late_events_ts check (ts >= '2000-01-01 00:00:00+00' and ts < '2100-01-01 00:00:00+00'),
    constraint late_events_lengths check (
        octet_length(user_id) between 1 and 128
        and octet_length(event_type) between 1 and 64
        and octet_length(page_url) between 1 and 2048
        and octet_length(session_id) between 1 and 128
    )
) partition by range (stored_at);
comment on table late_events is
    'Events too far behind their log''s watermark: part of history, not of live views. In partitions of one day (UTC) '
    'by the time they were stored, because their own times may lie years apart.';
comment on column late_events.log_id is 'The log that the message stood in.';
comment on column late_events.kafka_offset is 'Its offset there.';
comment on column late_events.ts is 'Event time.';
comment on column late_events.user_id is 'Who.';
comment on column late_events.event_type is 'What.';
comment on column late_events.page_url is 'Where.';
comment on column late_events.session_id is 'In which of the user''s sessions.';
comment on column late_events.stored_at is 'When the row was stored.';

create table late_events_default partition of late_events default;
comment on table late_events_default is 'Late events stored on days without a partition.';

create index late_events_brin on late_events using brin (
    ts timestamptz_minmax_multi_ops,
    log_id int4_minmax_multi_ops,
    kafka_offset int8_minmax_multi_ops
) with (pages_per_range = 32);

create table quarantine (
    log_id integer not null,
    kafka_offset bigint not null,
    class text not null,
    detail text not null,
    payload bytea not null,
    payload_size integer not null,
    stored_at timestamptz not null default now(),
    constraint quarantine_offset check (kafka_offset >= 0),
    constraint quarantine_class check (
        class in (
            'too_large', 'empty', 'not_json', 'not_object', 'missing_field', 'wrong_type', 'bad_value',
            'bad_timestamp', 'future', 'bot'
        )
    ),
    constraint quarantine_payload check (octet_length(payload) <= 1024 and payload_size >= octet_length(payload))
) partition by range (stored_at);
comment on table quarantine is
    'Messages that did not become events. The ledger counts all of them, this table keeps a limited number per flush. '
    'In partitions of one day (UTC) by the time they were stored.';
comment on column quarantine.log_id is 'The log that the message stood in.';
comment on column quarantine.kafka_offset is 'Its offset there.';
comment on column quarantine.class is 'The rule it broke, as the ledger names it.';
comment on column quarantine.detail is 'Which part broke it, in words.';
comment on column quarantine.payload is 'The first 1,024 bytes of the message, as they came.';
comment on column quarantine.payload_size is 'Bytes of the whole message.';
comment on column quarantine.stored_at is 'When the row was stored.';

create table quarantine_default partition of quarantine default;
comment on table quarantine_default is 'Messages quarantined on days without a partition.';

create index quarantine_stored_at on quarantine (stored_at);

create table bot_activity (
    log_id integer not null,
    user_id text not null,
    second timestamptz not null,
    dropped bigint not null check (dropped > 0),
    stored_at timestamptz not null default now(),
    primary key (log_id, user_id, second)
);
comment on table bot_activity is 'Page views dropped as made by a bot, by user and second.';
comment on column bot_activity.log_id is 'The log that they stood in.';
comment on column bot_activity.user_id is 'Who made them.';
comment on column bot_activity.second is 'In which second of event time.';
comment on column bot_activity.dropped is 'How many were dropped, beside those that were kept.';
comment on column bot_activity.stored_at is 'When the row was last added to.';

create index bot_activity_stored_at on bot_activity using brin (stored_at);

create table ledger (
    log_id integer not null references partition_state,
    first_offset bigint not null check (first_offset >= 0),
    next_offset bigint not null,
    received bigint not null,
    accepted bigint not null default 0 check (accepted >= 0),
    too_large bigint not null default 0 check (too_large >= 0),
    empty bigint not null default 0 check (empty >= 0),
    not_json bigint not null default 0 check (not_json >= 0),
    not_object bigint not null default 0 check (not_object >= 0),
    missing_field bigint not null default 0 check (missing_field >= 0),
    wrong_type bigint not null default 0 check (wrong_type >= 0),
    bad_value bigint not null default 0 check (bad_value >= 0),
    bad_timestamp bigint not null default 0 check (bad_timestamp >= 0),
    future bigint not null default 0 check (future >= 0),
    late bigint not null default 0 check (late >= 0),
    bot bigint not null default 0 check (bot >= 0),
    reason text,
    rules_id integer references rules,
    committed_at timestamptz not null default clock_timestamp(),
    primary key (log_id, first_offset),
    constraint ledger_range check (next_offset > first_offset),
    constraint ledger_offsets_hold_received check (received <= next_offset - first_offset),
    constraint ledger_received_is_the_sum check (
        received = accepted + too_large + empty + not_json + not_object + missing_field + wrong_type + bad_value
            + bad_timestamp + future + late + bot
    ),
    constraint ledger_losses_have_no_messages check (reason is null or received = 0)
);
comment on table ledger is
    'What became of every message: one row per flush and log, merged by the hour when they are old. The rows of a log '
    'follow each other without gap or overlap, and the last one ends at partition_state.next_offset.';
comment on column ledger.log_id is 'The log.';
comment on column ledger.first_offset is 'The log''s next_offset before the flush.';
comment on column ledger.next_offset is 'Its next_offset after it: last offset + 1.';
comment on column ledger.received is
    'Messages among these offsets; fewer than the offsets where the topic was compacted or has transactions.';
comment on column ledger.accepted is 'Stored in events.';
comment on column ledger.too_large is 'Larger than a message may be.';
comment on column ledger.empty is 'Null, no bytes, or white space only.';
comment on column ledger.not_json is 'Not one JSON text in UTF-8.';
comment on column ledger.not_object is 'JSON, but not an object.';
comment on column ledger.missing_field is 'A field absent or null.';
comment on column ledger.wrong_type is 'A field not a string.';
comment on column ledger.bad_value is 'A field with characters, a length or a form that is not allowed.';
comment on column ledger.bad_timestamp is 'A timestamp that is not one, or of another century.';
comment on column ledger.future is 'Too far ahead of the time the record was appended.';
comment on column ledger.late is 'Stored in late_events.';
comment on column ledger.bot is 'Dropped as made by a bot; see bot_activity.';
comment on column ledger.reason is 'Why these offsets were lost; null when they were read.';
comment on column ledger.rules_id is 'The rules that decided; null for a loss.';
comment on column ledger.committed_at is 'When the flush was committed; of a merged row, the last one.';

create index ledger_committed_at on ledger using brin (committed_at);

create table time_partitions (
    name text primary key,
    parent text not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    made_at timestamptz not null default now()
);
comment on table time_partitions is
    'The partitions that make_time_partition made. Retention needs made_at: a replayed old log makes old days today.';
comment on column time_partitions.name is 'The partition.';
comment on column time_partitions.parent is 'The table that it is part of.';
comment on column time_partitions.from_time is 'Its least time.';
comment on column time_partitions.to_time is 'The least time beyond it.';
comment on column time_partitions.made_at is 'When it was made.';

create sequence view_generation;
comment on sequence view_generation is 'Numbers the generations of the live views: one per rebuild of a log.';

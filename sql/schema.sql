-- The whole schema as it is now, for reading. Databases are made and brought here by `python -m hotpath.migrate`,
-- which applies sql/migrations in order; a test proves that both ways end in the same catalog.

create table schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
);
comment on table schema_migrations is 'The migrations that this database has had.';
comment on column schema_migrations.version is 'Number of the migration: the first part of its file''s name.';
comment on column schema_migrations.name is 'The rest of its name.';
comment on column schema_migrations.checksum is 'SHA-256 of its file, to notice one that was changed afterwards.';
comment on column schema_migrations.applied_at is 'When it was applied.';

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
    replayed_at timestamptz,
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
comment on column quarantine.replayed_at is
    'When the message was sent again by an operator (or was about to be: it is set first); null when it was not.';

create table quarantine_default partition of quarantine default;
comment on table quarantine_default is 'Messages quarantined on days without a partition.';

create index quarantine_stored_at on quarantine (stored_at);
create index quarantine_class_stored_at on quarantine (class, stored_at);

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

create table history_minutes (
    minute timestamptz not null,
    log_id integer not null,
    accepted bigint not null check (accepted >= 0),
    page_views bigint not null check (page_views between 0 and accepted),
    bot bigint not null check (bot >= 0),
    late bigint not null check (late >= 0),
    stored_at timestamptz not null default now()
);
comment on table history_minutes is
    'Events by log and minute of event time. A flush adds a row for each log and minute in it, maintenance merges the '
    'rows of a minute that is past: sum them. Small, so that retention deletes rows and there are no time partitions.';
comment on column history_minutes.minute is 'Event time, floored to one minute.';
comment on column history_minutes.log_id is 'The log that the messages stood in.';
comment on column history_minutes.accepted is 'Events stored in events.';
comment on column history_minutes.page_views is 'How many of them are page views.';
comment on column history_minutes.bot is 'Page views dropped as made by a bot.';
comment on column history_minutes.late is 'Events stored in late_events.';
comment on column history_minutes.stored_at is 'When the row was stored.';

create index history_minutes_minute on history_minutes (minute);

create table history_pages (
    minute timestamptz not null,
    page_urls text[] not null,
    views bigint[] not null,
    other_views bigint not null default 0 check (other_views >= 0),
    stored_at timestamptz not null default now(),
    constraint history_pages_pairs check (cardinality(page_urls) = cardinality(views))
);
comment on table history_pages is
    'Page views by minute of event time and page, over all logs: accepted events only. A flush adds a row for each minute '
    'in it, maintenance merges the rows of a minute that is past: unnest and sum them. One array instead of a row per '
    'page makes merging cheap.';
comment on column history_pages.minute is 'Event time, floored to one minute.';
comment on column history_pages.page_urls is 'Pages, each once in a row.';
comment on column history_pages.views is 'Page views of each, in the same order.';
comment on column history_pages.other_views is
    'Page views of the pages that merging left out: it keeps the 10,000 most viewed of a minute.';
comment on column history_pages.stored_at is 'When the row was stored.';

create index history_pages_minute on history_pages (minute);

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

-- What must happen inside the server: the last statement of a flush, and the care for time partitions.

create function advance_logs(entries jsonb, rules integer) returns void
language plpgsql as $$
declare
    entry record;
begin
    -- Ascending, like every other statement that locks these rows, so that no two transactions deadlock.
    for entry in
        select * from jsonb_to_recordset(entries) as (
            log_id integer, epoch bigint, first_offset bigint, next_offset bigint, watermark_s bigint,
            received bigint, accepted bigint, too_large bigint, empty bigint, not_json bigint, not_object bigint,
            missing_field bigint, wrong_type bigint, bad_value bigint, bad_timestamp bigint, future bigint,
            late bigint, bot bigint
        )
        order by 1
    loop
        update partition_state
        set next_offset = entry.next_offset, watermark_s = entry.watermark_s, updated_at = clock_timestamp()
        where log_id = entry.log_id and epoch = entry.epoch and next_offset = entry.first_offset;
        if not found then
            raise exception 'log % is not at offset % under epoch %', entry.log_id, entry.first_offset, entry.epoch
                using errcode = 'HP001';
        end if;
        insert into ledger (
            log_id, first_offset, next_offset, received, accepted, too_large, empty, not_json, not_object,
            missing_field, wrong_type, bad_value, bad_timestamp, future, late, bot, rules_id
        ) values (
            entry.log_id, entry.first_offset, entry.next_offset, entry.received, entry.accepted, entry.too_large,
            entry.empty, entry.not_json, entry.not_object, entry.missing_field, entry.wrong_type, entry.bad_value,
            entry.bad_timestamp, entry.future, entry.late, entry.bot, rules
        );
    end loop;
end
$$;
comment on function advance_logs is
    'The last statement of a flush: moves each log from first_offset to next_offset and enters it in the ledger. '
    'Raises HP001, which undoes the flush, when a log is not where its owner left it or has another owner.';

create function make_time_partition(parent text, day date) returns boolean
language plpgsql as $$
declare
    name text := parent || '_' || to_char(day, 'YYYYMMDD');
    default_name text := parent || '_default';
    from_time timestamptz := day::timestamp at time zone 'UTC';
    to_time timestamptz := (day + 1)::timestamp at time zone 'UTC';
    time_column text;
    holds_rows boolean;
begin
    if to_regclass(quote_ident(name)) is not null then
        return false;
    end if;
    if day < date '2000-01-01' or day > date '2099-12-31' then
        raise exception 'no event has a time on %', day;
    end if;
    select a.attname into strict time_column
    from pg_partitioned_table p
    join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
    where p.partrelid = to_regclass(quote_ident(parent));
    -- Made beside its parent and then attached: CREATE ... PARTITION OF would lock the parent against writers.
    -- Attaching locks only the default partition, which writers touch only when a day is missing.
    -- A day's rows are only added, and dropped with it: a vacuum after inserts would write every page once more, at some
    -- 2 us of CPU a row, for readers who have no use of it. ANALYZE and the vacuum against wraparound still come.
    execute format(
        'create table %I (like %I including defaults including constraints)'
        ' with (autovacuum_vacuum_insert_threshold = -1)',
        name, parent
    );
    execute format('lock table %I in access exclusive mode', default_name);
    execute format('select exists (select from %I where %I >= $1 and %I < $2)', default_name, time_column, time_column)
        into holds_rows using from_time, to_time;
    if holds_rows then
        execute format(
            'with moved as (delete from %I where %I >= $1 and %I < $2 returning *) insert into %I select * from moved',
            default_name, time_column, time_column, name
        ) using from_time, to_time;
    end if;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, name, from_time, to_time);
    insert into time_partitions (name, parent, from_time, to_time) values (name, parent, from_time, to_time)
    on conflict on constraint time_partitions_pkey do update set made_at = now();
    return true;
end
$$;
comment on function make_time_partition is
    'Makes the partition of one day (UTC) unless it exists, and moves rows of that day there from the default partition.';

create function merge_ledger(before timestamptz) returns bigint
language plpgsql as $$
declare
    removed bigint;
begin
    with old as (
        select *,
            (
                reason is not null
                or lag(reason) over follows is not null
                or rules_id is distinct from lag(rules_id) over follows
                or first_offset is distinct from lag(next_offset) over follows
                or date_trunc('hour', committed_at) is distinct from date_trunc('hour', lag(committed_at) over follows)
            )::int as begins
        from ledger
        where committed_at < before
        window follows as (partition by log_id order by first_offset)
    ),
    numbered as (
        select *, sum(begins) over (partition by log_id order by first_offset) as run from old
    ),
    merged as (
        select
            log_id, min(first_offset) as first_offset, max(next_offset) as next_offset, sum(received) as received,
            sum(accepted) as accepted, sum(too_large) as too_large, sum(empty) as empty, sum(not_json) as not_json,
            sum(not_object) as not_object, sum(missing_field) as missing_field, sum(wrong_type) as wrong_type,
            sum(bad_value) as bad_value, sum(bad_timestamp) as bad_timestamp, sum(future) as future,
            sum(late) as late, sum(bot) as bot, max(committed_at) as committed_at
        from numbered
        group by log_id, run
        having count(*) > 1
    ),
    kept as (
        update ledger l
        set next_offset = m.next_offset, received = m.received, accepted = m.accepted, too_large = m.too_large,
            empty = m.empty, not_json = m.not_json, not_object = m.not_object, missing_field = m.missing_field,
            wrong_type = m.wrong_type, bad_value = m.bad_value, bad_timestamp = m.bad_timestamp, future = m.future,
            late = m.late, bot = m.bot, committed_at = m.committed_at
        from merged m
        where l.log_id = m.log_id and l.first_offset = m.first_offset
    ),
    gone as (
        delete from ledger l
        using merged m
        where l.log_id = m.log_id and l.first_offset > m.first_offset and l.first_offset < m.next_offset
        returning 1
    )
    select count(*) into removed from gone;
    return removed;
end
$$;
comment on function merge_ledger is
    'Merges ledger rows committed before a time into one per log, hour and rules; losses stay rows of their own. '
    'Sums and ranges stay the same. Returns how many rows that saved.';

create function merge_history(before timestamptz) returns bigint
language plpgsql as $$
declare
    pages_max constant integer := 10000;
    past timestamptz[];
    removed bigint;
    kept bigint;
    saved bigint := 0;
begin
    -- A minute is merged when nothing was added to it lately; what still comes is merged later.
    select array_agg(minute) into past from (
        select minute from history_minutes group by minute
        having count(*) > count(distinct log_id) and max(stored_at) < before
    ) as found;
    with old as (
        delete from history_minutes where minute = any(past) and stored_at < before returning *
    ),
    merged as (
        insert into history_minutes
        select minute, log_id, sum(accepted), sum(page_views), sum(bot), sum(late), max(stored_at)
        from old group by minute, log_id
        returning 1
    )
    select (select count(*) from old), (select count(*) from merged) into removed, kept;
    saved := removed - kept;

    select array_agg(minute) into past from (
        select minute from history_pages group by minute having count(*) > 1 and max(stored_at) < before
    ) as found;
    with old as (
        delete from history_pages where minute = any(past) and stored_at < before returning *
    ),
    counted as (
        select minute, page_url, sum(n) as n,
            row_number() over (partition by minute order by sum(n) desc, page_url collate "C") as rank
        from old, unnest(page_urls, views) as pair (page_url, n)
        group by minute, page_url
    ),
    pages as (
        select minute,
            coalesce(array_agg(page_url order by rank) filter (where rank <= pages_max), '{}') as page_urls,
            coalesce(array_agg(n::bigint order by rank) filter (where rank <= pages_max), '{}') as views,
            coalesce(sum(n) filter (where rank > pages_max), 0) as other_views
        from counted
        group by minute
    ),
    sums as (
        select minute, sum(other_views) as other_views, max(stored_at) as stored_at from old group by minute
    ),
    merged as (
        insert into history_pages
        select s.minute, coalesce(p.page_urls, '{}'), coalesce(p.views, '{}'),
            s.other_views + coalesce(p.other_views, 0), s.stored_at
        from sums s
        left join pages p using (minute)
        returning 1
    )
    select (select count(*) from old), (select count(*) from merged) into removed, kept;
    return saved + removed - kept;
end
$$;
comment on function merge_history is
    'Merges the history of minutes to which nothing was added since a time into one row per log or minute. Sums stay '
    'the same. Returns how many rows that saved.';

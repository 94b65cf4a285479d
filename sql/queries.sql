-- Every query of the pipeline, by name. hotpath/sql.py loads them.

-- name: configure_session
-- What every session of a worker or of maintenance runs under. Time-outs are in milliseconds.
select
    set_config('lock_timeout', %(lock_timeout_ms)s::text, false),
    set_config('statement_timeout', %(statement_timeout_ms)s::text, false),
    set_config('idle_in_transaction_session_timeout', %(idle_timeout_ms)s::text, false),
    set_config('synchronous_commit', 'on', false),
    set_config('timezone', 'UTC', false);

-- name: limit_idle_session
-- Ends the session of a client that was stopped, and with it its locks. Servers before 14 have no such limit.
select set_config(name, %(idle_timeout_ms)s::text, false) from pg_settings where name = 'idle_session_timeout';

-- name: own_backend
-- The server process of this session: its number and when it began.
select pid, backend_start from pg_stat_activity where pid = pg_backend_pid();

-- name: ask_nothing
select;

-- name: end_backend
-- Ends one server process, if it is still the one that began then.
select pg_terminate_backend(pid)
from pg_stat_activity
where pid = %(pid)s and backend_start = %(backend_start)s and pid <> pg_backend_pid();

-- name: copy_events
copy events (log_id, kafka_offset, ts, user_id, event_type, page_url, session_id) from stdin (format binary);

-- name: copy_late_events
copy late_events (log_id, kafka_offset, ts, user_id, event_type, page_url, session_id) from stdin (format binary);

-- name: copy_quarantine
copy quarantine (log_id, kafka_offset, class, detail, payload, payload_size) from stdin (format binary);

-- name: copy_history_minutes
copy history_minutes (minute, log_id, accepted, page_views, bot, late) from stdin (format binary);

-- name: copy_history_pages
copy history_pages (minute, page_urls, views) from stdin (format binary);

-- name: add_bot_activity
insert into bot_activity (log_id, user_id, second, dropped)
select log_id, user_id, to_timestamp(second_s), dropped
from unnest(%(log_ids)s::integer[], %(user_ids)s::text[], %(seconds)s::bigint[], %(dropped)s::bigint[])
    as t (log_id, user_id, second_s, dropped)
order by log_id, user_id, second_s
on conflict (log_id, user_id, second)
do update set dropped = bot_activity.dropped + excluded.dropped, stored_at = now();

-- name: advance_logs
select advance_logs(%(entries)s::jsonb, %(rules_id)s);

-- name: lock_logs
-- Where logs are. Waits for a session that may still be committing a flush of them.
select log_id, epoch, next_offset
from partition_state
where log_id = any(%(log_ids)s)
order by log_id
for update;

-- name: record_backend
-- A worker's new session, under the epochs that it holds already. Its rows are locked, in order.
update partition_state s
set backend_pid = %(pid)s, backend_start = %(backend_start)s, updated_at = clock_timestamp()
from unnest(%(log_ids)s::integer[], %(epochs)s::bigint[]) as held (log_id, epoch)
where s.log_id = held.log_id and s.epoch = held.epoch;

-- name: other_incarnations
-- The incarnations under which this topic's name is known, the latest first.
select topic_id, max(updated_at) as updated_at
from partition_state
where topic = %(topic)s and retired_at is null
group by topic_id
order by max(updated_at) desc;

-- name: rules_id
with known as (
    select rules_id from rules where rules = %(rules)s::jsonb
),
added as (
    insert into rules (rules)
    select %(rules)s::jsonb where not exists (select from known)
    on conflict (rules) do update set rules = excluded.rules
    returning rules_id
)
select rules_id from known union all select rules_id from added;

-- name: end_old_owners
-- Ends the sessions of the logs' owners before their rows are locked: one that hangs would hold the locks.
select s.partition, s.owner, a.pid, pg_terminate_backend(a.pid) as ended
from partition_state s
join pg_stat_activity a on a.pid = s.backend_pid and a.backend_start = s.backend_start
where s.topic = %(topic)s and s.topic_id = %(topic_id)s and s.partition = any(%(partitions)s)
    and a.pid <> pg_backend_pid();

-- name: add_logs
-- Rows for partitions never seen before, which begin at their low watermark.
insert into partition_state (topic, topic_id, partition, next_offset, epoch, owner, rules_id)
select %(topic)s, %(topic_id)s, t.partition, t.low, 1, %(owner)s, %(rules_id)s
from unnest(%(partitions)s::integer[], %(lows)s::bigint[]) as t (partition, low)
where not exists (
    select from partition_state s
    where s.topic = %(topic)s and s.topic_id = %(topic_id)s and s.partition = t.partition
)
order by t.partition
on conflict (topic, topic_id, partition) do nothing;

-- name: taken_log_owners
select partition, owner
from partition_state
where topic = %(topic)s and topic_id = %(topic_id)s and partition = any(%(partitions)s);

-- name: lock_taken_logs
-- In a statement of its own, so that the next one sees what the old owners committed last.
select partition, owner
from partition_state
where topic = %(topic)s and topic_id = %(topic_id)s and partition = any(%(partitions)s)
order by log_id
for update;

-- name: raise_epochs
update partition_state
set epoch = epoch + 1, owner = %(owner)s, rules_id = %(rules_id)s, backend_pid = %(pid)s,
    backend_start = %(backend_start)s, retired_at = null, updated_at = clock_timestamp()
where topic = %(topic)s and topic_id = %(topic_id)s and partition = any(%(partitions)s)
returning log_id, epoch;

-- name: read_logs
-- Where a new owner continues; read only after its epochs were committed.
select log_id, partition, epoch, next_offset, watermark_s
from partition_state
where topic = %(topic)s and topic_id = %(topic_id)s and partition = any(%(partitions)s)
order by log_id;

-- name: topic_logs
-- Every log of a topic, of all its incarnations, and whether its owner's session is there.
select s.log_id, s.topic_id, s.partition, s.next_offset, s.epoch, s.watermark_s, s.retired_at, s.updated_at, s.owner,
    exists (
        select from pg_stat_activity a where a.pid = s.backend_pid and a.backend_start = s.backend_start
    ) as held
from partition_state s
where s.topic = %(topic)s
order by s.retired_at nulls first, s.topic_id, s.partition;

-- name: record_loss
-- Moves a log over offsets that cannot be read any more, and says why in the ledger.
with moved as (
    update partition_state
    set next_offset = %(next_offset)s, updated_at = clock_timestamp()
    where log_id = %(log_id)s and epoch = %(epoch)s and next_offset = %(first_offset)s
    returning log_id
)
insert into ledger (log_id, first_offset, next_offset, received, reason)
select log_id, %(first_offset)s, %(next_offset)s, 0, %(reason)s from moved;

-- name: retire_other_incarnations
-- Gives up the logs of a topic's earlier incarnations: they no longer count in the live views.
update partition_state
set retired_at = now(), updated_at = clock_timestamp()
where topic = %(topic)s and topic_id <> %(topic_id)s and retired_at is null;

-- name: bot_counts
-- Accepted page views by user, of some seconds of some logs, below the offsets where their new owner continues.
-- The least and greatest of everything asked for come first: they are what partitions and the index understand.
select e.log_id, w.second_s, e.user_id, count(*) as page_views
from events e
join unnest(%(log_ids)s::integer[], %(seconds)s::bigint[], %(below)s::bigint[]) as w (log_id, second_s, below)
    on w.log_id = e.log_id
    and to_timestamp(w.second_s) = date_bin('1 second', e.ts, timestamptz 'epoch')
    and e.kafka_offset < w.below
where e.ts >= to_timestamp(%(first_s)s) and e.ts < to_timestamp(%(last_s)s + 1)
    and e.log_id = any(%(log_ids)s::integer[])
    and e.event_type = 'page_view'
group by e.log_id, w.second_s, e.user_id;

-- name: make_migrations_table
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

-- name: migrations_table
select to_regclass('schema_migrations') is not null;

-- name: applied_migrations
select version, name, checksum from schema_migrations order by version;

-- name: add_migration
insert into schema_migrations (version, name, checksum) values (%(version)s, %(name)s, %(checksum)s);

-- name: lock_migrations
select pg_advisory_lock(%(key)s);

-- name: unlock_migrations
select pg_advisory_unlock(%(key)s);

-- name: try_maintenance_lock
select pg_try_advisory_lock(%(key)s);

-- name: release_maintenance_lock
select pg_advisory_unlock(%(key)s);

-- name: watermark_days
-- Days of the logs' latest events, which are not near today while an old log is replayed.
select distinct (to_timestamp(watermark_s) at time zone 'UTC')::date as day
from partition_state
where watermark_s > 0 and retired_at is null
order by day;

-- name: time_partition_count
select count(*) from time_partitions where parent = %(parent)s;

-- name: make_time_partition
select make_time_partition(%(parent)s, %(day)s);

-- name: expired_time_partitions
-- Partitions whose days and whose rows are both older than retention, and that no log has near its watermark.
select p.name
from time_partitions p
where p.parent = %(parent)s and p.to_time <= %(before)s and p.made_at <= %(before)s
    and not (
        %(by_event_time)s
        and exists (
            select from partition_state s
            where s.retired_at is null and s.watermark_s > 0
                and to_timestamp(s.watermark_s) >= p.from_time
                and to_timestamp(s.watermark_s - %(needed_s)s) < p.to_time
        )
    )
order by p.from_time;

-- name: forget_time_partition
delete from time_partitions where name = %(name)s;

-- name: trim_default_events
-- The same rule for rows without a day of their own; the ledger tells which of them were stored that long ago.
with stored as (
    select s.log_id, s.watermark_s, s.retired_at,
        (select max(l.next_offset) from ledger l where l.log_id = s.log_id and l.committed_at < %(before)s) as below
    from partition_state s
)
delete from events_default e
using stored
where e.log_id = stored.log_id and e.kafka_offset < stored.below and e.ts < %(before)s
    and (stored.retired_at is not null or e.ts < to_timestamp(stored.watermark_s - %(needed_s)s));

-- name: trim_default_late_events
delete from late_events_default where stored_at < %(before)s;

-- name: trim_default_quarantine
delete from quarantine_default where stored_at < %(before)s;

-- name: trim_bot_activity
delete from bot_activity where stored_at < %(before)s;

-- name: trim_history_minutes
delete from history_minutes where minute < %(before)s and stored_at < %(before)s;

-- name: trim_history_pages
delete from history_pages where minute < %(before)s and stored_at < %(before)s;

-- name: merge_history
select merge_history(%(before)s);

-- name: merge_ledger
select merge_ledger(%(before)s);

-- name: summarizable_indexes
-- BRIN indexes of the partitions, with the sizes of their tables: only what grew needs a new summary.
select i.indexrelid::regclass::text as name, pg_relation_size(i.indrelid) as table_bytes
from pg_index i
join pg_class c on c.oid = i.indexrelid and c.relkind = 'i'
join pg_am a on a.oid = c.relam and a.amname = 'brin'
join pg_inherits h on h.inhrelid = i.indrelid
where h.inhparent = any(array['events'::regclass, 'late_events'::regclass]);

-- name: summarize_index
select brin_summarize_new_values(%(name)s::regclass);

-- name: open_logs
-- Every log that counts in the live views.
select log_id, topic, partition from partition_state where retired_at is null order by log_id;

-- name: retired_logs
-- Every log that was given up.
select log_id from partition_state where retired_at is not null order by log_id;

-- name: log_positions
select log_id, next_offset, epoch, watermark_s from partition_state
where log_id = any(%(log_ids)s) and retired_at is null order by log_id;

-- name: log_owners
select log_id, epoch, owner from partition_state where log_id = any(%(log_ids)s) order by log_id;

-- name: least_watermark
-- How far back the log that is furthest behind may stand; 0 when no log has an event.
select coalesce(min(watermark_s), 0) from partition_state where retired_at is null and watermark_s > 0;

-- name: next_view_generation
select nextval('view_generation');

-- name: try_view_lock
select pg_try_advisory_lock(%(class)s, %(log_id)s);

-- name: view_unlock
select pg_advisory_unlock(%(class)s, %(log_id)s);

-- name: seen_in_offsets
-- Last-seen steps by user and session, of some offsets of a log, without what has left the windows.
select user_id, session_id, floor(date_part('epoch', max(ts)))::bigint / %(step_s)s as step
from events
where log_id = %(log_id)s and kafka_offset >= %(first_offset)s and kafka_offset < %(next_offset)s
    and ts >= to_timestamp(%(from_s)s)
group by user_id, session_id;

-- name: page_views_in_offsets
-- Page views by bucket of offsets, step and page, of some offsets of a log.
select (kafka_offset - %(first_offset)s) / %(bucket)s as bucket,
    floor(date_part('epoch', ts))::bigint / %(step_s)s as step, page_url, count(*) as views
from events
where log_id = %(log_id)s and kafka_offset >= %(first_offset)s and kafka_offset < %(next_offset)s
    and ts >= to_timestamp(%(from_s)s) and event_type = 'page_view'
group by 1, 2, 3
order by 1;

-- name: seen_in_windows
-- Last-seen steps by user and session, of all that the windows hold of some logs.
select log_id, user_id, session_id, floor(date_part('epoch', max(ts)))::bigint / %(step_s)s as step
from events
where log_id = any(%(log_ids)s) and ts >= to_timestamp(%(from_s)s)
group by log_id, user_id, session_id;

-- name: page_views_in_windows
-- Page views by step and page, of all that the windows hold of some logs.
select log_id, floor(date_part('epoch', ts))::bigint / %(step_s)s as step, page_url, count(*) as views
from events
where log_id = any(%(log_ids)s) and ts >= to_timestamp(%(from_s)s) and event_type = 'page_view'
group by 1, 2, 3;

-- name: seen_in_gaps
-- Last-seen steps by user and session, of some offsets of several logs. The least and greatest of them, and the
-- second, are what partitions and the index understand.
select e.log_id, e.user_id, e.session_id, floor(date_part('epoch', max(e.ts)))::bigint / %(step_s)s as step
from events e
join unnest(%(log_ids)s::integer[], %(first_offsets)s::bigint[], %(next_offsets)s::bigint[])
        as gap (log_id, first_offset, next_offset)
    on gap.log_id = e.log_id and e.kafka_offset >= gap.first_offset and e.kafka_offset < gap.next_offset
where e.log_id = any(%(log_ids)s::integer[])
    and e.kafka_offset >= %(least_offset)s and e.kafka_offset < %(greatest_offset)s
    and e.ts >= to_timestamp(%(from_s)s)
group by e.log_id, e.user_id, e.session_id;

-- name: page_views_in_gaps
-- Page views by step and page, of some offsets of several logs.
select e.log_id, floor(date_part('epoch', e.ts))::bigint / %(step_s)s as step, e.page_url, count(*) as views
from events e
join unnest(%(log_ids)s::integer[], %(first_offsets)s::bigint[], %(next_offsets)s::bigint[])
        as gap (log_id, first_offset, next_offset)
    on gap.log_id = e.log_id and e.kafka_offset >= gap.first_offset and e.kafka_offset < gap.next_offset
where e.log_id = any(%(log_ids)s::integer[])
    and e.kafka_offset >= %(least_offset)s and e.kafka_offset < %(greatest_offset)s
    and e.ts >= to_timestamp(%(from_s)s) and e.event_type = 'page_view'
group by 1, 2, 3;

-- name: expected_sessions
-- Last-seen steps by user and session of all that the windows hold of a log: below the offset that Redis has
-- applied (null for none), and with what came later.
select user_id, session_id,
    floor(date_part('epoch', max(ts) filter (where kafka_offset < %(applied)s)))::bigint / %(step_s)s as step,
    floor(date_part('epoch', max(ts)))::bigint / %(step_s)s as later_step
from events
where log_id = %(log_id)s and ts >= to_timestamp(%(from_s)s)
group by user_id, session_id;

-- name: expected_page_views
-- Page views by step and page of all that the windows hold of a log: below the offset that Redis has applied, and
-- what came later.
select extract(epoch from step)::bigint / %(step_s)s as step, page_url, views, later_views
from (
    select date_bin(make_interval(secs => %(step_s)s), ts, timestamptz 'epoch') as step, page_url,
        count(*) filter (where kafka_offset < %(applied)s) as views,
        count(*) filter (where kafka_offset >= %(applied)s) as later_views
    from events
    where log_id = %(log_id)s and ts >= to_timestamp(%(from_s)s) and event_type = 'page_view'
    group by 1, 2
) as counted;

-- name: owned_logs
-- Logs whose owner's session is there.
select s.log_id
from partition_state s
join pg_stat_activity a on a.pid = s.backend_pid and a.backend_start = s.backend_start
where s.retired_at is null;

-- name: log_incarnations
-- Which partition of which incarnation of which topic each log is.
select log_id, topic, topic_id, partition from partition_state where log_id = any(%(log_ids)s);

-- name: view_lock_holders
-- Who is rebuilding logs.
select a.application_name, a.pid, array_agg(l.objid::integer order by l.objid)
from pg_locks l
join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid::bigint = %(class)s
    and l.objid::integer = any(%(log_ids)s) and l.pid <> pg_backend_pid()
    and l.database = (select oid from pg_database where datname = current_database())
group by a.application_name, a.pid;

-- name: view_locks
-- Logs that somebody is rebuilding.
select objid::integer as log_id
from pg_locks
where locktype = 'advisory' and granted and objsubid = 2 and classid::bigint = %(class)s
    and database = (select oid from pg_database where datname = current_database());

-- name: export_snapshot
select pg_export_snapshot();

-- name: join_snapshot
set transaction snapshot %(snapshot)s;

-- name: proof_event_rows
-- Rows of `events` by log and offset, in the layout of a binary COPY; those of a thousand offsets as one value.
copy (
    select string_agg(
        int2send(7::smallint)
        || int4send(4) || int4send(e.log_id)
        || int4send(8) || int8send(e.kafka_offset)
        || int4send(8) || timestamptz_send(e.ts)
        || int4send(octet_length(e.user_id)) || textsend(e.user_id)
        || int4send(octet_length(e.event_type)) || textsend(e.event_type)
        || int4send(octet_length(e.page_url)) || textsend(e.page_url)
        || int4send(octet_length(e.session_id)) || textsend(e.session_id),
        '' order by e.kafka_offset
    )
    from events e
    join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
        on s.log_id = e.log_id and e.kafka_offset >= s.first and e.kafka_offset < s.beyond
    where e.log_id = any(%(log_ids)s::integer[]) and e.kafka_offset >= %(least)s and e.kafka_offset < %(beyond)s
    group by e.log_id, e.kafka_offset / 1000
    order by e.log_id, e.kafka_offset / 1000
) to stdout (format binary);

-- name: proof_late_event_rows
-- The same of `late_events`.
copy (
    select string_agg(
        int2send(7::smallint)
        || int4send(4) || int4send(e.log_id)
        || int4send(8) || int8send(e.kafka_offset)
        || int4send(8) || timestamptz_send(e.ts)
        || int4send(octet_length(e.user_id)) || textsend(e.user_id)
        || int4send(octet_length(e.event_type)) || textsend(e.event_type)
        || int4send(octet_length(e.page_url)) || textsend(e.page_url)
        || int4send(octet_length(e.session_id)) || textsend(e.session_id),
        '' order by e.kafka_offset
    )
    from late_events e
    join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
        on s.log_id = e.log_id and e.kafka_offset >= s.first and e.kafka_offset < s.beyond
    where e.log_id = any(%(log_ids)s::integer[]) and e.kafka_offset >= %(least)s and e.kafka_offset < %(beyond)s
    group by e.log_id, e.kafka_offset / 1000
    order by e.log_id, e.kafka_offset / 1000
) to stdout (format binary);

-- name: proof_quarantine
-- Messages in quarantine by log and offset.
select q.log_id, q.kafka_offset, q.class, q.detail, q.payload, q.payload_size
from quarantine q
join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
    on s.log_id = q.log_id and q.kafka_offset >= s.first and q.kafka_offset < s.beyond
order by q.log_id, q.kafka_offset;

-- name: proof_ledger
-- The ledger by log and offset, from the rows that reach beyond the first offsets on.
select l.log_id, l.first_offset, l.next_offset, l.received,
    array[
        l.accepted, l.too_large, l.empty, l.not_json, l.not_object, l.missing_field, l.wrong_type, l.bad_value,
        l.bad_timestamp, l.future, l.late, l.bot
    ] as counts,
    l.reason, l.committed_at
from ledger l
join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[]) as s (log_id, first)
    on s.log_id = l.log_id and l.next_offset > s.first
order by l.log_id, l.first_offset;

-- name: proof_rules
-- Per log, from which offset on which rules decided: one row wherever they changed.
select log_id, first_offset, rules
from (
    select log_id, first_offset, rules_id,
        lag(rules_id) over (partition by log_id order by first_offset) as before
    from ledger
    where log_id = any(%(log_ids)s) and rules_id is not null
) as l
join rules using (rules_id)
where before is distinct from rules_id
order by log_id, first_offset;

-- name: proof_logs
-- Every log, with the rules of its owner and where its ledger begins.
select s.log_id, s.topic, s.topic_id, s.partition, s.next_offset, s.watermark_s, s.retired_at is not null as retired,
    r.rules, (select min(l.first_offset) from ledger l where l.log_id = s.log_id) as ledger_first
from partition_state s
join rules r using (rules_id)
order by s.log_id;

-- name: proof_watermark
-- Greatest second of a log's events below an offset; 0 before any. (A bot has accepted events in its second.)
select coalesce(floor(extract(epoch from max(ts)))::bigint, 0)
from events
where log_id = %(log_id)s and kafka_offset < %(below)s;

-- name: proof_bot_activity
-- Dropped page views by log, second and user.
select log_id, extract(epoch from second)::bigint as second_s, user_id, dropped
from bot_activity
where log_id = any(%(log_ids)s)
order by log_id, second, user_id collate "C";

-- name: proof_history_minutes
-- What a log's history holds by minute, counted since 1970.
select extract(epoch from minute)::bigint / 60 as minute_number,
    sum(accepted)::bigint, sum(page_views)::bigint, sum(bot)::bigint, sum(late)::bigint
from history_minutes
where log_id = %(log_id)s
group by minute_number;

-- name: proof_history_pages
-- Page views of each minute, by log and by page.
select extract(epoch from coalesce(l.minute, p.minute))::bigint / 60,
    coalesce(l.page_views, 0)::bigint, coalesce(p.views, 0)::bigint
from (
    select minute, sum(page_views) as page_views from history_minutes where minute >= %(since)s group by minute
) as l
full join (
    select minute, sum(other_views + (select coalesce(sum(n), 0) from unnest(views) as n)) as views
    from history_pages where minute >= %(since)s group by minute
) as p using (minute);

-- name: proof_flush_cap
-- The most messages of a class that a flush of some time has stored: a flush is all rows of one `stored_at`.
select coalesce(max(stored), 0)
from (
    select count(*) as stored
    from quarantine
    where class = %(class)s and stored_at > %(after)s and stored_at <= %(until)s
    group by stored_at
) as flushes;

-- name: proof_strays
-- Rows of logs that `partition_state` does not know, by table.
select 'events' as name, log_id, count(*) from events
    where log_id <> all(array(select log_id from partition_state)) group by log_id
union all
select 'late_events', log_id, count(*) from late_events
    where log_id <> all(array(select log_id from partition_state)) group by log_id
union all
select 'quarantine', log_id, count(*) from quarantine
    where log_id <> all(array(select log_id from partition_state)) group by log_id
union all
select 'bot_activity', log_id, count(*) from bot_activity
    where log_id <> all(array(select log_id from partition_state)) group by log_id;

-- name: proof_outside
-- Rows of some logs at offsets that these logs do not have, the first of them.
select 'events' as name, e.log_id, e.kafka_offset
from events e
join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
    on s.log_id = e.log_id and (e.kafka_offset < s.first or e.kafka_offset >= s.beyond)
union all
select 'late_events', e.log_id, e.kafka_offset
from late_events e
join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
    on s.log_id = e.log_id and (e.kafka_offset < s.first or e.kafka_offset >= s.beyond)
union all
select 'quarantine', e.log_id, e.kafka_offset
from quarantine e
join unnest(%(log_ids)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[]) as s (log_id, first, beyond)
    on s.log_id = e.log_id and (e.kafka_offset < s.first or e.kafka_offset >= s.beyond)
limit 1000;

-- name: quarantined
-- Messages in quarantine, the latest first. Null parameters do not choose.
select q.log_id, s.topic_id, s.partition, q.kafka_offset, q.class, q.detail, q.payload, q.payload_size, q.stored_at,
    q.replayed_at, r.rules
from quarantine q
join partition_state s using (log_id)
left join lateral (
    select l.rules_id from ledger l
    where l.log_id = q.log_id and l.first_offset <= q.kafka_offset
    order by l.first_offset desc
    limit 1
) as decided on true
left join rules r on r.rules_id = decided.rules_id
where s.topic = %(topic)s
    and (%(class)s::text is null or q.class = %(class)s)
    and (%(partition)s::integer is null or s.partition = %(partition)s)
    and (%(offset)s::bigint is null or q.kafka_offset = %(offset)s)
    and (%(since)s::timestamptz is null or q.stored_at >= %(since)s)
    and (%(until)s::timestamptz is null or q.stored_at < %(until)s)
order by q.stored_at desc, s.partition, q.kafka_offset desc
limit %(limit)s;

-- name: claim_replay
-- Notes that a message is about to be sent again; no row when it has been and that matters.
update quarantine
set replayed_at = clock_timestamp()
where log_id = %(log_id)s and kafka_offset = %(offset)s and (replayed_at is null or %(force)s)
returning replayed_at;

-- name: configure_reader
-- What every session of the read API runs under: it changes nothing.
select
    set_config('default_transaction_read_only', 'on', false),
    set_config('lock_timeout', '1000', false),
    set_config('idle_in_transaction_session_timeout', '10000', false),
    set_config('timezone', 'UTC', false);

-- name: now_us
-- Microseconds since 1970: whatever was committed before is seen by the statements that follow.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint;

-- name: limit_statement
select set_config('statement_timeout', %(timeout_ms)s::text, false);

-- name: history_is_kept
-- Whether the history by minute has all events of a range: none is older than its first minute.
select not exists (
    select from events
    where ts >= %(since)s
        and ts < least(%(until)s, coalesce((select min(minute) from history_minutes), %(until)s))
);

-- name: history_counts
-- Accepted events and page views by step of their own time. Steps are whole minutes since 1970.
select extract(epoch from date_bin(%(step)s::interval, minute, timestamptz 'epoch'))::bigint as at_s,
    sum(accepted)::bigint as accepted, sum(page_views)::bigint as page_views
from history_minutes
where minute >= %(since)s and minute < %(until)s
group by 1;

-- name: history_counts_scanned
-- The same from the events themselves, for ranges that begin before history was kept.
select extract(epoch from date_bin(%(step)s::interval, ts, timestamptz 'epoch'))::bigint as at_s,
    count(*) as accepted, count(*) filter (where event_type = 'page_view') as page_views
from events
where ts >= %(since)s and ts < %(until)s
group by 1;

-- name: history_received
-- Messages by step in which their flush was committed.
select extract(epoch from date_bin(%(step)s::interval, committed_at, timestamptz 'epoch'))::bigint as at_s,
    sum(received)::bigint as received
from ledger
where committed_at >= %(since)s and committed_at < %(until)s
group by 1;

-- name: history_users
-- Different users by step of their events' time.
select extract(epoch from date_bin(%(step)s::interval, ts, timestamptz 'epoch'))::bigint as at_s,
    count(distinct user_id) as users
from events
where ts >= %(since)s and ts < %(until)s
group by 1;

-- name: history_top_pages
select page_url, sum(n)::bigint as views
from history_pages, unnest(page_urls, views) as pair (page_url, n)
where minute >= %(since)s and minute < %(until)s
group by page_url
order by 2 desc, page_url collate "C"
limit %(limit)s;

-- name: history_top_pages_scanned
select page_url, count(*) as views
from events
where ts >= %(since)s and ts < %(until)s and event_type = 'page_view'
group by page_url
order by 2 desc, page_url collate "C"
limit %(limit)s;

-- name: ledger_by_minute
-- What became of messages, by the minute in which their flush was committed.
select extract(epoch from date_bin('1 minute', committed_at, timestamptz 'epoch'))::bigint as at_s,
    sum(received)::bigint as received, sum(accepted)::bigint as accepted, sum(too_large)::bigint as too_large,
    sum(empty)::bigint as empty, sum(not_json)::bigint as not_json, sum(not_object)::bigint as not_object,
    sum(missing_field)::bigint as missing_field, sum(wrong_type)::bigint as wrong_type,
    sum(bad_value)::bigint as bad_value, sum(bad_timestamp)::bigint as bad_timestamp,
    sum(future)::bigint as future, sum(late)::bigint as late, sum(bot)::bigint as bot
from ledger
where committed_at >= %(since)s and committed_at < %(until)s and reason is null
group by 1
order by 1;

-- name: ledger_losses
select l.committed_at, s.topic, s.partition, l.first_offset, l.next_offset, l.reason
from ledger l
join partition_state s using (log_id)
where l.committed_at >= %(since)s and l.committed_at < %(until)s and l.reason is not null
order by l.committed_at, s.topic, s.partition
limit %(limit)s;

-- name: quarantine_rows
-- The latest rows before one of them. The first condition is for the partitions and the index, the second is exact.
select q.stored_at, s.topic, s.partition, q.kafka_offset, q.class, q.detail, q.payload_size, q.payload, q.log_id
from quarantine q
join partition_state s using (log_id)
where q.stored_at <= %(stored_at)s
    and (q.stored_at, q.log_id, q.kafka_offset) < (%(stored_at)s, %(log_id)s, %(kafka_offset)s)
order by q.stored_at desc, q.log_id desc, q.kafka_offset desc
limit %(limit)s;

-- name: quarantine_rows_of_class
-- The same, of one class.
select q.stored_at, s.topic, s.partition, q.kafka_offset, q.class, q.detail, q.payload_size, q.payload, q.log_id
from quarantine q
join partition_state s using (log_id)
where q.class = %(event_class)s and q.stored_at <= %(stored_at)s
    and (q.stored_at, q.log_id, q.kafka_offset) < (%(stored_at)s, %(log_id)s, %(kafka_offset)s)
order by q.stored_at desc, q.log_id desc, q.kafka_offset desc
limit %(limit)s;

-- name: accepted_between
select coalesce(sum(accepted), 0)::bigint
from history_minutes
where minute >= %(since)s and minute < %(until)s;

-- name: active_users_by_minute
-- Different users of the minutes before each of some minutes (counted since 1970), the minute itself not included.
with seen as materialized (
    select distinct user_id, floor(extract(epoch from ts) / 60)::bigint as minute
    from events
    where ts >= %(since)s and ts < %(until)s
)
select ends.minute, count(distinct seen.user_id)
from generate_series(%(first)s::bigint, %(last)s::bigint) as ends (minute)
join seen on seen.minute >= ends.minute - %(minutes)s and seen.minute < ends.minute
group by ends.minute
order by ends.minute;

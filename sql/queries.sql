-- Every query of the pipeline, by name. hotpath/sql.py loads them.

-- name: configure_session
-- What every session of a worker or of maintenance runs under. Time-outs are in milliseconds.
select
    set_config('lock_timeout', %(lock_timeout_ms)s::text, false),
    set_config('statement_timeout', %(statement_timeout_ms)s::text, false),
    set_config('idle_in_transaction_session_timeout', %(idle_timeout_ms)s::text, false),
    set_config('synchronous_commit', 'on', false),
    set_config('timezone', 'UTC', false);

-- name: own_backend
-- The server process of this session: its number and when it began.
select pid, backend_start from pg_stat_activity where pid = pg_backend_pid();

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

-- name: lock_taken_logs
-- In a statement of its own, so that the next one sees what the old owners committed last.
select log_id
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

-- name: log_positions
select log_id, next_offset, epoch, watermark_s from partition_state where log_id = any(%(log_ids)s) order by log_id;

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
select user_id, session_id, floor(extract(epoch from max(ts)))::bigint / %(step_s)s as step
from events
where log_id = %(log_id)s and kafka_offset >= %(first_offset)s and kafka_offset < %(next_offset)s
    and ts >= to_timestamp(%(from_s)s)
group by user_id, session_id;

-- name: page_views_in_offsets
-- Page views by bucket of offsets, step and page, of some offsets of a log.
select (kafka_offset - %(first_offset)s) / %(bucket)s as bucket,
    floor(extract(epoch from ts))::bigint / %(step_s)s as step, page_url, count(*) as views
from events
where log_id = %(log_id)s and kafka_offset >= %(first_offset)s and kafka_offset < %(next_offset)s
    and ts >= to_timestamp(%(from_s)s) and event_type = 'page_view'
group by 1, 2, 3
order by 1;

-- name: seen_in_windows
-- Last-seen steps by user and session, of all that the windows hold of some logs.
select log_id, user_id, session_id, floor(extract(epoch from max(ts)))::bigint / %(step_s)s as step
from events
where log_id = any(%(log_ids)s) and ts >= to_timestamp(%(from_s)s)
group by log_id, user_id, session_id;

-- name: page_views_in_windows
-- Page views by step and page, of all that the windows hold of some logs.
select log_id, floor(extract(epoch from ts))::bigint / %(step_s)s as step, page_url, count(*) as views
from events
where log_id = any(%(log_ids)s) and ts >= to_timestamp(%(from_s)s) and event_type = 'page_view'
group by 1, 2, 3;

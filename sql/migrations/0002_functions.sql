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
    execute format('create table %I (like %I including defaults including constraints)', name, parent);
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

-- Days of rows that are only added are not vacuumed after inserts: see the function.

create or replace function make_time_partition(parent text, day date) returns boolean
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

do $$
declare
    day record;
begin
    for day in select name from time_partitions loop
        execute format('alter table %I set (autovacuum_vacuum_insert_threshold = -1)', day.name);
    end loop;
end
$$;

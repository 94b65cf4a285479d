-- What happened minute by minute, kept in step with the events by the flush that stores them.

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

"""What the live views are and how they are stored in Redis: the one home for writers, readers and judges.

    keys         names of the keys, and steps
    fold         rows to changes of the views: of a block, or of aggregates from Postgres
    packed       columns to payloads of scripts
    slots        where Redis keeps last-seen steps: what a worker knows of that, to raise them without a name
    link         connections to Redis, and the scripts (`*.lua`) by name
    store        every write: changes applied exactly once, publishing, trimming, scrubbing, generations
    postgres     where Postgres has the logs
    refill       changes read from Postgres: a gap of offsets, or all that the windows hold; logs that leave the views
    rebuild      the latter: new generations, beside live writers and readers
    build        a new generation, loaded
    healer       a thread that brings logs back from Postgres
    progress     how far a log's views reach
    read         every read, asynchronous
    contents     all that Redis holds of a log, and what in it contradicts itself
    keyspace     keys that nothing lists
    compare      the contents against what they must be, difference by difference
    expected     what they must be, as Postgres says
    shared_bots  bot counts that workers share

One log's keys, all under its hash tag so that one script may touch them together (P is `redis_prefix`, L the
log_id, G a generation)::

    P:{L}:current             string  the live generation; switching it is the atomic end of a rebuild
    P:{L}:generations         set     every generation that has keys: what is not current may be dropped
    P:{L}:G:state             hash    see below
    P:{L}:G:users             zset    user_id -> 0: every stored user, in the order of their bytes
    P:{L}:G:seen              hash    user_id -> record: for each of their stored sessions its slot (4 bytes, low end
                                      first), the length of its session_id (1 byte), the session_id
    P:{L}:G:slots             string  the last-seen step of each slot, 4 bytes, low end first
    P:{L}:G:free              list    slots before the end of `slots` that no session has
    P:{L}:G:newest            hash    step -> how many users have it as the newest step in their record
    P:{L}:G:ranked            zset    user_id -> minus the number of stored sessions, of users with several: who has
                                      most stands first, and equal ones by their bytes
    P:{L}:G:pages             zset    page_url -> page views, the sum of all hashes pages:<step>
    P:{L}:G:pages:<step>      hash    page_url -> page views of the step
    P:{L}:G:steps             zset    step -> step, of every hash pages:<step>
    P:logs                    hash    log_id -> topic/partition: the complete list of logs that count

Fields of `state`, decimal strings:

    applied            next offset to apply: all below it is in the views
    watermark_s        greatest second among them
    complete_until_us  the log's own as_of; only ever rises
    log_end            the next offset Kafka will give out, as last seen
    base_step          page views of steps up to here are no longer taken in, and may be gone from `pages`
    seen_step          users and sessions last seen in steps up to here may be gone
    touched            ticket of what `slots` is, another one after each change of it: `applied` may not overtake it,
                       and who raises steps in `slots` without names must know it
    swept              seen_step when the last sweep began, which goes through all users and drops what has left
    cursor             the user that a sweep has come to; only while one is under way
    layout             which layout this is

Invariants: within one generation `pages` always equals the sum of its hashes; a reader at window start W counts
steps > W, so it needs base_step <= W and seen_step <= W, and takes the hashes of steps <= W that are still there
off `pages`. Who is seen again in a later step costs four bytes of `slots`, among many that are written at once: `seen`
changes when sessions come and go, `users` when users do, `ranked` when a number of sessions does. The same users stand
in `users` and `seen`, and the counts of `newest` add up to as many; no two sessions have one slot; `ranked` is
exact for what is stored, so it bounds a user's active sessions from above, by no more than what a sweep has yet to take
away. Every step of `steps` has its hash. `scrub.lua` looks through all of this piece by piece, so that live workers
notice what others damaged under users who are not seen again. Members and fields are UTF-8 bytes.
"""

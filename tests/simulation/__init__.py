"""A world in one thread: real workers over stores, a log and a clock that a seed drives.

What runs is the production code from `hotpath.workers.process.run` down: takeover, pipeline, sinks, healer,
refills, scripts. What stands in is everything it waits for::

    scheduler        threads (greenlets), events, time: exactly one runs, and the seed picks the next at each step
    kafka            logs whose offsets have gaps, behind the real Source
    postgres         transactions, snapshots, row locks, savepoints, advisory locks
    postgres_tables  the named queries
    psycopg_client   what psycopg.connect gives: connections that are lost before, while and after a statement works
    redis_store      the commands, in memory; the real Lua scripts run over it by `lua`
    redis_client     what views.link.connect gives: replies that are lost, come late, are errors

    faults           which of these happen, and how often: a seed's own choice
    world            starts, kills, freezes and doubles workers, damages Redis, restarts servers; then lets it settle
    invariants       what must hold after each step and at the end
    mutants          deliberate faults of the protocol, each of which must be caught

A seed replays exactly (under a fixed hash seed, which `python -m tests.simulation` sees to).
"""

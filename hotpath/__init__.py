"""hotpath: user events from Kafka into Postgres exactly once, with live views in Redis.

The flow, one direction only::

    Kafka topic (key = user_id)
      │ source      messages of the worker's partitions
      ▼
    decode ► validate ► bots            arrays in, classes out: no I/O, no clock
      │
      ▼
    ring of blocks (shared memory)      one producer, two consumers
      │                      │
      ▼                      ▼ only blocks that Postgres has committed
    Postgres sink          Redis sink ──► read API ──► dashboard

Layers; imports only ever point to a lower number:

    0  events, errors            the vocabulary; reference, the same semantics in plain Python
    1  settings, sql, clock      configuration, named queries, the wall clock
    2  shm, views                blocks and rings; what the live views are and how they are stored
    3  workers' stages           source, decode, validate, bots, postgres_sink, redis_sink
    4  workers.pipeline          the only place that knows the order of the stages
       workers.assignment        a set of logs, from takeover to letting go; group, membership: one after the other
    5  supervisor, maintenance, migrate, cli

Words, one meaning each:

    message    the bytes of one Kafka record
    event      one decoded row
    block      a columnar batch of events, one slot of the ring
    log        one partition of one incarnation of a topic, numbered by `log_id`
    offset     Kafka's
    second     event time floored to one second
    step       the aligned ten seconds that hold it
    watermark  the greatest second of a log so far
"""

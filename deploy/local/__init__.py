"""The private stack: Kafka, Postgres and Redis as ordinary processes on loopback, and the services on top.

`make up`, `make down` and the tests' fixtures are three callers of the same code:

    processes   start, recognise and end a process      the only place that sends signals
    home        ports, passwords and folders of one stack, kept in its home folder (`.hotpath/`)
    postgres, redis_server, kafka    one server each: configure, start, wait, stop
    services    the table of our own services
    stack       up, down, status, clean: the order of all that
    __main__    the command line behind the Makefile

Every server listens on 127.0.0.1 only and asks for a password that was drawn for this home.
"""

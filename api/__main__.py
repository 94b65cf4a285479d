"""`python -m api`: serves the read API with uvicorn."""

import logging
import resource
import sys

from api.access import is_loopback
from api.app import create_app
from api.server import Server
from api.settings import ApiSettings
from hotpath.console import configure_logging, exit_code_of
from hotpath.settings import load

log = logging.getLogger(__name__)

OTHER_FILES = 512
"""Open files beside the streams: other requests, Redis, Postgres, what Python has open."""


def serve() -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError."""
    settings = load(ApiSettings, sys.argv[1:], "python -m api")
    configure_logging(settings, "api")
    if not settings.api_token.get_secret_value() and not is_loopback(settings.api_host):
        log.warning("anybody who reaches %s can read everything: set HOTPATH_API_TOKEN", settings.api_host)
    _allow_connections(settings.api_streams_max)
    Server(create_app(settings), settings).run()


def _allow_connections(streams_max: int) -> None:
    """Raise the limit on open files, 1,024 on many systems, to what the streams need, as far as the system lets us."""
    needed = streams_max + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            log.warning("%d streams may not fit the limit of %d open files: see ulimit -n", streams_max, hard)


def main() -> int:
    return exit_code_of(serve)


if __name__ == "__main__":
    sys.exit(main())

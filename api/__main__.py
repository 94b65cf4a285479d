"""`python -m api`: serves the read API with uvicorn."""

import sys

import uvicorn

from api.app import create_app
from api.settings import ApiSettings
from hotpath.console import configure_logging, exit_code_of
from hotpath.settings import load


def serve() -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError."""
    settings = load(ApiSettings, sys.argv[1:], "python -m api")
    configure_logging(settings, "api")
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.api_drain_deadline_s,
    )


if __name__ == "__main__":
    sys.exit(exit_code_of(serve))

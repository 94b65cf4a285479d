"""`python -m api`: serves the read API with uvicorn."""

import logging
import sys

import uvicorn

from api.app import create_app
from api.settings import ApiSettings
from hotpath.errors import HotpathError
from hotpath.settings import load

log = logging.getLogger("api")


def main() -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load(ApiSettings, sys.argv[1:], "python -m api")
    except HotpathError as error:
        log.error("%s", error)
        return error.exit_code
    logging.getLogger().setLevel(settings.log_level.upper())
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.api_drain_deadline_s,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

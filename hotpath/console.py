"""What processes say to people: log lines, and one line for an error that is explained."""

import logging
import sys
from collections.abc import Callable

from hotpath.errors import HotpathError
from hotpath.settings import Settings


def configure_logging(settings: Settings, process: str) -> None:
    """Log to stderr at the level that is set; `process` names the writer in every line."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)-7s {process}: %(message)s",
    )
    # What librdkafka has to say of lost connections is told by the source, without the repetitions.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)


def exit_code_of(command: Callable[[], None]) -> int:
    """Run a command; an explained error becomes one line on stderr and its exit code, Ctrl-C becomes 130."""
    try:
        command()
    except HotpathError as error:
        print(f"hotpath: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0

"""What processes say to people: log lines, and one line for an error that is explained."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from hotpath.errors import ConfigError, HotpathError
from hotpath.settings import Settings


def configure_logging(settings: Settings, process: str) -> None:
    """Log to stderr at the level that is set; `process` names the writer in every line."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)-7s {process}: %(message)s",
    )
    # What librdkafka has to say of lost connections is told by the source, without the repetitions.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)


class CommandParser(argparse.ArgumentParser):
    """Flags of a command beside the settings, which are flags as well: what it does not know is left to them."""

    def __init__(self, program: str, description: str, more: str = "") -> None:
        super().__init__(
            program,
            allow_abbrev=False,
            description=description,
            epilog="Every setting of the pipeline is a flag or a HOTPATH_* variable, too: see hotpath supervisor "
            f"--help. {more}",
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


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

"""The one error of the private stack: a sentence for the person at the terminal, with a log to show."""

from pathlib import Path

_LINES_SHOWN = 20


class StackError(Exception):
    """Something could not be started, reached or stopped; the message says what and what to do."""

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        """`log`: that of the server that failed. Its end is read now: the file may go with its folder."""
        lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:] if log and log.exists() else []
        super().__init__("\n".join([message, *([f"the last lines of {log}:", *lines] if lines else [])]))

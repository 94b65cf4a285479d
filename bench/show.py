"""How every benchmark ends: its result as one JSON object for programs, or as a table for people."""

import json
from collections.abc import Callable

from rich.console import Console, RenderableType

WIDTH_IN_FILES = 120


def show(result: dict, table: Callable[[dict], RenderableType], as_json: bool) -> None:
    """Print it; into a file or a pipe, a table is `WIDTH_IN_FILES` wide."""
    if as_json:
        print(json.dumps(result))
        return
    console = Console(highlight=False)
    console.print(table(result), width=None if console.is_terminal else WIDTH_IN_FILES)

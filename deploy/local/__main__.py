"""The command line behind the Makefile: `python -m deploy.local up`, `down`, `status` or `clean`."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local import pages
from deploy.local.errors import StackError
from deploy.local.home import Home
from deploy.local.services import REPOSITORY
from deploy.local.stack import TOPIC, Stack

console = Console(highlight=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="The private stack.")
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".hotpath", help="its folder")
    given = parser.parse_args(arguments)
    try:
        return COMMANDS[given.command](Stack(Home(given.home)))
    except StackError as error:
        # Plain, not markup: a log may hold square brackets.
        print(f"{given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{given.command}: interrupted; `make down` stops what was started", file=sys.stderr)
        return 130


def up(stack: Stack) -> int:
    since = time.monotonic()
    no_pages = build_pages()
    stack.up(step)
    console.print(f"\nAll is up, after {time.monotonic() - since:.0f} s.\n")
    console.print(addresses(stack))
    settings = stack.settings()
    if no_pages:
        console.print(f"\n[yellow]No pages:[/yellow] {no_pages}.", markup=True)
    else:
        console.print(
            f"\nOpen {settings['HOTPATH_API_URL']} (dashboard) and {settings['HOTPATH_GENERATOR_URL']} (generator)."
        )
    env = short(stack.home.path / "env")
    tries = [
        (f". {env}", "the addresses, with passwords, as HOTPATH_* for your shell"),
        ('psql "$HOTPATH_POSTGRES_DSN" -c "SELECT count(*) FROM events"', "what is stored"),
        ('redis-cli -u "$HOTPATH_REDIS_URL" info keyspace', "what the live views take"),
        (f"kcat -F {short(stack.home.path / 'kafka.conf')} -C -t {TOPIC} -o -5 -e", "the newest events"),
        ("make status; make down", "what runs; stop it, and keep the data"),
    ]
    if "HOTPATH_STATUS_URL" in settings:
        tries.insert(1, (f"curl -s {settings['HOTPATH_STATUS_URL']}/status", "what the workers do"))
    if "HOTPATH_API_URL" in settings:
        api = f"curl -s {settings['HOTPATH_API_URL']}/api/v1"
        tries.insert(1, (f"{api}/active-users; {api}/top-pages", "what the live views say"))
    console.print("\nTry next:")
    for line, what in tries:
        console.print(f"  {line}\n      [dim]{what}[/dim]")
    return 0


def build_pages() -> str:
    """Build the dashboard's and the generator's pages; returns why that cannot be done here, or nothing."""
    if pages.built():
        return ""
    try:
        with step("building the pages"):
            pages.build()
    except pages.PagesMissing as missing:
        return str(missing)
    return ""


def down(stack: Stack) -> int:
    stopped = stack.down(step)
    console.print(f"Stopped {stopped} processes; the data is kept." if stopped else "Nothing was running.")
    return 0


def clean(stack: Stack) -> int:
    stack.clean(step)
    console.print(f"Nothing runs, and {short(stack.home.path)} is gone.")
    return 0


def status(stack: Stack) -> int:
    """Exit code 0 when everything runs and is healthy, else 1."""
    if not stack.home.path.exists():
        console.print("Nothing is there: `make up` starts it.")
        return 1
    console.print(addresses(stack))
    parts = [*stack.servers.values(), *stack.services]
    return 0 if all(part.process.identity() and part.healthy() for part in parts) else 1


COMMANDS = {"up": up, "down": down, "status": status, "clean": clean}


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line per step: a spinner while it lasts (on a terminal), then how long it took."""
    since = time.monotonic()
    try:
        with console.status(f"{what} ..."):
            yield
    except BaseException:
        console.print(f"[red]✗[/red] {what}")
        raise
    console.print(f"[green]✓[/green] {what} [dim]{time.monotonic() - since:.1f} s[/dim]")


def addresses(stack: Stack) -> Table:
    """What runs, where, and where its log is."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "pid", "state", "address", "log"):
        table.add_column(heading, no_wrap=True)
    where = {
        name: f"127.0.0.1:{port}" if (port := stack.home.kept_port(name)) else "-" for name in stack.servers
    }
    for part in [*stack.servers.values(), *stack.services]:
        identity = part.process.identity()
        state = "[red]stopped[/red]"
        if identity:
            state = "[green]healthy[/green]" if part.healthy() else "[yellow]not healthy[/yellow]"
        address = where.get(part.process.name) or part.url or "-"
        table.add_row(
            part.process.name, str(identity.pid) if identity else "-", state, address, short(part.process.log)
        )
    return table


def short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The command `hotpath`: one table of what can be done, each command in a module of its own.

`hotpath verify --json` is `python -m hotpath.verify --json`. A module is imported only when its command is asked for.
"""

import sys
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """A command: `module` has a `main()` that reads sys.argv and returns the exit code."""

    name: str
    module: str
    what: str


COMMANDS = (
    Command("supervisor", "hotpath.supervisor", "run the workers"),
    Command("top", "hotpath.top", "watch the workers in the terminal"),
    Command("migrate", "hotpath.migrate", "bring the database to this version's schema"),
    Command("topic", "hotpath.topic", "make the topic, unless it is there"),
    Command("quarantine", "hotpath.quarantine", "list, show and replay messages that were refused"),
    Command("verify", "hotpath.verify", "prove that Postgres and Redis hold what Kafka's log says"),
    Command(
        "consolidate", "hotpath.consolidate", "bring the live views in step with Postgres; --check, --rebuild"
    ),
    Command("logs", "hotpath.logs", "list where the logs stand; give lost ones up, or skip what was lost"),
)


def usage() -> str:
    """What `hotpath --help` prints."""
    lines = [f"  {command.name:<12}{command.what}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: hotpath COMMAND [--help] ...",
            "",
            *lines,
            "",
            "Every setting is a flag or a HOTPATH_* variable: hotpath COMMAND --help lists them.",
        ]
    )


def main() -> int:
    """Run the command that sys.argv names; its exit code, or 2 when there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        print(usage(), file=sys.stdout if name else sys.stderr)
        return 0 if name else 2
    found = next((command for command in COMMANDS if command.name == name), None)
    if found is None:
        known = ", ".join(command.name for command in COMMANDS)
        print(f"hotpath: there is no command {name!r}; there are {known}", file=sys.stderr)
        return 2
    del sys.argv[1]
    return import_module(found.module).main()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m generator`: sends mock events until an end, a signal, or without end."""

import signal
import sys
from pathlib import Path
from types import FrameType

import orjson

from generator.progress import Progress, line
from generator.run import Run, open_run, summary
from generator.settings import GeneratorSettings
from hotpath.console import configure_logging, exit_code_of
from hotpath.errors import ConfigError, Unavailable
from hotpath.settings import load

PROGRAM = "python -m generator"


def main(arguments: list[str]) -> int:
    """Run to the end and return the process's exit code."""

    def generate() -> None:
        settings = load(GeneratorSettings, arguments, PROGRAM)
        configure_logging(settings, "generator")
        _generate(settings)

    return exit_code_of(generate)


def _generate(settings: GeneratorSettings) -> None:
    path = None if settings.summary in ("", "-") else Path(settings.summary)
    if path and not path.parent.is_dir():
        raise ConfigError(f"--summary: there is no folder {path.parent} to write {path.name} to")
    run = open_run(settings)
    _stop_on_signals(run)
    try:
        with Progress(settings.topic) as progress:
            run(progress)
    finally:
        # Also when the producer gave up: what was sent until then is what a person then wants to know.
        final = run.snapshot()
        print(line(settings.topic, final), file=sys.stderr)
        report = orjson.dumps(summary(run, final), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        if path:
            path.write_bytes(report)
        elif settings.summary == "-":
            sys.stdout.buffer.write(report)
            sys.stdout.flush()
    if final.delivered < final.sent:
        reason = run.publisher.first_failure or final.trouble or "it was not acknowledged in time"
        raise Unavailable(
            f"Kafka at {settings.kafka_bootstrap} did not take {final.sent - final.delivered:,} of "
            f"{final.sent:,} events ({reason}); is it up and reachable?"
        )


def _stop_on_signals(run: Run) -> None:
    """The first SIGINT or SIGTERM ends the run in order; the second one ends the process at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        run.stop()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

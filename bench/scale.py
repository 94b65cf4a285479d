"""How cost grows: `python -m bench.scale [--what users bytes ...] [--events 1000000] [--json]`.

Each question changes one number of the standard workload, or of the pipeline, and runs it end to end in a place of its
own: events/s, CPU of workers and servers, the most memory of every process. A case whose ledger or table is not what
was sent is no result: it is told, and the exit code is 1.
"""

import argparse
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import results
from bench.harness import CpuMeter, machine, place, servers
from bench.memory import memory_of, most_memory
from bench.pipeline import (
    Supervised,
    Watch,
    above_zero,
    check,
    stages_us,
    supervised,
    watch_to_the_end,
)
from bench.questions import QUESTIONS, Case
from bench.show import show
from bench.workload import Filled, Workload, fill
from deploy.local.kafka import TOPIC_CONFIG
from hotpath.console import configure_logging
from hotpath.errors import HotpathError
from hotpath.kafka import log_ranges

KEPT_WHOLE = TOPIC_CONFIG | {"retention.bytes": "-1"}
"""A single partition of large messages must not lose its beginning before it is read."""


def run(
    environment: dict[str, str], case: Case, arguments: argparse.Namespace, progress: Progress
) -> dict[str, object]:
    """One case in a fresh place. Raises HotpathError when it does not come to its end or the answer is wrong."""
    events = max(1, round(arguments.events * case.events_factor))
    with place(environment, case.partitions, KEPT_WHOLE) as at:
        configure_logging(at.settings, "bench")
        task = progress.add_task(f"{case.label}: filling", total=events)
        workload = Workload(events, partitions=case.partitions, **case.workload)
        filled = fill(at.settings, workload, lambda sent: progress.update(task, completed=sent))
        del workload  # ten million people are gigabytes
        progress.update(task, description=f"{case.label}: reading", completed=0)
        ends = {
            number: end for number, (_, end) in log_ranges(at.settings, list(range(case.partitions))).items()
        }
        meter = CpuMeter(at.pids)
        with supervised(at, case.procs, ["--log-level", "warning"]) as running:
            with most_memory(lambda: memory_of(at.pids, processes(running))) as memory:
                seen = watch_to_the_end(
                    at, running, ends, arguments.timeout, lambda done: progress.update(task, completed=done)
                )
            servers_us = meter.us_per(filled.events)
        check(at, filled, seen)
        progress.remove_task(task)
    return figures(case, filled, seen, servers_us, memory)


def processes(running: Supervised) -> dict[str, int | None]:
    """The supervisor and its workers by name; only itself while it cannot tell."""
    ours: dict[str, int | None] = {"supervisor": running.process.pid}
    status = running.status() if running.process.poll() is None else None
    for worker in (status or {}).get("workers", ()):
        ours[f"worker {worker['worker']}"] = worker.get("pid")
    return ours


def figures(
    case: Case,
    filled: Filled,
    seen: Watch,
    servers_us: dict[str, float | None],
    memory: dict[str, int],
) -> dict[str, object]:
    """One case as JSON; memory in MiB, of workers that of the largest."""
    stages = stages_us(seen.workers, filled.events)
    # A rate is told only where most events came after the first commit.
    tells = seen.first_commit_events <= filled.events / 2

    def rate(until_s: float) -> int | None:
        return round(seen.steady_rate(filled.events, until_s)) if tells else None

    return {
        "x": case.x,
        "label": case.label,
        "events": filled.events,
        "value_bytes_mean": round(filled.value_bytes / filled.events, 1),
        "committed_per_s": rate(seen.committed_s),
        "applied_per_s": rate(seen.applied_s),
        "seconds_to_first_commit": round(seen.first_commit_s, 3),
        "worker_us": round(sum(stages.values()), 3),
        "worker_us_by_stage": stages,
        "server_us": servers_us,
        "memory_mib_max": {name: round(used / 2**20, 1) for name, used in sorted(memory.items())},
        "bot_counts_mib_max": round(seen.bot_counts_bytes_max / 2**20, 1),
        "redis_heals": sum(worker["redis_heals"] for worker in seen.workers),
        "classes": filled.truth,
    }


def answers(arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    """Every question asked for. A case that fails is told under `failed`, and the others go on."""
    found: dict[str, object] = {}
    with ExitStack() as stack:
        environment = stack.enter_context(servers())
        progress = stack.enter_context(Progress(console=console, transient=True))
        for name in arguments.what:
            question, rows = QUESTIONS[name], []
            cases = question.cases[: arguments.cases]
            overall = progress.add_task(question.asks, total=len(cases))
            for case in cases:
                try:
                    rows.append(run(environment, case, arguments, progress))
                except HotpathError as error:
                    rows.append({"x": case.x, "label": case.label, "failed": str(error)})
                progress.advance(overall)
            progress.remove_task(overall)
            found[name] = {"asks": question.asks, "x_name": question.x_name, "cases": rows}
            draw(name, rows, arguments.results)
    return {"machine": machine(), "events": arguments.events, "questions": found}


def draw(name: str, rows: list[dict], folder: Path) -> None:
    """scale-NAME.png: rate, CPU and memory along the question's number."""
    good = [row for row in rows if "failed" not in row]
    if not good:
        return
    question, xs = QUESTIONS[name], [row["x"] for row in good]
    cpu = {"workers": (xs, [row["worker_us"] for row in good])}
    for server in good[0]["server_us"]:
        cpu[server] = (xs, [row["server_us"][server] or 0 for row in good])
    memory = {process: (xs, ys) for process, ys in _memory(good)}
    rates = {
        "to Postgres": (xs, _drawable(good, "committed_per_s")),
        "to Redis": (xs, _drawable(good, "applied_per_s")),
    }
    panels = {"events/s": rates, "CPU µs/event": cpu, "most memory, MiB": memory}
    below = results.subtitle({"machine": machine(), "events": good[-1]["events"]})
    results.lines(folder / f"scale-{name}.png", question.asks, below, panels, question.x_name, question.log_x)


def _drawable(rows: list[dict], name: str) -> list[float]:
    return [math.nan if row[name] is None else row[name] for row in rows]


def _memory(rows: list[dict]) -> Iterator[tuple[str, list[float]]]:
    """Each process's line; workers are one, the largest."""
    for process in ("kafka", "postgres", "redis", "supervisor"):
        yield process, [row["memory_mib_max"].get(process, 0) for row in rows]
    yield "largest worker", [largest_worker(row) for row in rows]


def largest_worker(row: dict) -> float:
    """MiB."""
    return max((used for name, used in row["memory_mib_max"].items() if name.startswith("worker")), default=0)


def table(result: dict[str, object]) -> Table:
    """For people."""
    shown = Table(box=None, pad_edge=False, title=results.subtitle(result), title_justify="left")
    for name in (
        "",
        "events/s",
        "to Redis",
        "worker µs",
        "kafka",
        "postgres",
        "redis",
        "worker MiB",
        "redis MiB",
    ):
        shown.add_column(name)
    for question in result["questions"].values():
        shown.add_row(f"[bold]{question['asks']}[/bold]")
        for row in question["cases"]:
            if "failed" in row:
                shown.add_row(row["label"], f"[red]{row['failed']}[/red]")
                continue
            shown.add_row(
                row["label"],
                *(
                    f"{row[name]:,}" if row[name] else "too short"
                    for name in ("committed_per_s", "applied_per_s")
                ),
                str(row["worker_us"]),
                *(str(row["server_us"].get(name)) for name in ("kafka", "postgres", "redis")),
                f"{largest_worker(row):,.0f}",
                f"{row['memory_mib_max'].get('redis', 0):,.0f}",
            )
    return shown


def main(arguments: list[str]) -> int:
    """Measure, print and write down; exit code 1 when a case failed or its answer was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description="How cost grows. On private servers, or on those of HOTPATH_* when set.",
    )
    parser.add_argument(
        "--what", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="these questions alone"
    )
    parser.add_argument(
        "--events", type=above_zero, default=1_000_000, help="messages of a case (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=above_zero, default=900, help="seconds a case may take (%(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=results.FOLDER, help="folder for scale.json and the plots"
    )
    parser.add_argument("--cases", type=above_zero, help="only the first so many cases of each question")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        result = answers(given, console)
    except HotpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    results.write_json(result, given.results, "scale")
    show(result, table, given.json)
    failed = [
        row for question in result["questions"].values() for row in question["cases"] if "failed" in row
    ]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

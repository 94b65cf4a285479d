"""What `bench.soak` saw, as a table and as a picture."""

from pathlib import Path

from rich.table import Table

from bench import results


def memory_in(sample: dict[str, float]) -> dict[str, float]:
    """Of a sample: the memory of each process."""
    return {name: used for name, used in sample.items() if name.startswith("memory ")}


def short(name: str) -> str:
    """A process's name out of that of its figure."""
    return name.removeprefix("memory ").partition(",")[0]


def draw(result: dict[str, object], folder: Path) -> None:
    """soak.png."""
    samples = result["samples"]
    minutes = [sample["seconds"] / 60 for sample in samples]

    def line(*names: str) -> dict[str, tuple[list, list]]:
        return {short(name): (minutes, [sample.get(name, 0) for sample in samples]) for name in names}

    panels = {
        "events/s": line("events_per_s"),
        "lag, events": line("lag_events", "redis_lag_events"),
        "memory, MiB": line(*memory_in(samples[-1])),
        "Redis, MiB": line("redis_used_mib"),
        "Postgres, MiB": line("events_mib", "other_tables_mib"),
        "days": line("event_days"),
    }
    title = f"{result['days_of_event_time']:g} days of events in {result['minutes']:g} minutes"
    results.lines(folder / "soak.png", title, results.subtitle(result), panels, "minutes")


def table(result: dict[str, object]) -> Table:
    """For people."""
    title = f"{result['events']:,} events at {result['rate']:,}/s, {result['days_of_event_time']:g} days of events"
    shown = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("over the second half", "mean", "growth", ""):
        shown.add_column(name)
    for name, told in result["flatness"].items():
        growth = "-" if told["growth"] is None else f"{told['growth']:+.1%}"
        verdict = {None: "too few samples", True: "flat", False: "grows"}[told["flat"]]
        shown.add_row(name, f"{told['mean']:,}", growth, verdict)
    shown.add_row(
        "the answer", "[red]wrong[/red]" if result["wrong"] else "right", "", "; ".join(result["wrong"])
    )
    return shown

"""The result of a proof for people: a short table, the first differences, and what was not proven."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotpath.proof.findings import Findings

TABLES = {
    "messages": "messages of the log",
    "stages": "of these judged again by the plain reference",
    "events": "events",
    "late_events": "late events",
    "quarantine": "quarantine rows",
    "ledger": "ledger rows",
    "bot_activity": "users and seconds of bots",
    "history_minutes": "minutes of history, by log",
    "history_pages": "minutes of history, by page",
    "partition_state": "logs",
    "views": "entries of live views",
    "log": "",
}


def table(findings: Findings) -> Table:
    """One row per thing that was compared."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("compared")
    shown.add_column("number", justify="right")
    shown.add_column("differences", justify="right")
    for what, text in TABLES.items():
        checked, differences = findings.checked[what], findings.counts[what]
        if checked or differences:
            style = "bold red" if differences else ""
            shown.add_row(
                text or what, f"{checked:,}" if checked else "", Text(f"{differences:,}", style=style)
            )
    return shown


def print_report(console: Console, findings: Findings, seconds: float) -> None:
    """Everything, the verdict last."""
    messages = findings.checked["messages"]
    console.print(table(findings))
    for note in findings.notes:
        console.print(Text(f"not proven: {note}", style="yellow"), soft_wrap=True)
    for difference in findings.first:
        console.print(Text(str(difference), style="red"), soft_wrap=True)
    total = sum(findings.counts.values())
    if total > len(findings.first):
        console.print(f"... and {total - len(findings.first):,} more differences")
    rate = f"{messages:,} messages in {seconds:.1f} s, {messages / max(seconds, 1e-9):,.0f} a second"
    if findings.proven:
        console.print(Text(f"proven: {rate}", style="bold green"), soft_wrap=True)
    else:
        console.print(
            Text(f"NOT as the log says: {total:,} differences; {rate}", style="bold red"), soft_wrap=True
        )

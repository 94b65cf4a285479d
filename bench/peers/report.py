"""What the races gave: for people, for programs, and as a picture."""

from pathlib import Path

from rich.table import Table

from bench import results
from bench.peers.race import Finding, Race

NAME = "peers"


def result_of(title: str, guarantee: str, does: str, race: Race, finding: Finding) -> dict[str, object]:
    """One peer's figures as JSON."""
    own = [us for name, us in race.cpu_us.items() if name.startswith("peer")]
    servers = {name: us for name, us in race.cpu_us.items() if not name.startswith("peer")}
    rate = race.rows_per_s
    return {
        "title": title,
        "guarantee": guarantee,
        "does": does,
        "rows_per_s": None if rate is None else round(rate),
        "rows": race.rows,
        "rows_at_first": race.rows_at_first,
        "first_row_s": round(race.first_row_s, 3),
        "seconds": round(race.seconds, 3),
        "peer_us": None if rate is None or None in own else round(sum(own), 3),
        "server_us": servers if rate is not None else {},
        "right": finding.right,
        "duplicates": finding.duplicates,
        "missing": finding.missing,
        "answer": finding.said,
    }


def table(result: dict[str, object]) -> Table:
    """For people: the fastest first."""
    shown = Table(box=None, pad_edge=False, title=results.subtitle(result), title_justify="left")
    for name in ("", "rows/s", "CPU µs/row", "of servers", "guarantee", "what it does", "answer"):
        shown.add_column(name)
    for row in _rows(result):
        shown.add_row(*row)
    return shown


def write(result: dict[str, object], folder: Path) -> None:
    """peers.json, peers.md and peers.png."""
    results.write_json(result, folder, NAME)
    lines = [
        f"# {results.subtitle(result)}",
        "",
        "| | rows/s | CPU µs/row | of servers | guarantee | what it does | answer |",
        "|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(result)),
        "",
    ]
    (folder / f"{NAME}.md").write_text("\n".join(lines))
    timed = [peer for peer in _fastest_first(result) if peer.get("rows_per_s")]
    if timed:
        results.bars(
            folder / f"{NAME}.png",
            "rows a second into the same table",
            results.subtitle(result),
            {f"{peer['title']}\n{peer['guarantee']}": peer["rows_per_s"] for peer in timed},
        )


def _fastest_first(result: dict[str, object]) -> list[dict]:
    return sorted(result["peers"].values(), key=lambda peer: -(peer.get("rows_per_s") or 0))


def _rows(result: dict[str, object]) -> list[tuple[str, ...]]:
    rows = []
    for peer in _fastest_first(result):
        if "failed" in peer:
            rows.append(
                (peer["title"], "-", "-", "-", "-", "-", f"no result: {peer['failed'].splitlines()[0]}")
            )
            continue
        servers = [us for us in peer["server_us"].values() if us is not None]
        rows.append(
            (
                peer["title"],
                f"{peer['rows_per_s']:,}" if peer["rows_per_s"] else "too short to tell",
                str(peer["peer_us"]),
                f"{sum(servers):.2f}",
                peer["guarantee"],
                peer["does"],
                peer["answer"],
            )
        )
    return rows

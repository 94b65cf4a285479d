"""Where results are kept, and how they are drawn: JSON, and plots beside it, in bench/results.

Every file says which machine it was measured on and when. Figures of two machines are not to be compared.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.harness import machine

FOLDER = Path(__file__).parent / "results"
_INK, _BAR, _OURS = "#333333", "#9db4c8", "#1f6f8b"


def write_json(result: dict[str, object], folder: Path, name: str) -> None:
    """`result`, stamped with the date, as NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    stamped = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds")} | result
    (folder / f"{name}.json").write_text(json.dumps(stamped, indent=2) + "\n")


def subtitle(result: Mapping[str, object]) -> str:
    """Machine, date and size of a run in one line."""
    host = result.get("machine") or machine()
    size = f"{result['events']:,} events, " if "events" in result else ""
    return (
        f"{size}{host['cores']} cores of {host['cpu']}, {host['memory_gib']} GiB, "
        f"{datetime.now(UTC).date().isoformat()}"
    )


def bars(path: Path, title: str, below: str, values: Mapping[str, float]) -> None:
    """Horizontal bars, in the order given, the first in our colour if it is ours."""
    figure, axes = _canvas(title, below, height=1.2 + 0.6 * len(values))
    names = list(values)[::-1]
    colours = [_OURS if name.startswith("hotpath") else _BAR for name in names]
    drawn = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(drawn, [f" {values[name]:,.0f}" for name in names], fontsize=9)
    axes.margins(x=0.15)
    axes.set_xticks([])
    _save(figure, path)


def lines(
    path: Path,
    title: str,
    below: str,
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    x_name: str,
    log_x: bool = False,
) -> None:
    """One panel below the other, each with its named lines of (x, y); every panel begins at zero."""
    figure, all_axes = _canvas(title, below, height=1 + 2.2 * len(panels), rows=len(panels))
    all_axes = [all_axes] if len(panels) == 1 else all_axes
    for axes, (name, drawn) in zip(all_axes, panels.items(), strict=True):
        for label, (xs, ys) in drawn.items():
            axes.plot(xs, ys, marker="o" if len(xs) < 30 else None, markersize=3, label=label, linewidth=1.2)
        axes.set_ylabel(name, fontsize=9)
        axes.set_ylim(bottom=0)
        if log_x:
            axes.set_xscale("log")
        if len(drawn) > 1:
            axes.legend(fontsize=7, frameon=False, ncols=3)
    all_axes[-1].set_xlabel(x_name, fontsize=9)
    _save(figure, path)


def _canvas(title: str, below: str, height: float, rows: int = 1):
    # Not at the top: it takes half a second, which a run without plots need not pay.
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, 1, figsize=(9, height), sharex=True, layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=_INK)
    figure.text(0.02, 0.0, below, fontsize=7, color=_INK, va="top")
    for each in axes if rows > 1 else [axes]:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    return figure, axes


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)

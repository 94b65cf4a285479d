"""`python -m tests.chaos --faults 100 --seed 7`: random faults over one long-lived pipeline, and the proof at the end.

Exit code 1 on any breach, which names the seed and the number of the fault: the same seed draws the same faults.
SIGTERM ends the run in order after the present fault, with the proof.
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.faults import Drawn
from tests.chaos.proof import prove
from tests.chaos.runner import RECOVERY_TIMEOUT_S, Breach, Record, Runner
from tests.chaos.world import World

SUPERVISOR_GROWTH_MIB_MAX = 32.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=None, help="which; drawn and printed by default")
    parser.add_argument("--rate", type=int, default=3_000, help="events a second meanwhile")
    parser.add_argument("--procs", type=int, default=2, help="workers")
    parser.add_argument(
        "--prove-every", type=int, default=25, help="faults between two proofs; 0: only at the end"
    )
    parser.add_argument("--recovery-max-s", type=float, default=15, help="longest recovery that is no breach")
    parser.add_argument("--only", default="", help="only faults whose class has this in its name")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1 << 32)
    return options


class Run:
    """The faults of a run, one round after the other."""

    def __init__(self, options: argparse.Namespace, console: Console, progress: Progress) -> None:
        self._options = options
        self._console = console
        self._progress = progress
        self._task = progress.add_task("starting", total=options.faults)
        self._stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: self._stopping.append(number))
        self.number = 0
        self.records: list[Record] = []
        self.not_possible: dict[str, str] = {}

    def __call__(self, world: World) -> None:
        """All faults, and the proof. Raises AssertionError on a breach."""
        options = self._options
        runner = Runner(world, self._tell, max(RECOVERY_TIMEOUT_S, 2 * options.recovery_max_s))
        self.records, self.not_possible = runner.records, runner.not_possible
        drawn = Drawn(options.seed, options.only)
        runner.wait_until_recovered()
        while self.number < options.faults and not self._stopping:
            faults = drawn.next()
            self.number += len(faults)
            record = runner.run(faults)
            self._progress.update(self._task, completed=self.number)
            if record is not None:
                self._progress.print(_line(self.number, record), soft_wrap=True)
                if record.recovery_s > options.recovery_max_s:
                    raise Breach(f"{' + '.join(record.names)}: recovery took {record.recovery_s:.1f} s")
            if options.prove_every and self.number % options.prove_every < len(faults):
                self._prove(world)
                world.start_load()
                runner.wait_until_recovered()
        self._prove(world)
        _judge_memory(self.records)

    def _prove(self, world: World) -> None:
        self._tell("proving")
        world.stop_load()
        self._progress.print(prove(world).strip())

    def _tell(self, text: str) -> None:
        self._progress.update(self._task, description=text)
        if not self._console.is_terminal:
            self._console.print(text, markup=False, soft_wrap=True)


def main() -> int:
    options, console = parse(), Console()
    console.print(f"seed {options.seed}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        run = Run(options, console, progress)
        with World(options.rate, options.procs) as world:
            try:
                run(world)
                breach = ""
            except Exception as error:
                breach = f"{type(error).__name__}: {error}"
                kept = Path(tempfile.mkdtemp(prefix="hotpath-chaos-"))
                with suppress(OSError):
                    shutil.copytree(world.home.path / "log", kept, dirs_exist_ok=True)
    console.print(table(run.records))
    for name, why in run.not_possible.items():
        console.print(f"not possible on this machine: {name}: {why}", markup=False)
    if breach:
        console.print(f"breach at fault {run.number} of seed {options.seed}: {breach}", markup=False)
        console.print(f"what was logged is in {kept}", markup=False)
        return 1
    console.print(f"seed {options.seed}: {run.number} of {options.faults} faults, everything proven")
    return 0


def _line(number: int, record: Record) -> str:
    return (
        f"{number:4d}  {' + '.join(record.names):<60} broken {record.broken_s:5.1f} s, recovered in "
        f"{record.recovery_s:5.1f} s, worker {record.worker_mib:3.0f} MiB"
    )


def _judge_memory(records: list[Record]) -> None:
    """Memory is flat: the supervisor's, which lives long, does not grow with the number of faults."""
    quarter = len(records) // 4
    if quarter:
        first = statistics.median(record.supervisor_mib for record in records[:quarter])
        last = statistics.median(record.supervisor_mib for record in records[-quarter:])
        if last - first > SUPERVISOR_GROWTH_MIB_MAX:
            raise Breach(f"the supervisor grew from {first:.0f} to {last:.0f} MiB")


def table(records: list[Record]) -> Table:
    """Per kind of fault how often it came and how long recovery took."""
    found: dict[str, list[float]] = {}
    for record in records:
        name = record.names[0] if len(record.names) == 1 else "two at a time"
        found.setdefault(name, []).append(record.recovery_s)
    shown = Table("fault", "times", "recovery, median s", "max s")
    for name, seconds in sorted(found.items(), key=lambda row: (row[0] == "two at a time", row[0])):
        median = statistics.median(seconds)
        shown.add_row(name, str(len(seconds)), f"{median:.1f}", f"{max(seconds):.1f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())

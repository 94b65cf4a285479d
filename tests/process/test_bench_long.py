"""The benchmarks of peers and of growth run, on tiny loads, so that they never rot."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.pipeline import ROOT


@pytest.fixture
def run_bench(kafka, postgres, databases, redis_url, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
        "HOTPATH_POSTGRES_DSN": postgres.dsn("postgres"),
        "HOTPATH_REDIS_URL": redis_url,
    }

    def run(module: str, *flags: str) -> dict:
        command = [sys.executable, "-m", module, "--json", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_peers_race_and_every_row_is_compared(run_bench, tmp_path):
    flags = ("--events=3000", "--users=2000", "--procs=1", "--partitions=2", "--only", "hotpath", "per_event")
    result = run_bench("bench.peers", *flags, f"--results={tmp_path}")
    ours, theirs = result["peers"]["hotpath"], result["peers"]["per_event"]
    assert ours["right"] and theirs["right"]
    assert ours["duplicates"] == 0
    # Who counts no page views by second stores bots, too.
    assert theirs["rows"] - theirs["duplicates"] > ours["rows"] > 0
    assert {path.name for path in tmp_path.iterdir()} >= {"peers.json", "peers.md"}


def test_growth_is_measured_and_drawn(run_bench, tmp_path):
    flags = ("--what", "partitions", "--cases=1", "--events=3000", f"--results={tmp_path}")
    (case,) = run_bench("bench.scale", *flags)["questions"]["partitions"]["cases"]
    assert case["events"] == sum(case["classes"].values()) == 3_000
    assert case["worker_us"] > 0 and case["memory_mib_max"]["supervisor"] > 0
    assert (tmp_path / "scale-partitions.png").exists() and (tmp_path / "scale.json").exists()


def test_the_index_spares_gap_fill_and_bot_counts_most_of_the_table(run_bench):
    layouts = {row["layout"]: row for row in run_bench("bench.tables", "--rows=200000")["layouts"]}
    without = layouts["no index"]["queries"]
    with_it = next(row for name, row in layouts.items() if "as it is" in name)["queries"]
    assert "Bitmap Index Scan" in with_it["a flush's gap"]["by"]
    for name, told in with_it.items():
        assert 0 < told["pages"] < without[name]["pages"] / 2, name

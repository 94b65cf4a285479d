"""The benchmarks of what people see run, on a tiny load, so that they never rot."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.pipeline import ROOT


@pytest.fixture
def run_bench(kafka, postgres, databases, redis_url):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
        "HOTPATH_POSTGRES_DSN": postgres.dsn("postgres"),
        "HOTPATH_REDIS_URL": redis_url,
    }

    def run(module: str, *flags: str, warm_up: int = 0) -> dict:
        command = [sys.executable, "-m", module, "--json", "--procs=1", f"--warm-up={warm_up}", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_freshness_is_measured(run_bench):
    (row,) = run_bench("bench.freshness", "--rates=300", "--seconds=1")["rates"]
    assert row["rate"] == 300 and row["reached"] > 0
    assert row["probes"] > 5
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_the_way_back_after_a_flush_is_measured(run_bench):
    result = run_bench("bench.heal", "--rate=300", "--users=500", warm_up=2)
    assert result["check"] == "clean" and result["seconds"] > 0
    assert result["events_in_windows"] > 0


def test_the_api_is_measured(run_bench):
    flags = ("--rate=300", "--seconds=1", "--requests=50", "--streams=10")
    result = run_bench("bench.api", *flags)
    assert result["most"]["requests"] > 0 and result["most"]["failed"] == 0
    assert result["steady"]["requests"] == 50 and result["steady"]["failed"] == 0
    assert 0 < result["steady"]["p50_ms"] <= result["steady"]["p99_ms"]
    streams = result["streams"]
    assert (streams["streams"], streams["still_open"], streams["served"]) == (10, 10, 10)
    assert result["streams_beside_requests"]["still_open"] == 10

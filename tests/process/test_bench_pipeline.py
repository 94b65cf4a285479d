"""The end-to-end benchmark runs, on a tiny workload, so that it never rots."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import redis

from bench.harness import CpuMeter, cpu_seconds
from hotpath.shm.control import STAGES

ROOT = Path(__file__).parents[2]


def test_the_pipeline_bench_measures_checks_and_cleans_up(kafka, postgres, databases, redis_url):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOTPATH_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HOTPATH_KAFKA_OPTIONS": json.dumps(kafka.client_options),
        "HOTPATH_POSTGRES_DSN": postgres.dsn("postgres"),
        "HOTPATH_REDIS_URL": redis_url,
    }
    topics = set(kafka.admin().list_topics(timeout=10).topics)
    command = [sys.executable, "-m", "bench.pipeline", "--events", "20000", "--users", "20000", "--json"]
    done = subprocess.run(
        [*command, "--procs", "1", "--timeout", "60"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["events"] == 20_000 == sum(result["classes"].values())
    assert result["raw_copy"]["rows"] == result["classes"]["accepted"]
    assert result["worker_us"] > 0 and result["worker_rss_mib_max"] > 0
    assert tuple(result["worker_us_by_stage"]) == STAGES
    assert all(us is not None for us in result["server_us"].values())
    assert result["limit_events_per_s"] > 0
    assert result["limit_us"]["redis"] > 0
    assert len(result["worker_mib_by_quarter"]) == 4

    with psycopg.connect(postgres.dsn("postgres")) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'bench_%'").fetchall()
    assert left == []
    assert set(kafka.admin().list_topics(timeout=10).topics) - topics <= {"__consumer_offsets"}
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_cpu_of_ended_children_is_counted():
    before = cpu_seconds(os.getpid())
    meter = CpuMeter({"us": os.getpid(), "nobody": None})
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert cpu_seconds(os.getpid()) > before
    used = meter.us_per(1_000_000)
    assert used["us"] > 0 and used["nobody"] is None

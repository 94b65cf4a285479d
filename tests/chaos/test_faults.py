"""Every way to break once, as short as it can be, over one pipeline; each group ends with the proof.

The long run, with all kinds of faults, is `make chaos`. HOTPATH_TEST_CHAOS_SEED repeats what was left to chance.
"""

import os
import random

import pytest

from tests.chaos import faults_kafka as kafka
from tests.chaos import faults_postgres as postgres
from tests.chaos import faults_processes as processes
from tests.chaos import faults_redis as views
from tests.chaos.proof import prove
from tests.chaos.runner import Runner
from tests.chaos.world import World

GROUPS = {
    "processes": [
        [processes.WorkerKilled, processes.ClockJumpsForth],
        [processes.SupervisorKilled],
        [processes.AllKilled, processes.ClockJumpsBack],
        [processes.StoppedInMidFlush],
        [processes.WorkerFrozenOutside],
        [processes.ZombieInside],
    ],
    "postgres": [
        [postgres.PostgresKilled, processes.WorkerKilled],
        [postgres.SessionsTerminated],
        [postgres.TableLocked],
        [postgres.CommitReplyLostAlways],
        [postgres.DiskFull],
    ],
    "redis": [
        [views.RedisKilled],
        [views.RedisRestartedEmpty],
        [views.RedisWiped, processes.WorkerKilled],
        [views.RedisSlow],
        [views.RedisFrozen],
        [views.RedisAnswersErrors],
        [views.RedisWrongTypes],
        [views.RedisKeysLost],
        [views.ScriptReplyLostAlways],
    ],
    "kafka": [
        [kafka.KafkaKilled, processes.WorkerKilled],
        [kafka.PoisonStorm],
        [kafka.PartitionsAdded],
    ],
    "incarnations": [
        [kafka.RetentionPassed],
        [kafka.TopicRecreated],
    ],
}


@pytest.fixture(scope="module")
def seed() -> int:
    drawn = int(os.environ.get("HOTPATH_TEST_CHAOS_SEED", random.randrange(1 << 32)))
    print(f"HOTPATH_TEST_CHAOS_SEED={drawn}")
    return drawn


@pytest.fixture(scope="module")
def runner(seed: int) -> Runner:
    with World(rate=2_000) as world:
        runner = Runner(world)
        runner.wait_until_recovered()
        yield runner


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_lost_or_doubled_through_faults_of(group: str, runner: Runner, seed: int):
    chance = random.Random(f"{seed} {group}")
    if runner.world.load is None:
        runner.world.start_load()
    for kinds in GROUPS[group]:
        runner.run([kind(chance, full=False) for kind in kinds])
        print(runner.records[-1])
    for name, why in runner.not_possible.items():
        print(f"not possible on this machine: {name}: {why}")
    runner.world.stop_load()
    prove(runner.world)

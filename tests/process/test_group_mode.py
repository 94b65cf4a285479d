"""Several supervisors share a topic by Kafka's consumer group; machines come, go, freeze and are cut off."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import NewPartitions

from hotpath.kafka import describe_topic, log_ranges
from hotpath.settings import PipelineSettings
from tests.support.exactness import assert_exact
from tests.support.machines import Cable, Load, Machine, one_in_each_partition, owners
from tests.support.pipeline import Topic, wait_until
from tests.support.proven import differences, prove_quietly, settings_for
from tests.support.stored import new_sink

PARTITIONS = 8
TAKEOVER_S = float(os.environ.get("HOTPATH_TEST_TAKEOVER_S", "30"))
"""15 is promised with the session time-out of production (HOTPATH_TEST_GROUP_SESSION_S=6) on a machine with time for
it; this one runs many tests beside each other."""
BALANCED_S = 90
"""Interpreters have to start for it."""


@pytest.fixture
def topic(kafka, new_topic) -> Topic:
    return Topic(kafka.bootstrap, kafka.client_options, new_topic(PARTITIONS), PARTITIONS)


def wait_until_balanced(*machines: Machine) -> None:
    share = PARTITIONS // len(machines)

    def balanced() -> bool:
        return all(machine.healthy() for machine in machines) and set(owners(list(machines)).values()) == {
            share
        }

    wait_until(balanced, f"each machine has {share} partitions", BALANCED_S)


def wait_until_taken_over(machine: Machine) -> float:
    """Until every partition commits again, and this machine does it; how many seconds that took."""
    began = time.monotonic()
    one_in_each_partition(machine.topic)
    machine.wait_until_committed(TAKEOVER_S)
    took_s = time.monotonic() - began
    wait_until(lambda: len(machine.partitions()) == PARTITIONS, "it has all partitions")
    return took_s


def applied(*machines: Machine) -> bool:
    """Whether all that is committed is in the views."""
    logs = [log for machine in machines for worker in machine.status()["workers"] for log in worker["logs"]]
    return len(logs) == PARTITIONS and all(log["applied"] >= log["committed"] for log in logs)


def test_machines_that_are_killed_frozen_or_cut_off_lose_nothing(topic: Topic, database: str, redis_url: str):
    with (
        Machine("red", topic, database, redis_url) as red,
        Machine("blue", topic, database, redis_url) as blue,
        Load(topic, seed=1) as load,
    ):
        wait_until_balanced(red, blue)
        took_s = {}

        red.signal_all(signal.SIGKILL)
        took_s["killed"] = wait_until_taken_over(blue)
        red.start()
        wait_until_balanced(red, blue)

        blue.signal_all(signal.SIGSTOP)
        took_s["frozen"] = wait_until_taken_over(red)
        blue.signal_all(signal.SIGCONT)
        wait_until_balanced(red, blue)

        for name, links in {
            "cut off from Kafka": [red.kafka_link],
            "cut off from Postgres": [red.postgres_link],
            "cut off from both": [red.kafka_link, red.postgres_link],
        }.items():
            for link in links:
                link.cut()
            took_s[name] = wait_until_taken_over(blue)
            for link in links:
                link.mend()
            wait_until_balanced(red, blue)

        load.stop()
        blue.wait_until_committed()
        print({name: round(seconds, 1) for name, seconds in took_s.items()})
        wait_until(lambda: applied(red, blue), "Redis has what Postgres has")
        findings = prove_quietly(settings_for(topic, database, redis_url))
        assert differences(findings) == [] and findings.notes == [] and findings.checked["views"] > 0
        counts = assert_exact(topic, database)
        assert counts["accepted"] and counts["bot"] and counts["late"] and counts["bad_value"]
        assert counts.total() == load.sent + PARTITIONS * len(took_s)
        assert red.stop() == 0 and blue.stop() == 0


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Another network; where this machine allows it. Links can be cut everywhere: see the test above."""
    try:
        made = Cable()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    yield made
    made.remove()


def test_a_machine_whose_cable_is_pulled_loses_nothing(
    topic: Topic, database: str, redis_url: str, cable: Cable
):
    red = Machine("red", topic, database, redis_url, cable.here, status_host=cable.there)
    red.before = ["ip", "netns", "exec", cable.name]
    red.status_url = red.status_url.replace("127.0.0.1", cable.there)
    with red, Machine("blue", topic, database, redis_url) as blue, Load(topic, seed=2) as load:
        wait_until_balanced(red, blue)
        cable.pull()
        wait_until_taken_over(blue)
        cable.mend()
        wait_until_balanced(red, blue)
        load.stop()
        blue.wait_until_committed()
        assert assert_exact(topic, database).total() == load.sent + PARTITIONS
        assert red.stop() == 0 and blue.stop() == 0


def test_idle_workers_are_healthy_and_get_partitions_that_are_added(kafka, new_topic, database, redis_url):
    topic = Topic(kafka.bootstrap, kafka.client_options, new_topic(2), 2)
    with Machine("red", topic, database, redis_url, procs=3) as red:

        def states() -> list[tuple[str, int]]:
            return sorted((worker["state"], len(worker["logs"])) for worker in red.status()["workers"])

        shared = [("idle", 0), ("running", 1), ("running", 1)]
        wait_until(lambda: states() == shared, "each partition has a worker, and one worker none")
        assert red.healthy()
        one_in_each_partition(topic)
        admin = kafka.admin()  # held here: the request ends with it
        admin.create_partitions([NewPartitions(topic.name, 3)])[topic.name].result()
        red.topic = topic = Topic(kafka.bootstrap, kafka.client_options, topic.name, 3)
        wait_until(lambda: red.partitions() == {0, 1, 2}, "the third worker has the third partition")
        one_in_each_partition(topic)
        red.wait_until_applied()
        assert {"topic": topic.name, "assign": "group", "machine": "red"}.items() <= red.status().items()
        assert states() == [("running", 1)] * 3
        assert assert_exact(topic, database).total() == 5
        assert sum(worker["restarts"] for worker in red.status()["workers"]) == 0
        assert red.stop() == 0


def test_a_fenced_worker_goes_on_with_its_other_logs(topic: Topic, database: str, redis_url: str):
    """A stranger takes two partitions over, without Kafka's group knowing of it, and is gone."""
    with Machine("red", topic, database, redis_url, procs=1) as red, Load(topic, seed=3) as load:
        wait_until(lambda: len(red.partitions()) == PARTITIONS, "one worker has all partitions")
        settings = PipelineSettings(
            kafka_bootstrap=topic.bootstrap, kafka_options=topic.options, topic=topic.name
        )
        taken = [0, 5]
        ranges = log_ranges(settings, taken)
        stranger = new_sink(database)
        stranger.take_over(
            topic.name,
            describe_topic(settings).topic_id,
            taken,
            *zip(*(ranges[partition] for partition in taken), strict=True),
            owner="stranger",
            rules=settings.rules(),
        )
        others = set(range(PARTITIONS)) - set(taken)
        wait_until(lambda: red.partitions() == others, "it goes on with the others")
        assert red.status()["workers"][0]["held_back"] == 2
        wait_until(lambda: len(red.partitions()) == PARTITIONS, "it has them again")
        load.stop()
        stranger.close()
        red.wait_until_applied()
        worker = red.status()["workers"][0]
        assert worker["fenced"] >= 1 and worker["restarts"] == 0 and worker["held_back"] == 0
        assert assert_exact(topic, database).total() == load.sent
        assert red.stop() == 0


def test_of_two_machines_of_one_name_the_first_gives_way(topic: Topic, database: str, redis_url: str):
    with Machine("red", topic, database, redis_url, procs=1) as first, Load(topic, seed=4) as load:
        wait_until(lambda: len(first.partitions()) == PARTITIONS, "the first has all partitions")
        with Machine("red", topic, database, redis_url, procs=1) as second:
            assert first.process.wait(30) == 4
            load.stop()
            second.wait_until_committed()
            assert assert_exact(topic, database).total() == load.sent
            assert second.stop() == 0

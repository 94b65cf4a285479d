"""A topic that is made anew under a running pipeline, longer at once than the old one was."""

import json
import subprocess
import sys
import time

from confluent_kafka.admin import NewPartitions

from tests.process.test_end_to_end import event
from tests.support.pipeline import ROOT, Pipeline, Topic, wait_until


def test_no_message_of_a_topic_made_anew_is_taken_for_one_of_the_old(kafka, new_topic, database, redis_url):
    """Kafka's client reads on at the old offset without a word; nothing of that may reach Postgres."""
    name = new_topic(1)
    topic = Topic(kafka.bootstrap, kafka.client_options, name, 1)
    with Pipeline(topic, database, redis_url, procs=1) as pipeline:
        topic.produce_events([event(f"old-{i}", time.time()) for i in range(50)])
        pipeline.wait_until_applied()
        kafka.delete_topic(name)
        wait_until(lambda: name not in kafka.admin().list_topics(timeout=5).topics, "the topic is gone")
        kafka.create_topic(name, 1)
        topic = Topic(kafka.bootstrap, kafka.client_options, name, 1)
        topic.produce_events([event(f"new-{i}", time.time()) for i in range(500)])
        assert pipeline.process.wait(60) == 5
        assert pipeline.query("SELECT count(*) FROM events WHERE user_id LIKE 'old-%%'") == [(50,)]
        assert pipeline.query("SELECT count(*) FROM events") == [(50,)]
        done = subprocess.run(
            [sys.executable, "-m", "hotpath.logs", "retire"],
            env=pipeline.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "1 logs of other incarnations" in done.stdout
        with Pipeline(topic, database, redis_url, procs=1) as anew:
            wait_until(
                lambda: anew.query("SELECT count(*) FROM events") == [(550,)], "the new one is read", 60
            )
            assert anew.query("SELECT count(*) FROM events WHERE user_id LIKE 'new-%%'") == [(500,)]
            assert anew.stop() == 0


def test_partitions_that_are_added_are_read_from_their_beginning(kafka, topic, database, redis_url):
    with Pipeline(topic, database, redis_url, procs=8) as pipeline:
        topic.produce_events([event(f"u{i}", time.time()) for i in range(100)])
        pipeline.wait_until_applied()
        assert len(pipeline.status()["workers"]) == 4
        admin = kafka.admin()
        admin.create_partitions([NewPartitions(topic.name, 6)])[topic.name].result()
        wider = Topic(kafka.bootstrap, kafka.client_options, topic.name, 6)
        for partition in range(6):
            value = json.dumps(event(f"p{partition}", time.time())).encode()
            wider.produce([(b"k", value)], partition=partition)
        pipeline.topic = wider
        pipeline.wait_until_applied()
        assert len(pipeline.status()["workers"]) == 6
        assert pipeline.query("SELECT count(*) FROM events") == [(106,)]
        assert pipeline.stop() == 0

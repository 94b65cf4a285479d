"""Faults of Kafka and of what stands in it: restarts, storms of bad messages, partitions added, a log that is lost."""

from confluent_kafka import Producer, TopicPartition

from tests.chaos.fault import Fault
from tests.chaos.proof import prove
from tests.chaos.world import World
from tests.support.pipeline import wait_until

LOG_LOST = 5
BAD = (b"{", b"", b"null", b'{"user_id": 1}', b"\xff\xfe", b'{"timestamp": "now", "user_id": "u"}', b"[1, 2")


class KafkaRestarted(Fault):
    touches = frozenset({"kafka"})

    def draw(self) -> None:
        self.hold_s = self.chance.uniform(0, 5) if self.full else 0.5

    def inject(self, world: World) -> None:
        world.kafka.stop()

    def end(self, world: World) -> None:
        world.kafka.start()


class KafkaKilled(KafkaRestarted):
    def inject(self, world: World) -> None:
        world.kafka.kill()


class PoisonStorm(Fault):
    """Nothing but bad messages, as fast as they can be produced, among the good ones."""

    touches = frozenset({"kafka"})
    weight = 0.5

    def draw(self) -> None:
        self.count = self.chance.choice((100_000, 300_000, 1_000_000)) if self.full else 60_000

    def inject(self, world: World) -> None:
        producer = Producer(
            {
                "bootstrap.servers": world.kafka.bootstrap,
                **world.kafka.client_options,
                "linger.ms": 5,
                "queue.buffering.max.messages": 200_000,
            }
        )
        partitions = world.topic.partitions
        for number in range(self.count):
            value = None if number % 50 == 0 else BAD[number % len(BAD)]
            while True:
                try:
                    producer.produce("events", value, b"poison", number % partitions)
                    break
                except BufferError:
                    producer.poll(0.1)
            if number % 1_000 == 0:
                producer.poll(0)
        assert producer.flush(120) == 0


class PartitionsAdded(Fault):
    """The topic gets more partitions, and producers, once they are started anew, use them."""

    touches = frozenset({"kafka", "worker", "supervisor", "load"})
    weight = 0.5

    def inject(self, world: World) -> None:
        world.add_partitions(1 if self.full else 2)
        world.stop_load()
        world.start_load()

    def end(self, world: World) -> None:
        def owned() -> bool:
            status = world.status()
            logs = [log for worker in status["workers"] for log in worker["logs"]] if status else []
            return len(logs) == world.topic.partitions

        wait_until(owned, "every partition has a worker", 60)


class TopicRecreated(Fault):
    """The topic is deleted and made anew. Workers stop; an operator gives the old one up; nothing new is skipped."""

    alone = True
    weight = 0.3

    def inject(self, world: World) -> None:
        world.stop_load()
        prove(world)  # it cannot be read any more afterwards
        self._kept = world.query("select count(*) from events")
        world.stopped_on_purpose = True
        world.recreate_topic()
        world.start_load()
        assert world.pipeline.process.wait(60) == LOG_LOST
        assert "was made anew" in world.said()
        # Started again without a decision, it must refuse again.
        world.launch_pipeline()
        assert world.pipeline.process.wait(60) == LOG_LOST

    def end(self, world: World) -> None:
        done = world.command("hotpath.logs", "retire")
        assert done.returncode == 0, done.stderr
        world.launch_pipeline()
        assert world.query("select count(*) from events") >= self._kept


class RetentionPassed(Fault):
    """While no worker runs, Kafka drops messages that Postgres does not have: told, and entered in the ledger."""

    alone = True
    weight = 0.3

    def draw(self) -> None:
        self.by_setting = self.chance.random() < 0.5

    def inject(self, world: World) -> None:
        world.stop_load()
        prove(world)
        assert world.stop_pipeline() == 0
        self._before = dict(
            world.query("select partition, next_offset from partition_state where retired_at is null")
        )
        world.start_load()
        wait_until(
            lambda: all(end - self._before[p] > 200 for p, end in world.topic.ends().items()), "there is more"
        )
        admin = world.kafka.admin()
        lows = {p: self.chance.randint(self._before[p] + 1, end) for p, end in world.topic.ends().items()}
        asked = [TopicPartition("events", partition, low) for partition, low in lows.items()]
        for future in admin.delete_records(asked).values():
            future.result()
        self._lows = lows
        world.launch_pipeline()
        assert world.pipeline.process.wait(60) == LOG_LOST
        assert "retention has passed" in world.said()

    def end(self, world: World) -> None:
        if self.by_setting:
            world.launch_pipeline("--on-loss", "record")
        else:
            done = world.command("hotpath.logs", "skip")
            assert done.returncode == 0, done.stderr
            world.launch_pipeline()
        wait_until(lambda: self._entered(world), "the losses are in the ledger", 60)

    def _entered(self, world: World) -> bool:
        losses = world.query(
            """select s.partition, l.first_offset, l.next_offset, l.reason from ledger l
               join partition_state s using (log_id)
               where s.retired_at is null and l.reason is not null and s.topic = 'events'"""
        )
        expected = {(p, self._before[p], low, "retention passed") for p, low in self._lows.items()}
        return expected <= set(losses)

"""A small topic that a real pipeline has been through, for tests of what proves it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from bench.workload import Workload, fill
from hotpath.proof.findings import Findings
from hotpath.settings import PipelineSettings
from hotpath.verify import Options, prove
from tests.bad_inputs import BAD_INPUTS, message
from tests.support.pipeline import Pipeline, Topic

EVENTS = 3_000


@dataclass(frozen=True)
class Proven:
    """What a pipeline was given, and where it has put it."""

    topic: Topic
    settings: PipelineSettings
    pipeline: Pipeline


def prove_quietly(settings: PipelineSettings, **options: object) -> Findings:
    return prove(settings, Options(**options), Console(quiet=True))


def differences(findings: Findings) -> list[str]:
    """The differences as they are printed."""
    return list(map(str, findings.first))


def produce_everything(topic: Topic, settings: PipelineSettings, events: int = EVENTS) -> None:
    """Messages of every class: ordinary traffic with bots and late events, faults of every kind, one of the future."""
    workload = Workload(events, partitions=topic.partitions, users=400, as_if_rate=20)
    fill(settings, workload)
    faults = [bad.value for bad in BAD_INPUTS if bad.value is None or len(bad.value) < 500_000]
    for number, value in enumerate(faults):
        topic.produce([(b"faults", value)], partition=number % topic.partitions)
    now = int(time.time())
    for partition in range(topic.partitions):
        views = [_at(now, f"bot-{partition}")] * 25 + [_at(now - 1, f"bot-{partition}")] * 12
        others = [_at(now - 400, "late"), _at(now + 3_600, "ahead")]
        topic.produce([(b"any", value) for value in views + others], partition=partition)


def _at(second: int, user_id: str) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return message(timestamp=stamp, user_id=user_id)


def settings_for(topic: Topic, database: str, redis_url: str, **settings: object) -> PipelineSettings:
    """The settings of a pipeline over these, as `running` makes one."""
    return PipelineSettings(
        kafka_bootstrap=topic.bootstrap,
        kafka_options=topic.options,
        topic=topic.name,
        postgres_dsn=database,
        redis_url=redis_url,
        **settings,
    )


@contextmanager
def running(topic: Topic, database: str, redis_url: str, **settings: object) -> Iterator[Proven]:
    """A pipeline over a topic, for the length of a `with` block."""
    with Pipeline(topic, database, redis_url, **settings) as pipeline:
        yield Proven(topic, settings_for(topic, database, redis_url, **settings), pipeline)

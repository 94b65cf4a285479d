"""The workers' control pages as Prometheus metrics; counters start anew with each life of a worker."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hotpath.events import EventClass
from hotpath.shm.control import STAGES
from hotpath.shm.ring import APPLIED, COMMITTED, PUBLISHED
from hotpath.workers.handle import Seat


class WorkerMetrics(Collector):
    """The control pages as Prometheus metrics."""

    def __init__(self, seats: list[Seat]) -> None:
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        messages = CounterMetricFamily("hotpath_messages", "messages by class", labels=["worker", "class"])
        lag = GaugeMetricFamily("hotpath_lag_messages", "messages not yet in Postgres", labels=["partition"])
        redis_lag = GaugeMetricFamily(
            "hotpath_redis_lag_messages", "committed, not yet in Redis", labels=["partition"]
        )
        watermark = GaugeMetricFamily(
            "hotpath_watermark_seconds", "greatest event second", labels=["partition"]
        )
        restarts = CounterMetricFamily("hotpath_worker_restarts", "restarts", labels=["worker"])
        up = GaugeMetricFamily("hotpath_worker_up", "1 while the worker moves", labels=["worker"])
        cpu = CounterMetricFamily("hotpath_stage_cpu_seconds", "CPU by stage", labels=["worker", "stage"])
        flushes = CounterMetricFamily("hotpath_flushes", "Postgres transactions", labels=["worker"])
        flush_time = CounterMetricFamily("hotpath_flush_seconds", "time in flushes", labels=["worker"])
        partitions = GaugeMetricFamily(
            "hotpath_assigned_partitions", "partitions that it works on", labels=["worker"]
        )
        ring = GaugeMetricFamily("hotpath_ring_blocks", "blocks waiting in the ring", labels=["worker"])
        plain = {
            name: (family("hotpath_" + name, text, labels=["worker"]))
            for name, family, text in (
                ("back_pressure", CounterMetricFamily, "times the ring was full"),
                ("postgres_retries", CounterMetricFamily, "flushes tried again"),
                ("redis_heals", CounterMetricFamily, "gaps filled and views rebuilt"),
                ("kafka_errors", CounterMetricFamily, "errors of the Kafka client"),
                ("redis_away", GaugeMetricFamily, "1 while Redis does not answer"),
                ("kafka_down", GaugeMetricFamily, "1 while no broker answers"),
                ("assignments", CounterMetricFamily, "times it took partitions over"),
                ("fenced", CounterMetricFamily, "times another had taken a log over"),
                ("held_back", GaugeMetricFamily, "partitions of the group that it does not take (yet)"),
                ("bot_counts_bytes", GaugeMetricFamily, "memory of the bot counts"),
                ("slots_bytes", GaugeMetricFamily, "memory of what is known of sessions in Redis"),
                ("routing_sampled", CounterMetricFamily, "messages whose key was checked"),
                ("routing_wrong_key", CounterMetricFamily, "of these, not keyed by user_id"),
                ("routing_wrong_partition", CounterMetricFamily, "of these, not in their key's partition"),
            )
        }
        for seat in self._seats:
            label = str(seat.index)
            restarts.add_metric([label], seat.restarts)
            up.add_metric([label], seat.healthy)
            worker = seat.worker
            if worker is None:
                continue
            page, cursors = worker.control.page, worker.control.page["cursors"]
            for event_class in EventClass:
                messages.add_metric([label, event_class.label], int(page["classes"][event_class]))
            for row in worker.control.logs:
                partition = [str(row["partition"])]
                lag.add_metric(partition, max(0, int(row["log_end"] - row["committed"])))
                redis_lag.add_metric(partition, max(0, int(row["committed"] - row["applied"])))
                watermark.add_metric(partition, int(row["watermark_s"]))
            for i, stage in enumerate(STAGES):
                cpu.add_metric([label, stage], int(page["stage_cpu_ns"][i]) / 1e9)
            partitions.add_metric([label], len(worker.control.logs))
            flushes.add_metric([label], int(page["blocks_committed"]))
            flush_time.add_metric([label], int(page["flush_ns"]) / 1e9)
            ring.add_metric([label], int(cursors[PUBLISHED] - min(cursors[COMMITTED], cursors[APPLIED])))
            for name, family in plain.items():
                family.add_metric([label], int(page[name]))
        yield from (
            messages,
            lag,
            redis_lag,
            watermark,
            restarts,
            up,
            cpu,
            flushes,
            flush_time,
            partitions,
            ring,
        )
        yield from plain.values()

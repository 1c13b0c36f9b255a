"""Prometheus metrics of the store that a service uses: its own counters, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from nacre.store import Store, StoreCounters

#: field of StoreCounters -> what it counts
COUNTED = {
    "rows_offered": "Rows that passes offered.",
    "rows_dropped": "Rows dropped because the queue was full.",
    "rows_refused": "Rows that cannot be kept, or of a tenant without a key.",
    "rows_first_seen": "Rows not kept because they were seen for the first time.",
    "rows_written": "Rows written.",
    "rows_read": "Rows read.",
    "rows_corrupt": "Rows read and not understood.",
    "conflicts": "Rows that another writer was faster with, tried again.",
    "outputs_logged": "Finished outputs written.",
    "flushes": "Times the queue was brought away.",
    "failures": "Questions without an answer, or with a wrong one.",
    "skipped": "Questions not asked: the last ones had failed, or too many were asked at once.",
    "episodes": "Times it went from good to bad.",
    "full": "Writes refused for want of room.",
    "reseeds": "Times a reader was away for too long and began anew.",
}


class StoreMetrics(Collector):
    """Registers itself."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        healthy = float(self._store.healthy)
        yield GaugeMetricFamily(
            "nacre_store_healthy", "1 while the store answers and takes what is written.", value=healthy
        )
        for item in fields(StoreCounters):
            value = getattr(self._store.counters, item.name)
            yield CounterMetricFamily(f"nacre_store_{item.name}", COUNTED[item.name], value=value)

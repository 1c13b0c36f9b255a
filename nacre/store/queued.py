"""What all stores do alike: take what verifiers saw, and let the queue's task bring it away.

Rule: taking is O(1), never fails and never waits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nacre.store.portable import MAX_OUTPUT_TOKENS
from nacre.store.rows import Namespace, Row
from nacre.store.store import StoreCounters
from nacre.store.write_queue import Apply, WriteQueue


class QueuedStore:
    """Half of a store. `log_tenants`: who opted in to logging; "*" is everyone. `apply` stores what the queue gives."""

    def __init__(self, apply: Apply, log_tenants: Sequence[str]) -> None:
        self.counters = StoreCounters()
        self._log_tenants = frozenset(log_tenants)
        self._queue = WriteQueue(apply, self.counters)

    def write(self, namespace: Namespace, rows: Collection[Row]) -> None:
        self._queue.offer(namespace, rows)

    def log(self, namespace: Namespace, tokens: Sequence[int]) -> None:
        if namespace.tenant in self._log_tenants or "*" in self._log_tenants:
            self._queue.offer_output(namespace, tuple(tokens[:MAX_OUTPUT_TOKENS]))

    async def flush(self) -> None:
        await self._queue.flush()

"""Between the verifier and a store: a bounded queue that a background task empties.

Rules: offering is O(1) and never fails; what does not fit pushes out the oldest, and is counted; rows of one key are
merged before anyone sends them; a row is passed on from its second sighting. Flushing takes at most `SHARE` of a
core: a flush that computed for long puts off the next one, and the queue's bound does the rest. What a busy machine
takes from us meanwhile is not counted. A store that takes nothing is asked again soon: that is how it is found out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress

from nacre.errors import InvalidArgument
from nacre.store.packing import key_of
from nacre.store.rows import PUBLIC, Namespace, Row, check, merged
from nacre.store.sightings import Sightings
from nacre.store.store import StoreCounters

FLUSH_S = 0.1
FLUSH_KEYS = 512
#: Rows looked at before a flush, most of which nobody has seen before: some three milliseconds.
FLUSH_ROWS = 256
MAX_QUEUED = 16_384
MAX_QUEUED_OUTPUTS = 64
#: Slices of one `flush`: more than a full queue has, and an end where other writers are always faster.
MAX_ROUNDS = 256
#: Of a core's time, for everything that has to do with writing.
SHARE = 0.004
#: The longest pause after a flush that the store did not take.
RETRY_S = 0.5

Coalesced = dict[bytes, Row]
Apply = Callable[[Namespace, Coalesced, list[tuple[int, ...]]], Awaitable[bool]]


def coalesced(rows: Iterable[Row]) -> Coalesced:
    """Rows of one key as one. Raises InvalidArgument for a row that cannot be kept."""
    found: Coalesced = {}
    for row in rows:
        key = key_of(check(row))
        found[key] = merged(found[key], row) if key in found else row
    return found


class WriteQueue:
    """`apply` stores the rows of one namespace and tells whether it could; if not, they wait for another time."""

    def __init__(self, apply: Apply, counters: StoreCounters, *, max_queued: int = MAX_QUEUED) -> None:
        self._apply = apply
        self._counters = counters
        self._max_queued = max_queued
        self._batches: deque[tuple[Namespace, Collection[Row]]] = deque()
        self._queued = 0
        self._outputs: deque[tuple[Namespace, tuple[int, ...]]] = deque()
        self._held: dict[Namespace, Coalesced] = {}
        self._sightings = Sightings()
        self._many = asyncio.Event()
        self._applying = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.spent_s = 0.0  # of computing, since the start; what the store reports through `spent` included

    @property
    def queued(self) -> int:
        return self._queued + sum(map(len, self._held.values()))

    def offer(self, namespace: Namespace, rows: Collection[Row]) -> None:
        self._counters.rows_offered += len(rows)
        if namespace.tenant == PUBLIC:  # only what was built on purpose is shared
            self._counters.rows_refused += len(rows)
            return
        self._batches.append((namespace, rows))
        self._queued += len(rows)
        while self._queued > self._max_queued:
            _, oldest = self._batches.popleft()
            self._queued -= len(oldest)
            self._counters.rows_dropped += len(oldest)
        if self._queued >= FLUSH_KEYS:
            self._many.set()

    def offer_output(self, namespace: Namespace, tokens: tuple[int, ...]) -> None:
        self._outputs.append((namespace, tokens))
        if len(self._outputs) > MAX_QUEUED_OUTPUTS:
            self._outputs.popleft()

    def spent(self, seconds: float) -> None:
        """Time that a store's own work for writing took."""
        self.spent_s += seconds

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="store flush")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.flush()

    async def flush(self) -> None:
        """Applies everything queued, in slices; stops at the first the store cannot take."""
        async with self._applying:
            for _ in range(MAX_ROUNDS):
                if not (self._batches or self._held or self._outputs) or not await self._flush_once():
                    return

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._many.wait()
            self._many.clear()
            if not (self._batches or self._held or self._outputs):
                continue
            before = self.spent_s
            async with self._applying:
                went = await self._flush_once()
            self._counters.flushes += 1
            pause_s = (self.spent_s - before) / SHARE
            await asyncio.sleep(pause_s if went else min(pause_s, RETRY_S))

    async def _flush_once(self) -> bool:
        """At most FLUSH_KEYS rows of each namespace. False: the store took nothing, what was left is kept."""
        started = time.thread_time()
        self._coalesce()
        outputs: dict[Namespace, list[tuple[int, ...]]] = {}
        while self._outputs:
            namespace, tokens = self._outputs.popleft()
            outputs.setdefault(namespace, []).append(tokens)
        self.spent(time.thread_time() - started)
        went = True
        for namespace in list(self._held.keys() | outputs.keys()):
            rows = self._take(namespace)
            if not await self._apply(namespace, rows, outputs.get(namespace, [])):
                went = False
                self._put_back(namespace, rows)
                for tokens in reversed(outputs.get(namespace, [])):
                    self._outputs.appendleft((namespace, tokens))
                while len(self._outputs) > MAX_QUEUED_OUTPUTS:
                    self._outputs.popleft()
        return went

    def _coalesce(self) -> None:
        """From batches to one row per key, until a flush is full or took long; first sightings stay behind.

        While a store takes nothing this stops by itself: at most a flush and a batch are held.
        """
        keys = sum(map(len, self._held.values()))
        looked = 0
        while self._batches and keys < FLUSH_KEYS and looked < FLUSH_ROWS:
            namespace, rows = self._batches.popleft()
            looked += len(rows)
            self._queued -= len(rows)
            held = self._held.setdefault(namespace, {})
            salt = hash(namespace).to_bytes(8, "little", signed=True)
            for row in rows:
                try:
                    key = key_of(check(row))
                except (InvalidArgument, TypeError, ValueError):
                    self._counters.rows_refused += 1
                    continue
                known = held.get(key)
                if known is not None:
                    held[key] = merged(known, row)
                elif row.count > 1 or self._sightings.seen_before(salt + key):
                    held[key] = row
                    keys += 1
                else:
                    self._counters.rows_first_seen += 1
            if not held:
                del self._held[namespace]

    def _take(self, namespace: Namespace) -> Coalesced:
        held = self._held.pop(namespace, {})
        if len(held) <= FLUSH_KEYS:
            return held
        keys = list(held)
        self._held[namespace] = {key: held[key] for key in keys[FLUSH_KEYS:]}
        return {key: held[key] for key in keys[:FLUSH_KEYS]}

    def _put_back(self, namespace: Namespace, rows: Coalesced) -> None:
        """What could not be stored waits; what came meanwhile is merged into it when it is its turn."""
        held = self._held.setdefault(namespace, {})
        for key, row in rows.items():
            held[key] = merged(row, held[key]) if key in held else row
        if not held:
            del self._held[namespace]

    def forget(self, tenant: str) -> None:
        """Drops what is queued for a tenant."""
        self._held = {space: held for space, held in self._held.items() if space.tenant != tenant}
        self._outputs = deque(item for item in self._outputs if item[0].tenant != tenant)
        self._batches = deque(item for item in self._batches if item[0].tenant != tenant)
        self._queued = sum(len(rows) for _, rows in self._batches)

    def offer_again(self, namespace: Namespace, rows: Coalesced) -> None:
        """What another writer was faster with: admitted already, merged with what comes next."""
        self._put_back(namespace, rows)

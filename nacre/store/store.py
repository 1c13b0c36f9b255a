"""The one interface of all stores, and what passes through it.

A store is never on the path of a token. A drafter reads once when a session starts (`seed`), then asks now and then
for what is new (`follow`); only verifiers write, and `write` does nothing but put rows into a bounded queue. A store
that fails answers with nothing: `seed`, `follow`, `write` and `log` never raise, and `seed` never keeps the caller for
longer than the store's timeout; `follow`, for which nobody waits, may ask several times and wait for longer. What an
operator asks for (`namespaces`, `pages`, `purge`, `put`) raises NacreError instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from nacre.store.rows import Namespace, Row

#: What a session reads at its start at most: about 3 ms of decoding on a small core.
SEED_ROWS = 256
SEED_TOKENS = 16_384
#: What one `follow` brings at most.
PAGE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come: last delta, last output, and how much of what was there before. Opaque to it."""

    delta: str = ""
    output: str = ""
    backfill: int = 0  # -1: all of it

    @property
    def complete(self) -> bool:
        """Whether what was stored before the seed has been read too."""
        return self.backfill < 0


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows (each replaces what the reader had of its context), finished outputs, and where to go on.

    `reseed`: the reader was away for too long and what lies between is gone; it should call `seed` again. Rows it
    already has stay useful.
    """

    rows: tuple[Row, ...]
    outputs: tuple[tuple[int, ...], ...]
    cursor: Cursor
    reseed: bool = False


NOTHING = Reading((), (), Cursor())


@dataclass(slots=True)
class StoreCounters:
    """Since the start of the process; for metrics and `stats`."""

    rows_offered: int = 0  # handed to `write`
    rows_dropped: int = 0  # the queue was full
    rows_refused: int = 0  # invalid, or for the public tier
    rows_first_seen: int = 0  # not kept: seen for the first time
    rows_written: int = 0
    rows_read: int = 0
    rows_corrupt: int = 0  # read and not understood: another key, or junk
    conflicts: int = 0  # another writer was faster; tried again
    outputs_logged: int = 0
    flushes: int = 0
    failures: int = 0  # asked and got no answer, or a wrong one
    skipped: int = 0  # not asked, or too late for an answer: the breaker was open, or too many asked
    episodes: int = 0  # times the store went from good to bad
    full: int = 0  # writes refused for want of memory
    reseeds: int = 0


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store tells about itself. `rows` is an estimate where counting would be expensive."""

    kind: str
    healthy: bool
    rows: int
    size_bytes: int
    namespaces: tuple[tuple[Namespace, int], ...]
    counters: StoreCounters
    details: dict[str, str | int | float] = field(default_factory=dict)

    def as_dict(self) -> dict:
        return {
            "kind": self.kind,
            "healthy": self.healthy,
            "rows": self.rows,
            "size_bytes": self.size_bytes,
            "namespaces": [{**asdict(namespace), "rows": rows} for namespace, rows in self.namespaces],
            "counters": asdict(self.counters),
            "details": self.details,
        }


class Store(Protocol):
    """A store of one process. Its methods are called from one event loop."""

    @property
    def counters(self) -> StoreCounters: ...

    @property
    def healthy(self) -> bool:
        """Whether it answered when it was asked last, and takes what is written."""

    async def start(self) -> None:
        """Begins to flush in the background; the store need not be reachable."""

    async def close(self) -> None:
        """Writes what is queued, if that can be done at once, and lets go of everything."""

    async def seed(self, namespace: Namespace) -> Reading:
        """The newest rows and outputs, bounded by SEED_ROWS and SEED_TOKENS. Never raises."""

    async def follow(self, namespace: Namespace, since: Cursor) -> Reading:
        """What came after `since`, and a page of what was there before it; PAGE_ROWS at most. Never raises.

        For a task in the background: it may take seconds.
        """

    def write(self, namespace: Namespace, rows: Collection[Row]) -> None:
        """Queues observations: O(1), never raises, never waits. `rows` must not be changed afterwards.

        They are looked at later, and not at all if the queue has to drop them: making them may wait until then.
        """

    def log(self, namespace: Namespace, tokens: Sequence[int]) -> None:
        """Queues a finished output, if its tenant opted in. O(1), like `write`."""

    async def flush(self) -> None:
        """Applies what is queued now; for tests and orderly ends. Never raises."""

    async def stats(self, tenants: Sequence[str] = ()) -> StoreStats:
        """Raises NacreError if the store cannot be asked."""

    async def namespaces(self, tenant: str) -> tuple[Namespace, ...]:
        """All of a tenant. Raises NacreError."""

    def pages(self, namespace: Namespace) -> AsyncIterator[Sequence[Row]]:
        """All rows, in pages. Raises NacreError."""

    async def outputs(self, namespace: Namespace) -> tuple[tuple[int, ...], ...]:
        """All logged outputs, oldest first. Raises NacreError."""

    async def put(self, namespace: Namespace, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]] = ()) -> None:
        """Merges rows at once, past the queue and admission: imports and corpora. Raises NacreError."""

    async def purge(self, tenant: str) -> int:
        """Removes all a tenant has; returns how many keys or rows went. Raises NacreError."""

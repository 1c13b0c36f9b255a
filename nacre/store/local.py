"""The default store: in this process, in bounded memory, with a snapshot on disk if one is asked for.

Rows are kept packed, in the order in which they were last written. When the store is full, the largest namespace
forgets what was written to it longest ago, as much as is too much and a small share besides. So what is still written
stays, and one tenant's flood costs its own rows first.

Invariant: never more than `max_rows` rows and `max_log_tokens` logged tokens, whatever is written or loaded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from nacre.errors import FailedPrecondition, NacreError, NotFound
from nacre.store.packing import key_in, pack, unpack
from nacre.store.portable import Section, Unreadable
from nacre.store.queued import QueuedStore
from nacre.store.rows import Namespace, Row, merged
from nacre.store.snapshot import Snapshot
from nacre.store.store import PAGE_ROWS, SEED_ROWS, SEED_TOKENS, Cursor, Reading, StoreStats
from nacre.store.write_queue import Coalesced, coalesced

logger = logging.getLogger("nacre.store")

MAX_ROWS = 200_000
MAX_LOG_TOKENS = 1_000_000
MAX_NAMESPACES = 256
MAX_DELTAS = 8192
SNAPSHOT_S = 60.0
#: Of a packed row in a dict: two bytes objects and a slot, measured.
ROW_BYTES = 215
_SLICE = 64
#: One in so many rows is forgotten when a store is full. A dict finds its first key by walking past those that were
#: deleted before it, so forgetting one row at a time would cost a walk through all of them for each.
_SHARE = 64


@dataclass(slots=True)
class _Table:
    """One namespace. Dicts remember the order of writing: a row that is written again moves to the end."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    outputs: deque[tuple[int, tuple[int, ...]]] = field(default_factory=deque)
    tokens: int = 0
    deltas: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=MAX_DELTAS))

    def __len__(self) -> int:
        return len(self.rows)

    def newest_first(self) -> Iterator[bytes]:
        return reversed(self.rows.values())

    def put(self, key: bytes, row: Row, number: int) -> None:
        before = self.rows.pop(key, None)
        self.rows[key] = pack(row if before is None else merged(unpack(before), row))
        self.deltas.append((number, key))

    def forget(self, number: int) -> None:
        """So many rows, those written longest ago."""
        for key in list(islice(self.rows, number)):
            del self.rows[key]


class LocalStore(QueuedStore):
    """`snapshot`: where to keep the rows over a restart; `saves` is false for who only starts with what is there.
    `log_tenants`: who opted in to logging; "*" is everyone.
    """

    def __init__(
        self,
        *,
        max_rows: int = MAX_ROWS,
        max_log_tokens: int = MAX_LOG_TOKENS,
        snapshot: Path | None = None,
        saves: bool = True,
        log_tenants: Sequence[str] = (),
    ) -> None:
        super().__init__(self._apply, log_tenants)
        self._max_rows = max_rows
        self._max_log_tokens = max_log_tokens
        self._snapshot = Snapshot(snapshot) if snapshot is not None else None
        self._saves = saves
        self._tables: dict[Namespace, _Table] = {}
        self._number = 0
        self._saver: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._dirty = False

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        if self._snapshot is not None and not self._tables:
            self._load(self._snapshot)
        await self._queue.start()
        self._closing.clear()
        if self._snapshot is not None and self._saver is None:
            self._saver = asyncio.create_task(self._save_now_and_then(), name="store snapshot")

    def load(self) -> None:
        """Reads the snapshot for an operator. Raises NotFound or FailedPrecondition, and leaves the file alone."""
        if self._snapshot is not None:
            self._read(self._snapshot)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """For an operator who changes it. Raises FailedPrecondition while another process writes the snapshot."""
        if self._snapshot is not None and not self._snapshot.claim():
            raise FailedPrecondition(
                f"a service that runs keeps its rows in {self._snapshot.path} and would write over what is changed "
                "here; stop it first"
            )
        try:
            yield
        finally:
            if self._snapshot is not None:
                self._snapshot.release()

    async def close(self) -> None:
        await self._queue.close()
        self._closing.set()
        if self._saver is not None:
            await self._saver
            self._saver = None
        await self._save_or_tell()
        if self._snapshot is not None:
            self._snapshot.release()

    async def save(self) -> None:
        """Writes the snapshot, if there is something new. Raises ResourceExhausted."""
        if self._snapshot is None or not self._saves or not self._dirty:
            return
        self._dirty = False
        try:
            # The lists are copied here, where nobody changes them; the bytes in them never change.
            await self._snapshot.write(self._sections())
        except NacreError:
            self._dirty = True
            raise

    async def _save_or_tell(self) -> None:
        try:
            await self.save()
        except NacreError as error:
            logger.warning("the store's snapshot was not saved: %s", error.message)

    async def _save_now_and_then(self) -> None:
        while not self._closing.is_set():
            await self._save_or_tell()
            with suppress(TimeoutError):
                async with asyncio.timeout(SNAPSHOT_S):
                    await self._closing.wait()

    def _load(self, snapshot: Snapshot) -> None:
        """A damaged snapshot is told, moved aside and never used; one that cannot be read, or is another's, is told
        and left alone.
        """
        if self._saves and not snapshot.claim():
            self._snapshot = None
            logger.warning("%s is written by another process; what is learnt here will not be saved", snapshot.path)
        try:
            self._read(snapshot)
        except NotFound:
            return
        except Unreadable as error:
            self._tables.clear()
            self._let_go(snapshot)
            logger.warning("%s; starting empty, and nothing will be saved", error.message)
        except FailedPrecondition as error:
            self._tables.clear()
            if self._snapshot is None or not self._saves:
                logger.warning("%s; starting empty", error.message)
                return
            try:
                aside = snapshot.move_aside()
            except OSError as reason:
                # Saving would overwrite what somebody may still want to look at.
                self._let_go(snapshot)
                logger.warning("%s; it cannot be moved aside (%s), so nothing will be saved", error.message, reason)
            else:
                logger.warning("%s; moved to %s, starting empty", error.message, aside)

    def _let_go(self, snapshot: Snapshot) -> None:
        """Nothing will be saved there: another process may."""
        snapshot.release()
        self._snapshot = None

    def _read(self, snapshot: Snapshot) -> None:
        for section in snapshot.read():
            table = self._table(section.namespace)
            for packed in section.rows:
                table.rows[key_in(packed)] = packed
            for output in section.outputs:
                self._log(table, output)
            self._make_room()

    def _sections(self) -> list[Section]:
        return [
            Section(space, list(table.rows.values()), [tokens for _, tokens in table.outputs])
            for space, table in self._tables.items()
        ]

    # -- reading -------------------------------------------------------------------------------------------------

    async def seed(self, namespace: Namespace) -> Reading:
        table = self._tables.get(namespace)
        if table is None:
            return Reading((), (), Cursor(str(self._number), str(self._number), -1))
        rows = tuple(map(unpack, islice(table.newest_first(), SEED_ROWS)))
        outputs: list[tuple[int, ...]] = []
        tokens = 0
        for _, output in reversed(table.outputs):
            tokens += len(output)
            if tokens > SEED_TOKENS:
                break
            outputs.append(output)
        self.counters.rows_read += len(rows)
        backfill = len(rows) if len(table) > len(rows) else -1
        return Reading(rows, tuple(reversed(outputs)), Cursor(str(self._number), str(self._number), backfill))

    async def follow(self, namespace: Namespace, since: Cursor) -> Reading:
        table = self._tables.get(namespace)
        if table is None:
            return Reading((), (), since)
        known = int(since.delta or 0)
        if table.deltas.maxlen == len(table.deltas) and table.deltas[0][0] > known + 1:
            self.counters.reseeds += 1
            return Reading((), (), since, reseed=True)
        keys: dict[bytes, int] = {}
        for number, key in table.deltas:
            if number > known and len(keys) < PAGE_ROWS:
                keys[key] = known = number
        packed = [table.rows.get(key) for key in keys]
        rows = [unpack(row) for row in packed if row is not None]
        backfill = since.backfill
        if backfill >= 0:
            # Rows written meanwhile moved to the front and all others back: pages may overlap, they skip nothing.
            page = list(islice(table.newest_first(), backfill, backfill + PAGE_ROWS - len(rows)))
            rows += map(unpack, page)
            backfill = backfill + len(page) if backfill + len(page) < len(table) else -1
        outputs = [(number, tokens) for number, tokens in table.outputs if number > int(since.output or 0)][:64]
        self.counters.rows_read += len(rows)
        cursor = Cursor(str(known), str(outputs[-1][0]) if outputs else since.output, backfill)
        return Reading(tuple(rows), tuple(tokens for _, tokens in outputs), cursor)

    # -- writing -------------------------------------------------------------------------------------------------

    async def _apply(self, namespace: Namespace, rows: Coalesced, outputs: list[tuple[int, ...]]) -> bool:
        table = self._table(namespace)
        items = iter(rows.items())
        while slice_ := list(islice(items, _SLICE)):
            started = time.thread_time()
            for key, row in slice_:
                self._number += 1
                table.put(key, row, self._number)
            self._make_room()
            self._queue.spent(time.thread_time() - started)
            await asyncio.sleep(0)  # sessions come first
        for output in outputs:
            self._log(table, output)
        self.counters.outputs_logged += len(outputs)
        self.counters.rows_written += len(rows)
        self._dirty = True
        return True

    def _log(self, table: _Table, output: tuple[int, ...]) -> None:
        self._number += 1
        table.outputs.append((self._number, output))
        table.tokens += len(output)
        while sum(other.tokens for other in self._tables.values()) > self._max_log_tokens:
            most = max(self._tables.values(), key=lambda other: other.tokens)
            most.tokens -= len(most.outputs.popleft()[1])

    def _table(self, namespace: Namespace) -> _Table:
        table = self._tables.pop(namespace, None)
        if table is None:  # one that has outputs and no rows yet is empty, and known
            table = _Table()
        self._tables[namespace] = table  # last used last
        while len(self._tables) > MAX_NAMESPACES:
            del self._tables[next(iter(self._tables))]
        return table

    def _make_room(self) -> None:
        while (over := sum(map(len, self._tables.values())) - self._max_rows) > 0:
            largest = max(self._tables.values(), key=len)
            # Half at most: then another may be the largest.
            largest.forget(max(1, len(largest) // _SHARE, min(over, len(largest) // 2)))

    # -- for operators -------------------------------------------------------------------------------------------

    async def stats(self, tenants: Sequence[str] = ()) -> StoreStats:
        shown = tuple(
            (space, len(table)) for space, table in self._tables.items() if not tenants or space.tenant in tenants
        )
        rows = sum(map(len, self._tables.values()))
        details: dict[str, str | int | float] = {
            "max_rows": self._max_rows,
            "logged_tokens": sum(table.tokens for table in self._tables.values()),
            "queued_rows": self._queue.queued,
            "snapshot": str(self._snapshot.path) if self._snapshot is not None else "",
        }
        return StoreStats("local", True, rows, rows * ROW_BYTES, shown, self.counters, details)

    async def namespaces(self, tenant: str) -> tuple[Namespace, ...]:
        return tuple(space for space in self._tables if space.tenant == tenant)

    def tenants(self) -> tuple[str, ...]:
        return tuple(sorted({space.tenant for space in self._tables}))

    async def pages(self, namespace: Namespace) -> AsyncIterator[Sequence[Row]]:
        table = self._tables.get(namespace)
        packed = iter(() if table is None else list(table.rows.values()))
        while page := list(islice(packed, PAGE_ROWS)):
            yield [unpack(row) for row in page]

    async def outputs(self, namespace: Namespace) -> tuple[tuple[int, ...], ...]:
        table = self._tables.get(namespace)
        return () if table is None else tuple(tokens for _, tokens in table.outputs)

    async def put(self, namespace: Namespace, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]] = ()) -> None:
        await self._apply(namespace, coalesced(rows), list(outputs))

    async def purge(self, tenant: str) -> int:
        gone = 0
        for space in await self.namespaces(tenant):
            gone += len(self._tables.pop(space))
        self._queue.forget(tenant)
        self._dirty = True
        if self._snapshot is not None:
            await self.save()
        return gone

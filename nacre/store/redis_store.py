"""The store of a fleet: rows shared through Redis or Valkey, hidden by tenant keys.

Reading never waits for longer than the link's timeout and gives nothing instead of an error. Writing happens in the
background (`redis_writing`) and is repeated when it failed: it may have happened all the same, so a sighting may count
twice, never a wrong token.

Reading is one pipeline at the start of a session: the newest blocks of the delta stream, which are what was learnt
last, and the newest outputs. `follow` then brings what is new and, page by page, everything older from the buckets: of
blocks and of buckets as many as surely fit into a page, and always whole ones, so that nothing is skipped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from nacre.errors import NacreError, Unavailable
from nacre.store.keys import TenantKeys
from nacre.store.queued import QueuedStore
from nacre.store.redis_clients import totals, unlink_all
from nacre.store.redis_layout import BLOCK, BUCKETS, Generation, Layout, all_of, directory
from nacre.store.redis_link import RedisLink, execute
from nacre.store.redis_reading import BUCKET_ROWS, newest_rows, next_rows, outputs_of, rows_of_buckets
from nacre.store.redis_writing import RedisWriter
from nacre.store.rows import Namespace, Row
from nacre.store.sealing import Seal, directory_seal
from nacre.store.store import NOTHING, PAGE_ROWS, SEED_ROWS, SEED_TOKENS, Cursor, Reading, StoreStats
from nacre.store.write_queue import FLUSH_KEYS, Coalesced, coalesced

logger = logging.getLogger("nacre.store")

TIMEOUT_S = 0.05
TTL_S = 86_400.0
MAX_NAMESPACES = 256
#: Newest blocks of the delta stream read at once, and how many more if they were small ones.
SEED_BLOCKS = 2
SEED_MORE = 24
SMALL_BYTES = 4096
SEED_OUTPUTS = 16
FOLLOW_BLOCKS = 8
FOLLOW_OUTPUTS = 16
#: Buckets asked for at once, whose rows fit into a page however full they are; and how often in one `follow`, while it
#: finds few rows.
PROBE_BUCKETS = PAGE_ROWS // BUCKET_ROWS
MAX_PROBES = 32
SAMPLE_BUCKETS = 256
DIRECTORY_S = 60.0
CONFLICT_TRIES = 5
_NONE = "0-0"


class RedisStore(QueuedStore):
    """`url`: redis://, rediss:// (TLS), both also with +cluster, or unix://. `ttl_s`: a row nobody writes lives half
    of that at least.

    `clock` tells Unix time, by which generations take turns. Machines may disagree about it by minutes: they then read
    each other's newest rows a little late.
    """

    def __init__(
        self,
        url: str,
        keys: TenantKeys,
        *,
        ttl_s: float = TTL_S,
        timeout_s: float = TIMEOUT_S,
        log_tenants: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(self._apply, log_tenants)
        self._keys = keys
        self._period_s = ttl_s / 2
        self._clock = clock
        self._link = RedisLink(url, timeout_s=timeout_s, counters=self.counters)
        self._writer = RedisWriter(self._queue.spent)
        self._layouts: dict[Namespace, Layout] = {}
        self._listed: dict[Namespace, float] = {}
        self._keyless: set[str] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return self._link.healthy

    async def start(self) -> None:
        await self._queue.start()
        await self._link.ask(lambda client: client.ping())  # so that no session pays for connecting

    async def close(self) -> None:
        await self._queue.close()
        await self._link.close()

    # -- reading -------------------------------------------------------------------------------------------------

    async def seed(self, namespace: Namespace) -> Reading:
        layout = self._layout(namespace)
        if layout is None:
            return NOTHING

        async def read(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            pipe.xrevrange(layout.delta, count=SEED_BLOCKS)
            pipe.xrevrange(layout.log, count=SEED_OUTPUTS)
            deltas, logged = await execute(pipe)
            if len(deltas) == SEED_BLOCKS and sum(len(fields.get(BLOCK, b"")) for _, fields in deltas) < SMALL_BYTES:
                before = b"(" + deltas[-1][0]
                deltas += await client.xrevrange(layout.delta, max=before, count=SEED_MORE)
            return [deltas, logged]

        answers = await self._link.ask(read)
        if answers is None:
            return NOTHING
        deltas, logged = answers
        rows = await newest_rows(layout, deltas, self.counters, SEED_ROWS)
        outputs = await outputs_of(layout, logged, self.counters, SEED_TOKENS)
        self.counters.rows_read += len(rows)
        cursor = Cursor(deltas[0][0].decode() if deltas else _NONE, logged[0][0].decode() if logged else _NONE, 0)
        return Reading(tuple(rows.values()), tuple(reversed(outputs)), cursor)

    async def follow(self, namespace: Namespace, since: Cursor) -> Reading:
        layout = self._layout(namespace)
        if layout is None:
            return Reading((), (), since)
        if not since.delta:  # there was no seed: Redis did not answer then
            return Reading((), (), since, reseed=True)

        async def read(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            pipe.xrange(layout.delta, min=since.delta, count=FOLLOW_BLOCKS + 1)
            pipe.xrange(layout.log, min=f"({since.output}", count=FOLLOW_OUTPUTS)
            return await execute(pipe)

        answers = await self._link.ask(read, background=True)
        if answers is None:
            return Reading((), (), since)
        deltas, logged = answers
        if since.delta != _NONE:
            if not deltas or deltas[0][0].decode() != since.delta:  # what we had last is gone: perhaps more is
                self.counters.reseeds += 1
                return Reading((), (), since, reseed=True)
            del deltas[0]
        rows, blocks = await next_rows(layout, deltas, self.counters, PAGE_ROWS)
        outputs = await outputs_of(layout, logged, self.counters)
        backfill = since.backfill
        if backfill >= 0:
            older, backfill = await self._backfill(layout, backfill, PAGE_ROWS - len(rows))
            rows = {**older, **rows}
        self.counters.rows_read += len(rows)
        cursor = Cursor(
            deltas[blocks - 1][0].decode() if blocks else since.delta,
            logged[-1][0].decode() if logged else since.output,
            backfill,
        )
        return Reading(tuple(rows.values()), tuple(outputs), cursor)

    async def _backfill(self, layout: Layout, bucket: int, room: int) -> tuple[dict[bytes, Row], int]:
        """At most `room` rows of the buckets from `bucket` on, and where to go on; -1 after the last."""
        rows: dict[bytes, Row] = {}
        for _ in range(MAX_PROBES):
            left = room - len(rows)
            if left < BUCKET_ROWS or len(rows) >= PAGE_ROWS // 2:
                break
            numbers = range(bucket, min(bucket + PROBE_BUCKETS, BUCKETS))

            async def read(
                client: Any, numbers: Sequence[int] = numbers, left: int = left
            ) -> tuple[dict[bytes, Row], int]:
                return await rows_of_buckets(client, layout, numbers, self._generation(), self.counters, left)

            found = await self._link.ask(read, background=True)
            if found is None:
                break
            rows.update(found[0])
            bucket += found[1]
            if bucket >= BUCKETS:
                return rows, -1
        return rows, bucket

    # -- writing -------------------------------------------------------------------------------------------------

    async def _apply(self, namespace: Namespace, rows: Coalesced, outputs: list[tuple[int, ...]]) -> bool:
        """False: try again later. Rows of a tenant without a key are dropped: later would not be better."""
        layout = self._layout(namespace)
        if layout is None:
            self.counters.rows_refused += len(rows)
            return True
        if not self._link.takes_writes():
            return False

        async def store(client: Any) -> Coalesced:
            await self._list(client, layout)
            if outputs:
                await self._writer.log(client, layout, outputs)
                self.counters.outputs_logged += len(outputs)
                outputs.clear()  # stored: not to be offered again if the rows fail
            return await self._writer.write(client, layout, rows, self._generation()) if rows else {}

        conflicts = await self._link.ask(store, background=True)
        if conflicts is None:
            return False
        self._link.wrote()
        self.counters.rows_written += len(rows) - len(conflicts)
        if conflicts:
            self.counters.conflicts += len(conflicts)
            self._queue.offer_again(namespace, conflicts)
        return True

    async def _list(self, client: Any, layout: Layout) -> None:
        """Tells operators, now and then, that this namespace is in use: Redis may have lost it meanwhile."""
        space = layout.seal.namespace
        now = time.monotonic()
        if now < self._listed.get(space, 0.0):
            return
        tenant_key = self._keys.key_of(space.tenant)
        about = json.dumps([space.target, space.revision, space.tokenizer_fingerprint]).encode()
        covered = directory_seal(space.tenant, tenant_key).cover_block(b"dir", about)
        pipe = client.pipeline(transaction=False)
        pipe.hset(directory(tenant_key), layout.seal.tag, covered)
        pipe.pexpire(directory(tenant_key), int(3 * self._period_s * 1000 + DIRECTORY_S * 1000))
        await execute(pipe)
        self._listed[space] = now + DIRECTORY_S
        while len(self._listed) > MAX_NAMESPACES:
            del self._listed[next(iter(self._listed))]

    # -- for operators -------------------------------------------------------------------------------------------

    async def stats(self, tenants: Sequence[str] = ()) -> StoreStats:
        servers = await self._link.must(totals)
        spaces = []
        for tenant in tenants or self._keys.tenants:
            for space in await self.namespaces(tenant):
                rows = await self._estimate(space)
                spaces.append((space, rows))
        details: dict[str, str | int | float] = {
            "server": servers.server,
            "version": servers.version,
            "breaker": self._link.state,
            "keys": servers.keys,
            "maxmemory": servers.most_bytes,
            "evicted_keys": servers.evicted_keys,
            "queued_rows": self._queue.queued,
        }
        total = sum(number for _, number in spaces)
        size = servers.used_bytes
        return StoreStats("redis", self._link.healthy, total, size, tuple(spaces), self.counters, details)

    async def _estimate(self, namespace: Namespace) -> int:
        """Rows, from a sample of the buckets where there are many; rows in both generations count twice."""
        layout = self._must_layout(namespace)
        generation = self._generation()

        async def look(client: Any, buckets: range) -> int:
            pipe = client.pipeline(transaction=False)
            for number in buckets:
                pipe.hlen(layout.bucket(number, generation.letter))
                pipe.hlen(layout.bucket(number, generation.before))
            return sum(await execute(pipe))

        found = await self._link.must(lambda client: look(client, range(SAMPLE_BUCKETS)))
        if found >= SAMPLE_BUCKETS:
            return found * BUCKETS // SAMPLE_BUCKETS
        return found + await self._link.must(lambda client: look(client, range(SAMPLE_BUCKETS, BUCKETS)))

    async def namespaces(self, tenant: str) -> tuple[Namespace, ...]:
        tenant_key = self._keys.key_of(tenant)
        seal = directory_seal(tenant, tenant_key)
        found = await self._link.must(lambda client: client.hgetall(directory(tenant_key)))
        spaces = []
        for covered in found.values():
            about = seal.uncover_block(b"dir", covered)
            if about is not None:
                spaces.append(Namespace(tenant, *json.loads(about)))
        return tuple(sorted(spaces, key=str))

    async def pages(self, namespace: Namespace) -> AsyncIterator[Sequence[Row]]:
        layout = self._must_layout(namespace)
        for first in range(0, BUCKETS, PROBE_BUCKETS):
            numbers = range(first, min(first + PROBE_BUCKETS, BUCKETS))

            async def read(client: Any, numbers: Sequence[int] = numbers) -> tuple[dict[bytes, Row], int]:
                return await rows_of_buckets(client, layout, numbers, self._generation(), self.counters)

            rows, _ = await self._link.must(read)
            yield tuple(rows.values())

    async def outputs(self, namespace: Namespace) -> tuple[tuple[int, ...], ...]:
        layout = self._must_layout(namespace)
        logged = await self._link.must(lambda client: client.xrange(layout.log))
        return tuple(await outputs_of(layout, logged, self.counters))

    async def put(self, namespace: Namespace, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]] = ()) -> None:
        layout = self._must_layout(namespace)
        items = list(coalesced(rows).items())

        async def store(client: Any) -> None:
            await self._list(client, layout)
            for at in range(0, len(items), FLUSH_KEYS):
                await self._put(client, layout, dict(items[at : at + FLUSH_KEYS]))
            if outputs:
                await self._writer.log(client, layout, outputs)
                self.counters.outputs_logged += len(outputs)

        await self._link.must(store)

    async def _put(self, client: Any, layout: Layout, rows: Coalesced) -> None:
        """Raises Unavailable if other writers were faster every time."""
        for _ in range(CONFLICT_TRIES):
            conflicts = await self._writer.write(client, layout, rows, self._generation())
            self.counters.rows_written += len(rows) - len(conflicts)
            self.counters.conflicts += len(conflicts)
            if not conflicts:
                return
            rows = conflicts
        raise Unavailable(
            f"did not take {len(rows)} rows: others wrote the same ones first, {CONFLICT_TRIES} times in a row; "
            "try again when fewer write"
        )

    async def purge(self, tenant: str) -> int:
        pattern = all_of(self._keys.key_of(tenant))
        self._queue.forget(tenant)
        self._listed = {space: at for space, at in self._listed.items() if space.tenant != tenant}
        return await self._link.must(lambda client: unlink_all(client, pattern))

    # -- both ----------------------------------------------------------------------------------------------------

    def _generation(self) -> Generation:
        return Generation.at(self._clock(), self._period_s)

    def _layout(self, namespace: Namespace) -> Layout | None:
        """None, told once, if there is no key: this process has no business with that tenant."""
        try:
            return self._must_layout(namespace)
        except NacreError as error:
            if namespace.tenant not in self._keyless and len(self._keyless) < MAX_NAMESPACES:
                self._keyless.add(namespace.tenant)
                logger.warning("the store is not used for a tenant: %s", error.message)
            return None

    def _must_layout(self, namespace: Namespace) -> Layout:
        layout = self._layouts.get(namespace)
        if layout is None:
            layout = Layout(Seal(namespace, self._keys.key_of(namespace.tenant)))
            self._layouts[namespace] = layout
            while len(self._layouts) > MAX_NAMESPACES:
                del self._layouts[next(iter(self._layouts))]
        return layout

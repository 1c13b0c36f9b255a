"""What several tests of the Redis store share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio

from nacre.store import Namespace, Row
from nacre.store.keys import TenantKeys
from nacre.store.redis_store import RedisStore
from nacre.store.store import PAGE_ROWS, Store

KEYS = TenantKeys({"acme": b"a" * 32, "other": b"o" * 32})
SPACE = Namespace("acme", "target", "r1", "f" * 32)
OTHER = Namespace("other", "target", "r1", "f" * 32)
#: For tests of what is stored, on machines that are busy with other things.
PATIENT_S = 10.0
#: Of a namespace, in tests that read the whole of it: most of 4,096 would be empty.
FEW_BUCKETS = 64

#: Far more than a deadline, far less than any library's default patience: what is caught is waiting, not slowness.
AT_ONCE_S = 2.0


def ngram(*context: int, token: int = 9, count: int = 2) -> Row:
    return Row("ngram", context, ((token, 255),), count)


@contextlib.asynccontextmanager
async def opened(url: str, keys: TenantKeys = KEYS, **options: Any) -> AsyncIterator[RedisStore]:
    """A store that flushes when told to, and only then."""
    store = RedisStore(url, keys, **{"timeout_s": PATIENT_S, **options})
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def raw(url: str, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(url, protocol=2, **options)
    try:
        yield client
    finally:
        await client.aclose()


async def all_rows(store: Store, namespace: Namespace = SPACE) -> dict[tuple[str, tuple[int, ...]], Row]:
    """As a reader gets them: seed, then follow until there is nothing older."""
    reading = await store.seed(namespace)
    rows = {(row.kind, row.context): row for row in reading.rows}
    while not reading.cursor.complete:
        before = reading.cursor
        reading = await store.follow(namespace, reading.cursor)
        assert reading.cursor != before, "it does not get on"
        assert len(reading.rows) <= PAGE_ROWS
        rows |= {(row.kind, row.context): row for row in reading.rows}
    return rows


async def session_start(store: RedisStore) -> int:
    """What a session does with a store; returns how many rows it got. Fails if it had to wait."""
    async with asyncio.timeout(AT_ONCE_S):
        reading = await store.seed(SPACE)
        reading = await store.follow(SPACE, reading.cursor)
        store.write(SPACE, [ngram(5)])
        store.log(SPACE, [1, 2, 3])
        return len((await store.seed(SPACE)).rows)


async def until_open(store: RedisStore) -> None:
    for _ in range(5):
        await session_start(store)
        await store.flush()
    assert store._link.state != "closed"


async def until_back(store: RedisStore, namespace=SPACE) -> None:
    """By itself: only the calls that sessions make anyway."""
    while not store._link.healthy:
        await store.seed(namespace)
        await store.flush()
        await asyncio.sleep(0.05)


async def a_crowd_reads_at_once(url: str) -> None:
    async with opened(url) as writer, opened(url) as reader:
        await writer.put(SPACE, [ngram(number) for number in range(50)])
        readings = await asyncio.gather(*(reader.seed(SPACE) for _ in range(32)))
        assert [len(reading.rows) for reading in readings] == [50] * 32
        assert (reader.counters.failures, reader.counters.skipped) == (0, 0)
        assert reader.healthy

"""The store in a real Redis and a real Valkey: what one process learns, another knows, and nobody else can read it."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest

from nacre.errors import NotFound
from nacre.store import Namespace, Row, calibration
from nacre.store.keys import TenantKeys
from nacre.store.packing import pack_tokens
from nacre.store.redis_layout import BUCKET_BITS, MAX_FIELDS, Layout
from nacre.store.rows import PUBLIC, merged
from nacre.store.sealing import Seal
from nacre.store.store import SEED_ROWS
from nacre.store.write_queue import FLUSH_KEYS
from tests.store.redis_cases import KEYS, OTHER, SPACE, all_rows, ngram, opened, raw
from tests.store.redis_server import RedisServer

pytestmark = [
    pytest.mark.usefixtures("few_buckets"),
    pytest.mark.parametrize("redis_server", ["redis", "valkey"], indirect=True),
]

ROWS = [
    ngram(1, 2, 3),
    ngram(1),
    Row("chunk", (1, 2), (), 3, (((3, 4, 5, 6), 200), ((7,), 10))),
    calibration(1, 4, 30, 100),
]


async def test_a_fresh_process_that_has_only_redis_in_common_knows_what_was_learnt(redis_server: RedisServer):
    async with opened(redis_server.url, log_tenants=["acme"]) as verifier, opened(redis_server.unix_url) as drafter:
        verifier.write(SPACE, ROWS)
        verifier.log(SPACE, [1, 2, 3, 4])
        await verifier.flush()
        reading = await drafter.seed(SPACE)
        assert sorted(reading.rows) == sorted(ROWS)
        assert reading.outputs == ((1, 2, 3, 4),)
        assert sorted((await all_rows(drafter)).values()) == sorted(ROWS)
        assert drafter.counters.failures == 0


async def test_rows_of_several_writers_are_merged_and_followed(redis_server: RedisServer):
    async with opened(redis_server.url) as one, opened(redis_server.url) as two, opened(redis_server.url) as reader:
        cursor = (await reader.seed(SPACE)).cursor
        one.write(SPACE, [ngram(1), calibration(1, 1, 1, 10)])
        await one.flush()
        two.write(SPACE, [ngram(1, token=7), calibration(1, 1, 3, 10)])
        await two.flush()
        reading = await reader.follow(SPACE, cursor)
        rows = {row.kind: row for row in reading.rows}
        assert rows["ngram"] == merged(ngram(1), ngram(1, token=7))
        assert rows["calibration"] == calibration(1, 1, 4, 20)
        assert (await reader.follow(SPACE, reading.cursor)).rows == ()


async def test_two_writers_at_once_lose_no_sighting(redis_server: RedisServer):
    async with opened(redis_server.url) as one, opened(redis_server.url) as two, opened(redis_server.url) as reader:
        for _ in range(20):
            for writer in (one, two):
                writer.write(SPACE, [calibration(1, number, 1, 1) for number in range(50)])
            await asyncio.gather(one.flush(), two.flush())
        rows = await all_rows(reader)
        assert {row.count for row in rows.values()} == {40}
        assert one.counters.conflicts + two.counters.conflicts > 0  # else this test showed nothing


async def test_many_rows_all_arrive_newest_first(redis_server: RedisServer):
    async with opened(redis_server.url) as verifier, opened(redis_server.url) as drafter:
        await verifier.put(SPACE, [ngram(number % 97, number) for number in range(2100)])
        reading = await drafter.seed(SPACE)
        assert len(reading.rows) == SEED_ROWS
        last_flush = range(2100 - 2100 % FLUSH_KEYS, 2100)  # smaller than a seed
        assert {(number % 97, number) for number in last_flush} <= {row.context for row in reading.rows}
        rows = await all_rows(drafter)
        assert {context for _, context in rows} == {(number % 97, number) for number in range(2100)}


async def test_a_reader_whose_place_was_trimmed_is_told_to_seed_again(redis_server: RedisServer):
    async with opened(redis_server.url) as verifier, opened(redis_server.url) as drafter, raw(redis_server.url) as peer:
        await verifier.put(SPACE, [ngram(1)])
        cursor = (await drafter.seed(SPACE)).cursor
        await verifier.put(SPACE, [ngram(2)])
        await peer.xtrim(Layout(Seal(SPACE, b"a" * 32)).delta, maxlen=1, approximate=False)
        assert (await drafter.follow(SPACE, cursor)).reseed
        again = await drafter.seed(SPACE)
        assert {row.context for row in again.rows} == {(2,)}
        assert {context for _, context in await all_rows(drafter)} == {(1,), (2,)}  # the bucket still has it


async def test_rows_live_for_a_generation_and_are_merged_into_the_next(
    redis_server: RedisServer,
):
    """Two periods of half a day: written in one, merged in the next, gone after the one after that."""
    now = {"s": 43_200 * 44_000 + 1.0}  # years ahead: Redis must not expire what the test still looks at
    async with opened(redis_server.url, clock=lambda: now["s"]) as store:
        await store.put(SPACE, [ngram(1), ngram(2)])
        now["s"] += 43_200
        await store.put(SPACE, [ngram(1)])
        assert {row.count for row in (await all_rows_of_buckets(store)).values()} == {2, 4}
        now["s"] += 43_200
        async with raw(redis_server.url) as peer:  # what Redis does when its clock is there
            for key in await peer.keys("nc:*:*:n0*"):
                await peer.delete(key)
        assert [row.count for row in (await all_rows_of_buckets(store)).values()] == [4]


async def all_rows_of_buckets(store) -> dict:
    return {row.context: row async for page in store.pages(SPACE) for row in page}


async def test_everything_in_redis_expires_and_buckets_stay_packed_and_bounded(redis_server: RedisServer):
    async with opened(redis_server.url, log_tenants=["acme"]) as store, raw(redis_server.url) as peer:
        # Far more rows than the test's few buckets may hold, and as wide as they get.
        entries = tuple((token, 9) for token in range(8))
        many = (MAX_FIELDS + 8) << BUCKET_BITS["ngram"]
        await store.put(SPACE, [*(ngram(n, n, n)._replace(entries=entries) for n in range(many)), *ROWS], [(1, 2, 3)])
        for key in await peer.keys("*"):
            assert await peer.pttl(key) > 0, key
            if b":n" in key:
                assert await peer.hlen(key) <= MAX_FIELDS
                assert await peer.object("ENCODING", key) in (b"ziplist", b"listpack")


async def test_another_tenants_drafter_gains_nothing(redis_server: RedisServer):
    async with opened(redis_server.url, log_tenants=["*"]) as store:
        await store.put(SPACE, ROWS, [(1, 2, 3)])
        for foreign in (
            OTHER,
            Namespace("acme", "target", "r2", "f" * 32),
            Namespace("acme", "target", "r1", "e" * 32),
            Namespace(PUBLIC, "target", "r1", "f" * 32),
        ):
            reading = await store.seed(foreign)
            assert (reading.rows, reading.outputs) == ((), ())
            assert await all_rows(store, foreign) == {}


async def test_reading_every_key_with_another_tenants_key_reveals_no_token_ids(redis_server: RedisServer):
    """Everything Redis holds, read as tokens in every way it could be, and decoded with the wrong key."""
    tokens = (123_457, 98_765, 111_113)
    secret = [Row("ngram", tokens, ((77_777, 255), (88_889, 3)), 9), Row("chunk", tokens[:2], (), 2, ((tokens, 250),))]
    async with opened(redis_server.url, log_tenants=["acme"]) as store, raw(redis_server.url) as peer:
        await store.put(SPACE, secret, [tokens * 5])
        everything = []
        for key in await peer.keys("*"):
            everything += [key]
            if await peer.type(key) == b"hash":
                everything += [part for item in (await peer.hgetall(key)).items() for part in item]
            else:
                everything += [part for _, fields in await peer.xrange(key) for part in fields.values()]
    # This is the test's own control: in clear, each of these would be found.
    needles = [pack_tokens((token,)) for token in (*tokens, 77_777, 88_889)]
    needles += [struct.pack(">I", token)[1:] for token in (*tokens, 77_777, 88_889)]
    needles += [str(token).encode() for token in (*tokens, 77_777, 88_889)]
    needles += [b"acme", b"target", b"f" * 8]
    assert any(needles[0] in part for part in [pack_tokens(tokens)])
    assert [needle for needle in needles for part in everything if needle in part] == []
    wrong = Seal(SPACE, b"o" * 32)
    for part in everything:
        for field in everything:
            assert wrong.uncover(field, part) is None
        for what in (b"delta", b"log", b"dir"):
            assert wrong.uncover_block(what, part) is None
    # Two values of one row, and one row in two tenants, have nothing in common.
    right = Seal(SPACE, b"a" * 32)
    assert right.cover(b"field!", b"the same row")[4:] != right.cover(b"field!", b"the same row")[4:]
    assert right.place(b"key") != wrong.place(b"key")


async def test_junk_in_our_keys_is_counted_and_skipped(redis_server: RedisServer):
    layout = Layout(Seal(SPACE, b"a" * 32))
    async with opened(redis_server.url, log_tenants=["acme"]) as store, raw(redis_server.url) as peer:
        await store.put(SPACE, [ngram(1)], [(1,)])
        number, field = layout.locate(ngram(2))
        letters = (b"0", b"1")
        for letter in letters:
            bucket = layout.bucket("ngram", number, letter)
            junk = b"\x00" * (30 if letter == b"0" else 100_000)
            await peer.hset(bucket, mapping={field: junk, b"f": b"", b"1234567": bytes(range(44))})
        for stream in (layout.delta, layout.log):
            await peer.xadd(stream, {b"b": b"junk" * 20})
            await peer.xadd(stream, {b"else": b""})
        reading = await store.seed(SPACE)
        assert [row.context for row in reading.rows] == [(1,)]
        assert reading.outputs == ((1,),)
        await store.put(SPACE, [ngram(2)])  # over the junk
        assert {context for _, context in await all_rows(store)} == {(1,), (2,)}
        assert store.counters.rows_corrupt >= 6
        assert store.counters.failures == 0


async def test_a_key_of_another_type_is_a_failure_and_no_exception(redis_server: RedisServer):
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        await peer.set(Layout(Seal(SPACE, b"a" * 32)).delta, b"a string")
        assert (await store.seed(SPACE)).rows == ()
        store.write(SPACE, [ngram(1)])
        await store.flush()
        assert store.counters.failures == 2


async def test_a_tenant_without_a_key_is_told_once_and_stores_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    stranger = Namespace("stranger", "target", "r1", "f" * 32)
    async with opened(redis_server.url) as store:
        with caplog.at_level(logging.WARNING, "nacre.store"):
            for _ in range(3):
                assert (await store.seed(stranger)).rows == ()
                store.write(stranger, [ngram(1)])
                await store.flush()
        assert len(caplog.records) == 1
        assert "no key of tenant 'stranger'" in caplog.text
        with pytest.raises(NotFound):
            await store.purge("stranger")


async def test_a_root_key_serves_every_tenant_apart(redis_server: RedisServer):
    root = TenantKeys({"*": b"r" * 32, "acme": b"a" * 32})
    spaces = [Namespace(name, "target", "r1", "f" * 32) for name in ("acme", "b", "c")]
    async with opened(redis_server.url, root) as fleet, opened(redis_server.url, KEYS) as own:
        for number, space in enumerate(spaces):
            await fleet.put(space, [ngram(number)])
        assert [[row.context for row in (await fleet.seed(space)).rows] for space in spaces] == [[(0,)], [(1,)], [(2,)]]
        assert [row.context for row in (await own.seed(SPACE)).rows] == [(0,)]


async def test_operators_see_export_and_purge_a_tenant(redis_server: RedisServer):
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        await store.put(SPACE, [ngram(number) for number in range(2000)], [(1, 2)])
        await store.put(OTHER, [ngram(1)])
        assert await store.namespaces("acme") == (SPACE,)
        stats = await store.stats()
        assert stats.kind == "redis"
        assert stats.healthy
        assert dict(stats.namespaces)[SPACE] == 2000
        assert stats.details["server"] == redis_server.product
        assert len(await all_rows_of_buckets(store)) == 2000
        assert await store.outputs(SPACE) == ((1, 2),)
        before = await peer.dbsize()
        gone = await store.purge("acme")
        assert gone > 64
        assert await peer.dbsize() == before - gone
        assert await store.namespaces("acme") == ()
        assert await all_rows(store) == {}
        assert len(await all_rows(store, OTHER)) == 1

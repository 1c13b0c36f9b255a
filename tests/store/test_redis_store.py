"""The store in a real Redis and a real Valkey: what one process learns, another knows, and nobody else can read it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import struct
from typing import Any

import pytest

from nacre.errors import InvalidArgument, NotFound, Unavailable
from nacre.store import Namespace, Row
from nacre.store.keys import TenantKeys
from nacre.store.packing import pack_tokens
from nacre.store.redis_layout import MAX_FIELDS, Layout
from nacre.store.redis_store import CONFLICT_TRIES
from nacre.store.rows import PUBLIC, merged
from nacre.store.sealing import Seal
from nacre.store.store import PAGE_ROWS, SEED_ROWS
from nacre.store.write_queue import FLUSH_KEYS, Coalesced
from tests.store.redis_cases import FEW_BUCKETS, KEYS, OTHER, SPACE, a_crowd_reads_at_once, all_rows, ngram, opened, raw
from tests.store.redis_server import RedisServer

pytestmark = [
    pytest.mark.usefixtures("few_buckets"),
    pytest.mark.parametrize("redis_server", ["redis", "valkey"], indirect=True),
]

ROWS = [
    ngram(1, 2, 3),
    ngram(1),
    Row("ngram", (1, 2), ((3, 200), (7, 10)), 3),
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


async def test_the_newest_rows_are_there_for_a_session_as_long_as_they_live(redis_server: RedisServer):
    async with opened(redis_server.url) as verifier, raw(redis_server.url) as peer:
        await verifier.put(SPACE, ROWS)
        layout = Layout(Seal(SPACE, b"a" * 32))
        (bucket, *_) = await peer.keys("nc:*:n[01]*")
        assert abs(await peer.pttl(layout.delta) - await peer.pttl(bucket)) < 10_000


async def test_rows_of_several_writers_are_merged_and_followed(redis_server: RedisServer):
    async with opened(redis_server.url) as one, opened(redis_server.url) as two, opened(redis_server.url) as reader:
        cursor = (await reader.seed(SPACE)).cursor
        one.write(SPACE, [ngram(1), ngram(1, 2)])
        await one.flush()
        two.write(SPACE, [ngram(1, token=7)])
        await two.flush()
        reading = await reader.follow(SPACE, cursor)
        assert {row.context: row for row in reading.rows} == {
            (1,): merged(ngram(1), ngram(1, token=7)),
            (1, 2): ngram(1, 2),
        }
        assert (await reader.follow(SPACE, reading.cursor)).rows == ()


async def test_two_writers_at_once_lose_no_sighting(redis_server: RedisServer):
    async with opened(redis_server.url) as one, opened(redis_server.url) as two, opened(redis_server.url) as reader:
        for _ in range(20):
            for writer in (one, two):
                writer.write(SPACE, [ngram(1, number) for number in range(50)])
            await asyncio.gather(one.flush(), two.flush())
        rows = await all_rows(reader)
        assert {row.count for row in rows.values()} == {80}
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


async def test_what_is_new_arrives_in_pages_and_nothing_is_skipped(redis_server: RedisServer):
    async with opened(redis_server.url) as verifier, opened(redis_server.url) as drafter:
        await verifier.put(SPACE, [ngram(0)])
        cursor = dataclasses.replace((await drafter.seed(SPACE)).cursor, backfill=-1)  # what is older was read
        for start in range(0, 2500, 500):
            await verifier.put(SPACE, [ngram(start + place, 1) for place in range(500)])
        got: set[tuple[int, ...]] = set()
        while (reading := await drafter.follow(SPACE, cursor)).cursor != cursor:
            assert 0 < len(reading.rows) <= PAGE_ROWS
            got |= {row.context for row in reading.rows}
            cursor = reading.cursor
        assert got == {(number, 1) for number in range(2500)}


async def test_what_is_older_arrives_in_pages_however_full_the_buckets_are(redis_server: RedisServer):
    now = {"s": 43_200 * 44_000 + 1.0}  # years ahead: nothing expires meanwhile
    async with opened(redis_server.url, clock=lambda: now["s"]) as store:
        await store.put(SPACE, [ngram(number) for number in range(2800)])
        now["s"] += 43_200  # the next generation
        await store.put(SPACE, [ngram(number) for number in range(10_000, 12_800)])
        stored = set(await all_rows_of_buckets(store))
        assert len(stored) > 80 * FEW_BUCKETS
        cursor = (await store.seed(SPACE)).cursor
        got: set[tuple[int, ...]] = set()
        while not cursor.complete:
            reading = await store.follow(SPACE, cursor)
            assert 0 < len(reading.rows) <= PAGE_ROWS
            assert reading.cursor != cursor
            got |= {row.context for row in reading.rows}
            cursor = reading.cursor
        assert got == stored


async def test_a_crowd_of_sessions_reads_at_once(redis_server: RedisServer):
    await a_crowd_reads_at_once(redis_server.url)


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
        many = (MAX_FIELDS + 8) * FEW_BUCKETS
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
    secret = [Row("ngram", tokens, ((77_777, 255), (88_889, 3)), 9), Row("ngram", tokens[:2], ((tokens[2], 250),), 2)]
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
            bucket = layout.bucket(number, letter)
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


async def test_more_fields_than_we_write_are_not_looked_at(redis_server: RedisServer):
    layout = Layout(Seal(SPACE, b"a" * 32))
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        await store.put(SPACE, [ngram(1)])
        another = (layout.locate(ngram(1))[0] + 1) % FEW_BUCKETS
        for letter in (b"0", b"1"):
            junk = {b"%06d" % number: b"\x00" * 30 for number in range(1000)}
            await peer.hset(layout.bucket(another, letter), mapping=junk)
        assert {context for _, context in await all_rows(store)} == {(1,)}
        assert store.counters.rows_corrupt == 2000


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


async def test_rows_that_others_are_always_faster_with_are_told_and_not_counted(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    async with opened(redis_server.url) as store:
        write, tries = store._writer.write, []

        async def contended(client: Any, layout: Layout, rows: Coalesced, generation: Any) -> Coalesced:
            """Somebody else changes every third row just before we do."""
            tries.append(len(rows))
            theirs = {key: row for key, row in rows.items() if row.context[0] % 3 == 0}
            ours = {key: row for key, row in rows.items() if key not in theirs}
            return theirs | (await write(client, layout, ours, generation) if ours else {})

        with monkeypatch.context() as patch:
            patch.setattr(store._writer, "write", contended)
            with pytest.raises(Unavailable, match=r"did not take 10 rows: .* try again") as refused:
                await store.put(SPACE, [ngram(number) for number in range(30)], [(1, 2)])
        assert refused.value.message.startswith("the store at ")
        assert tries == [30] + [10] * (CONFLICT_TRIES - 1)
        assert (store.counters.rows_written, store.counters.conflicts) == (20, 10 * CONFLICT_TRIES)
        assert {context for _, context in await all_rows(store)} == {(n,) for n in range(30) if n % 3}
        assert await store.outputs(SPACE) == ()  # so that trying again stores them once
        await store.put(SPACE, [ngram(number) for number in range(0, 30, 3)], [(1, 2)])
        assert (store.counters.rows_written, store.counters.outputs_logged) == (30, 1)


async def test_a_row_that_cannot_be_kept_is_refused_before_anything_is_put(redis_server: RedisServer):
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        with pytest.raises(InvalidArgument, match="names token -1"):
            await store.put(SPACE, [ngram(1), ngram(-1)])
        assert await peer.dbsize() == 0


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

"""Whatever Redis does, sessions go on: nothing raises, nobody waits, one warning, and it heals by itself.

But for the one of the timeout itself, no test asserts how fast something was, only that it came to an end: what bounds
a call is the link's deadline, and that it is kept is asserted where a peer would otherwise keep us for ever.
`test_redis_link.py` asserts the waits themselves, on a clock of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nacre.errors import InvalidArgument, NacreError
from nacre.runtime.delay_proxy import DelayProxy, Link
from nacre.store.redis_store import TIMEOUT_S, RedisStore
from nacre.store.store import NOTHING
from nacre.store.write_queue import MAX_QUEUED
from tests.store.impostor import impostor, info
from tests.store.redis_cases import SPACE, all_rows, ngram, opened, raw, session_start, until_back, until_open
from tests.store.redis_server import RedisServer

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "store.md"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event; the test's timeout bounds it
        await asyncio.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nacre.store")


async def test_killed_and_restarted_empty(redis_server: RedisServer, caplog: pytest.LogCaptureFixture):
    async with opened(redis_server.url) as store:
        await store.put(SPACE, [ngram(1)])
        cursor = (await store.seed(SPACE)).cursor
        redis_server.kill()
        await until_open(store)
        assert await session_start(store) == 0
        assert len(warnings(caplog)) == 1
        assert "cannot be reached" in warnings(caplog)[0]
        assert "costs speed only" in warnings(caplog)[0]
        redis_server.start()
        await until_back(store)
        await store.flush()
        assert (await store.follow(SPACE, cursor)).reseed
        assert {row.context for row in (await store.seed(SPACE)).rows} == {(5,)}  # what waited is there now
        assert len(warnings(caplog)) == 1
        assert "is back" in caplog.text
        assert store.counters.episodes == 1
        assert store.counters.failures >= 5
        assert store.counters.skipped > 0


async def test_frozen_and_thawed(redis_server: RedisServer, caplog: pytest.LogCaptureFixture):
    async with opened(redis_server.url, timeout_s=TIMEOUT_S) as store:
        await session_start(store)
        redis_server.freeze()
        try:
            await until_open(store)
            assert await session_start(store) == 0
            assert ["gives no answer within" in text for text in warnings(caplog)] == [True]
            with pytest.raises(NacreError, match="gives no answer"):
                async with asyncio.timeout(30):
                    await store.stats()
        finally:
            redis_server.thaw()
        await until_back(store)
        assert len(warnings(caplog)) == 1


async def test_a_session_waits_for_the_timeout_and_not_for_the_client_librarys(redis_server: RedisServer):
    """The shortest wait is compared: a busy machine lengthens some, and hardly all of them by a fifth of a second."""
    async with opened(redis_server.url, timeout_s=TIMEOUT_S) as store:
        await store.seed(SPACE)
        redis_server.freeze()
        waits = []
        try:
            while store._link.state == "closed":
                began = time.perf_counter()
                assert await store.seed(SPACE) == NOTHING
                waits.append(time.perf_counter() - began)
        finally:
            redis_server.thaw()
        assert 0.9 * TIMEOUT_S <= min(waits) < 5 * TIMEOUT_S


async def test_gone_before_the_first_call(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    server = RedisServer(tmp_path)
    async with opened(server.url) as store:
        await store.start()
        await until_open(store)
        assert len(warnings(caplog)) == 1
        server.start()
        try:
            await until_back(store)
            await store.put(SPACE, [ngram(1)])
            assert len((await store.seed(SPACE)).rows) >= 1
        finally:
            server.stop()


async def test_full(redis_server: RedisServer, caplog: pytest.LogCaptureFixture):
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        await store.put(SPACE, [ngram(1)])
        await peer.config_set("maxmemory-policy", "noeviction")
        await peer.config_set("maxmemory", "500kb")
        for _ in range(3):
            store.write(SPACE, [ngram(2)])
            await store.flush()
            assert [row.context for row in (await store.seed(SPACE)).rows] == [(1,)]  # reading goes on
        assert store.counters.full >= 1
        assert store.counters.failures == 0
        assert len(warnings(caplog)) == 1
        assert "raise maxmemory" in warnings(caplog)[0]
        with pytest.raises(NacreError, match="takes no writes"):
            await store.put(SPACE, [ngram(3)])
        await peer.config_set("maxmemory", "0")
        await until_back(store)
        await store.flush()
        assert {row.context for row in (await store.seed(SPACE)).rows} == {(1,), (2,)}
        assert len(warnings(caplog)) == 1


async def test_full_with_eviction_forgets_and_goes_on(redis_server: RedisServer):
    async with opened(redis_server.url) as store, raw(redis_server.url) as peer:
        await peer.config_set("maxmemory-policy", "allkeys-lfu")
        await peer.config_set("maxmemory", "1500kb")
        for start in range(0, 20_000, 2000):
            await store.put(SPACE, [ngram(number, number, number) for number in range(start, start + 2000)])
        info = await peer.info("stats")
        assert info["evicted_keys"] > 0
        # Which keys went is Redis's choice, the stream of what is new may be among them; what comes now is kept.
        await peer.config_set("maxmemory", "0")
        await store.put(SPACE, [ngram(1)])
        assert (1,) in {row.context for row in (await store.seed(SPACE)).rows}
        assert store.counters.failures == 0


async def test_a_hundred_milliseconds_away(redis_server: RedisServer, caplog: pytest.LogCaptureFixture):
    far = DelayProxy(f"127.0.0.1:{redis_server.port}", Link(delay_s=0.1))
    async with far as wire, opened(f"redis://{wire.address}", timeout_s=TIMEOUT_S) as store:
        await until_open(store)
        assert await session_start(store) == 0
        assert len(warnings(caplog)) == 1


async def test_a_wire_that_stalls_and_goes_on(redis_server: RedisServer):
    near = DelayProxy(f"127.0.0.1:{redis_server.port}", Link())
    async with near as wire, opened(f"redis://{wire.address}", timeout_s=0.2) as store:
        await session_start(store)
        wire.stall()
        await until_open(store)
        wire.resume()
        await until_back(store)
        wire.reset()
        await until_back(store)
        await session_start(store)


async def test_wrong_password(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    server = RedisServer(tmp_path, "--requirepass", "right").start()
    try:
        for url in (f"redis://127.0.0.1:{server.port}", f"redis://:wrong@127.0.0.1:{server.port}"):
            caplog.clear()
            async with opened(url) as store:
                await until_open(store)
                assert ["refuses our password" in text for text in warnings(caplog)] == [True]
                assert "wrong" not in warnings(caplog)[0]
                with pytest.raises(NacreError, match="refuses our password"):
                    await store.stats()
        async with opened(f"redis://:right@127.0.0.1:{server.port}") as store:
            await store.put(SPACE, [ngram(1)])
            assert len((await store.seed(SPACE)).rows) == 1
    finally:
        server.stop()


async def test_users_with_the_rights_that_the_documentation_lists_and_no_others(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    where = f"127.0.0.1:{redis_server.port}/0"
    documented = [line for line in DOCUMENTATION.read_text().splitlines() if line.startswith("ACL SETUSER")]
    async with raw(redis_server.url) as peer:
        for line in documented:
            await peer.execute_command(*line.split())
    async with opened(f"redis://verifier:secret@{where}") as verifier:
        await verifier.start()
        verifier.write(SPACE, [ngram(1)])
        await verifier.put(SPACE, [ngram(number) for number in range(100)], [(1, 2, 3)])
    async with opened(f"redis://drafter:secret@{where}") as drafter:
        await drafter.start()
        assert len(await all_rows(drafter)) == 100
        with pytest.raises(NacreError, match="forbids what we need"):
            await drafter.put(SPACE, [ngram(1)])
    async with opened(f"redis://operator:secret@{where}") as operator:
        await operator.put(SPACE, [ngram(1)])
        assert (await operator.stats(["acme"])).rows > 0
        assert await operator.outputs(SPACE) == ((1, 2, 3),)
        assert await operator.purge("acme") > 0
    assert len(documented) == 3
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", ""),
        (b"\x00\xff\x00\xff" * 100, ""),
        (b"$9999999999\r\n", ""),
        (b"*-7\r\n", ""),
        (b"+OK\r\n", "is no Redis"),
        (b"", "gives no answer"),
        (b"-ERR unknown command\r\n", ""),
        (info("redis_version:5.0.14\r\nredis_mode:standalone\r\n"), "is Redis 5.0.14 and 6.2 or newer is needed"),
        (info("server_name:other\r\n"), "is no Redis"),
    ],
    ids=["http", "noise", "huge", "odd", "ok", "silent", "errors", "old", "nameless"],
)
async def test_a_peer_that_is_no_redis_or_too_old(caplog: pytest.LogCaptureFixture, answer: bytes, said: str):
    async with impostor(lambda _: answer) as address, opened(f"redis://{address}", timeout_s=0.2) as store:
        await until_open(store)
        assert await session_start(store) == 0
        assert len(warnings(caplog)) == 1
        assert said in warnings(caplog)[0]
        assert "\n" not in warnings(caplog)[0]


async def test_memory_stays_bounded_while_it_is_gone(tmp_path: Path):
    async with opened(RedisServer(tmp_path).url) as store:
        for start in range(0, 100_000, 100):
            store.write(SPACE, [ngram(start + place) for place in range(100)])
        await store.flush()
        assert 16_000 < store._queue.queued <= MAX_QUEUED
        assert store.counters.rows_dropped == 100_000 - store._queue.queued


@pytest.mark.parametrize(
    "url", ["http://host", "redis://host:port", "localhost:6379", "redis://host:99999", "redis+cluster://host/1"]
)
def test_a_url_that_cannot_be_is_refused_at_once(url: str):
    with pytest.raises(InvalidArgument, match="redis://host:6379"):
        RedisStore(url, keys=None)  # type: ignore[arg-type]

"""The same store on a Redis cluster: three real servers, of which a test may lose one."""

from __future__ import annotations

import logging

import pytest

from nacre.errors import Unavailable
from nacre.store.redis_layout import SPREAD, Layout
from nacre.store.sealing import Seal
from tests.store.redis_cases import (
    OTHER,
    SPACE,
    a_crowd_reads_at_once,
    all_rows,
    ngram,
    opened,
    raw,
    until_back,
    until_open,
)
from tests.store.redis_server import RedisServer, RedisServers

pytestmark = pytest.mark.usefixtures("few_buckets")

ROWS = [ngram(number, number + 1) for number in range(1000)]


async def test_what_one_writes_another_reads_wherever_it_lies(redis_servers: RedisServers):
    async with (
        opened(redis_servers.url, log_tenants=["acme"]) as writer,
        opened(redis_servers.url) as second,
        opened(redis_servers.url) as reader,
    ):
        writer.write(SPACE, ROWS)
        writer.log(SPACE, [1, 2, 3])
        await writer.flush()
        cursor = (await reader.seed(SPACE)).cursor
        second.write(SPACE, [ngram(1, 2, token=7)])
        await second.flush()
        assert (await reader.follow(SPACE, cursor)).rows
        found = await all_rows(reader)
        assert len(found) == len(ROWS)
        assert {token for token, _ in found["ngram", (1, 2)].entries} == {7, 9}
        assert (await reader.seed(SPACE)).outputs == ((1, 2, 3),)
        assert await all_rows(reader, OTHER) == {}
        assert writer.counters.failures == second.counters.failures == reader.counters.failures == 0
    for server in redis_servers.servers:
        async with raw(server.url) as peer:
            assert await peer.dbsize() > 0, "sixteen tags spread over three servers"


async def test_a_crowd_of_sessions_reads_at_once(redis_servers: RedisServers):
    await a_crowd_reads_at_once(redis_servers.url)


async def test_a_cluster_that_is_gone_is_said_to_be_gone(redis_servers: RedisServers, caplog: pytest.LogCaptureFixture):
    async with opened(redis_servers.url, timeout_s=1.0) as store:
        for server in redis_servers.servers:
            server.kill()
        await until_open(store)
        with pytest.raises(Unavailable, match=r"cannot be reached|gives no answer"):
            await store.put(SPACE, ROWS)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "cannot be reached" in told[0] or "gives no answer" in told[0]


async def test_operators_see_export_and_purge_a_tenant(redis_servers: RedisServers):
    async with opened(redis_servers.url) as store:
        await store.put(SPACE, ROWS, [(1, 2)])
        await store.put(OTHER, [ngram(1)])
        assert await store.namespaces("acme") == (SPACE,)
        before = await store.stats()
        assert dict(before.namespaces)[SPACE] == len(ROWS)
        assert before.details["server"] == "redis"
        assert sum([len(page) async for page in store.pages(SPACE)]) == len(ROWS)
        assert await store.outputs(SPACE) == ((1, 2),)
        gone = await store.purge("acme")
        assert gone > 64
        assert (await store.stats()).details["keys"] == before.details["keys"] - gone
        assert await all_rows(store) == {}
        assert len(await all_rows(store, OTHER)) == 1


async def test_a_lost_server_is_one_warning_and_no_exception(
    redis_servers: RedisServers, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "nacre.store")
    lost = redis_servers.servers[-1]
    async with opened(redis_servers.url, timeout_s=1.0) as store:
        await store.put(SPACE, ROWS)
        lost.kill()
        redis_servers.await_state("fail", lost)
        await until_open(store)
        with pytest.raises(Unavailable, match="the store at the cluster of"):
            await store.put(SPACE, ROWS)
        lost.start()
        redis_servers.await_state("ok")
        await until_back(store)
        await store.put(SPACE, ROWS)
        assert store.counters.episodes == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_the_wrong_kind_of_address_is_told(redis_servers: RedisServers, redis_server: RedisServer):
    async with opened(redis_servers.servers[0].url) as store:
        with pytest.raises(Unavailable, match=r"is one of a cluster; write redis\+cluster://"):
            await store.put(SPACE, ROWS)
    async with opened(redis_server.url.replace("redis://", "redis+cluster://")) as store:
        with pytest.raises(Unavailable, match="is no cluster; write redis://"):
            await store.put(SPACE, ROWS)


def test_a_tenant_spreads_over_many_slots_of_a_cluster():
    layout = Layout(Seal(SPACE, b"a" * 32))
    tags = {layout.bucket(number, b"0").split(b"{")[1].split(b"}")[0] for number in range(1 << 10)}
    assert len(tags) == SPREAD

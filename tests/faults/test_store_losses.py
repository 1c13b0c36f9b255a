"""Whatever becomes of the Redis that services share, they write the same text, say so once and find back alone."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio

from nacre.runtime.delay_proxy import DelayProxy, Link
from nacre.runtime.processes import Child
from tests.services import Services, services
from tests.store.fleet import gateway, generated, metric, settings_file, warnings_of
from tests.store.redis_server import RedisServer, free_port

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

KEY = "ours"
METHOD = "recycling-growth"


@dataclass(slots=True)
class Wire:
    """Between the services and Redis; may be made slow."""

    server: RedisServer
    port: int
    proxies: AsyncExitStack

    async def delay(self, delay_s: float) -> None:
        await self.proxies.aclose()
        proxy = DelayProxy(f"127.0.0.1:{self.server.port}", Link(delay_s=delay_s), port=self.port)
        await self.proxies.enter_async_context(proxy)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One verifier, one drafter that learns, one gateway, and a Redis behind a wire."""

    running: Services
    where: str
    wire: Wire
    folder: Path
    text: list[int]
    verifier: tuple[Child, int]
    drafter: tuple[Child, int]

    @property
    def server(self) -> RedisServer:
        return self.wire.server

    async def goes_on(self) -> None:
        text, _ = await generated(self.where, KEY, drafters=1)
        assert text == self.text

    async def until(self, service: tuple[Child, int], *, healthy: bool) -> None:
        """Returns once a service says how its store is; sessions go on meanwhile."""
        async with asyncio.timeout(90):
            while await metric(service[1], "healthy") != healthy:
                await self.goes_on()
                await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("losses")
    server = RedisServer(folder).start()
    try:
        async with AsyncExitStack() as proxies, AsyncExitStack() as stack:
            wire = Wire(server, free_port(), proxies)
            await wire.delay(0.0)
            ports = free_port(), free_port()
            url = f"redis://127.0.0.1:{wire.port}/0"
            flags = ("--config", str(settings_file(folder, url, timeout_s=1.0)), "--log-level", "warning")
            running = await stack.enter_async_context(services(verifiers=0, drafters=0, gateway=False))
            verifier = await running.start_verifier(*flags, "--metrics-port", str(ports[0]))
            drafter = await running.start_drafter(*flags, "--metrics-port", str(ports[1]), method=METHOD)
            where = await stack.enter_async_context(gateway(running, [drafter], KEY))
            text, _ = await generated(where, KEY, drafters=0)
            yield Fleet(running, where, wire, folder, text, (verifier, ports[0]), (drafter, ports[1]))
    finally:
        server.thaw()
        server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(started: Fleet) -> Fleet:
    """With everything well, whatever a test before has left."""
    await started.until(started.verifier, healthy=True)
    await started.until(started.drafter, healthy=True)
    return started


@asynccontextmanager
async def one_warning(*services: tuple[Child, int]) -> AsyncIterator[None]:
    """Each of these says one thing about its store, and only one; each counts one episode."""
    before = [len(warnings_of(child)) for child, _ in services]
    episodes = [await metric(port, "episodes_total") for _, port in services]
    yield
    assert [len(warnings_of(child)) for child, _ in services] == [number + 1 for number in before]
    assert [await metric(port, "episodes_total") for _, port in services] == [number + 1 for number in episodes]


Act = Callable[[Fleet], Awaitable[None]]


async def kill(fleet: Fleet) -> None:
    fleet.server.kill()


async def restart_empty(fleet: Fleet) -> None:
    fleet.server.start()


async def freeze(fleet: Fleet) -> None:
    fleet.server.freeze()


async def thaw(fleet: Fleet) -> None:
    fleet.server.thaw()


async def make_slow(fleet: Fleet) -> None:
    await fleet.wire.delay(1.2)


async def make_fast(fleet: Fleet) -> None:
    await fleet.wire.delay(0.0)


async def change_the_password(fleet: Fleet) -> None:
    async with client_of(fleet) as client:
        await client.config_set("requirepass", "another")
        await client.client_kill_filter(_type="normal", skipme=True)


async def change_it_back(fleet: Fleet) -> None:
    async with client_of(fleet, password="another") as client:
        await client.config_set("requirepass", "")


@asynccontextmanager
async def client_of(fleet: Fleet, **options: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(fleet.server.url, protocol=2, **options)
    try:
        yield client
    finally:
        await client.aclose()


#: Twenty seconds each: the nightly run has them all.
LOSSES = [
    pytest.param(kill, restart_empty, "cannot be reached|gives no answer within", id="killed and restarted empty")
]
if os.environ.get("NACRE_NIGHTLY"):
    LOSSES += [
        pytest.param(freeze, thaw, "gives no answer within", id="frozen"),
        pytest.param(make_slow, make_fast, "gives no answer within", id="slow"),
        pytest.param(
            change_the_password,
            change_it_back,
            "refuses our password",
            id="wrong password",
        ),
    ]


@pytest.mark.parametrize(("breaks", "heals", "reason"), LOSSES)
async def test_a_lost_redis_costs_no_token_and_one_line(fleet: Fleet, breaks: Act, heals: Act, reason: str) -> None:
    both = (fleet.verifier, fleet.drafter)
    async with one_warning(*both):
        generation = asyncio.create_task(fleet.goes_on())
        await asyncio.sleep(0.2)
        await breaks(fleet)  # while it is being written
        try:
            await generation
            for service in both:
                await fleet.until(service, healthy=False)
                assert re.search(reason, warnings_of(service[0])[-1])
            failures = [await metric(port, "failures_total") for _, port in both]
            assert min(failures) >= 5
            await fleet.goes_on()
        finally:
            await heals(fleet)
        for service in both:
            await fleet.until(service, healthy=True)
    await fleet.goes_on()


async def test_a_full_redis_is_read_on_and_written_again_when_there_is_room(fleet: Fleet) -> None:
    told = warnings_of(fleet.drafter[0])
    async with one_warning(fleet.verifier), client_of(fleet) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        try:
            await fleet.until(fleet.verifier, healthy=False)
            assert "takes no writes" in warnings_of(fleet.verifier[0])[-1]
            assert await metric(fleet.verifier[1], "full_total") >= 1
            assert await metric(fleet.drafter[1], "healthy") == 1
            await fleet.goes_on()
        finally:
            await client.config_set("maxmemory", "0")
        await fleet.until(fleet.verifier, healthy=True)
    await fleet.goes_on()
    assert warnings_of(fleet.drafter[0]) == told

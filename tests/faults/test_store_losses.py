"""Whatever becomes of the Redis that services share, they write the same text, say so once and find back alone.

One stack of services, with the settings they have when nobody sets any, is there for all losses. Nothing is timed: what
is waited for are conditions. A machine that is busy with other things may make an episode of its own out of answers
that come late, so lines are held against episodes here; `tests/store/test_redis_link.py` counts them exactly.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio

from nacre.client import AsyncClient
from nacre.models import held_out_prompts
from nacre.runtime.delay_proxy import DelayProxy, Link
from nacre.runtime.processes import TAIL_LINES, Child
from tests.services import services
from tests.store.fleet import gateway, metric, settings_file, warnings_of
from tests.store.impostor import impostor, info
from tests.store.redis_server import RedisServer, free_port

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

#: The drafter goes on asking what is new for these: as many questions at a time as make a store count as lost.
KNOWN = [f"known-{number}" for number in range(5)]
#: A session of one who has not been here yet asks the store when it starts.
NEW = [f"new-{number}" for number in range(64)]
METHOD = "recycling-growth"
PROMPT_TOKENS, TOKENS = 48, 24
#: One way; an answer takes twice as long, and a service waits for 50 ms.
DELAY_S = 0.05
PATIENCE_S = 90
#: Losses in a row by night. All lines that a service warned of must be in its tail.
WALK = TAIL_LINES // 2

Service = tuple[Child, int]  # and its metrics port
Act = Callable[["Fleet"], Awaitable[None]]


def old_redis(command: bytes) -> bytes:
    """Says it is Redis 4, and does not know what came later."""
    known = command == b"INFO"
    return info("redis_version:4.0.14\r\nredis_mode:standalone\r\n") if known else b"-ERR unknown command\r\n"


@dataclass(slots=True)
class Wire:
    """The one address that services know, and what it leads to."""

    port: int
    proxies: AsyncExitStack

    async def lead(self, address: str, delay_s: float = 0.0) -> None:
        """From now on; connections there are break."""
        await self.proxies.aclose()
        await self.proxies.enter_async_context(DelayProxy(address, Link(delay_s=delay_s), port=self.port))


@dataclass(frozen=True, slots=True)
class Fleet:
    """One verifier, one drafter that learns, one gateway, and a Redis behind a wire."""

    where: str
    wire: Wire
    server: RedisServer
    old: str
    prompt: tuple[int, ...]
    text: list[int]
    known: Iterator[str]
    new: Iterator[str]
    verifier: Service
    drafter: Service

    @property
    def services(self) -> list[Service]:
        return [self.verifier, self.drafter]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def goes_on(self, act: Act | None = None, *, new: bool = False) -> None:
        """A tenant's generation has the text it always had; `act` is done once it has begun."""
        key = next(self.new if new else self.known)
        meanwhile = partial(act, self) if act is not None else None
        assert await generated(self.where, key, self.prompt, drafters=1, meanwhile=meanwhile) == self.text

    async def until(self, concerned: Sequence[Service], *, healthy: bool) -> None:
        """Returns once these services all say that of their store; sessions go on meanwhile."""
        async with asyncio.timeout(PATIENCE_S):
            while any([await metric(port, "healthy") != healthy for _, port in concerned]):
                await self.goes_on()

    async def until_said(self, service: Service, reason: str, lines: int) -> None:
        """Returns once a line of its warnings gives this reason, after so many lines; sessions go on meanwhile."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(re.search(reason, line) for line in warnings_of(service[0])[lines:]):
                await self.goes_on()


async def generated(
    where: str,
    key: str,
    prompt: Sequence[int],
    *,
    drafters: int,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> list[int]:
    async with AsyncClient(where, api_key=key) as client:
        generation = await client.start(prompt, max_tokens=TOKENS, seed=3, drafters=drafters)
        await anext(aiter(generation))
        if meanwhile is not None:
            await meanwhile()
        return (await generation.run()).tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("losses")
    server = RedisServer(folder).start()
    try:
        async with impostor(old_redis) as old, AsyncExitStack() as proxies, AsyncExitStack() as stack:
            wire = Wire(free_port(), proxies)
            await wire.lead(f"127.0.0.1:{server.port}")
            ports = free_port(), free_port()
            flags = _store_flags(folder, wire.port)
            running = await stack.enter_async_context(services(verifiers=0, drafters=0, gateway=False))
            verifier, drafter = await asyncio.gather(
                running.start_verifier(*flags, "--metrics-port", str(ports[0])),
                running.start_drafter(*flags, "--metrics-port", str(ports[1]), method=METHOD),
            )
            where = await stack.enter_async_context(gateway(running, [drafter], *KNOWN, *NEW))
            async with AsyncClient(where, api_key=KNOWN[0]) as client:
                vocabulary = await client.vocabulary()
            prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:PROMPT_TOKENS])
            text = await generated(where, KNOWN[0], prompt, drafters=0)
            fleet = Fleet(
                where=where,
                wire=wire,
                server=server,
                old=old,
                prompt=prompt,
                text=text,
                known=itertools.cycle(KNOWN),
                new=itertools.cycle(NEW),
                verifier=(verifier, ports[0]),
                drafter=(drafter, ports[1]),
            )
            await asyncio.gather(*(fleet.goes_on() for _ in KNOWN))
            yield fleet
    finally:
        server.thaw()
        server.stop()


def _store_flags(folder: Path, port: int) -> tuple[str, ...]:
    return ("--config", str(settings_file(folder, f"redis://127.0.0.1:{port}/0")), "--log-level", "warning")


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(started: Fleet) -> Fleet:
    """With everything well, whatever a test before has left."""
    await started.until(started.services, healthy=True)
    return started


async def kill(fleet: Fleet) -> None:
    fleet.server.kill()


async def restart_empty(fleet: Fleet) -> None:
    fleet.server.stop()
    fleet.server.start()


async def freeze(fleet: Fleet) -> None:
    fleet.server.freeze()


async def thaw(fleet: Fleet) -> None:
    fleet.server.thaw()


async def move_away(fleet: Fleet) -> None:
    await fleet.wire.lead(fleet.address, DELAY_S)


async def downgrade(fleet: Fleet) -> None:
    await fleet.wire.lead(fleet.old)


async def put_back(fleet: Fleet) -> None:
    await fleet.wire.lead(fleet.address)


async def change_the_password(fleet: Fleet) -> None:
    async with client_of(fleet) as client:
        await client.config_set("requirepass", "another")
        await client.client_kill_filter(_type="normal", skipme=True)


async def change_it_back(fleet: Fleet) -> None:
    async with client_of(fleet, password="another") as client:
        await client.config_set("requirepass", "")


async def fill(fleet: Fleet) -> None:
    async with client_of(fleet) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")


async def make_room(fleet: Fleet) -> None:
    async with client_of(fleet) as client:
        await client.config_set("maxmemory", "0")


@asynccontextmanager
async def client_of(fleet: Fleet, **options: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(fleet.server.url, protocol=2, **options)
    try:
        yield client
    finally:
        await client.aclose()


@dataclass(frozen=True, slots=True)
class Loss:
    """`reason` is what services say; `writes_only`: nobody but who writes notices."""

    name: str
    breaks: Act
    heals: Act
    reason: str
    writes_only: bool = False


LOSSES = [
    Loss("killed and restarted empty", kill, restart_empty, "cannot be reached|gives no answer within"),
    Loss("frozen", freeze, thaw, r"gives no answer within 0\.05 s"),
    Loss("slow", move_away, put_back, r"gives no answer within 0\.05 s"),
    Loss("wrong password", change_the_password, change_it_back, "refuses our password"),
    Loss("wrong version", downgrade, put_back, r"is Redis 4\.0\.14 and 6\.2 or newer is needed"),
    Loss("full", fill, make_room, "takes no writes .*raise maxmemory", writes_only=True),
]


@pytest.mark.parametrize("loss", LOSSES, ids=[loss.name for loss in LOSSES])
async def test_a_lost_redis_costs_no_token_and_one_line(fleet: Fleet, loss: Loss) -> None:
    await strike(fleet, loss, generations=1)


async def test_a_redis_that_was_restarted_empty_is_filled_and_followed_again(fleet: Fleet) -> None:
    reseeds = await metric(fleet.drafter[1], "reseeds_total")
    await fleet.goes_on(restart_empty)
    async with asyncio.timeout(PATIENCE_S), client_of(fleet) as client:
        while not await client.dbsize() or await metric(fleet.drafter[1], "reseeds_total") == reseeds:
            await fleet.goes_on()
    await fleet.until(fleet.services, healthy=True)


@pytest.mark.skipif(not os.environ.get("NACRE_NIGHTLY"), reason="two minutes: the nightly run has it")
@pytest.mark.timeout(1200)
async def test_losses_in_any_order(fleet: Fleet) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(WALK):
        loss, generations = dice.choice(LOSSES), dice.randrange(4)
        print(loss.name, generations)
        await strike(fleet, loss, generations=generations)


async def strike(fleet: Fleet, loss: Loss, *, generations: int) -> None:
    """While a text is written Redis is lost, and after so many more generations it is there again."""
    concerned = [fleet.verifier] if loss.writes_only else fleet.services
    before = [await Told.by(service) for service in concerned]
    try:
        await fleet.goes_on(loss.breaks)
        await fleet.until(concerned, healthy=False)
        for _ in range(generations):
            await fleet.goes_on(new=True)
        for service, then in zip(concerned, before, strict=True):
            await fleet.until_said(service, loss.reason, len(then.lines))
            now = await Told.by(service)
            assert now.refused > then.refused if loss.writes_only else now.unanswered > then.unanswered
        if loss.writes_only:
            await fleet.until([fleet.drafter], healthy=True)
            assert not [line for line in warnings_of(fleet.drafter[0]) if "takes no writes" in line]
    finally:
        await loss.heals(fleet)
    await fleet.until(fleet.services, healthy=True)
    for service, then in zip(concerned, before, strict=True):
        now = await Told.by(service)
        # One, and one more if the server said only later why.
        assert 1 <= len(now.lines) - len(then.lines) <= 2 * (now.episodes - then.episodes)


@dataclass(frozen=True, slots=True)
class Told:
    """What a service has said of its store so far: in its log, and in its metrics."""

    lines: list[str]
    episodes: float
    unanswered: float
    refused: float

    @classmethod
    async def by(cls, service: Service) -> Told:
        child, port = service
        names = ("episodes_total", "failures_total", "full_total")
        episodes, unanswered, refused = [await metric(port, name) for name in names]
        return cls(warnings_of(child), episodes, unanswered, refused)

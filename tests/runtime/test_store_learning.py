"""What one session taught, the next one knows, through Redis and a drafter that has never been there before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.services import Services, services
from tests.store.fleet import (
    all_generated,
    gateway,
    generated,
    metric,
    settings_file,
    until_logged,
    until_stored,
)
from tests.store.redis_server import RedisServer, free_port

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

#: Half a minute each: the nightly run has them all.
METHODS = ["recycling-growth", "suffix"]
#: Prompts of two passes, and by what the second must need fewer verify passes.
PROMPTS, LEAST_GAIN = 2, 1.0
if os.environ.get("NACRE_NIGHTLY"):
    METHODS += ["recycling", "stand", "aded-growth"]
    PROMPTS, LEAST_GAIN = 50, 1.3

KEY = "ours"
MOST_RESIDENT_BYTES = 150_000_000


@dataclass(frozen=True, slots=True)
class Taught:
    """A verifier that has written a text twice, alone, and the Redis that knows of it."""

    running: Services
    flags: tuple[str, ...]
    text: list[int]
    url: str
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def taught(slow_target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Taught]:
    folder = tmp_path_factory.mktemp("learning")
    server = RedisServer(folder).start()
    try:
        flags = ("--config", str(settings_file(folder, server.url)))
        async with services(drafters=0, gateway=False, target=slow_target, verifier_flags=flags) as running:
            async with gateway(running, [], KEY) as where:
                text, _ = await generated(where, KEY, drafters=0)
                await generated(where, KEY, drafters=0)  # what was seen once is not kept
                await until_stored(where, KEY, server.url, folder, text)
            yield Taught(running, flags, text, server.url, folder)
    finally:
        server.stop()


@pytest.mark.parametrize("method", METHODS)
async def test_a_drafter_that_shares_nothing_but_redis_knows_the_text(taught: Taught, method: str) -> None:
    running, port = taught.running, free_port()
    fresh, reading = await asyncio.gather(
        running.start_drafter(method=method),
        running.start_drafter(*taught.flags, "--metrics-port", str(port), method=method),
    )
    async with gateway(running, [fresh], KEY) as where:
        text, before = await generated(where, KEY, drafters=1)
        assert text == taught.text
    other = f"of-{method}"  # a tenant that has never been here
    async with gateway(running, [reading], KEY, other) as where:
        text, others = await generated(where, other, drafters=1)
        assert text == taught.text
        text, after = await generated(where, KEY, drafters=1)
        assert text == taught.text
    assert await metric(port, "rows_read_total") > 0
    assert after < before
    assert after < others
    assert psutil.Process(reading.pid).memory_info().rss <= MOST_RESIDENT_BYTES


async def test_the_second_pass_over_the_same_prompts_is_faster_for_its_tenant_only(taught: Taught) -> None:
    """Two drafters that have nothing in common but Redis; the outputs of the first pass are in its log."""
    running, key, other = taught.running, "twice", "once"
    written: dict[str, list[list[int]]] = {}
    passes: dict[str, int] = {}
    for turn in ("first", "second"):
        drafter = await running.start_drafter(*taught.flags, method="suffix+recycling-growth")
        async with gateway(running, [drafter], key, other) as where:
            written[turn], passes[turn] = await all_generated(where, key, PROMPTS)
            if turn == "second":
                written[other], passes[other] = await all_generated(where, other, PROMPTS)
            else:
                await until_logged(where, key, taught.url, taught.folder, written[turn])
        await running.processes.end(drafter)
    assert written["first"] == written["second"] == written[other]
    assert passes["first"] > LEAST_GAIN * passes["second"]
    assert passes[other] > passes["second"]


async def test_a_drafter_without_a_model_stays_small_with_a_store(taught: Taught) -> None:
    drafter = await taught.running.start_drafter(*taught.flags, method="recycling-growth")
    async with gateway(taught.running, [drafter], KEY) as where:
        text, _ = await generated(where, KEY, drafters=1)
    assert text == taught.text
    process = psutil.Process(drafter.pid)
    assert not [mapped.path for mapped in process.memory_maps() if "torch" in mapped.path]
    assert process.memory_info().rss <= MOST_RESIDENT_BYTES


async def test_a_snapshot_teaches_a_drafter_too(taught: Taught, tmp_path: Path) -> None:
    """No Redis at all: what a verifier kept in a file, a drafter on the same machine reads when it starts."""
    config = tmp_path / "nacre.toml"
    config.write_text(f'[store]\nsnapshot = "{tmp_path / "rows"}"\n')
    flags = ("--config", str(config))
    port = free_port()
    async with services(drafters=0, gateway=False, target=taught.running.target, verifier_flags=flags) as running:
        async with gateway(running, [], KEY) as where:
            for _ in range(2):
                assert (await generated(where, KEY, drafters=0))[0] == taught.text
        (verifier,) = running.verifiers
        await running.processes.end(verifier)  # it writes the file when it stops
        assert (tmp_path / "rows").exists()
    # The other verifier has a store too, so it tells drafters whose rows are whose.
    drafter = await taught.running.start_drafter(*flags, "--metrics-port", str(port), method="recycling-growth")
    async with gateway(taught.running, [drafter], KEY) as where:
        assert (await generated(where, KEY, drafters=1))[0] == taught.text
    assert await metric(port, "rows_read_total") > 0

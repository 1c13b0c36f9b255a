"""The benchmark of the store: it stores, reads, writes, and leaves nothing behind; speed itself is not tested."""

from __future__ import annotations

import json

import pytest

from nacre.bench import store_costs
from tests.store.redis_cases import raw
from tests.store.redis_server import RedisServer

SHORT = ("--rows", "3000", "--seconds", "0.5", "--pass-ms", "5")


async def keys_of(server: RedisServer) -> int:
    async with raw(server.url) as peer:
        return await peer.dbsize()


def test_it_tells_what_reading_and_writing_cost(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_costs.main(["--url", redis_server.url, "--json", *SHORT]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert 0 < results["seed"]["median_ms"] <= results["seed"]["p95_ms"] <= results["seed"]["most_ms"]
    assert results["seed"]["rows"] > 0
    assert results["seed"]["outputs"] > 0
    assert results["write"]["rows_offered"] >= 3 * store_costs.ROWS_OF_PASS
    assert results["write"]["search_percent"] > 0


async def test_it_leaves_nothing_behind(redis_server: RedisServer) -> None:
    arguments = store_costs.parsed(["--url", redis_server.url, *SHORT])
    await store_costs.measure(arguments)
    assert await keys_of(redis_server) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--pass-ms", "0"), "must be greater than 0"),
        (("--url", "http://here"), "the store's url cannot be used"),
        (("--url", "redis://127.0.0.1:1"), "cannot be reached"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    more: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        store_costs.main(["--url", "redis://127.0.0.1:1", *more])
    assert said in " ".join(capsys.readouterr().err.split())

"""Fixtures of the store's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.store import redis_layout, redis_store
from tests.store.redis_cases import FEW_BUCKETS
from tests.store.redis_server import RedisServer, RedisServers


@pytest.fixture
def redis_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis, or the product that a test names as this fixture's parameter."""
    server = RedisServer(tmp_path, product=getattr(request, "param", "redis")).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_servers(tmp_path: Path) -> Iterator[RedisServers]:
    cluster = RedisServers(tmp_path)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def few_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the whole of an almost empty store means asking for thousands of empty buckets."""
    for module in (redis_layout, redis_store):
        monkeypatch.setattr(module, "BUCKETS", FEW_BUCKETS)
    monkeypatch.setattr(redis_store, "SAMPLE_BUCKETS", FEW_BUCKETS)

"""The public tier: every tenant is taught it, a tenant's own rows win, and it is read once for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from nacre.runtime import store_reader
from nacre.runtime.local_reading import LocalReading
from nacre.runtime.store_reader import PUBLIC_PAGE_ROWS, PublicTier, StoreReader
from nacre.store import PUBLIC, Cursor, LocalStore, Namespace, Reading, Row
from nacre.store.packing import pack, unpack
from nacre.store.store import NOTHING, SEED_TOKENS

MODEL = ("target", "r1", "f" * 32)
SPACE, OTHER, SHARED = (Namespace(tenant, *MODEL) for tenant in ("acme", "other", PUBLIC))


class Tables:
    """What each tenant's table has: of every context the token that was taught last; and the outputs."""

    def __init__(self) -> None:
        self.tokens: dict[int, dict[tuple[int, ...], int]] = {}
        self.outputs: dict[int, list[tuple[int, ...]]] = {}

    def __call__(self, tag: int, rows: Sequence, outputs: Sequence[tuple[int, ...]]) -> None:
        self.tokens.setdefault(tag, {}).update({context: pairs[0][0] for context, pairs in rows})
        self.outputs.setdefault(tag, []).extend(outputs)


class Counting(LocalStore):
    """Counts questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[tuple[str, str]] = Counter()

    async def seed(self, namespace: Namespace) -> Reading:
        self.asked["seed", namespace.tenant] += 1
        return await super().seed(namespace)

    async def follow(self, namespace: Namespace, since: Cursor) -> Reading:
        self.asked["follow", namespace.tenant] += 1
        return await super().follow(namespace, since)


def ngram(*context: int, token: int = 9) -> Row:
    return Row("ngram", context, ((token, 255),), 2)


async def test_every_tenant_of_the_model_is_taught_it_and_what_is_new_in_it() -> None:
    store, tables = LocalStore(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1), ngram(2)], [(1, 2, 3)])
    await store.put(Namespace(PUBLIC, "target", "r2", "f" * 32), [ngram(7)])
    await reader.begin(SPACE, 7)
    await reader.begin(OTHER, 8)
    assert tables.tokens == {7: {(1,): 9, (2,): 9}, 8: {(1,): 9, (2,): 9}}
    assert tables.outputs == {7: [(1, 2, 3)], 8: [(1, 2, 3)]}
    await store.put(SHARED, [ngram(3)], [(4, 5)])
    await reader.follow()
    assert tables.tokens == {7: {(1,): 9, (2,): 9, (3,): 9}, 8: {(1,): 9, (2,): 9, (3,): 9}}
    assert tables.outputs == {7: [(1, 2, 3), (4, 5)], 8: [(1, 2, 3), (4, 5)]}


async def test_a_tenants_own_rows_win_whenever_they_come() -> None:
    store, tables = LocalStore(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1, token=5), ngram(2, token=5), ngram(3, token=5)])
    await store.put(SPACE, [ngram(1, token=6)])
    await reader.begin(SPACE, 7)
    assert tables.tokens[7] == {(1,): 6, (2,): 5, (3,): 5}
    await store.put(SHARED, [ngram(1, token=5), ngram(4, token=5)])  # written again, and in one round with its own
    await store.put(SPACE, [ngram(2, token=6), ngram(4, token=6)])
    await reader.follow()
    assert tables.tokens[7] == {(1,): 6, (2,): 6, (3,): 5, (4,): 6}
    await store.put(SHARED, [ngram(2, token=5)])
    await reader.follow()
    assert tables.tokens[7] == {(1,): 6, (2,): 6, (3,): 5, (4,): 6}


async def test_it_is_asked_for_once_however_many_tenants_there_are() -> None:
    store, tables = Counting(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1)])
    await asyncio.gather(*[reader.begin(Namespace(f"tenant-{tag}", *MODEL), tag) for tag in range(3)])
    before = store.asked.copy()  # those who come at once may each ask
    for tag in range(3, 6):
        await reader.begin(Namespace(f"tenant-{tag}", *MODEL), tag)
    await reader.follow()
    assert store.asked["seed", PUBLIC] == before["seed", PUBLIC]
    assert store.asked["follow", PUBLIC] == before["follow", PUBLIC] + 1
    assert tables.tokens == {tag: {(1,): 9} for tag in range(6)}


async def test_a_session_waits_for_both_readings_at_once() -> None:
    both = asyncio.Barrier(2)

    class Meeting(LocalStore):
        async def seed(self, namespace: Namespace) -> Reading:
            async with asyncio.timeout(10):
                await both.wait()
            return await super().seed(namespace)

    store, tables = Meeting(), Tables()
    await store.put(SHARED, [ngram(1)])
    await store.put(SPACE, [ngram(2)])
    await StoreReader(store, tables).begin(SPACE, 7)
    assert tables.tokens == {7: {(1,): 9, (2,): 9}}


async def test_a_large_tier_comes_in_pages_and_later_tenants_need_not_wait_for_the_store() -> None:
    rows = PUBLIC_PAGE_ROWS + 100
    store, tables = Counting(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(number) for number in range(rows)])
    await reader.begin(SPACE, 7)
    assert 0 < len(tables.tokens[7]) < rows
    for _ in range(3):
        await reader.follow()
    assert len(tables.tokens[7]) == rows
    asked = store.asked["seed", PUBLIC], store.asked["follow", PUBLIC]
    await reader.begin(OTHER, 8)
    assert len(tables.tokens[8]) == PUBLIC_PAGE_ROWS
    assert (store.asked["seed", PUBLIC], store.asked["follow", PUBLIC]) == asked
    await reader.follow()
    assert len(tables.tokens[8]) == rows


async def test_who_has_too_many_rows_to_tell_apart_is_taught_no_public_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_reader, "MOST_OWN_CONTEXTS", 3)
    store, tables = LocalStore(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1)])
    await store.put(SPACE, [ngram(2), ngram(3), ngram(4)])
    await store.put(OTHER, [ngram(2), ngram(3)])
    await reader.begin(SPACE, 7)
    await reader.begin(OTHER, 8)
    await reader.follow()
    assert set(tables.tokens[7]) == {(2,), (3,), (4,)}
    assert set(tables.tokens[8]) == {(1,), (2,), (3,)}


def test_what_is_kept_of_a_tier_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_reader, "MOST_PUBLIC_ROWS", 10)
    tier = PublicTier(SHARED)
    tier.take([pack(ngram(number)) for number in range(20)], [(1,) * SEED_TOKENS, (2, 3)])
    tier.take([pack(ngram(0, token=2)), pack(ngram(30))], [])
    assert list(map(unpack, tier.rows.values())) == [ngram(0, token=2), *(ngram(n) for n in range(1, 10))]
    assert list(tier.outputs) == [(2, 3)]


async def test_only_so_many_models_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_reader, "MOST_PUBLIC_TIERS", 2)
    store = Counting()
    reader = StoreReader(store, Tables())
    for number in (1, 2, 3, 3, 2, 1):
        reader.end(await reader.begin(Namespace("acme", "target", f"r{number}", "f" * 32), store.asked.total()))
    assert store.asked["seed", PUBLIC] == 4  # the first of three was forgotten


async def test_a_reading_that_was_cancelled_is_made_by_the_next_session() -> None:
    class Slow(LocalStore):
        slow = True

        async def seed(self, namespace: Namespace) -> Reading:
            if self.slow:
                await asyncio.sleep(3600)
            return await super().seed(namespace)

    store, tables = Slow(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1)])
    task = asyncio.create_task(reader.begin(SPACE, 7))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.slow = False
    await reader.begin(SPACE, 7)
    assert tables.tokens == {7: {(1,): 9}}


async def test_a_store_that_was_gone_at_the_start_is_read_when_it_is_back() -> None:
    class Gone(LocalStore):
        gone = True

        async def seed(self, namespace: Namespace) -> Reading:
            return NOTHING if self.gone else await super().seed(namespace)

        async def follow(self, namespace: Namespace, since: Cursor) -> Reading:
            if not since.delta:
                return Reading((), (), since, reseed=not self.gone)
            return await super().follow(namespace, since)

    store, tables = Gone(), Tables()
    reader = StoreReader(store, tables)
    await store.put(SHARED, [ngram(1), ngram(2)])
    await store.put(SPACE, [ngram(1, token=6)])
    await reader.begin(SPACE, 7)
    await reader.follow()
    assert tables.tokens == {}
    store.gone = False
    await reader.follow()
    assert tables.tokens == {7: {(1,): 6, (2,): 9}}


async def test_sources_inside_a_verifier_are_taught_it_too() -> None:
    store, tables = LocalStore(), Tables()
    await store.put(SHARED, [ngram(1)])
    reading = LocalReading(store, tables, lambda tenant: Namespace(tenant, *MODEL))
    reading.opened("session", "acme", 7)
    await reading._begun["session"]
    while reading._lessons:
        reading._lessons.learn()
    assert tables.tokens == {7: {(1,): 9}}


# -- a snapshot of another model ---------------------------------------------------------------------------------------


async def test_a_snapshot_of_another_model_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore()
    await store.put(Namespace("someone", "target", "r0", "e" * 32), [ngram(1)])
    reader = StoreReader(store, Tables())
    await reader.begin(SPACE, 7)
    await reader.begin(OTHER, 8)
    (record,) = caplog.records
    assert f"target@r0/{'e' * 32}" in record.getMessage()
    assert f"target@r1/{'f' * 32}" in record.getMessage()
    assert "someone" not in record.getMessage()


@pytest.mark.parametrize("kept", [[], [OTHER], [SHARED, Namespace("someone", "target", "r0", "e" * 32)]])
async def test_nothing_is_told_where_there_are_rows_of_the_model_or_none_at_all(
    caplog: pytest.LogCaptureFixture, kept: list[Namespace]
) -> None:
    store = LocalStore()
    for space in kept:
        await store.put(space, [ngram(1)])
    await StoreReader(store, Tables()).begin(SPACE, 7)
    assert caplog.records == []

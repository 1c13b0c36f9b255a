"""The local store: bounded, what is oldest forgotten first, followed without gaps, and the same after a restart."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nacre.errors import FailedPrecondition
from nacre.store import LocalStore, Namespace, Row
from nacre.store.portable import Section, read_file, write_file
from nacre.store.rows import PUBLIC, merged
from nacre.store.store import PAGE_ROWS, SEED_ROWS, Store

SPACE = Namespace("acme", "target", "r1", "f" * 32)
OTHER = Namespace("other", "target", "r1", "f" * 32)


def ngram(*context: int, token: int = 9, count: int = 2) -> Row:
    return Row("ngram", context, ((token, 255),), count)


def conforms(store: Store) -> Store:
    return store


async def all_rows(store: Store, namespace: Namespace = SPACE) -> dict[tuple[int, ...], Row]:
    """As a reader gets them: seed, then follow until there is nothing new."""
    reading = await store.seed(namespace)
    rows = {row.context: row for row in reading.rows}
    while not reading.cursor.complete:
        reading = await store.follow(namespace, reading.cursor)
        rows |= {row.context: row for row in reading.rows}
    return rows


async def test_what_is_written_is_read_by_the_next_session_and_by_no_other_tenant():
    store = conforms(LocalStore())
    store.write(SPACE, [ngram(1, 2, 3), ngram(4)])
    await store.flush()
    reading = await store.seed(SPACE)
    assert {row.context for row in reading.rows} == {(1, 2, 3), (4,)}
    assert reading.cursor.complete
    for foreign in (OTHER, Namespace("acme", "target", "r2", "f" * 32), Namespace("acme", "target", "r1", "e" * 32)):
        assert (await store.seed(foreign)).rows == ()


async def test_a_reader_that_follows_sees_every_change_once_as_it_is_now():
    store = LocalStore()
    cursor = (await store.seed(SPACE)).cursor
    assert (await store.follow(SPACE, cursor)).rows == ()
    for _ in range(2):
        store.write(SPACE, [ngram(1)])
        await store.flush()
    reading = await store.follow(SPACE, cursor)
    assert [row.count for row in reading.rows] == [4]
    assert (await store.follow(SPACE, reading.cursor)).rows == ()


async def test_old_rows_arrive_in_pages_while_new_ones_are_written():
    store = LocalStore()
    await store.put(SPACE, [ngram(number) for number in range(5000)])
    reading = await store.seed(SPACE)
    assert len(reading.rows) == SEED_ROWS
    assert reading.rows[0].context == (4999,)  # the newest first
    got = {row.context for row in reading.rows}
    step = 0
    while not reading.cursor.complete:
        await store.put(SPACE, [ngram(step % 5000), ngram(10_000 + step)])
        step += 997
        reading = await store.follow(SPACE, reading.cursor)
        assert len(reading.rows) <= PAGE_ROWS
        got |= {row.context for row in reading.rows}
    assert got >= {(number,) for number in range(5000)}


async def test_who_was_away_for_too_long_is_told_to_seed_again():
    store = LocalStore()
    await store.put(SPACE, [ngram(0)])
    cursor = (await store.seed(SPACE)).cursor
    await store.put(SPACE, [ngram(number) for number in range(20_000)])
    assert (await store.follow(SPACE, cursor)).reseed
    assert store.counters.reseeds == 1


async def test_memory_is_bounded_and_what_nobody_writes_is_forgotten_first():
    store = LocalStore(max_rows=1000)
    await store.put(SPACE, [ngram(0), ngram(1)])
    for start in range(10, 5000, 10):
        await store.put(SPACE, [ngram(start + place) for place in range(10)])
        await store.put(SPACE, [ngram(1)])
        assert (await store.stats()).rows <= 1000
    rows = await all_rows(store)
    assert (1,) in rows
    assert (0,) not in rows


async def test_what_was_written_last_survives_a_flood_of_other_rows():
    store = LocalStore(max_rows=1000)
    for start in range(0, 5000, 500):
        await store.put(SPACE, [ngram(start + place) for place in range(500)])
        assert (await store.stats()).rows <= 1000
    newest = [row.context for row in (await store.seed(SPACE)).rows]
    assert newest == [(4999 - place,) for place in range(SEED_ROWS)]
    rows = await all_rows(store)
    assert rows.keys() >= {(number,) for number in range(4100, 5000)}
    assert rows.keys() <= {(number,) for number in range(4000, 5000)}


async def test_a_flood_of_one_tenant_costs_its_own_rows():
    store = LocalStore(max_rows=1000)
    await store.put(OTHER, [ngram(number) for number in range(100)])
    for start in range(0, 20_000, 500):
        await store.put(SPACE, [ngram(start + place) for place in range(500)])
    assert len(await all_rows(store, OTHER)) == 100


async def test_outputs_of_a_tenant_without_rows_are_kept():
    store = LocalStore(log_tenants=["*"])
    for start in range(3):
        store.log(SPACE, [start, 1])
        await store.flush()
    assert (await store.seed(SPACE)).outputs == await store.outputs(SPACE) == ((0, 1), (1, 1), (2, 1))


async def test_outputs_are_logged_only_for_who_asked_and_within_a_bound():
    store = LocalStore(log_tenants=["acme"], max_log_tokens=100)
    for start in range(20):
        store.log(SPACE, range(start, start + 10))
        store.log(OTHER, range(10))
    await store.flush()
    assert (await store.seed(OTHER)).outputs == ()
    outputs = (await store.seed(SPACE)).outputs
    assert outputs == tuple(tuple(range(start, start + 10)) for start in range(10, 20))


async def test_verifiers_cannot_write_to_the_public_tier_but_builders_can():
    store = LocalStore()
    public = Namespace(PUBLIC, "target", "r1", "f" * 32)
    store.write(public, [ngram(1)])
    await store.flush()
    assert (await store.seed(public)).rows == ()
    await store.put(public, [ngram(1)])
    assert len((await store.seed(public)).rows) == 1


async def test_purging_removes_one_tenant_and_nobody_else():
    store = LocalStore(log_tenants=["*"])
    for space in (SPACE, OTHER):
        await store.put(space, [ngram(1), ngram(2)], [(1, 2)])
    assert await store.purge("acme") == 2
    assert (await store.seed(SPACE)).rows == ()
    assert (await store.seed(SPACE)).outputs == ()
    assert len((await store.seed(OTHER)).rows) == 2


async def test_a_restart_finds_the_snapshot(tmp_path: Path):
    path = tmp_path / "store"
    first = LocalStore(snapshot=path, log_tenants=["acme"])
    await first.start()
    first.write(SPACE, [ngram(1, 2), ngram(1, 2, token=7)])
    first.log(SPACE, [5, 6, 7])
    await first.close()
    assert path.stat().st_mode & 0o077 == 0
    second = LocalStore(snapshot=path)
    await second.start()
    reading = await second.seed(SPACE)
    assert reading.rows == (merged(ngram(1, 2), ngram(1, 2, token=7)),)
    assert reading.outputs == ((5, 6, 7),)
    await second.close()


async def test_a_snapshot_larger_than_the_store_keeps_what_was_written_last(tmp_path: Path):
    path = tmp_path / "store"
    first = LocalStore(snapshot=path, log_tenants=["*"])
    await first.put(OTHER, [ngram(number) for number in range(100)])
    await first.put(SPACE, [ngram(number) for number in range(3000)], [(1, 2)])
    await first.save()
    second = LocalStore(snapshot=path, max_rows=1000)
    await second.start()
    rows = await all_rows(second)
    assert len(await all_rows(second, OTHER)) == 100
    assert rows.keys() == {(number,) for number in range(2100, 3000)}
    assert (await second.seed(SPACE)).rows[0].context == (2999,)
    assert await second.outputs(SPACE) == ((1, 2),)
    await second.close()


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
async def test_a_damaged_snapshot_is_refused_moved_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
):
    path = tmp_path / "store"
    first = LocalStore(snapshot=path)
    await first.put(SPACE, [ngram(number) for number in range(100)])
    await first.save()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    broken = {"cut": whole[:-10], "flipped": bytes(flipped), "other": b"PK\x03\x04" * 50, "empty": b""}[damage]
    path.write_bytes(broken)
    second = LocalStore(snapshot=path)
    with caplog.at_level(logging.WARNING, "nacre.store"):
        await second.start()
    assert (await second.seed(SPACE)).rows == ()
    assert not path.exists()
    assert (tmp_path / "store.damaged-1").read_bytes() == broken
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "starting empty" in caplog.text
    await second.put(SPACE, [ngram(1)])
    await second.close()
    assert path.exists()  # the next restart is a good one again


async def test_a_snapshot_that_cannot_be_read_is_told_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "folder"
    path.mkdir()
    store = LocalStore(snapshot=path)
    await store.start()
    await store.put(SPACE, [ngram(1)])
    await store.close()
    assert path.is_dir()
    with LocalStore(snapshot=path).claimed():  # others are not kept from it
        pass
    assert "folder cannot be read" in caplog.text
    assert "nothing will be saved" in caplog.text
    assert "damaged" not in caplog.text


async def test_one_process_writes_a_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "store"
    first, second, reader = (LocalStore(snapshot=path, saves=saves) for saves in (True, True, False))
    await first.start()
    await first.put(SPACE, [ngram(1)])
    await first.save()
    for other in (second, reader):
        await other.start()
        assert len((await other.seed(SPACE)).rows) == 1
        await other.put(SPACE, [ngram(2)])
        await other.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is written by another process; what is learnt here will not be saved"
    ]
    with pytest.raises(FailedPrecondition, match="stop it first"), LocalStore(snapshot=path).claimed():
        pass
    await first.close()
    with LocalStore(snapshot=path).claimed():
        pass
    third = LocalStore(snapshot=path)
    await third.start()
    assert [row.context for row in (await third.seed(SPACE)).rows] == [(1,)]
    await third.close()


async def test_who_only_starts_with_a_snapshot_leaves_a_damaged_one_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "store"
    path.write_bytes(b"none of ours")
    store = LocalStore(snapshot=path, saves=False)
    await store.start()
    await store.close()
    assert path.read_bytes() == b"none of ours"
    assert "starting empty" in caplog.text


async def test_a_snapshot_that_is_being_written_when_the_store_closes_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writing, at_once = threading.Event(), []

    def slowly(where: Path, sections: Sequence[Section]) -> int:
        at_once.append(writing.is_set())
        writing.set()
        time.sleep(0.2)
        size = write_file(where, sections)
        writing.clear()
        return size

    monkeypatch.setattr("nacre.store.snapshot.write_file", slowly)
    store = LocalStore(snapshot=tmp_path / "store")
    await store.start()
    await store.put(SPACE, [ngram(1)])
    saving = asyncio.create_task(store.save())
    await asyncio.to_thread(writing.wait)
    await store.put(SPACE, [ngram(2)])
    await store.close()
    await saving
    assert at_once == [False, False]
    assert len([row for section in read_file(tmp_path / "store") for row in section.rows]) == 2


async def test_a_snapshot_that_cannot_be_written_is_told_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = LocalStore(snapshot=tmp_path / "missing" / "store")
    await store.start()
    store.write(SPACE, [ngram(1)])
    await store.close()
    assert "was not saved" in caplog.text


async def test_writing_goes_on_while_others_read():
    store = LocalStore()
    await store.start()
    store.write(SPACE, [ngram(number) for number in range(200)])
    while len((await store.seed(SPACE)).rows) < 200:  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.01)
    await store.close()

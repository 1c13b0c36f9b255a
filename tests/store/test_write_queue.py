"""The queue: bounded, coalesced, admitted on second sighting, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from nacre.store.rows import PUBLIC, Namespace, Row
from nacre.store.sightings import Sightings
from nacre.store.store import StoreCounters
from nacre.store.write_queue import FLUSH_KEYS, FLUSH_ROWS, Coalesced, WriteQueue

SPACE = Namespace("acme", "target", "r1", "f" * 32)


class Sink:
    """Takes everything, or nothing."""

    def __init__(self) -> None:
        self.takes = True
        self.rows: list[Row] = []
        self.outputs: list[tuple[int, ...]] = []
        self.largest = 0

    async def apply(self, namespace: Namespace, rows: Coalesced, outputs: list[tuple[int, ...]]) -> bool:
        if self.takes:
            self.rows += rows.values()
            self.outputs += outputs
            self.largest = max(self.largest, len(rows))
        return self.takes


def ngram(*context: int, count: int = 2, token: int = 9) -> Row:
    return Row("ngram", context, ((token, 255),), count)


async def test_rows_of_one_key_are_merged_before_they_are_sent():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    queue.offer(SPACE, [ngram(1), ngram(1), ngram(2)])
    queue.offer(SPACE, [ngram(1)])
    await queue.flush()
    assert sorted(row.count for row in sink.rows) == [2, 6]


async def test_what_was_seen_once_waits_for_a_second_sighting():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    for _ in range(2):
        queue.offer(SPACE, [ngram(1, 2, 3, count=1), ngram(4, count=2)])
        await queue.flush()
    assert [row.context for row in sink.rows] == [(4,), (1, 2, 3), (4,)]
    assert counters.rows_first_seen == 1
    other = Namespace("other", "target", "r1", "f" * 32)
    queue.offer(other, [ngram(1, 2, 3, count=1)])
    await queue.flush()
    assert counters.rows_first_seen == 2  # another tenant's sighting is none of this one's


async def test_the_oldest_is_dropped_and_counted_when_nobody_takes_rows():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters, max_queued=1000)
    sink.takes = False
    for start in range(0, 5000, 100):
        queue.offer(SPACE, [ngram(start + place) for place in range(100)])
    assert queue.queued == 1000
    assert counters.rows_dropped == 4000
    await queue.flush()
    assert queue.queued <= 1000
    sink.takes = True
    await queue.flush()
    assert queue.queued == 0
    assert {row.context[0] for row in sink.rows} == set(range(4000, 5000))


async def test_what_a_store_could_not_take_is_offered_again_merged_with_what_came_since():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    sink.takes = False
    queue.offer(SPACE, [ngram(1)])
    queue.offer_output(SPACE, (1, 2, 3))
    await queue.flush()
    queue.offer(SPACE, [ngram(1)])
    sink.takes = True
    await queue.flush()
    assert [row.count for row in sink.rows] == [4]
    assert sink.outputs == [(1, 2, 3)]


async def test_flushes_have_a_size_and_happen_by_themselves():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    await queue.start()
    queue.offer(SPACE, [ngram(number) for number in range(3 * FLUSH_KEYS)])
    while len(sink.rows) < 3 * FLUSH_KEYS:  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.01)
    await queue.close()
    assert sink.largest == FLUSH_KEYS
    assert counters.flushes >= 3


async def test_rows_that_cannot_be_kept_and_the_public_tier_are_refused_without_a_sound():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    queue.offer(SPACE, [ngram(-1), Row("what", (1,), ((1, 1),)), ngram(1), ngram(1 << 30)])
    queue.offer(Namespace(PUBLIC, "target", "r1", "f" * 32), [ngram(1)])
    await queue.flush()
    assert [row.context for row in sink.rows] == [(1,)]
    assert counters.rows_refused == 4


async def test_a_tenant_that_is_purged_is_forgotten_in_the_queue_too():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    queue.offer(SPACE, [ngram(1)])
    queue.offer_output(SPACE, (1,))
    queue.forget("acme")
    await queue.flush()
    assert (sink.rows, sink.outputs, queue.queued) == ([], [], 0)


def test_the_sketch_forgets_and_never_grows():
    sightings = Sightings(bits=1024)
    assert not sightings.seen_before(b"a")
    assert sightings.seen_before(b"a")
    for number in range(5000):
        sightings.seen_before(str(number).encode())
    fresh = sum(not sightings.seen_before(f"new {number}".encode()) for number in range(200))
    assert fresh > 50


async def test_a_flush_looks_at_few_rows_however_many_wait():
    sink, counters = Sink(), StoreCounters()
    queue = WriteQueue(sink.apply, counters)
    for start in range(100):
        queue.offer(SPACE, [ngram(start, place, count=1) for place in range(48)])
    before = queue.queued
    await queue._flush_once()
    assert 0 < before - queue.queued <= FLUSH_ROWS + 48
    await queue.flush()
    assert queue.queued == 0
    assert counters.rows_first_seen + len(sink.rows) == 4800  # the sketch takes a few for known


async def test_rows_may_be_made_when_they_are_looked_at_and_are_never_made_if_dropped():
    made = []

    class Later(Collection[Row]):
        def __len__(self) -> int:
            return 10

        def __contains__(self, row: object) -> bool:
            return False

        def __iter__(self) -> Iterator[Row]:
            made.append(1)
            return (ngram(place) for place in range(10))

    sink = Sink()
    queue = WriteQueue(sink.apply, StoreCounters(), max_queued=10)
    queue.offer(SPACE, Later())
    queue.offer(SPACE, Later())
    await queue.flush()
    assert (len(made), len(sink.rows)) == (1, 10)

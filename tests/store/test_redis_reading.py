"""Decoding: others run after every block and output, and what is read fits into the room there is."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from nacre.store import Row
from nacre.store.packing import join, pack, pack_tokens
from nacre.store.redis_layout import BLOCK, Layout
from nacre.store.redis_reading import BLOCK_ROWS, Entry, newest_rows, next_rows, outputs_of
from nacre.store.sealing import Seal
from nacre.store.store import PAGE_ROWS, SEED_ROWS, StoreCounters
from tests.store.redis_cases import SPACE, ngram

LAYOUT = Layout(Seal(SPACE, b"a" * 32))

T = TypeVar("T")


def block(*rows: Row) -> Entry:
    return b"1-0", {BLOCK: LAYOUT.seal.cover_block(b"delta", join(map(pack, rows)))}


def logged(*tokens: int) -> Entry:
    return b"1-0", {BLOCK: LAYOUT.seal.cover_block(b"log", pack_tokens(tokens))}


def run(work: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """What it returns, and how often it let others run. Fails if it waits for anything."""
    turns = 0
    while True:
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            return end.value, turns
        assert waits_for is None
        turns += 1


def test_others_run_after_each_block_and_output():
    counters = StoreCounters()
    blocks = [block(ngram(number), ngram(number, 1)) for number in range(5)]
    (rows, read), turns = run(next_rows(LAYOUT, blocks, counters, PAGE_ROWS))
    assert (len(rows), read, turns) == (10, 5, 5)
    rows, turns = run(newest_rows(LAYOUT, blocks, counters, SEED_ROWS))
    assert (len(rows), turns) == (10, 5)
    outputs, turns = run(outputs_of(LAYOUT, [logged(1, 2), logged(3)], counters))
    assert (outputs, turns) == ([(1, 2), (3,)], 2)
    assert counters.rows_corrupt == 0


def test_only_blocks_that_surely_fit_are_read_and_each_is_read_whole():
    full = [block(*(ngram(first + place) for place in range(BLOCK_ROWS))) for first in (0, 1000, 2000)]
    counters = StoreCounters()
    assert PAGE_ROWS == 2 * BLOCK_ROWS
    (rows, read), _ = run(next_rows(LAYOUT, full, counters, PAGE_ROWS))
    assert (len(rows), read) == (PAGE_ROWS, 2)
    (rows, read), _ = run(next_rows(LAYOUT, [block(ngram(7, 7)), *full], counters, PAGE_ROWS))
    assert (len(rows), read) == (BLOCK_ROWS + 1, 2)


def test_a_block_that_no_writer_of_ours_made_is_cut():
    counters = StoreCounters()
    huge = block(*(ngram(number) for number in range(4 * BLOCK_ROWS)))
    (rows, read), _ = run(next_rows(LAYOUT, [huge], counters, PAGE_ROWS))
    assert (len(rows), read) == (BLOCK_ROWS, 1)


def test_of_one_context_the_newest_row_holds():
    older, newer = ngram(1, count=3), ngram(1, count=4)
    counters = StoreCounters()
    (rows, _), _ = run(next_rows(LAYOUT, [block(older), block(newer)], counters, PAGE_ROWS))
    assert list(rows.values()) == [newer]
    rows, _ = run(newest_rows(LAYOUT, [block(newer), block(older)], counters, SEED_ROWS))
    assert list(rows.values()) == [newer]

"""A bounded table of rows: exact keys, full buckets, ageing."""

from __future__ import annotations

import pytest

from nacre.drafting.ngram_rows import MOST_TOKEN, NgramRows
from nacre.drafting.rows import chance_of, unpacked, weight_byte
from nacre.errors import InvalidArgument
from nacre.sim.dice import Dice


def test_rows_are_found_by_the_whole_context() -> None:
    rows = NgramRows(64)
    for context in ((0,), (0, 0), (1, 2, 3), (3, 2, 1), (MOST_TOKEN,)):
        assert rows.find(context) == -1
        rows.write(rows.claim(context), [context[0]], [7])
    assert len(rows) == 5
    assert rows.read(rows.find((3, 2, 1))) == ([3] + [0] * 7, [7] + [0] * 7)
    assert rows.read(rows.find((0,))) != rows.read(rows.find((1, 2, 3)))


@pytest.mark.parametrize("context", [(), (1, 2, 3, 4), (-1,), (MOST_TOKEN + 1,)])
def test_contexts_that_cannot_be_keys_are_never_there(context: tuple[int, ...]) -> None:
    rows = NgramRows(64)
    assert rows.claim(context) == rows.find(context) == -1
    assert len(rows) == 0


def test_a_full_table_keeps_what_is_touched_and_stays_its_size() -> None:
    dice = Dice(3)
    rows = NgramRows(64)
    size = rows.size_bytes
    often = rows.claim((1, 2))
    for _ in range(1000):
        slot = rows.find((1, 2))
        if slot >= 0:
            rows.write(slot, [5], [9])
        context = (dice.below(50), dice.below(50), dice.below(50))
        if rows.find(context) < 0:
            rows.write(rows.claim(context), [1], [1])
    assert rows.find((1, 2)) == often
    assert rows.read(often)[0][0] == 5
    assert rows.size_bytes == size
    assert 48 <= len(rows) <= 64


def test_what_was_common_once_gives_way_in_time() -> None:
    rows = NgramRows(8)  # one bucket
    for _ in range(100):
        slot = rows.find((9,))
        rows.write(slot if slot >= 0 else rows.claim((9,)), [1], [1])
    for token in range(10, 100):
        for _ in range(3):
            slot = rows.find((token,))
            rows.write(slot if slot >= 0 else rows.claim((token,)), [1], [1])
    assert rows.find((9,)) == -1
    assert rows.find((99,)) >= 0


def test_weight_bytes_are_logarithms() -> None:
    assert (weight_byte(1.0), weight_byte(0.0), weight_byte(1e-30), weight_byte(7.0)) == (255, 1, 1, 255)
    assert chance_of(0) == chance_of(256) == chance_of(-1) == 0
    for chance in (0.001, 0.2, 0.7, 0.99):
        assert chance_of(weight_byte(chance)) == pytest.approx(chance, rel=0.032)


def test_rows_from_elsewhere_are_sorted_and_cleaned() -> None:
    row = ((1,), ((4, 0), (5, 100), (6, 200), (5, 255), (-1, 255), (10**9, 255), (7, 300)))
    assert unpacked(row, 1000)[0] == [6, 5]
    assert len(unpacked(((1,), tuple((i, 200) for i in range(40))), 1000)[0]) == 8


@pytest.mark.parametrize("ngrams", [7, (1 << 26) + 1])
def test_a_size_out_of_bounds_is_refused(ngrams: int) -> None:
    with pytest.raises(InvalidArgument, match=f"size is {ngrams} n-grams; it must be 8 to"):
        NgramRows(ngrams)

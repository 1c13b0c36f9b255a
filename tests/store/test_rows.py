"""Rows: what cannot be kept is refused, packing loses nothing, merging forgets nothing it should not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.errors import InvalidArgument
from nacre.store.packing import MAX_ROW_BYTES, join, key_in, key_of, pack, pack_tokens, split, unpack, unpack_tokens
from nacre.store.rows import MAX_COUNT, MAX_ENTRIES, MAX_TOKEN, MEMORY, Namespace, Row, check, merged

tokens = st.integers(0, MAX_TOKEN)
weights = st.integers(0, 255)
contexts = st.lists(tokens, min_size=1, max_size=3).map(tuple)
counts = st.integers(1, MAX_COUNT)
entries = st.lists(st.tuples(tokens, weights), min_size=1, max_size=8, unique_by=lambda entry: entry[0]).map(tuple)
rows = st.builds(lambda context, some, count: Row("ngram", context, some, count), contexts, entries, counts)


@given(rows)
def test_what_is_packed_comes_back(row: Row):
    packed = pack(row)
    assert unpack(packed) == row
    assert key_in(packed) == key_of(row)
    assert len(packed) <= MAX_ROW_BYTES == 44


@given(st.lists(rows, max_size=5))
def test_blocks_of_rows_come_back(some: list[Row]):
    assert [unpack(packed) for packed in split(join(map(pack, some)))] == some


@given(st.binary(max_size=60))
def test_junk_is_no_row_or_a_valid_one(data: bytes):
    try:
        row = unpack(data)
    except ValueError:
        return
    assert pack(row) == data


@given(rows, st.integers(0, MAX_ROW_BYTES))
def test_a_cut_row_is_noticed(row: Row, size: int):
    packed = pack(row)
    if size < len(packed):
        with pytest.raises(ValueError, match="row"):
            unpack(packed[:size])


@given(rows, st.integers(1, 3))
def test_a_row_of_another_kind_is_refused_and_never_taken_for_an_ngram(row: Row, kind: int):
    packed = pack(row)
    with pytest.raises(ValueError, match="a kind that is not kept"):
        unpack(bytes((packed[0] | kind << 6,)) + packed[1:])


@given(st.lists(tokens, max_size=300))
def test_outputs_come_back(output: list[int]):
    assert unpack_tokens(pack_tokens(output)) == tuple(output)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("trigram", (1,), ((1, 1),)), "'trigram'; it must be 'ngram'"),
        (Row("ngram", (), ((1, 1),)), "has 0 tokens; it must have 1 to 3"),
        (Row("ngram", (1, 2, 3, 4), ((1, 1),)), "has 4 tokens"),
        (Row("ngram", (1,), ((1, 1),), 0), "count is 0"),
        (Row("ngram", (1,), tuple((token, 1) for token in range(9))), "has 9 entries; it must have 1 to 8"),
        (Row("ngram", (1,)), "has 0 entries; it must have 1 to 8"),
        (Row("ngram", (MAX_TOKEN + 1,), ((1, 1),)), "ids must be 0 to"),
        (Row("ngram", (1,), ((-1, 1),)), "names token -1"),
        (Row("ngram", (1,), ((1, 256),)), "weight is 256"),
    ],
)
def test_a_row_that_cannot_be_kept_is_refused_by_name(row: Row, said: str):
    with pytest.raises(InvalidArgument) as refused:
        check(row)
    assert said in refused.value.message


@given(rows, rows)
def test_a_merged_row_is_valid_and_knows_only_what_was_seen(older: Row, newer: Row):
    newer = newer._replace(context=older.context)
    both = check(merged(older, newer))
    assert both.count == min(MAX_COUNT, older.count + newer.count)
    assert {token for token, _ in both.entries} <= {token for token, _ in older.entries + newer.entries}
    assert [weight for _, weight in both.entries] == sorted((weight for _, weight in both.entries), reverse=True)


@given(rows)
def test_seeing_the_same_again_changes_no_weight(row: Row):
    ranked = tuple(sorted(((t, w) for t, w in row.entries if w), key=lambda entry: (-entry[1], entry[0])))
    assert merged(row, row).entries[: len(ranked)] == ranked


def test_weights_are_means_over_sightings_and_the_past_is_bounded():
    often, once = Row("ngram", (1,), ((7, 200),), 3), Row("ngram", (1,), ((7, 100), (8, 40)), 1)
    assert merged(often, once) == Row("ngram", (1,), ((7, 175), (8, 10)), 4)
    old = Row("ngram", (1,), ((7, 255),), MAX_COUNT)
    for _ in range(4 * MEMORY):
        old = merged(old, Row("ngram", (1,), ((8, 255),), 1))
    assert old.entries[0][0] == 8


def test_only_the_heaviest_entries_stay():
    first = Row("ngram", (1,), tuple((token, 10 * (token + 1)) for token in range(8)))
    both = merged(first, Row("ngram", (1,), ((99, 255),)))
    assert len(both.entries) == MAX_ENTRIES
    assert both.entries[0][0] == 99
    assert 0 not in {token for token, _ in both.entries}


@pytest.mark.parametrize(
    "values", [("", "m", "r", "f"), ("t", "", "r", "f"), ("t", "m", "r", ""), ("t\0", "m", "r", "f")]
)
def test_a_namespace_that_names_nothing_is_refused(values: tuple[str, str, str, str]):
    with pytest.raises(InvalidArgument, match="namespace"):
        Namespace(*values)

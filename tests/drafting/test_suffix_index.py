"""The suffix index finds what a search of the whole text would find, and forgets what it must."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting import suffix_index
from nacre.drafting.suffix_index import LONGEST, SuffixIndex
from nacre.errors import InvalidArgument
from nacre.sim.dice import Dice


def slow_matches(text: Sequence[int], tail: Sequence[int]) -> list[tuple[int, int]]:
    """Every place of the text that something follows, by the length of its match with the tail, longest first."""
    found = []
    for position in range(1, len(text)):
        matched = 0
        while matched < min(LONGEST, position, len(tail)) and text[position - 1 - matched] == tail[-1 - matched]:
            matched += 1
        if matched:
            found.append((position, matched))
    return sorted(found, key=lambda item: (-item[1], -item[0]))


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_search_finds_however_the_text_came(seed: int) -> None:
    dice = Dice(seed)
    alphabet = 2 + dice.below(6)
    index = SuffixIndex(1024)
    text: list[int] = []
    while len(text) < 400:
        more = [dice.below(alphabet) for _ in range(1 + dice.below(90))]
        if dice.chance(0.3) and text:  # repeat something long
            start = dice.below(len(text))
            more = text[start : start + 60]
        index.extend(more)
        text += more
    for _ in range(30):
        start = dice.below(len(text))
        tail = [*text[start : start + 1 + dice.below(20)], *(dice.below(alphabet) for _ in range(dice.below(3)))]
        assert index.matches(tail, 10_000, walk=10_000) == slow_matches(text, tail)


def test_the_longest_matches_are_found_first_and_then_the_latest() -> None:
    index = SuffixIndex(64)
    index.extend([1, 2, 3, 7, 2, 3, 8, 3, 9, 2, 3])
    assert index.matches([1, 2, 3], 3) == [(3, 3), (6, 2), (8, 1)]
    assert index.matches([5], 3) == []


def test_of_too_many_matches_the_latest_of_the_longest_power_of_two_are_kept() -> None:
    index = SuffixIndex(64)
    index.extend([1, 2, 3, 7, 2, 3, 8, 3, 9, 2, 3])
    assert index.matches([1, 2, 3], 1) == [(6, 2)]  # 3 and 2 tokens are both at least 2


def test_a_continuation_ends_with_its_sequence() -> None:
    index = SuffixIndex(64)
    index.add([1, 2, 3])
    index.add([4, 1, 2, 5, 6])
    assert [index.continuation(position, 9) for position, _ in index.matches([1, 2], 2)] == [[5, 6], [3]]
    assert index.matches([3, 4], 2) == [(6, 1)]  # no match spans two sequences


def test_a_full_ring_forgets_the_oldest_and_stays_its_size() -> None:
    index = SuffixIndex(64)
    index.add([1, 2, 3])
    size = index.size_bytes
    for _ in range(3):
        index.add(list(range(100, 130)))
        assert len(index) <= 64
    assert index.matches([1, 2], 4) == []
    assert index.size_bytes == size
    (position, matched), *_ = index.matches([110, 111, 112], 1)
    assert (matched, index.continuation(position, 3)) == (3, [113, 114, 115])


@pytest.mark.parametrize("seed", range(5))
def test_a_wrapped_ring_never_makes_up_a_match(seed: int) -> None:
    dice = Dice(seed)
    index = SuffixIndex(128)
    text: list[int] = []
    for _ in range(40):
        more = [dice.below(5) for _ in range(1 + dice.below(50))]
        index.extend(more)
        text += more
        tail = [dice.below(5) for _ in range(4)]
        held = text[-128:]
        shift = len(text) - len(held)
        found = index.matches(tail, 1000, walk=1000)
        assert found == [(position + shift, matched) for position, matched in slow_matches(held, tail)]


def test_positions_that_run_out_of_numbers_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix_index, "_LAST_POSITION", 300)
    index = SuffixIndex(64)
    for i in range(60):
        index.add([i, i + 1, 7, 9, 8])
    (position, matched), *_ = index.matches([59, 60, 7], 1)
    assert (matched, index.continuation(position, 5)) == (3, [9, 8])
    assert index.continuation(position - 3, 9) == [59, 60, 7, 9, 8]


def test_half_an_index_is_empty_and_holds_half_the_tokens() -> None:
    index = SuffixIndex(256)
    index.add(range(200))
    half = index.halved()
    assert (len(half), half.matches([1, 2], 1)) == (0, [])
    half.add(range(200))
    assert len(half) == 128
    assert len(SuffixIndex(64).halved().halved()) == 0


@pytest.mark.parametrize("capacity", [63, (1 << 27) + 1])
def test_a_capacity_out_of_bounds_is_refused(capacity: int) -> None:
    with pytest.raises(InvalidArgument, match=f"capacity is {capacity} tokens; it must be 64 to"):
        SuffixIndex(capacity)

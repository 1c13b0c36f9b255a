"""ADED: scores of trigrams, searched by PUCT and best first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting.aded import AdedGrowthProposer, AdedProposer, TrigramTable
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Proposer
from nacre.drafting.rows import weight_byte
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams


def guesses(proposer: Proposer, tokens: Sequence[int]) -> list[Guess]:
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(), None))
    (found,) = proposer.propose([Expansion(1, 0, (), ())])
    return found


def paths(found: Sequence[Guess]) -> list[tuple[int, ...]]:
    placed: list[tuple[int, ...]] = []
    for guess in found:
        placed.append(((*placed[guess.parent], guess.token)) if guess.parent != TIP else (guess.token,))
    return placed


def followers(table: TrigramTable, *pair: int) -> dict[int, float]:
    return {guess.token: guess.survival for guess in guesses(AdedGrowthProposer(table), pair) if guess.parent == TIP}


def test_a_trigram_scores_once_and_its_row_fades() -> None:
    table = TrigramTable()
    table.learn([1, 2, 3])
    assert followers(table, 1, 2) == pytest.approx({3: 1 / 2})
    table.learn([1, 2, 4])
    # 3 faded to .98 of a bump; 4 has one; one is for the unseen.
    assert followers(table, 1, 2) == pytest.approx({4: 1 / 2.98, 3: 0.98 / 2.98}, abs=1e-3)
    for _ in range(400):
        table.learn([1, 2, 4])
    (token, share), *_ = followers(table, 1, 2).items()
    assert (token, share > 0.95) == (4, True)
    assert followers(table, 2, 3) == followers(table, 2) == {}


def test_the_newest_follower_replaces_the_weakest_of_a_full_row() -> None:
    table = TrigramTable()
    for token in range(10, 19):
        table.learn([1, 2, token])
    assert set(followers(table, 1, 2)) == set(range(11, 19))


def test_growth_takes_the_likeliest_paths() -> None:
    table = TrigramTable()
    for _ in range(3):
        table.learn([1, 2, 3, 4])
    table.learn([1, 2, 5])
    assert paths(guesses(AdedGrowthProposer(table, rows=3), [1, 2])) == [(3,), (3, 4), (5,)]
    assert guesses(AdedGrowthProposer(table), [2]) == []


def test_a_search_visits_the_likely_more() -> None:
    table = TrigramTable()
    for _ in range(9):
        table.learn([1, 2, 3, 4, 6])
    table.learn([1, 2, 5, 7, 8])
    found = paths(guesses(AdedProposer(table, rows=8), [1, 2]))
    assert found[0] == (3,)
    assert {(3,), (3, 4), (3, 4, 6)} <= set(found)
    assert len(found) <= 8


def test_a_search_of_a_small_table_finds_what_growth_finds() -> None:
    text = [1, 2, 3, 1, 2, 4, 1, 2, 3, 5, 1, 2]
    searched = set(paths(guesses(AdedProposer(rows=64, iterations=300), text)))
    assert set(paths(guesses(AdedGrowthProposer(rows=4), text))) <= searched


@pytest.mark.parametrize("kind", [AdedProposer, AdedGrowthProposer])
def test_the_second_time_the_same_text_is_guessed(kind: type[AdedProposer]) -> None:
    text = [1, 5, 2, 8, 3, 9]
    proposer = kind(rows=32)
    assert guesses(proposer, text[:2]) == []
    proposer.committed(1, text[2:], ())
    proposer.close(1)
    assert tuple(text[2:]) in paths(guesses(proposer, text[:2]))


def test_rows_of_others_replace_those_here_and_junk_is_dropped() -> None:
    table = TrigramTable()
    table.learn([1, 2, 3])
    table.merge([((1, 2), ((4, weight_byte(0.6)), (5, weight_byte(0.2)))), ((2, 3), ((1, 255),))])
    told = followers(table, 1, 2)
    assert list(told) == [4, 5]
    assert told[4] / told[5] == pytest.approx(3.0, rel=0.07)
    known = len(table)
    table.merge([((1,), ((5, 255),)), ((8, 9), ((5, 0),)), ((8, 9), ((-5, 255),))])
    assert len(table) == known


def test_memory_does_not_grow_with_what_is_learned() -> None:
    table = TrigramTable(64)
    size = table.size_bytes
    table.learn(range(1000))
    assert (table.size_bytes, len(table) <= 64) == (size, True)
    assert (table.halved().size_bytes, len(table.halved())) == (size // 2, 0)


def test_iterations_out_of_bounds_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="iterations is 0; it must be 1 to"):
        AdedProposer(iterations=0)

"""Pools of phrases, and the methods that fill and read them."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence

import pytest

from nacre.drafting.lookahead import LookaheadProposer
from nacre.drafting.ouroboros import OuroborosProposer, harvest, ouroboros_pool
from nacre.drafting.phrases import PhrasePool
from nacre.drafting.plateau import PlateauProposer, chunk_pool
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, Proposer
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams


def opened(proposer: Proposer, tokens: Sequence[int], prompt_length: int | None = None, session: int = 1) -> None:
    length = len(tokens) if prompt_length is None else prompt_length
    proposer.open(session, DraftContext(tuple(tokens), length, SamplingParams(), None))


def guesses(proposer: Proposer, *path: int, session: int = 1) -> list[Guess]:
    (found,) = proposer.propose([Expansion(session, 0, path, ())])
    return found


def paths(found: Sequence[Guess]) -> list[tuple[int, ...]]:
    placed: list[tuple[int, ...]] = []
    for guess in found:
        placed.append(((*placed[guess.parent], guess.token)) if guess.parent != TIP else (guess.token,))
    return placed


def said(context: Sequence[int], token: int, chance: float = 0.8, *, walked: bool = True) -> Observation:
    return Observation(tuple(context), (token,), (math.log(chance),), walked)


# -- the pool ----------------------------------------------------------------------------------------------------


def test_a_pool_keeps_the_newest_and_counts_what_comes_again() -> None:
    pool = PhrasePool(1, per_key=2, shortest=2, longest=3, keys=8)
    for phrase in ((1, 1), (2, 2), (1, 1), (3, 3, 3), (9,), (9, 9, 9, 9)):
        pool.add((7,), phrase)
    pool.add((7, 7), (1, 1))
    assert pool.get((7,), 9) == [((3, 3, 3), 1), ((1, 1), 2)]
    assert pool.get((7,), 1) == [((3, 3, 3), 1)]
    assert pool.get((8,), 9) == []
    pool.drop((7,), (3, 3, 3))
    assert pool.size_bytes > 0
    pool.drop((7,), (1, 1))
    pool.drop((7,), (1, 1))
    assert (pool.export(), pool.size_bytes) == ([], 0)


def test_a_full_pool_forgets_the_key_not_added_to_for_longest() -> None:
    pool = PhrasePool(1, per_key=2, shortest=1, longest=1, keys=3)
    for key in (1, 2, 3, 1, 4):
        pool.add((key,), (9,))
    assert [key for key in range(5) if pool.get((key,), 1)] == [1, 3, 4]


def test_a_pool_takes_no_more_memory_than_it_says_however_its_phrases_come_and_go() -> None:
    pool = PhrasePool(1, per_key=7, shortest=2, longest=4, keys=64)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(3000):
            key, start = (5000 + number // 40,), 10_000 + 7 * number
            pool.add(key, tuple(range(start, start + 4)))
            if number % 3 == 0:
                pool.drop(key, tuple(range(start, start + 4)))
                pool.add(key, tuple(range(start, start + 4)))
            if number % 500 == 499:
                assert tracemalloc.get_traced_memory()[0] - before <= pool.size_bytes
    finally:
        tracemalloc.stop()
    assert len(pool.export()) == 64 * 7


def test_half_a_pool_is_empty_and_holds_half_the_keys() -> None:
    pool = PhrasePool(1, per_key=2, shortest=1, longest=1, keys=4)
    pool.add((1,), (9,))
    half = pool.halved()
    assert (half.export(), half.size_bytes) == ([], 0)
    for key in (1, 2, 3):
        half.add((key,), (9,))
    assert [key for key, _ in half.export()] == [(2,), (3,)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keys": 0}, "size is 0 keys"),
        ({"per_key": 0}, "per_key is 0"),
        ({"shortest": 4}, "phrases of 4 to 3 tokens"),
        ({"longest": 65}, "phrases of 2 to 65 tokens"),
    ],
)
def test_bounds_of_a_pool(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        PhrasePool(1, **{"per_key": 2, "shortest": 2, "longest": 3, "keys": 8} | settings)


# -- lookahead ---------------------------------------------------------------------------------------------------


def test_lookahead_offers_the_newest_ngrams_of_the_last_token() -> None:
    proposer = LookaheadProposer()
    opened(proposer, [1, 2, 3, 4, 5, 1, 2, 3, 9, 9, 1])
    assert set(paths(guesses(proposer))) == {(2,), (2, 3), (2, 3, 9), (2, 3, 9, 9), (2, 3, 4), (2, 3, 4, 5)}
    assert guesses(proposer, 77) == []
    proposer.committed(1, [6, 6], ())
    assert guesses(proposer) == []
    proposer.committed(1, [7, 7, 1], ())
    assert (6, 6, 7, 7) in paths(guesses(proposer))


def test_lookahead_learns_across_sessions() -> None:
    proposer = LookaheadProposer()
    opened(proposer, [1, 2])
    assert guesses(proposer) == []
    proposer.committed(1, [3, 4, 5, 6], ())
    opened(proposer, [2], session=2)
    assert paths(guesses(proposer, session=2))[-1] == (3, 4, 5, 6)


# -- Ouroboros ---------------------------------------------------------------------------------------------------


def test_a_phrase_is_what_the_target_said_below_a_wrong_guess() -> None:
    # The guess was 10 11 12; the target would have gone on 11 12 13 below them.
    told = [said((0, 10), 11, walked=False), said((10, 11), 12, walked=False), said((11, 12), 13, walked=False)]
    assert harvest(told, 3) == [((10,), (11, 12, 13))]
    assert harvest(told, 4) == []
    # It disagrees with the second guess: nothing is known about what follows its own token there.
    told[1] = said((10, 11), 77, walked=False)
    assert harvest(told, 3) == []
    assert harvest([], 3) == []


def test_a_harvested_phrase_is_guessed_and_corrected_in_place() -> None:
    pool = ouroboros_pool()
    proposer = OuroborosProposer(pool)
    opened(proposer, [5, 10])
    assert guesses(proposer) == []
    line = [10, 11, 12, 13, 14, 15, 16]
    proposer.observed(1, [said(line[max(0, i - 1) : i + 1], line[i + 1], walked=False) for i in range(6)])
    assert paths(guesses(proposer))[-1] == tuple(line[1:])
    # Verified at its second token: the target says 70 there.
    proposer.observed(1, [said((10, 11), 70, walked=True)])
    assert guesses(proposer) == []


def test_a_phrase_is_corrected_though_its_pass_is_told_of_after_the_next_guesses() -> None:
    proposer = OuroborosProposer(pool := ouroboros_pool())
    opened(proposer, [5, 10])
    line = [10, 11, 12, 13, 14, 15, 16]
    proposer.observed(1, [said(line[max(0, i - 1) : i + 1], line[i + 1], walked=False) for i in range(6)])
    assert guesses(proposer)
    # A verifier guesses for the next pass before it tells of the last one: of that before the guess, to begin with.
    proposer.observed(1, [said((4, 5), 10)])
    proposer.committed(1, [77], ())
    assert guesses(proposer) == []
    assert pool.export()
    proposer.observed(1, [said((5, 10), 77), said((10, 11), 70, walked=False)])
    assert pool.export() == []


def test_a_phrase_that_was_not_contradicted_stays() -> None:
    proposer = OuroborosProposer()
    opened(proposer, [10, 11, 12, 13, 14, 15, 16, 10], prompt_length=0)
    assert guesses(proposer)
    proposer.observed(1, [said((10, 11), 12), said((11, 40), 9)])
    assert guesses(proposer)


# -- plateau chunks ----------------------------------------------------------------------------------------------


def told_run(text: Sequence[int], chances: Sequence[float]) -> list[Observation]:
    """The target's word on each token of a text from the third on."""
    return [
        said(text[max(0, i - 4) : i], text[i], chance) for i, chance in zip(range(2, len(text)), chances, strict=True)
    ]


def test_a_run_of_sure_tokens_becomes_a_chunk_when_it_ends() -> None:
    pool = chunk_pool()
    proposer = PlateauProposer(pool)
    opened(proposer, [1, 2])
    told = told_run([1, 2, 3, 4, 5, 6, 7, 8], [0.95, 0.9, 0.99, 0.5, 0.95, 0.95])
    proposer.observed(1, told[:2])
    assert pool.export() == []
    proposer.observed(1, told[2:])  # a run may arrive in pieces
    assert pool.export() == [((1, 2), (3, 4, 5))]
    proposer.close(1)  # "7 8" is too short
    assert pool.export() == [((1, 2), (3, 4, 5))]
    opened(proposer, [1, 2])
    assert [guess.token for guess in guesses(proposer)] == [3, 4, 5]
    assert guesses(proposer)[0].survival == pytest.approx(0.7)


def test_contradicted_nodes_and_other_tokens_end_no_chunk_and_join_none() -> None:
    pool = chunk_pool()
    proposer = PlateauProposer(pool)
    opened(proposer, [1, 2])
    wrong = [said((1, 2, 3), 9, 0.99, walked=False), said((2, 3, 9), 9, 0.99, walked=False)]
    told = told_run([1, 2, 3, 4, 5, 6], [0.95] * 4)
    # The target was sure of 6 after 5, and 50 came.
    proposer.observed(1, [*told[:2], *wrong, *told[2:], said((4, 5, 50), 7, 0.99)])
    assert pool.export() == [((1, 2), (3, 4, 5))]


def test_a_long_run_is_cut_at_sixteen() -> None:
    proposer = PlateauProposer(pool := chunk_pool())
    opened(proposer, [0, 1])
    proposer.committed(1, range(2, 40), ())
    proposer.observed(1, told_run(list(range(40)), [0.99] * 38))
    proposer.close(1)
    assert [len(chunk) for _, chunk in pool.export()] == [16, 16, 6]
    assert [key for key, _ in pool.export()] == [(0, 1), (16, 17), (32, 33)]


@pytest.mark.parametrize("length", [4, 16])
def test_the_last_token_of_a_run_is_in_its_chunk_only_if_it_came(length: int) -> None:
    text = list(range(2 + length))
    for came in (text[-1], 99):
        proposer = PlateauProposer(pool := chunk_pool())
        opened(proposer, text[:2])
        proposer.observed(1, told_run(text, [0.99] * length))
        assert pool.export() == [], "what became text is not known yet"
        proposer.observed(1, [said((text[-2], came), 7, 0.99)])
        proposer.close(1)
        assert pool.export() == [((0, 1), tuple(text[2:] if came == text[-1] else text[2:-1]))]


def test_at_the_end_of_a_session_its_text_says_what_came() -> None:
    for last, chunk in ((5, (2, 3, 4, 5)), (99, (2, 3, 4))):
        proposer = PlateauProposer(pool := chunk_pool())
        opened(proposer, [0, 1])
        proposer.observed(1, told_run([0, 1, 2, 3, 4, 5], [0.99] * 4))
        proposer.committed(1, [2, 3, 4, last], ())
        proposer.close(1)
        assert pool.export() == [((0, 1), chunk)]

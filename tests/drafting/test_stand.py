"""STAND: running averages of the target's distributions, drawn from with the target's own noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation
from nacre.drafting.rows import weight_byte
from nacre.drafting.stand import StandProposer, StandTable
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams, race_scores


def seen(context: Sequence[int], chances: dict[int, float]) -> Observation:
    return Observation(tuple(context), tuple(chances), tuple(math.log(p) for p in chances.values()), True)


def guesses(
    table: StandTable, tokens: Sequence[int], *, temperature: float = 1.0, key: int | None = None, rows: int = 32
) -> list[Guess]:
    proposer = StandProposer(table, rows=rows, depth=4)
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(temperature=temperature), key))
    (found,) = proposer.propose([Expansion(1, 0, (), ())])
    return found


def first(found: Sequence[Guess]) -> dict[int, float]:
    return {guess.token: guess.survival for guess in found if guess.parent == TIP}


def test_the_longest_known_context_decides() -> None:
    table = StandTable()
    table.learn([seen([5], {1: 0.9}), seen([4, 5], {2: 0.9}), seen([3, 4, 5], {3: 0.9})])
    assert list(first(guesses(table, [3, 4, 5]))) == [3]
    assert set(first(guesses(table, [0, 4, 5]))) == {2, 3}  # the two-token context saw both
    assert set(first(guesses(table, [0, 0, 5]))) == {1, 2, 3}
    assert guesses(table, [0]) == []


def test_observations_are_averaged() -> None:
    table = StandTable()
    table.learn([seen([5], {1: 0.8, 2: 0.2}), seen([5], {1: 0.2, 3: 0.5})])
    assert first(guesses(table, [5])) == pytest.approx({1: 0.5, 3: 0.25, 2: 0.1}, abs=1e-4)
    table.learn([seen([5], {1: 0.5, 2: 0.1, 3: 0.25})])
    assert first(guesses(table, [5])) == pytest.approx({1: 0.5, 3: 0.25, 2: 0.1}, abs=1e-4)


def test_the_children_of_a_race_are_in_the_races_order() -> None:
    chances = {1: 0.3, 2: 0.25, 3: 0.2, 4: 0.15, 5: 0.1}
    table = StandTable()
    table.learn([seen([9], chances)])
    agreed = 0
    for length in range(1, 40):
        logits = np.full(10, -np.inf, dtype=np.float32)
        logits[list(chances)] = np.log(list(chances.values()))
        expected = np.argsort(-race_scores(logits, 77, length, 1 / 0.8))[:5].tolist()
        found = first(guesses(table, [9] * length, temperature=0.8, key=77))
        assert list(found) == expected[: len(found)]
        assert list(found.values()) == sorted(found.values(), reverse=True)
        agreed += expected[0] == 1
    assert agreed < 39  # the likeliest does not always win


def test_a_row_that_says_little_is_not_trusted_to_hold_the_winner() -> None:
    whole, part = StandTable(), StandTable()
    whole.learn([seen([9], {1: 0.6, 2: 0.4})])
    part.learn([seen([9], {1: 0.3, 2: 0.2})])
    for length in range(1, 20):
        told, half_told = (first(guesses(table, [9] * length, key=5)) for table in (whole, part))
        assert next(iter(told)) == next(iter(half_told))
        assert sum(half_told.values()) < sum(told.values())


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_without_a_race_children_go_by_probability(temperature: float) -> None:
    table = StandTable()
    table.learn([seen([9], {1: 0.6, 2: 0.3})])
    assert list(first(guesses(table, [9], temperature=temperature))) == [1, 2]
    assert list(first(guesses(table, [9], temperature=0.0, key=5))) == [1, 2]


def test_the_second_time_the_same_text_is_guessed() -> None:
    text = [1, 5, 2, 8, 3]
    proposer = StandProposer(rows=8)
    context = DraftContext((1,), 1, SamplingParams(temperature=0.0), None)
    proposer.open(1, context)
    assert proposer.propose([Expansion(1, 0, (), ())]) == [[]]
    proposer.observed(1, [seen(text[: i + 1][-4:], {text[i + 1]: 0.9}) for i in range(4)])
    proposer.close(1)
    proposer.open(2, context)
    (found,) = proposer.propose([Expansion(2, 0, (), ())])
    assert [guess.token for guess in found] == text[1:]


def test_rows_of_others_are_averaged_in_and_junk_is_dropped() -> None:
    table = StandTable()
    table.learn([seen([5], {1: 0.8, 2: 0.2})])
    table.merge([((5,), ((1, weight_byte(0.2)), (3, weight_byte(0.5)))), ((4, 5), ((7, 255),))])
    assert first(guesses(table, [5])) == pytest.approx({1: 0.5, 3: 0.25, 2: 0.1}, rel=0.04)
    assert list(first(guesses(table, [4, 5]))) == [7]
    known = len(table)
    table.merge([((), ((1, 255),)), ((1, 2, 3, 4), ((1, 255),)), ((8,), ((-1, 255), (2, 0)))])
    assert len(table) == known


def test_memory_does_not_grow_with_what_is_learned() -> None:
    table = StandTable(64)
    size = table.size_bytes
    table.learn([seen([i, i + 1, i + 2], {i: 0.5}) for i in range(500)])
    assert (table.size_bytes, len(table) <= 64) == (size, True)
    assert (table.halved().size_bytes, len(table.halved())) == (size // 2, 0)
    assert StandTable(8).halved().size_bytes == StandTable(8).size_bytes


def test_a_race_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="race_temperature is 0; it must be greater than 0"):
        StandProposer(race_temperature=0)

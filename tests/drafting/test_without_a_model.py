"""What holds for every proposer that needs no model, whatever its rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nacre.drafting import METHODS, proposer_class, row_trees
from nacre.drafting.growth import MOST_ROWS
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, Proposer
from nacre.sampling import SamplingParams
from nacre.sim.dice import Dice

#: Needs a model, its states or a file, or guesses nonsense on purpose.
OTHERS = {"dense", "model", "nest", "random", "rest", "silent"}
NAMES = sorted(set(METHODS) - OTHERS)
CASES = [(name, key) for name in NAMES for key in (None, 99)]


def observation(dice: Dice, context: Sequence[int]) -> Observation:
    tokens = list(dict.fromkeys(dice.below(9) for _ in range(10)))
    chances = sorted((0.02 + dice.unit() / 12 for _ in tokens), reverse=True)
    return Observation(tuple(context[-4:]), tuple(tokens), tuple(math.log(p) for p in chances), dice.chance(0.6))


def played(name: str, seed: int, key: int | None) -> list[list[Guess]]:
    """Everything a proposer says in a few sessions of made-up text."""
    dice = Dice(seed)
    proposer: Proposer = proposer_class(name)()
    said: list[list[Guess]] = []
    for session in (1, 2, 3):
        text = [dice.below(9) for _ in range(1 + dice.below(40))]
        prediction = tuple(dice.below(9) for _ in range(dice.below(20)))
        params = SamplingParams(temperature=0.0 if key is None else 0.8)
        proposer.open(session, DraftContext(tuple(text), len(text), params, key, prediction))
        for _ in range(15):
            path = tuple(dice.below(9) for _ in range(dice.below(4)))
            said += proposer.propose([Expansion(session, 3, (), ()), Expansion(session, 4, path, tuple(path))])
            more = [dice.below(9) for _ in range(1 + dice.below(4))]
            proposer.committed(session, more, ())
            proposer.observed(session, [observation(dice, text) for _ in range(3)])
            told = []
            for token in more:
                told.append(Observation(tuple(text[-4:]), (token,), (-0.01,), True))
                text.append(token)
            wrong = (text[-1] + 1) % 9  # was guessed where the last token is
            told.append(replace(observation(dice, [*text[:-1], wrong]), walked=False))
            proposer.observed(session, told)
        if session != 2:
            proposer.close(session)
    return said


@pytest.mark.parametrize(("name", "key"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_guesses_are_bounded_trees_with_parents_first_and_distinct_siblings(
    name: str, key: int | None, seed: int
) -> None:
    said = played(name, seed, key)
    assert any(said)
    for guesses in said:
        assert len(guesses) <= MOST_ROWS
        seen = set()
        for place, guess in enumerate(guesses):
            assert guess.parent == TIP or 0 <= guess.parent < place
            assert 0 < guess.survival <= 1
            assert (guess.parent, guess.token) not in seen
            seen.add((guess.parent, guess.token))


@pytest.mark.parametrize(("name", "key"), CASES)
def test_the_same_calls_give_the_same_guesses(name: str, key: int | None) -> None:
    assert played(name, 7, key) == played(name, 7, key)


@pytest.mark.parametrize(("name", "key"), CASES)
def test_without_the_kernels_the_guesses_are_the_same(
    name: str, key: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = played(name, 11, key)
    monkeypatch.setattr(row_trees, "available", lambda: False)
    assert played(name, 11, key) == said


@pytest.mark.parametrize("name", NAMES)
def test_traits_tell_the_truth(name: str) -> None:
    traits = proposer_class(name)().traits
    assert traits.name == name
    assert traits.exact
    assert traits.reach >= 1
    said = [guesses for seed in range(3) for key in (None, 99) for guesses in played(name, seed, key)]
    chains = all(guess.parent == place - 1 for guesses in said for place, guess in enumerate(guesses))
    assert chains == (traits.shape == "chain")


@pytest.mark.parametrize("name", NAMES)
def test_sessions_open_again_after_they_closed_and_unknown_ones_close_quietly(name: str) -> None:
    proposer = proposer_class(name)()
    proposer.close(5)
    context = DraftContext((1, 2, 3), 3, SamplingParams(), None)
    for _ in range(2):
        proposer.open(5, context)
        proposer.propose([Expansion(5, 0, (), ())])
        proposer.close(5)
    with pytest.raises(KeyError):
        proposer.propose([Expansion(5, 0, (), ())])

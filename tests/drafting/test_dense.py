"""Dense retrieval: texts are found by what the target was thinking, whatever the tokens before."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from nacre.drafting.dense import DenseProposer, NestProposer
from nacre.drafting.dense_keys import KEY_BYTES, DenseKeys, F32Array
from nacre.drafting.per_tenant import PerTenant
from nacre.drafting.proposer import DraftContext, Expansion, Guess, HiddenStates
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.sampling import SamplingParams

HIDDEN = 48
CONTEXT = DraftContext((1, 2), 2, SamplingParams(), key=None)


def states(*numbers: int, noise: float = 0.0) -> F32Array:
    """A direction for each number; equal numbers are alike."""
    rows = [np.random.default_rng(number).standard_normal(HIDDEN) for number in numbers]
    draw = np.random.default_rng(sum(numbers))
    return np.array([row + noise * draw.standard_normal(HIDDEN) for row in rows], dtype=np.float32)


def opened(proposer: DenseProposer, session: int, prompt: tuple[int, ...] = (1, 2)) -> None:
    proposer.open(session, replace(CONTEXT, tokens=prompt, prompt_length=len(prompt)))


def said(proposer: DenseProposer, session: int, position: int, tokens: list[int], thoughts: list[int]) -> None:
    proposer.committed(session, tokens, ())
    proposer.encoded(session, HiddenStates(position, states(*thoughts, noise=0.05)))


def guesses(proposer: DenseProposer, session: int, *path: int) -> list[Guess]:
    (found,) = proposer.propose([Expansion(session, 0, path, ())])
    return found


def filled(kind: type[DenseProposer] = DenseProposer, **options: int) -> DenseProposer:
    """One text of a hundred tokens 100, 101, … thought of as 0, 1, …"""
    proposer = kind(**options)
    opened(proposer, 1)
    for place in range(100):
        said(proposer, 1, 2 + place, [100 + place], [place])
    proposer.close(1)
    return proposer


def test_what_followed_the_same_thought_is_guessed() -> None:
    proposer = filled()
    opened(proposer, 2, (7, 8, 9))
    said(proposer, 2, 3, [140], [40])
    found = guesses(proposer, 2)
    assert [guess.token for guess in found] == list(range(141, 157))
    assert all(guess.survival > 0.5 for guess in found)


def test_neighbours_that_chose_another_token_do_not_count() -> None:
    proposer = filled()
    opened(proposer, 2)
    said(proposer, 2, 2, [141], [40])
    assert guesses(proposer, 2) == []


def test_only_the_tip_has_a_state() -> None:
    proposer = filled()
    opened(proposer, 2)
    said(proposer, 2, 2, [140], [40])
    assert guesses(proposer, 2, 141) == []
    proposer.committed(2, [150], ())
    assert guesses(proposer, 2) == []  # its pass has not been told of


def test_after_a_pass_whose_states_were_missed_the_text_goes_on_to_be_found() -> None:
    proposer = DenseProposer()
    opened(proposer, 1)
    for place in range(50):
        said(proposer, 1, 2 + place, [100 + place], [place])
    # Nobody was asked before one pass: its text is told with that of the next, and only the states of the next are.
    proposer.committed(1, [150, 151], ())
    said(proposer, 1, 54, [152, 153], [52, 53])
    for place in range(54, 100):
        said(proposer, 1, 2 + place, [100 + place], [place])
    proposer.close(1)
    opened(proposer, 2)
    said(proposer, 2, 2, [153], [53])
    assert [guess.token for guess in guesses(proposer, 2)] == list(range(154, 170))
    said(proposer, 2, 3, [190], [90])
    assert [guess.token for guess in guesses(proposer, 2)] == list(range(191, 200))
    said(proposer, 2, 4, [140], [40])
    assert [guess.token for guess in guesses(proposer, 2)] == list(range(141, 157)), "across the hole, too"
    said(proposer, 2, 5, [150], [50])
    assert guesses(proposer, 2) == [], "what was missed has no key"


def test_states_that_have_been_told_make_no_second_key() -> None:
    proposer = DenseProposer()
    opened(proposer, 1)
    for place in range(70):
        said(proposer, 1, 2 + place, [100 + place], [place])
    labels = list(proposer._texts[1].labels)
    proposer.encoded(1, HiddenStates(71, states(69)))
    assert proposer._texts[1].labels == labels


def test_a_running_text_is_found_by_another_and_by_itself() -> None:
    proposer = filled()
    opened(proposer, 2)
    said(proposer, 2, 2, [500, 501, 502], [200, 201, 202])
    opened(proposer, 3)
    said(proposer, 3, 2, [500], [200])
    assert [guess.token for guess in guesses(proposer, 3)] == [501, 502]
    said(proposer, 2, 5, [600, 500], [300, 200])
    assert [guess.token for guess in guesses(proposer, 2)][:2] == [501, 502]


def test_the_oldest_texts_are_forgotten_first() -> None:
    proposer = filled(most_tokens=150)
    opened(proposer, 2)
    for place in range(100):
        said(proposer, 2, 2 + place, [300 + place], [1000 + place])
    proposer.close(2)
    opened(proposer, 3)
    said(proposer, 3, 2, [140], [40])
    assert guesses(proposer, 3) == []
    said(proposer, 3, 3, [340], [1040])
    assert guesses(proposer, 3)[0].token == 341


def test_tenants_together_stay_within_a_bound() -> None:
    bound = 100 * KEY_BYTES
    proposer = PerTenant(DenseProposer, most_bytes=bound)
    for tenant in range(1, 9):
        proposer.open(tenant, replace(CONTEXT, tenant=tenant))
        for place in range(80):
            proposer.committed(tenant, [100 + place], ())
            proposer.encoded(tenant, HiddenStates(2 + place, states(place)))
            assert proposer.size_bytes <= bound
    for tenant in range(1, 9):
        proposer.close(tenant)
        assert proposer.size_bytes <= bound


def test_long_prompts_are_tokens_too() -> None:
    proposer = filled(most_tokens=120)
    opened(proposer, 2, tuple(range(2000, 2000 + 16 * 120)))
    said(proposer, 2, 16 * 120, [500], [200])
    opened(proposer, 3)
    said(proposer, 3, 2, [140], [40])
    assert guesses(proposer, 3) == []


def test_nest_looks_into_texts_that_the_prompt_is_about() -> None:
    proposer = NestProposer()
    for number in range(1, 13):  # twelve texts of one thought, each about something else
        opened(proposer, number, (1, 1000 + number))
        for place in range(8):
            said(proposer, number, 2 + place, [50 + place if place < 4 else 100 * number + place], [place])
        proposer.close(number)
    opened(proposer, 20, (1, 1001))
    said(proposer, 20, 2, [53], [3])
    assert 104 in [guess.token for guess in guesses(proposer, 20)]
    assert len({guess.token for guess in guesses(proposer, 20) if guess.parent == -1}) <= 8


def test_keys_settle_first_and_stand_what_is_not_finite() -> None:
    keys = DenseKeys(settling=4)
    keys.add([1, 2, 3], states(1, 2, 3))
    assert keys.nearest(states(1)[0], 2) == []
    keys.add([4, 5], np.stack([states(4)[0], np.full(HIDDEN, np.nan, dtype=np.float32)]))
    assert {label for label, _ in keys.nearest(states(3)[0], 9)} == {1, 2, 3, 4}
    label, similarity = keys.nearest(states(3)[0], 1)[0]
    assert label == 3
    assert similarity == pytest.approx(1.0, abs=0.01)
    assert keys.nearest(np.full(HIDDEN, np.inf, dtype=np.float32), 1) == []
    keys.remove([3, 99])
    assert keys.nearest(states(3)[0], 1)[0][0] != 3


def test_bad_numbers_and_a_missing_library_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="neighbours is 0"):
        DenseProposer(neighbours=0)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(FailedPrecondition, match=r"nacre\[dense\]"):
        DenseProposer()

"""Suffix decoding: several matches vote on what follows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess
from nacre.drafting.suffix import SuffixProposer
from nacre.drafting.suffix_index import SuffixIndex
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams


def opened(proposer: SuffixProposer, session: int, tokens: Sequence[int], prompt_length: int | None = None) -> None:
    length = len(tokens) if prompt_length is None else prompt_length
    proposer.open(session, DraftContext(tuple(tokens), length, SamplingParams(), key=None))


def guesses(proposer: SuffixProposer, *path: int, session: int = 1) -> list[Guess]:
    (found,) = proposer.propose([Expansion(session, 5, path, ())])
    return found


def test_a_single_match_is_copied_and_grows_surer() -> None:
    proposer = SuffixProposer()
    opened(proposer, 1, [1, 2, 3, 4, 5, 9, 1, 2])
    found = guesses(proposer)
    assert [guess.token for guess in found][:3] == [3, 4, 5]
    assert [guess.parent for guess in found][:3] == [TIP, 0, 1]
    # A match of m tokens weighs m^2 / 4 against 1 for what was never seen.
    assert [guess.survival for guess in found][:3] == pytest.approx([1 / 2, 2.25 / 3.25, 4 / 5])


def test_matches_vote_by_their_length() -> None:
    proposer = SuffixProposer()
    opened(proposer, 1, [1, 2, 3, 9, 2, 4, 8, 2, 4, 7, 1, 2])
    found = guesses(proposer)
    # "1 2" went on with 3 (weight 1); "2" twice with 4 (weight 1/4 each).
    top = {guess.token: guess.survival for guess in found if guess.parent == TIP}
    assert top == pytest.approx({3: 1 / 2.5, 4: 0.5 / 2.5})


def test_what_a_session_wrote_helps_the_next_one_and_prompts_are_not_shared() -> None:
    proposer = SuffixProposer(SuffixIndex(1024))
    opened(proposer, 1, [1, 2, 3, 4, 50, 51], prompt_length=4)
    proposer.committed(1, [52, 53], ())
    opened(proposer, 2, [9, 50, 51])
    assert guesses(proposer, session=2) == []  # session 1 goes on
    proposer.close(1)
    proposer.close(1)
    assert [guess.token for guess in guesses(proposer, session=2)] == [52, 53]
    opened(proposer, 3, [9, 2, 3])
    assert guesses(proposer, session=3) == []


def test_a_prompt_that_is_told_in_pieces_is_no_output() -> None:
    whole, pieces = SuffixProposer(SuffixIndex(1024)), SuffixProposer(SuffixIndex(1024))
    prompt, output = list(range(100, 150)), [1, 2, 3, 4]
    opened(whole, 1, prompt)
    opened(pieces, 1, prompt[:20], prompt_length=50)
    pieces.committed(1, prompt[20:45], ())
    pieces.committed(1, [*prompt[45:], 1], ())
    whole.committed(1, [1], ())
    for proposer in (whole, pieces):
        proposer.committed(1, [*output[1:], 110], ())
        assert [guess.token for guess in guesses(proposer)][:2] == [111, 112]
        proposer.close(1)
        opened(proposer, 2, [7, 2])
        assert [guess.token for guess in guesses(proposer, session=2)] == [3, 4, 110]
        opened(proposer, 3, [7, 120])
        assert guesses(proposer, session=3) == []


def test_without_a_corpus_sessions_stand_alone() -> None:
    proposer = SuffixProposer()
    opened(proposer, 1, [1, 2, 3], prompt_length=0)
    proposer.close(1)
    opened(proposer, 2, [1, 2])
    assert guesses(proposer, session=2) == []


def test_the_second_time_the_same_text_is_guessed_to_its_end() -> None:
    proposer = SuffixProposer(SuffixIndex(1024), rows=16)
    text = list(range(100, 130))
    opened(proposer, 1, [7, 8])
    assert guesses(proposer) == []
    proposer.committed(1, text, ())
    proposer.close(1)
    opened(proposer, 2, [7, 8, 100])
    assert [guess.token for guess in guesses(proposer, session=2)] == text[1:17]


def test_guesses_on_the_path_continue_the_match() -> None:
    proposer = SuffixProposer()
    opened(proposer, 1, [1, 2, 3, 4, 5, 9, 1])
    assert [guess.token for guess in guesses(proposer, 2, 3)][:2] == [4, 5]
    assert guesses(proposer, 77) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "a tree of 0 guesses"),
        ({"matches": 0}, "matches is 0; it must be 1 to 256"),
        ({"depth": 65}, "depth is 65; it must be 1 to 64"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        SuffixProposer(**settings)

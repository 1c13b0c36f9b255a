"""Prompt lookup: what followed the last tokens the last time they occurred."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting.lookup import LookupProposer
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams
from nacre.sim.dice import Dice


def context(tokens: Sequence[int]) -> DraftContext:
    return DraftContext(tuple(tokens), len(tokens), SamplingParams(), key=None)


def opened(tokens: Sequence[int], *, min_n: int = 1, max_n: int = 4, length: int = 10) -> LookupProposer:
    proposer = LookupProposer(min_n=min_n, max_n=max_n, length=length)
    proposer.open(1, context(tokens))
    return proposer


def guesses(proposer: LookupProposer, *path: int, session: int = 1) -> list[Guess]:
    (found,) = proposer.propose([Expansion(session, 5, path, ())])
    return found


def tokens(proposer: LookupProposer, *path: int) -> list[int]:
    return [guess.token for guess in guesses(proposer, *path)]


def test_it_copies_what_followed_the_same_tokens_before() -> None:
    assert tokens(opened([1, 2, 3, 4, 5, 1, 2])) == [3, 4, 5, 1, 2]


def test_a_copy_is_a_chain_below_the_extended_node() -> None:
    assert [guess.parent for guess in guesses(opened([1, 2, 3, 4, 1]))] == [TIP, 0, 1, 2]


def test_no_earlier_occurrence_means_no_guess() -> None:
    assert guesses(opened([1, 2, 3, 4])) == []
    assert guesses(opened([1])) == []


def test_the_longest_match_wins_over_a_later_shorter_one() -> None:
    # "1 2" was followed by 3, the later "9 2" by 7; after "1 2" it is 3 again.
    assert tokens(opened([1, 2, 3, 9, 2, 7, 1, 2], length=1)) == [3]


def test_of_equal_matches_the_most_recent_one_wins() -> None:
    assert tokens(opened([1, 3, 1, 4, 1], length=1)) == [4]


def test_matches_are_at_least_min_n_and_at_most_max_n_long() -> None:
    text = [1, 2, 3, 9, 2, 7, 8, 2]
    assert tokens(opened(text, length=1)) == [7]
    assert tokens(opened(text, min_n=2, length=1)) == []
    # With pairs only, the later "2 3" decides; with triples, "1 2 3".
    text = [1, 2, 3, 5, 9, 2, 3, 6, 1, 2, 3]
    assert tokens(opened(text, max_n=2, length=1)) == [6]
    assert tokens(opened(text, max_n=3, length=1)) == [5]


def test_a_copy_is_at_most_length_tokens_and_ends_with_the_text() -> None:
    assert tokens(opened([1, 2, 3, 4, 5, 1], length=2)) == [2, 3]
    assert tokens(opened([7, 8, 7])) == [8, 7]


def test_a_longer_match_is_trusted_more() -> None:
    short = guesses(opened([1, 2, 9, 2], length=1))
    long = guesses(opened([5, 6, 1, 2, 9, 5, 6, 1, 2], length=1))
    assert 0 < short[0].survival < long[0].survival <= 0.95


def test_guesses_on_the_path_continue_the_match() -> None:
    proposer = opened([1, 2, 3, 4, 5, 9, 1])
    assert tokens(proposer, 2) == [3, 4, 5, 9, 1]
    assert tokens(proposer, 2, 3, 4, 5, 9, 1, 2) == [3, 4, 5, 9, 1]
    assert tokens(proposer, 8) == []


def test_a_path_that_ends_like_the_text_itself_looks_further_back() -> None:
    # The last "1 2" of the text has nothing after it; the one before was followed by 3.
    assert tokens(opened([1, 2, 3, 9, 1, 2]), 3, 9, 1, 2) == [3, 9, 1, 2]


def test_committed_tokens_are_looked_up_as_soon_as_they_are_known() -> None:
    proposer = opened([1, 2])
    proposer.committed(1, [3, 4, 1], ())
    assert tokens(proposer) == [2, 3, 4, 1]
    proposer.committed(1, [2], (17,))
    assert tokens(proposer) == [3, 4, 1, 2]


def test_a_run_of_one_token_goes_on() -> None:
    assert tokens(opened([7, 7, 7])) == [7]


def test_sessions_do_not_see_each_other_and_end_apart() -> None:
    proposer = opened([1, 2, 3, 1])
    proposer.open(2, context([1, 9, 8, 1]))
    found = proposer.propose([Expansion(2, 0, (), ()), Expansion(1, 0, (), ())])
    assert [[guess.token for guess in each] for each in found] == [[9, 8, 1], [2, 3, 1]]
    proposer.close(1)
    proposer.close(1)
    assert [guess.token for guess in guesses(proposer, session=2)] == [9, 8, 1]


def test_its_traits_say_chain_and_how_far_it_looks() -> None:
    traits = LookupProposer(length=6).traits
    assert (traits.name, traits.shape, traits.reach, traits.exact) == ("lookup", "chain", 6, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_n": 0}, "lengths 0 to 4 are not within 1 to 16"),
        ({"min_n": 5}, "lengths 5 to 4 are not within 1 to 16 in rising order"),
        ({"max_n": 17}, "lengths 1 to 17"),
        ({"length": 0}, "length is 0; it must be 1 to 64"),
        ({"length": 65}, "length is 65; it must be 1 to 64"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        LookupProposer(**settings)


def slow_lookup(text: Sequence[int], path: Sequence[int], min_n: int, max_n: int, length: int) -> list[int]:
    """The rule, word by word: the most recent occurrence inside the committed text that something followed."""
    whole = [*text, *path]
    for n in range(min(max_n, len(whole)), min_n - 1, -1):
        for end in range(len(text) - 1, n - 1, -1):
            if list(text[end - n : end]) == whole[len(whole) - n :]:
                return list(text[end : end + length])
    return []


@pytest.mark.parametrize("seed", range(30))
def test_any_text_in_any_pieces_gives_what_a_search_would_find(seed: int) -> None:
    dice = Dice(seed)
    min_n = 1 + dice.below(2)
    max_n = min_n + dice.below(4)
    length = 1 + dice.below(8)
    text = [dice.below(3) for _ in range(1 + dice.below(5))]
    proposer = opened(text, min_n=min_n, max_n=max_n, length=length)
    for _ in range(40):
        path = [dice.below(3) for _ in range(dice.below(6))]
        assert tokens(proposer, *path) == slow_lookup(text, path, min_n, max_n, length)
        more = [dice.below(3) for _ in range(dice.below(4))]
        proposer.committed(1, more, ())
        text += more

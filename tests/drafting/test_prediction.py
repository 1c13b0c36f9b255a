"""The client's prediction: followed, left, and found again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting.prediction import PredictionProposer, appeared
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams

PREDICTION = (10, 11, 12, 13, 14, 15, 16, 11, 12, 17, 18)


def opened(output: Sequence[int] = (), prediction: Sequence[int] = PREDICTION, length: int = 3) -> PredictionProposer:
    proposer = PredictionProposer(length=length)
    context = DraftContext((1, 2, *output), 2, SamplingParams(), None, tuple(prediction))
    proposer.open(1, context)
    return proposer


def guesses(proposer: PredictionProposer, *path: int) -> list[Guess]:
    (found,) = proposer.propose([Expansion(1, 0, path, ())])
    return found


def tokens(proposer: PredictionProposer, *path: int) -> list[int]:
    return [guess.token for guess in guesses(proposer, *path)]


def test_it_begins_at_the_beginning_and_goes_along() -> None:
    proposer = opened()
    assert tokens(proposer) == [10, 11, 12]
    assert [guess.parent for guess in guesses(proposer)] == [TIP, 0, 1]
    assert tokens(proposer, 10, 11) == [12, 13, 14]
    proposer.committed(1, [10, 11, 12], ())
    assert tokens(proposer) == [13, 14, 15]
    assert tokens(opened(output=[10, 11, 12])) == [13, 14, 15]


def test_after_a_departure_it_waits_for_two_tokens_that_it_knows() -> None:
    proposer = opened(output=[10, 11, 99])
    assert tokens(proposer) == []
    proposer.committed(1, [13], ())
    assert tokens(proposer) == []
    proposer.committed(1, [14], ())
    assert tokens(proposer) == [15, 16, 11]
    assert guesses(proposer)[0].survival == pytest.approx(2 / 3)
    proposer.committed(1, [15], ())
    assert guesses(proposer)[0].survival == pytest.approx(3 / 4)


def test_what_was_put_in_between_is_skipped() -> None:
    assert tokens(opened(output=[10, 11, 99, 98, 12])) == [13, 14, 15]


def test_of_equal_matches_the_nearest_ahead_is_taken() -> None:
    assert tokens(opened(output=[10, 11, 12, 13, 14, 99, 11, 12])) == [17, 18]
    assert tokens(opened(output=[99, 11, 12])) == [13, 14, 15]


def test_the_longest_match_goes_before_the_nearest() -> None:
    assert tokens(opened(output=[10, 11, 12, 13, 99, 16, 11, 12])) == [17, 18]


def test_its_end_is_the_end() -> None:
    assert tokens(opened(output=PREDICTION)) == []
    assert tokens(opened(prediction=())) == []


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_out_of_bounds_is_refused(length: int) -> None:
    with pytest.raises(InvalidArgument, match=f"prediction length is {length}; it must be 1 to 64"):
        PredictionProposer(length=length)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ((), 0),
        (PREDICTION, 11),
        ((10, 11, 12), 3),
        ((10, 11, 99, 98, 97), 2),
        ((10, 11, 99, 13, 14, 15), 5),
        ((99, 98, 97), 0),
        ((10, 11, 12, 99, 10, 11, 12), 3),
    ],
    ids=["nothing", "all", "a beginning", "a departure", "found again", "nothing of it", "twice the same"],
)
def test_what_appeared_in_the_output_counts_once(output: Sequence[int], found: int) -> None:
    assert appeared(PREDICTION, output) == found


def test_nothing_appears_of_no_prediction() -> None:
    assert appeared((), (1, 2, 3)) == 0

"""What the target thought at the rows of a pass, in a proposer's words."""

from __future__ import annotations

from nacre.drafting import Observation
from nacre.session.observed import Observed, ObservedRow, observations_of

BEST = ((7, -0.5), (8, -1.5))


def row(parent: int, token: int) -> ObservedRow:
    return ObservedRow(parent, token, BEST)


def test_contexts_run_from_the_text_through_the_guesses() -> None:
    # Text 1 2 3 4 5; guessed below 5: 6 (right), below it 9 (wrong); rival 8 (wrong). Committed: 6 7.
    observed = Observed(5, (row(-1, 5), row(0, 6), row(0, 8), row(1, 9)))
    told = observations_of([1, 2, 3, 4, 5, 6, 7], observed)
    assert [(one.context, one.walked) for one in told] == [
        ((2, 3, 4, 5), True),
        ((3, 4, 5, 6), True),
        ((3, 4, 5, 8), False),
        ((4, 5, 6, 9), False),
    ]
    assert told[0] == Observation((2, 3, 4, 5), (7, 8), (-0.5, -1.5), True)


def test_near_the_start_contexts_are_short() -> None:
    assert [one.context for one in observations_of([1, 2], Observed(1, (row(-1, 1), row(0, 2))))] == [(1,), (1, 2)]


def test_what_makes_no_sense_is_left_out() -> None:
    assert observations_of([1, 2], Observed(0, (row(-1, 1),))) == []
    assert observations_of([1, 2], Observed(9, (row(-1, 1),))) == []
    told = observations_of([1, 2, 3], Observed(2, (row(-1, 2), row(5, 3), row(0, 3))))
    assert len(told) == 1

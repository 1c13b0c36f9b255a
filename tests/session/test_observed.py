"""What the target thought at the rows of a pass, in a proposer's words."""

from __future__ import annotations

from nacre.drafting import Observation
from nacre.session.observed import Observed, ObservedLog, ObservedRow, observations_of

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


def test_text_that_was_read_is_observed_token_by_token_whatever_the_pieces() -> None:
    text = [(5 * place) % 97 for place in range(300)]
    tops = [((place, -0.5),) for place in range(200)]  # of the 200 tokens before position 250
    pieces = Observed.of_text(text, 250, tops)
    assert len(pieces) > 1
    told = [one for piece in pieces for one in observations_of(text, piece)]
    assert [one.context for one in told] == [tuple(text[end - 4 : end]) for end in range(51, 251)]
    assert [one.tokens for one in told] == [(place,) for place in range(200)]
    assert all(one.walked for one in told)
    assert Observed.of_text(text, 250, ()) == []


def observed(position: int, rows: int = 1) -> Observed:
    return Observed(position, tuple(row(place - 1, place) for place in range(rows)))


def test_each_listener_is_told_of_everything_once() -> None:
    log = ObservedLog()
    log.join(1, 2)
    log.add(observed(5))
    assert log.unheard(1) == (observed(5),)
    assert log.unheard(1) == ()
    log.add(observed(6), observed(7))
    log.join(2, 1)
    assert [one.position for one in log.unheard(1)] == [6, 7]
    late = log.unheard(2)
    assert [one.position for one in late] == [5, 6, 7], "who comes late is told of what is kept"
    assert [len(one.rows[0].best) for one in late] == [1, 1, 1], "and as much of it as it wants"
    assert log.unheard(3) == (), "who has not asked is told nothing"


def test_a_session_keeps_only_the_latest_rows() -> None:
    log = ObservedLog(most_rows=10)
    log.join(1, 8)
    log.join(2, 8)
    for position in range(20):
        log.add(observed(position, rows=4))
        if position == 17:
            assert log.unheard(1)
    assert [one.position for one in log.unheard(1)] == [18, 19]
    assert [one.position for one in log.unheard(2)] == [18, 19]
    log.add(observed(20, rows=11))
    assert log.unheard(1) == ()


def test_nothing_is_looked_for_or_kept_where_nobody_learns() -> None:
    log = ObservedLog()
    assert log.best == 0
    log.add(observed(1))
    log.join(1, 8)
    assert log.unheard(1) == ()
    assert log.best == 8
    log.leave(1)
    assert (log.best, log.wanted) == (0, 8)


def test_who_is_expected_is_told_of_what_came_before() -> None:
    log = ObservedLog(expected=4)
    assert log.best == 4
    log.add(observed(1))
    log.join(1, 2)
    assert log.best == 2
    assert [one.position for one in log.unheard(1)] == [1]


def test_who_is_expected_and_does_not_come_is_not_waited_for_for_ever() -> None:
    log = ObservedLog(expected=4, most_rows=10)
    for position in range(1, 11):
        log.add(observed(position))
        assert log.best == 4
    log.add(observed(11))
    assert log.best == 0

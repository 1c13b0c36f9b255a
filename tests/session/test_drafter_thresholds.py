"""The drafter's half: which guesses are likely enough to be made and sent, and which are urgent."""

from __future__ import annotations

from nacre.drafting.proposer import Guess
from nacre.pacing import Reputation
from nacre.session import Commit, DrafterLimits
from tests.session.drafter_steps import chain, extend, opened


def test_what_is_too_unlikely_is_not_sent_until_the_tip_comes_near() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, least_sent_survival=0.3))
    extend(session, (), chain(1, 2, 3))
    assert [draft.tokens for draft in session.outbox()] == [(1,)]
    session.committed(Commit(3, (1,)))
    assert [draft.tokens for draft in session.outbox()] == [(2,)]


def test_far_from_the_verifier_less_likely_guesses_are_sent_too() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, least_survival=0.01, least_sent_survival=0.3))
    extend(session, (), chain(1, 2, 3))
    session.passes_away = 0.5
    assert [draft.tokens for draft in session.outbox()] == [(1,)]
    session.passes_away = 2.0
    assert [draft.tokens for draft in session.outbox()] == [(2, 3)]


def test_beside_the_verifier_less_is_made_ahead_than_at_a_distance() -> None:
    for passes_away, made in ((0.0, 1), (0.25, 1), (0.5, 2), (3.0, 3)):
        session = opened(limits=DrafterLimits(window_nodes=16, least_survival=0.1))
        session.passes_away = passes_away
        placed = session.extend(session.tree.tip.id, [Guess(7, 0.9), Guess(8, 0.05), Guess(9, 0.01)])
        assert sum(1 for node_id in placed if node_id) == made, passes_away


def test_where_tips_fill_the_passes_nothing_is_guessed_or_sent_until_there_is_room() -> None:
    session = opened()
    extend(session, (), chain(1, 2))
    session.committed(Commit(3, (1,), row_budget=1))
    assert session.outbox() == []
    assert session.frontier(4) == []
    session.committed(Commit(4, (2,), row_budget=4))
    assert len(session.frontier(4)) == 1


def test_where_rows_are_few_only_what_is_likely_is_made_and_sent() -> None:
    limits = DrafterLimits(window_nodes=16, least_survival=0.01, least_sent_survival=0.1)
    for rows, made, sent in ((0, 3, 2), (8, 3, 2), (16, 3, 2), (4, 2, 1), (2, 2, 1)):
        session = opened(limits=limits)
        session.committed(Commit(3, (1,), row_budget=rows))
        placed = session.extend(session.tree.tip.id, [Guess(7, 0.7), Guess(8, 0.15), Guess(9, 0.015)])
        assert sum(1 for node_id in placed if node_id) == made, rows
        assert sum(len(draft.tokens) for draft in session.outbox()) == sent, rows


def test_however_few_rows_there_are_a_sure_guess_is_sent() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, least_survival=0.3, least_sent_survival=0.4))
    session.committed(Commit(3, (1,), row_budget=2))
    session.extend(session.tree.tip.id, [Guess(7, 0.55), Guess(8, 0.45)])
    assert [draft.tokens for draft in session.outbox()] == [(7,)]


def test_what_has_never_helped_is_not_sent_but_goes_on_being_compared() -> None:
    reputation = Reputation(usefulness=0.0)
    session = opened(reputation=reputation)
    extend(session, (), chain(1, 2))
    assert session.outbox() == []
    session.committed(Commit(3, (1,)))
    assert not reputation.hopeless
    assert [draft.tokens for draft in session.outbox()] == [(2,)]


def test_what_the_next_pass_would_take_is_urgent_and_the_rest_is_not() -> None:
    session = opened()
    assert not session.urgent
    extend(session, (), chain(1))
    assert session.urgent
    session.outbox()
    assert not session.urgent
    session.committed(Commit(3, (1,), row_budget=2))
    extend(session, (), chain(2, 3))
    session.outbox()
    extend(session, (2, 3), chain(4))  # with one row besides the tip's, a pass has better guesses
    assert not session.urgent


def test_urgent_guesses_wait_for_those_of_a_few_short_steps() -> None:
    session = opened()
    session.committed(Commit(3, (1,), row_budget=16))
    extend(session, (), chain(2))
    assert session.urgent
    assert session.gathers(10.0, 0.0005)
    assert session.gathers(10.001, 0.0005)
    assert not session.gathers(10.0018, 0.0005)
    session.outbox()
    extend(session, (2,), chain(3))
    assert session.gathers(20.0, 0.0005)
    assert not session.gathers(20.0, 0.003), "a slow model's next step is not waited for"


def test_a_pass_that_is_provided_for_waits_for_nothing() -> None:
    session = opened()
    session.committed(Commit(3, (1,), row_budget=3))
    session.extend(session.tree.tip.id, [Guess(7, 0.5), Guess(8, 0.4)])
    assert session.gathers(10.0, 0.0005), "what follows 7 may be likelier than 8"
    extend(session, (7,), chain(9))
    assert not session.gathers(10.0, 0.0005)

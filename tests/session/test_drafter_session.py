"""The drafter's half, one behaviour at a time."""

from __future__ import annotations

import pytest

from nacre.drafting.proposer import Guess
from nacre.errors import FailedPrecondition
from nacre.pacing import Reputation
from nacre.session import Commit, Draft, DrafterLimits, DrafterSession, Reanchor, survival_of
from tests.session.drafter_steps import TEXT, chain, extend, frontier, opened, paths, rivals


def test_a_session_needs_a_prompt() -> None:
    with pytest.raises(FailedPrecondition, match="without any committed token"):
        DrafterSession((), end_position=4, limits=DrafterLimits(), window_nodes=4)


# -- what to extend ----------------------------------------------------------------------------------------------------


def test_at_first_only_the_tip_wants_extending() -> None:
    assert frontier(opened()) == [()]
    assert frontier(opened(), count=0) == []


def test_the_tip_comes_first_and_then_the_most_likely_leaves() -> None:
    session = opened()
    extend(session, (), [Guess(1, 0.3), Guess(2, 0.6)])
    assert frontier(session) == [(2,), (1,)]
    assert frontier(session, count=1) == [(2,)]
    extend(session, (2,), [Guess(3, 0.9)])
    assert frontier(session) == [(2, 3), (1,)]


def test_a_chain_extends_its_own_inner_nodes_and_asks_for_more_at_its_end() -> None:
    session = opened()
    ids = extend(session, (), chain(1, 2, 3))
    assert len(set(ids)) == 3
    assert frontier(session) == [(1, 2, 3)]


def test_a_node_for_which_there_was_no_guess_is_not_asked_again_at_once() -> None:
    session = opened()
    extend(session, (), [])
    assert frontier(session) == []


def test_guesses_of_no_use_are_made_at_the_tip_only_and_again_after_each_commit() -> None:
    known = Reputation(usefulness=0.0)
    session = opened(reputation=known)
    assert frontier(session) == [()]
    extend(session, (), chain(1, 2, survival=0.9))
    assert frontier(session) == []
    session.committed(Commit(position=3, tokens=(1,)))
    assert known.usefulness > 0.03  # it was right after all
    assert frontier(session) == [(2,)]
    known.usefulness = 0.0
    session.committed(Commit(position=4, tokens=(7,)))
    assert frontier(session) == [()]


def test_nothing_is_extended_where_the_text_must_end() -> None:
    session = opened(end_position=5)
    assert extend(session, (), chain(1, 2, 3))[2] == 0
    assert paths(session) == {(1,), (1, 2)}
    assert frontier(session) == []
    session.committed(Commit(3, (7, 8)))
    assert frontier(session) == []


def test_an_unlikely_node_is_neither_kept_nor_extended() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, least_survival=0.1))
    assert extend(session, (), [Guess(1, 0.5), Guess(2, 0.05)])[1] == 0
    extend(session, (1,), chain(3, 4, 5, survival=0.4))
    assert paths(session) == {(1,), (1, 3)}


def test_what_hangs_below_a_guess_that_was_left_out_is_left_out() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, least_survival=0.1))
    ids = extend(session, (), [Guess(1, 0.05), Guess(2, 1.0, 0), Guess(3, 0.9)])
    assert [bool(node_id) for node_id in ids] == [False, False, True]


def test_a_full_tree_takes_nothing_and_asks_for_nothing() -> None:
    session = opened(limits=DrafterLimits(window_nodes=3))
    ids = extend(session, (), chain(1, 2, 3, 4))
    assert [bool(node_id) for node_id in ids] == [True, True, True, False]
    assert frontier(session) == []


def test_a_leaf_that_found_no_room_is_asked_again_when_a_commit_has_made_room() -> None:
    session = opened(limits=DrafterLimits(window_nodes=3))
    extend(session, (), rivals(1, 2))
    session.extend(session.tree.tip.children[1].id, rivals(3, 4))
    session.extend(session.tree.tip.children[2].id, rivals(5))  # asked for in the same step, found the tree full
    session.committed(Commit(3, (2,)))
    assert frontier(session) == [()]


def test_extending_a_node_that_has_died_meanwhile_takes_nothing() -> None:
    session = opened()
    extend(session, (), rivals(1, 2))
    dead = session.tree.tip.children[1].id
    session.committed(Commit(3, (2,)))
    assert session.node(dead) is None
    assert session.extend(dead, rivals(3, 4)) == [0, 0]
    assert paths(session) == set()


def test_a_node_that_became_the_tip_meanwhile_is_extended_there() -> None:
    session = opened()
    extend(session, (), rivals(1))
    became_tip = session.tree.tip.children[1].id
    session.committed(Commit(3, (1,)))
    assert session.node(became_tip) is session.tree.tip
    assert session.extend(became_tip, rivals(4)) != [0]
    assert paths(session) == {(4,)}


def test_a_node_above_the_tip_is_settled_and_takes_nothing() -> None:
    session = opened()
    extend(session, (), chain(1, 2))
    settled = session.tree.tip.children[1].id
    session.committed(Commit(3, (1, 2)))
    assert session.extend(settled, rivals(4)) == [0]


# -- commits -----------------------------------------------------------------------------------------------------------


def test_a_commit_keeps_what_it_confirms_and_reports_the_rest_as_lost() -> None:
    session = opened()
    ids = extend(session, (), chain(1, 2, 3))
    extend(session, (1,), [Guess(9, 0.5)])
    rollback = session.committed(Commit(3, (1, 2)))
    assert (rollback.tokens, rollback.trunk, rollback.lost) == ((1, 2), (ids[0], ids[1]), 1)
    assert paths(session) == {(3,)}
    assert session.tokens == [*TEXT, 1, 2]
    assert frontier(session) == [(3,)]


def test_a_commit_past_the_guesses_makes_a_fresh_tip_that_wants_extending() -> None:
    session = opened()
    ids = extend(session, (), chain(1))
    rollback = session.committed(Commit(3, (1, 8)))
    assert (rollback.tokens, rollback.trunk, rollback.lost) == ((1, 8), (ids[0],), 0)
    assert frontier(session) == [()]


def test_a_repeated_commit_changes_nothing_and_an_overlapping_one_adds_what_is_new() -> None:
    session = opened()
    session.committed(Commit(3, (1, 2)))
    assert session.committed(Commit(3, (1, 2))).tokens == ()
    assert session.committed(Commit(3, (1,))).tokens == ()
    assert session.committed(Commit(4, (2, 3, 4))).tokens == (3, 4)
    assert session.tokens == [*TEXT, 1, 2, 3, 4]


def test_a_commit_after_a_gap_says_join_again() -> None:
    session = opened()
    with pytest.raises(FailedPrecondition, match="starts at position 4 but 3 tokens are known: join again"):
        session.committed(Commit(4, (1,)))
    assert session.tokens == list(TEXT)


@pytest.mark.parametrize("commit", [Commit(2, (9,)), Commit(2, (9, 1)), Commit(0, (50, 51, 52, 8))])
def test_a_commit_that_contradicts_an_earlier_one_is_refused(commit: Commit) -> None:
    session = opened()
    session.committed(Commit(3, (1,)))
    with pytest.raises(FailedPrecondition, match="contradicts what was committed before"):
        session.committed(commit)
    assert session.tokens == [*TEXT, 1]


def test_a_commit_sets_the_window_within_the_drafters_own_limit() -> None:
    session = opened(window_nodes=4)
    session.committed(Commit(3, (1,), window_nodes=9))
    assert session.window_nodes == 9
    session.committed(Commit(4, (1,), window_nodes=99))
    assert session.window_nodes == 16
    session.committed(Commit(5, (1,)))
    assert session.window_nodes == 16


# -- sending -----------------------------------------------------------------------------------------------------------


def test_a_chain_is_sent_without_parents_and_each_guess_only_once() -> None:
    session = opened()
    extend(session, (), chain(1, 2, 3))
    assert session.outbox() == [Draft(1, (1, 2, 3), anchor=3, confidence=bytes((16, 16, 16)))]
    assert session.outbox() == []
    assert session.unresolved_nodes == 3


def test_what_goes_on_below_sent_guesses_names_them() -> None:
    session = opened()
    extend(session, (), chain(1, 2))
    session.outbox()
    extend(session, (1, 2), chain(3, 4))
    assert session.outbox() == [Draft(3, (3, 4), confidence=bytes((16, 16)))]
    extend(session, (1,), [Guess(9, 0.5)])
    assert session.outbox() == [Draft(5, (9,), parents=(4,), confidence=bytes((16,)))]


def test_a_bush_is_sent_best_first_with_its_parents() -> None:
    session = opened()
    extend(session, (), [Guess(1, 0.25), Guess(2, 0.5)])
    extend(session, (2,), [Guess(3, 0.75)])
    (draft,) = session.outbox()
    assert (draft.first_node, draft.tokens, draft.anchor, draft.parents) == (1, (2, 3, 1), 3, (0, 1, 0))
    assert [survival_of(byte) for byte in draft.confidence] == pytest.approx([0.5, 0.75, 0.25], rel=0.022)


def test_guesses_below_the_tip_are_anchored_there_even_if_the_tip_was_a_guess() -> None:
    session = opened()
    extend(session, (), chain(1, 2))
    session.outbox()
    session.committed(Commit(3, (1, 2)))
    extend(session, (), chain(3))
    assert session.outbox() == [Draft(3, (3,), anchor=5, confidence=bytes((16,)))]


def test_long_outboxes_are_cut_into_drafts_of_bounded_size() -> None:
    session = opened(limits=DrafterLimits(window_nodes=16, nodes_per_draft=2))
    extend(session, (), chain(1, 2, 3, 4, 5))
    first, second, third = session.outbox()
    assert (first.tokens, second.tokens, third.tokens) == ((1, 2), (3, 4), (5,))
    assert (first.anchor, second.anchor, third.anchor) == (3, None, None)
    assert (first.first_node, second.first_node, third.first_node) == (1, 3, 5)


def test_no_more_is_sent_than_the_window_and_the_rest_follows_when_guesses_resolve() -> None:
    session = opened(window_nodes=2)
    extend(session, (), chain(1, 2, 3))
    assert [draft.tokens for draft in session.outbox()] == [(1, 2)]
    assert session.outbox() == []
    session.committed(Commit(3, (1,)))
    assert session.outbox() == [Draft(3, (3,), confidence=bytes((16,)))]


def test_guesses_that_died_free_the_window() -> None:
    session = opened(window_nodes=2)
    extend(session, (), rivals(1, 2))
    session.outbox()
    session.committed(Commit(3, (7,)))
    assert session.unresolved_nodes == 0
    extend(session, (), chain(3, 4))
    assert session.outbox() == [Draft(3, (3, 4), anchor=4, confidence=bytes((16, 16)))]


def test_a_window_that_shrinks_below_what_is_in_flight_sends_nothing() -> None:
    session = opened(window_nodes=4)
    extend(session, (), chain(1, 2, 3, 4, 5))
    session.outbox()
    session.committed(Commit(3, (1,), window_nodes=2))
    assert session.outbox() == []


def test_what_a_commit_contradicts_is_never_sent() -> None:
    session = opened()
    extend(session, (), rivals(1, 2))
    session.committed(Commit(3, (2,)))
    assert session.outbox() == []


# -- another verifier --------------------------------------------------------------------------------------------------


def test_after_a_reanchor_everything_is_sent_afresh_from_node_1() -> None:
    session = opened()
    extend(session, (), chain(1, 2, 3))
    session.outbox()
    session.committed(Commit(3, (1,)))
    session.reanchored(Reanchor(4))
    assert session.unresolved_nodes == 0
    assert session.outbox() == [Draft(1, (2, 3), anchor=4, confidence=bytes((16, 16)))]


def test_a_verifier_that_knows_less_is_sent_nothing_before_it_has_caught_up() -> None:
    session = opened()
    extend(session, (), chain(1, 2, 3, 4))
    session.committed(Commit(3, (1, 2)))
    session.reanchored(Reanchor(3))
    assert session.outbox() == []
    session.committed(Commit(3, (1,)))
    assert session.outbox() == []
    assert frontier(session) == [(3, 4)]
    session.committed(Commit(4, (2,)))
    assert session.outbox() == [Draft(1, (3, 4), anchor=5, confidence=bytes((16, 16)))]


def test_a_verifier_that_knows_more_finds_the_draft_late() -> None:
    session = opened()
    extend(session, (), chain(1, 2))
    session.reanchored(Reanchor(4))
    assert session.outbox() == [Draft(1, (1, 2), anchor=3, confidence=bytes((16, 16)))]

"""The verifier's half, one behaviour at a time: what passes settle, and how a session ends."""

from __future__ import annotations

import pytest

from nacre.pacing import Reputation
from nacre.sampling import Choice
from nacre.session import (
    Draft,
    FinishReason,
)
from tests.session.verifier_steps import TRUTH, live_guesses, opened, output, sampled, step

# -- verifying ---------------------------------------------------------------------------------------------------------


def test_without_drafters_each_pass_decodes_the_tip_alone() -> None:
    session = opened(max_tokens=3)
    for expected in TRUTH[:3]:
        plan = session.plan(16)
        assert (plan.tokens, plan.parents, plan.positions) == ((session.tokens[-1],), (-1,), (len(session.tokens) - 1,))
        resolution = session.resolve(plan, sampled(session, [()]))
        assert resolution.commit.tokens == (expected,)
        assert (resolution.path, resolution.planned, resolution.matched) == ((0,), 0, 0)
    assert output(session) == TRUTH[:3]
    assert session.finished is FinishReason.LENGTH


def test_right_guesses_are_committed_with_the_token_sampled_after_them() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2, 8), anchor=3))
    resolution = step(session)
    assert resolution.commit.position == 3
    assert resolution.commit.tokens == (1, 2, 3)
    assert resolution.commit.guessed_by == (drafter, drafter, 0)
    assert (resolution.path, resolution.planned, resolution.matched) == ((0, 1, 2), 3, 2)


def test_the_last_token_of_a_commit_is_credited_to_nobody_even_if_it_was_guessed() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2), anchor=3))
    assert step(session, rows=2).commit.guessed_by == (drafter, 0)


def test_a_commit_reports_what_the_pass_took_and_what_it_offers() -> None:
    session = opened()
    session.draft(session.join(), Draft(1, (1, 2), anchor=3))
    plan = session.plan(8)
    rows = [plan.ancestors(row) for row in range(len(plan.tokens))]
    commit = session.resolve(plan, sampled(session, rows), row_budget=5, verify_ms=1.5, queue_ms=0.5).commit
    assert (commit.rows, commit.window_nodes, commit.row_budget, commit.verify_ms, commit.queue_ms) == (
        3,
        8,
        5,
        1.5,
        0.5,
    )


def test_a_plan_takes_the_most_likely_guesses_within_its_rows() -> None:
    session = opened()
    drafter = session.join()
    # Survivals 1, 1/2 below it, 1/4 for the rival.
    session.draft(drafter, Draft(1, (1, 2, 7), anchor=3, parents=(0, 1, 0), confidence=bytes((0, 16, 32))))
    assert session.plan(1).tokens == (52,)
    session = opened()
    session.draft(session.join(), Draft(1, (1, 2, 7), anchor=3, parents=(0, 1, 0), confidence=bytes((0, 16, 32))))
    assert session.plan(3).tokens == (52, 1, 2)


def test_ancestors_of_a_row_are_the_guesses_between_the_tip_and_it() -> None:
    session = opened()
    session.draft(session.join(), Draft(1, (1, 2, 7), anchor=3, parents=(0, 1, 0), confidence=bytes((0, 0, 16))))
    plan = session.plan(8)
    assert [plan.ancestors(row) for row in range(4)] == [(), (1,), (1, 2), (7,)]
    assert plan.parents == (-1, 0, 1, 0)
    assert plan.positions == (2, 3, 4, 3)


def test_the_subtree_under_the_new_tip_survives_and_everything_else_dies() -> None:
    session = opened()
    drafter = session.join()
    # Below the tip: 1 -> 2 -> 3 -> {4, 8}, and the losing fork 1 -> 9.
    session.draft(drafter, Draft(1, (1, 2, 3, 4, 8, 9), anchor=3, parents=(0, 1, 1, 1, 2, 5)))
    assert step(session, rows=3).commit.tokens == (1, 2, 3)
    assert live_guesses(session) == {(4,), (8,)}
    assert session.streams[drafter].unresolved_nodes == 2


def test_drafts_that_arrive_during_a_pass_survive_it_where_they_agree() -> None:
    session = opened()
    drafter = session.join()
    plan = session.plan(1)
    session.draft(drafter, Draft(1, (1, 2), anchor=3))
    session.draft(drafter, Draft(3, (7,), anchor=3))
    session.resolve(plan, sampled(session, [()]))
    assert output(session) == (1,)
    assert live_guesses(session) == {(2,)}


def test_a_pass_can_be_abandoned_and_planned_again() -> None:
    session = opened()
    session.draft(session.join(), Draft(1, (1,), anchor=3))
    plan = session.plan(4)
    assert not session.plannable
    session.abandon(plan)
    assert session.plannable
    assert session.plan(4) == plan


def test_only_one_plan_is_under_way_and_it_is_resolved_once() -> None:
    session = opened()
    plan = session.plan(1)
    with pytest.raises(AssertionError, match="one plan at a time"):
        session.plan(1)
    session.resolve(plan, sampled(session, [()]))
    with pytest.raises(AssertionError, match="resolved once"):
        session.resolve(plan, [Choice(1, None)])
    with pytest.raises(AssertionError, match="can be abandoned"):
        session.abandon(plan)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_no_row_is_spent_after_the_last_position_and_no_token_committed_there() -> None:
    session = opened(max_tokens=2)
    drafter = session.join()
    received = session.draft(drafter, Draft(1, (1, 2, 3, 4), anchor=3))
    assert (received.live, received.dead) == (2, 2)
    plan = session.plan(16)
    assert plan.tokens == (52, 1)
    session.resolve(plan, sampled(session, [(), (1,)]))
    assert output(session) == (1, 2)
    assert session.finished is FinishReason.LENGTH
    assert not session.plannable


def test_a_stop_token_ends_the_text_and_nothing_is_planned_below_a_guess_of_it() -> None:
    session = opened(stop_ids=frozenset({3}))
    session.draft(session.join(), Draft(1, (1, 2, 3, 4), anchor=3))
    plan = session.plan(16)
    assert plan.tokens == (52, 1, 2)
    session.resolve(plan, sampled(session, [(), (1,), (1, 2)]))
    assert output(session) == (1, 2, 3)
    assert session.finished is FinishReason.STOP


def test_a_stop_token_in_the_prompt_ends_nothing() -> None:
    assert opened(stop_ids=frozenset({52})).finished is None


def test_drafts_after_the_end_harm_nobody() -> None:
    session = opened(max_tokens=1)
    drafter = session.join()
    step(session)
    assert session.draft(drafter, Draft(1, (2, 3), anchor=4)).dead == 2
    assert session.draft(drafter, Draft(3, (1,), anchor=3)).late == 1


def test_a_cancelled_session_is_never_planned_again() -> None:
    session = opened()
    session.cancel()
    assert session.finished is FinishReason.CANCELLED
    assert not session.plannable


def test_cancelling_after_the_end_changes_nothing() -> None:
    session = opened(max_tokens=1)
    step(session)
    session.cancel()
    assert session.finished is FinishReason.LENGTH


def test_a_session_cancelled_during_its_last_pass_stays_cancelled() -> None:
    session = opened(max_tokens=1)
    plan = session.plan(1)
    session.cancel()
    session.resolve(plan, sampled(session, [()]))
    assert session.finished is FinishReason.CANCELLED


# -- what drafters were worth ------------------------------------------------------------------------------------------


def test_claims_are_corrected_by_what_came_true_verified_or_not() -> None:
    session = opened(max_tokens=60)
    reputation = Reputation()
    ordinal = session.join(reputation)
    number = 1
    for _ in range(45):  # sure of token 9, which never comes
        session.draft(ordinal, Draft(number, (9,), anchor=len(session.tokens), confidence=bytes((0,))))
        plan = session.plan(1)
        session.resolve(plan, [Choice(5)])
        number += 1
    assert reputation.hopeless
    assert session.streams[ordinal].offered_window == 1
    assert session.hit_rate == 0.0, "nothing that it may say is worth waiting for"
    session.draft(ordinal, Draft(number, (9,), anchor=len(session.tokens), confidence=bytes((0,))))
    (node,) = session.tree.tip.children.values()
    assert node.survival <= 0.001
    assert node.claimed == 1.0
    session.resolve(session.plan(1), [Choice(9)])  # it is right for once
    assert not reputation.hopeless
    assert session.hit_rate == reputation.usefulness > 0.1


def test_a_guess_is_corrected_by_its_rank_among_those_of_its_own_stream() -> None:
    session = opened(max_tokens=60)
    reputation = Reputation()
    for _ in range(20):
        reputation.learn([(0, 0.5, False), (1, 0.5, True)])  # its second guesses are the good ones
    session.draft(session.join(), Draft(1, (7,), anchor=3))
    session.draft(session.join(reputation), Draft(1, (8, 9), anchor=3, parents=(0, 0), confidence=bytes((16, 16))))
    first, second = (session.tree.tip.children[token] for token in (8, 9))
    assert (first.rank, second.rank) == (0, 1)
    assert first.survival < 0.2
    assert second.survival > 0.8


def test_who_has_been_silent_for_a_few_commits_is_not_waited_for_until_it_speaks() -> None:
    session = opened(max_tokens=60)
    ordinal = session.join(Reputation())
    for commits in range(8):
        assert session.hit_rate == (1.0 if commits < 4 else 0.0), commits
        session.resolve(session.plan(1), [Choice(5)])
    session.draft(ordinal, Draft(1, (9,), anchor=len(session.tokens)))
    assert session.hit_rate == 1.0


def test_nobody_waits_for_guesses_of_the_verifiers_own() -> None:
    session = opened(max_tokens=60)
    own = session.join(Reputation(), local=True)
    session.draft(own, Draft(1, (9,), anchor=len(session.tokens)))
    assert session.hit_rate == 0.0
    assert not session.streams[own].helps
    drafter = session.join(Reputation(usefulness=0.4))
    session.draft(drafter, Draft(1, (8,), anchor=len(session.tokens)))
    assert session.hit_rate == 0.4
    assert session.streams[drafter].helps


def test_a_stream_without_a_reputation_is_taken_at_its_word() -> None:
    session = opened(max_tokens=60)
    ordinal = session.join()
    session.draft(ordinal, Draft(1, (9,), anchor=len(session.tokens), confidence=bytes((16,))))
    (node,) = session.tree.tip.children.values()
    assert node.survival == 0.5
    assert session.hit_rate == 1.0

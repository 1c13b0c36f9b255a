"""The verifier's half, one behaviour at a time. Tokens are small numbers; `TRUTH` is what the target would say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting.proposer import MOST_PREDICTED
from nacre.errors import FailedPrecondition, InvalidArgument, NacreError, ResourceExhausted
from nacre.pacing import Reputation
from nacre.sampling import Choice
from nacre.session import (
    Draft,
    FinishReason,
    Resolution,
    SessionLimits,
    SpeculationMode,
    VerifierSession,
    check_prediction,
    open_session,
)

PROMPT = (50, 51, 52)
TRUTH = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
VOCAB = 100
LIMITS = SessionLimits(window_nodes=8, max_streams=3)


def opened(
    *,
    resume: Sequence[int] = (),
    max_tokens: int = 10,
    stop_ids: frozenset[int] = frozenset(),
    mode: SpeculationMode = SpeculationMode.LATENCY,
    keep_choices: bool = False,
    limits: SessionLimits = LIMITS,
) -> VerifierSession:
    return open_session(
        PROMPT,
        resume=resume,
        max_tokens=max_tokens,
        max_positions=64,
        vocab_size=VOCAB,
        stop_ids=stop_ids,
        mode=mode,
        keep_choices=keep_choices,
        limits=limits,
    )


def sampled(session: VerifierSession, plan_tokens: Sequence[Sequence[int]]) -> list[Choice]:
    """The target's choice after each row: the truth below true guesses, elsewhere a token that no one expects."""
    text = TRUTH[len(session.tokens) - len(PROMPT) :]
    choices = []
    for guessed in plan_tokens:
        right = tuple(guessed) == text[: len(guessed)]
        token = text[len(guessed)] if right else 99
        choices.append(Choice(token, -token / 10))
    return choices


def step(session: VerifierSession, rows: int = 16) -> Resolution:
    plan = session.plan(rows)
    ancestors = [plan.ancestors(row) for row in range(len(plan.tokens))]
    return session.resolve(plan, sampled(session, ancestors))


def output(session: VerifierSession) -> tuple[int, ...]:
    return tuple(session.tokens[len(PROMPT) :])


def live_guesses(session: VerifierSession) -> set[tuple[int, ...]]:
    return {tuple(node.path()) for node in session.tree.nodes()}


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


# -- late match --------------------------------------------------------------------------------------------------------


def test_a_late_draft_is_matched_against_the_trunk_and_joins_the_tree_past_the_tip() -> None:
    session = opened()
    drafter = session.join()
    step(session)
    step(session)
    received = session.draft(drafter, Draft(1, (1, 2, 3, 4), anchor=3))
    assert (received.live, received.late, received.dead) == (2, 2, 0)
    assert live_guesses(session) == {(3,), (3, 4)}


def test_the_first_difference_kills_a_late_branch_but_not_its_siblings() -> None:
    session = opened()
    drafter = session.join()
    step(session)
    step(session)
    # 1 -> 7 -> 3 is wrong at the second token; 1 -> 2 -> 3 is right.
    received = session.draft(drafter, Draft(1, (1, 7, 3, 2, 3), anchor=3, parents=(0, 1, 1, 3, 1)))
    assert (received.live, received.late, received.dead) == (1, 2, 2)
    assert live_guesses(session) == {(3,)}


def test_a_draft_below_a_guess_that_was_committed_meanwhile_finds_its_place() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2), anchor=3))
    step(session)
    assert output(session) == (1, 2, 3)
    received = session.draft(drafter, Draft(3, (3, 4)))
    assert (received.live, received.late, received.dead) == (1, 1, 0)
    assert live_guesses(session) == {(4,)}


def test_a_draft_below_the_tip_itself_joins_the_tree() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2, 3), anchor=3))
    step(session, rows=3)
    assert output(session) == (1, 2, 3)
    assert session.draft(drafter, Draft(4, (4,))).live == 1
    assert live_guesses(session) == {(4,)}


def test_a_draft_below_a_dead_guess_is_dropped_without_a_word() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (9, 9), anchor=3))
    step(session)
    received = session.draft(drafter, Draft(3, (1, 2)))
    assert (received.live, received.late, received.dead) == (0, 0, 2)
    received = session.draft(drafter, Draft(5, (7, 2), parents=(1, 1)))
    assert received.dead == 2
    assert live_guesses(session) == set()


def test_an_anchor_inside_the_prompt_is_matched_like_any_other() -> None:
    session = opened()
    received = session.draft(session.join(), Draft(1, (51, 52, 1), anchor=1))
    assert (received.live, received.late, received.dead) == (1, 2, 0)


# -- several drafters ----------------------------------------------------------------------------------------------


def test_equal_guesses_of_two_drafters_are_one_row_and_the_first_is_credited() -> None:
    session = opened()
    first, second = session.join(), session.join()
    session.draft(first, Draft(1, (1, 7), anchor=3))
    session.draft(second, Draft(1, (1, 2), anchor=3))
    plan = session.plan(16)
    assert sorted(plan.ancestors(row) for row in range(len(plan.tokens))) == [(), (1,), (1, 2), (1, 7)]
    rows = [plan.ancestors(row) for row in range(len(plan.tokens))]
    commit = session.resolve(plan, sampled(session, rows)).commit
    assert (commit.tokens, commit.guessed_by) == ((1, 2, 3), (first, second, 0))


def test_a_guess_stays_while_any_drafter_stands_for_it() -> None:
    session = opened()
    first, second = session.join(), session.join()
    session.draft(first, Draft(1, (1, 2), anchor=3))
    session.draft(second, Draft(1, (1, 7), anchor=3))
    session.leave(first)
    assert live_guesses(session) == {(1,), (1, 7)}
    session.leave(second)
    assert live_guesses(session) == set()


def test_leaving_twice_is_harmless() -> None:
    session = opened()
    drafter = session.join()
    session.leave(drafter)
    session.leave(drafter)
    assert session.streams == {}


def test_starting_afresh_withdraws_what_only_this_drafter_stood_for() -> None:
    session = opened()
    first, second = session.join(), session.join()
    session.draft(first, Draft(1, (1, 2), anchor=3))
    session.draft(second, Draft(1, (1,), anchor=3))
    session.draft(first, Draft(1, (8,), anchor=3))
    assert live_guesses(session) == {(1,), (8,)}
    assert session.streams[first].unresolved_nodes == 1


def test_starting_afresh_forgets_the_old_numbers_too() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2), anchor=3))
    step(session)
    # Node 1 is wrong now. The old node 1 was right, and below it this 2 would be right as well.
    received = session.draft(drafter, Draft(1, (9, 2), anchor=3))
    assert (received.live, received.late, received.dead) == (0, 0, 2)


def test_a_guess_withdrawn_during_its_pass_is_still_committed_if_it_was_right() -> None:
    session = opened()
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2), anchor=3))
    plan = session.plan(3)
    session.leave(drafter)
    resolution = session.resolve(plan, sampled(session, [(), (1,), (1, 2)]))
    assert resolution.commit.tokens == (1, 2, 3)
    assert resolution.commit.guessed_by == (0, 0, 0)
    assert resolution.path == (0, 1, 2)


def test_no_more_drafters_join_than_the_limit_and_a_place_becomes_free_again() -> None:
    session = opened()
    ordinals = [session.join() for _ in range(3)]
    with pytest.raises(ResourceExhausted, match="already has 3 drafters; the limit is 3"):
        session.join()
    session.leave(ordinals[1])
    assert session.join() not in ordinals


def test_no_drafter_joins_a_session_without_speculation() -> None:
    with pytest.raises(FailedPrecondition, match="mode off"):
        opened(mode=SpeculationMode.OFF).join()


def test_a_draft_without_a_number_goes_on_with_the_next() -> None:
    session = opened()
    ordinal = session.join()
    session.draft(ordinal, Draft(1, (5, 6), anchor=3))
    session.draft(ordinal, Draft(0, (7,), parents=(1,)))
    session.draft(ordinal, Draft(4, (8,), parents=(1,)))
    assert session.plan(8).tokens[1:] == (5, 6, 7, 8)


# -- breaches of protocol ------------------------------------------------------------------------------------------

BAD, FULL = InvalidArgument, ResourceExhausted
BREACHES = {
    "no tokens": (Draft(3, (), anchor=3), BAD, "draft.guesses is empty", "guesses"),
    "a gap in the numbers": (Draft(4, (1,), anchor=3), BAD, "is 4; the next node .* is 3", "first_node"),
    "an old number": (Draft(2, (1,), anchor=3), BAD, "is 2; the next node .* is 3", "first_node"),
    "a negative number": (Draft(-1, (1,), anchor=3), BAD, "first_node is -1", "first_node"),
    "one beyond the window": (Draft(3, (1,) * 7, anchor=3), FULL, "9 .*; the window is 8", "guesses"),
    "a fresh start beyond the window": (Draft(1, (1,) * 9, anchor=3), FULL, "9 unresolved", "guesses"),
    "too few parents": (Draft(3, (1, 2), anchor=3, parents=(0,)), BAD, "1 entries for 2", "parents"),
    "too many parents": (Draft(3, (1,), anchor=3, parents=(0, 1)), BAD, "2 entries for 1", "parents"),
    "too little confidence": (Draft(3, (1, 2), anchor=3, confidence=b"1"), BAD, "1 bytes for 2", "confidence"),
    "a token past the vocabulary": (Draft(3, (1, 100), anchor=3), BAD, r"\[1\] is of token 100; .* 0 to 99", "guesses"),
    "a negative token": (Draft(3, (-1,), anchor=3), BAD, r"guesses\[0\] is of token -1", "guesses"),
    "an anchor in the future": (Draft(3, (1,), anchor=4), BAD, "is 4; it must lie in 1 to 3", "anchor"),
    "an anchor before the text": (Draft(3, (1,), anchor=0), BAD, "anchor is 0", "anchor"),
    "a parent below no anchor": (Draft(3, (1,), parents=(0,)), BAD, "has no anchor", "anchor"),
    "itself as parent": (Draft(3, (1, 2), anchor=3, parents=(0, -1)), BAD, r"parents\[1\] is -1", "parents"),
    "a parent before the first": (Draft(3, (1,), parents=(3,)), BAD, r"\[0\] is 3; node 3 .*\(1 to 2\)", "parents"),
    "a chain from nothing": (Draft(1, (1,)), BAD, r"parents\[0\] is 1; node 1", "parents"),
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_refused_by_name_and_leaves_no_trace(breach: str) -> None:
    draft, kind, message, field = BREACHES[breach]
    session = opened()
    good, bad = session.join(), session.join()
    session.draft(good, Draft(1, (1, 2), anchor=3))
    session.draft(bad, Draft(1, (1, 7), anchor=3))
    with pytest.raises(NacreError, match=message) as caught:
        session.draft(bad, draft)
    assert type(caught.value) is kind
    assert caught.value.param == field
    assert "\n" not in str(caught.value)
    assert live_guesses(session) == {(1,), (1, 2), (1, 7)}
    assert session.streams[bad].unresolved_nodes == 2
    assert session.draft(bad, Draft(3, (8,), anchor=3)).live == 1
    assert step(session).commit.tokens == (1, 2, 3)


def test_the_window_is_free_again_when_guesses_resolve() -> None:
    session = opened(max_tokens=20)
    drafter = session.join()
    session.draft(drafter, Draft(1, (1, 2, 3, 9, 9, 9, 9, 9), anchor=3))
    with pytest.raises(ResourceExhausted):
        session.draft(drafter, Draft(9, (1,), anchor=3))
    step(session)
    assert session.streams[drafter].unresolved_nodes == 0
    assert session.draft(drafter, Draft(9, (5, 6, 7, 8, 9, 9, 9, 9), anchor=7)).live == 8


def test_settled_numbers_are_remembered_only_as_far_as_the_window() -> None:
    session = opened(max_tokens=40)
    drafter = session.join()
    for number, token in enumerate(PROMPT[1:] * 10):
        session.draft(drafter, Draft(number + 1, (token,), anchor=1 + number % 2))
    assert session.draft(drafter, Draft(21, (52,), parents=(8,))).late == 1  # node 13: 51 at position 1
    assert session.draft(drafter, Draft(22, (52,), parents=(17,))).dead == 1  # node 5 is forgotten


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


# -- replay and resume -------------------------------------------------------------------------------------------------


def test_an_owner_that_comes_back_is_sent_what_it_missed() -> None:
    session = opened(keep_choices=True)
    for _ in range(4):
        step(session)
    replay = session.replay(5)
    assert (replay.position, replay.tokens) == (5, (3, 4))
    assert [choice.logprob for choice in replay.choices] == [-0.3, -0.4]
    assert session.replay(7).tokens == ()
    assert session.replay(3).tokens == (1, 2, 3, 4)


def test_a_replay_says_again_who_had_guessed() -> None:
    session = opened(resume=(1,))
    drafter = session.join()
    session.draft(drafter, Draft(1, (2, 3), anchor=4))
    step(session)
    assert session.replay(5).guessed_by == (drafter, 0)
    assert session.replay(4).guessed_by == (drafter, drafter, 0)


@pytest.mark.parametrize("position", [2, 8, -1])
def test_a_replay_from_outside_what_was_committed_is_refused(position: int) -> None:
    session = opened()
    for _ in range(4):
        step(session)
    with pytest.raises(InvalidArgument, match=f"position is {position}; this session can replay from 3 to 7"):
        session.replay(position)


def test_a_resumed_session_goes_on_where_the_other_verifier_stopped() -> None:
    session = opened(resume=(1, 2), keep_choices=True)
    assert session.tree.tip.position == 4
    assert step(session).commit.position == 5
    assert output(session) == (1, 2, 3)
    assert [choice.token for choice in session.replay(5).choices] == [3]
    with pytest.raises(InvalidArgument, match="replay from 5 to 6"):
        session.replay(4)


def test_a_session_resumed_at_its_end_is_finished_at_once() -> None:
    assert opened(resume=(1, 2), max_tokens=2).finished is FinishReason.LENGTH
    assert opened(resume=(1, 2), stop_ids=frozenset({2})).finished is FinishReason.STOP


def test_choices_are_kept_only_if_asked_for() -> None:
    session = opened()
    assert step(session).commit.choices == ()
    asking = opened(keep_choices=True)
    assert [choice.token for choice in step(asking).commit.choices] == [1]


BAD_OPENINGS = {
    "empty prompt": ({"prompt": ()}, "prompt", "the prompt is empty"),
    "prompt token past the vocabulary": ({"prompt": (1, 100)}, "prompt", r"prompt\[1\] is 100; token ids .* 0 to 99"),
    "negative prompt token": ({"prompt": (-1,)}, "prompt", r"prompt\[0\] is -1"),
    "resume token past the vocabulary": ({"resume": (7, 100)}, "resume", r"resume\[1\] is 100"),
    "no tokens wanted": ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be at least 1"),
    "prompt fills the context": ({"prompt": (1,) * 16}, "prompt", "16 tokens; .* context of 16 .* at most 15"),
    "more tokens than the context": ({"max_tokens": 14}, "max_tokens", "max_tokens is 14; .* room for 13"),
    "resume beyond max_tokens": ({"resume": (1, 2, 3), "max_tokens": 2}, "resume", "has 3 tokens; max_tokens allows 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OPENINGS)
def test_a_bad_opening_is_refused_by_name(case: str) -> None:
    changes, field, message = BAD_OPENINGS[case]
    request = {"prompt": (1, 2, 3), "max_tokens": 10, "max_positions": 16, "vocab_size": 100, **changes}
    with pytest.raises(InvalidArgument, match=message) as caught:
        open_session(request.pop("prompt"), **request)
    assert caught.value.param == field
    assert "\n" not in str(caught.value)


def test_the_context_may_be_filled_to_the_last_position() -> None:
    session = open_session((1, 2, 3), max_tokens=13, max_positions=16, vocab_size=100)
    assert session.end_position == 16


def test_a_text_that_has_ended_cannot_be_resumed_beyond_its_end() -> None:
    with pytest.raises(InvalidArgument, match=r"resume\[1\] is 9, which ends"):
        open_session([1], resume=[5, 9, 5], max_tokens=8, max_positions=64, vocab_size=16, stop_ids=frozenset({9}))


BAD_PREDICTIONS = {
    "longer than the context": ((1,) * 17, "prediction has 17 tokens; at most 16 are taken here: shorten it"),
    "a token past the vocabulary": ((1, 100), r"prediction\[1\] is 100; token ids .* 0 to 99"),
}


@pytest.mark.parametrize("case", BAD_PREDICTIONS)
def test_a_prediction_that_no_output_could_be_is_refused(case: str) -> None:
    prediction, message = BAD_PREDICTIONS[case]
    with pytest.raises(InvalidArgument, match=message) as caught:
        check_prediction(prediction, vocab_size=100, max_positions=16)
    assert caught.value.param == "prediction"


def test_a_prediction_has_a_bound_of_its_own_where_the_context_has_none_to_speak_of() -> None:
    check_prediction((5,) * MOST_PREDICTED, vocab_size=100, max_positions=1 << 30)
    with pytest.raises(InvalidArgument, match="at most 131072"):
        check_prediction((5,) * (MOST_PREDICTED + 1), vocab_size=100, max_positions=1 << 30)


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
    session.draft(ordinal, Draft(number, (9,), anchor=len(session.tokens), confidence=bytes((0,))))
    (node,) = session.tree.tip.children.values()
    assert node.survival <= 0.001
    assert node.claimed == 1.0
    session.resolve(session.plan(1), [Choice(9)])  # it is right for once
    assert not reputation.hopeless


def test_a_stream_without_a_reputation_is_taken_at_its_word() -> None:
    session = opened(max_tokens=60)
    ordinal = session.join()
    session.draft(ordinal, Draft(1, (9,), anchor=len(session.tokens), confidence=bytes((16,))))
    (node,) = session.tree.tip.children.values()
    assert node.survival == 0.5
    assert session.hit_rate == 1.0

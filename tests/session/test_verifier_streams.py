"""The verifier's half: guesses that come late, from several drafters, or against the protocol."""

from __future__ import annotations

import pytest

from nacre.errors import FailedPrecondition, InvalidArgument, NacreError, ResourceExhausted
from nacre.session import (
    Draft,
    SpeculationMode,
)
from tests.session.verifier_steps import PROMPT, live_guesses, opened, output, sampled, step

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

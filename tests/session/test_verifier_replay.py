"""The verifier's half: owners that come back, and generations that go on elsewhere."""

from __future__ import annotations

import pytest

from nacre.drafting.proposer import MOST_PREDICTED
from nacre.errors import InvalidArgument
from nacre.session import (
    Draft,
    FinishReason,
    check_prediction,
    open_session,
)
from tests.session.verifier_steps import opened, output, step

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

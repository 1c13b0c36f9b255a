"""Values survive the wire, and what protobuf cannot say is checked on the way in."""

from __future__ import annotations

import pytest

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.sampling import Choice, SamplingParams
from nacre.session import Commit, Draft, FinishReason, SpeculationMode
from nacre.session.observed import Observed, ObservedRow
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages


def test_sampling_parameters_survive_bit_for_bit() -> None:
    params = SamplingParams(
        temperature=0.7,
        top_k=5,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-0.3,
        frequency_penalty=0.2,
        logit_bias=((3, 0.1), (9, -2.5)),
        allowed_ids=(1, 2, 3),
        banned_ids=(7,),
    )
    wire = pb.Sampling.FromString(messages.sampling_to_wire(params).SerializeToString())
    assert messages.sampling_from_wire(wire) == params


def test_unset_sampling_fields_mean_off() -> None:
    assert messages.sampling_from_wire(pb.Sampling(temperature=1.0)) == SamplingParams()


@pytest.mark.parametrize(
    "draft",
    [
        Draft(first_node=1, tokens=(5,), anchor=7, confidence=b"\x07"),
        Draft(first_node=0, tokens=(5, 6), parents=(1, 2), confidence=b"\x00\xff"),
        Draft(first_node=0, tokens=(4095, (1 << 24) - 1, 0), anchor=0, parents=(0, 0, 1), confidence=bytes(3)),
    ],
)
def test_a_draft_survives(draft: Draft) -> None:
    wire = pb.Draft.FromString(messages.draft_to_wire(draft).SerializeToString())
    assert messages.draft_from_wire(wire) == draft


def test_unknown_confidence_and_the_next_number_are_spelled_out_by_the_reader() -> None:
    wire = messages.draft_to_wire(Draft(first_node=9, tokens=(5, 6)))
    assert messages.draft_from_wire(wire) == Draft(first_node=0, tokens=(5, 6), confidence=b"\x08\x08")


def test_a_chain_costs_few_bytes() -> None:
    chain = Draft(first_node=100, tokens=(300, 301, 302, 303), confidence=bytes(4))
    assert messages.draft_to_wire(chain).ByteSize() == 14
    one_more = Draft(first_node=104, tokens=(300,), confidence=bytes(1))
    assert messages.draft_to_wire(one_more).ByteSize() == 5


def test_a_commit_survives_with_its_logprobs() -> None:
    choices = (Choice(5, -0.25, ((5, -0.25), (6, -1.5))), Choice(6, -3.5, ()))
    commit = Commit(10, (5, 6), (1, 0), choices, rows=4, window_nodes=256, row_budget=8)
    wire = pb.Commit.FromString(messages.commit_to_wire(commit).SerializeToString())
    assert messages.commit_from_wire(wire) == commit


def test_what_was_observed_survives_but_for_the_last_digits_of_its_probabilities() -> None:
    rows = (
        ObservedRow(-1, 4, ((5, -0.25), (6, -2.0))),
        ObservedRow(0, 5, ((7, 0.0),)),
        ObservedRow(0, 6, ()),
        ObservedRow(2, (1 << 24) - 1, ((8, -9.0),)),
    )
    commit = Commit(10, (5, 6), (1, 0), observed=(Observed(10, rows), Observed(11, rows[:1])))
    wire = pb.Commit.FromString(messages.commit_to_wire(commit).SerializeToString())
    back, other = messages.commit_from_wire(wire).observed
    assert (back.position, other.position, len(other.rows)) == (10, 11, 1)
    for one, other in zip(rows, back.rows, strict=True):
        assert (one.parent, one.token, [t for t, _ in one.best]) == (
            other.parent,
            other.token,
            [t for t, _ in other.best],
        )
        assert [p for _, p in other.best] == pytest.approx([p for _, p in one.best], abs=0.022)


def test_guesses_of_nobody_take_no_bytes() -> None:
    wire = messages.commit_to_wire(Commit(10, (5, 6), (0, 0)))
    assert not wire.guessed_by
    assert messages.commit_from_wire(wire).guessed_by == (0, 0)


def test_a_message_of_too_many_nodes_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at most 1024"):
        messages.draft_from_wire(pb.Draft(first_node=1, guesses=[1] * 1025))


def test_every_mode_and_reason_survives() -> None:
    for mode in SpeculationMode:
        assert messages.mode_from_wire(messages.mode_to_wire(mode)) is mode
    for reason in FinishReason:
        assert messages.reason_from_wire(messages.reason_to_wire(reason)) is reason
    with pytest.raises(InvalidArgument, match="speculation is 99"):
        messages.mode_from_wire(99)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol_version", 2),
        ("noise_version", 99),
        ("model_id", "other"),
        ("model_revision", "r2"),
        ("tokenizer_fingerprint", "t2"),
    ],
)
def test_a_handshake_that_differs_is_refused_with_both_values(field: str, value: object) -> None:
    ours = messages.handshake("model", "r1", "t1")
    theirs = messages.handshake("model", "r1", "t1")
    messages.check_handshake(theirs, ours)
    setattr(theirs, field, value)
    with pytest.raises(FailedPrecondition) as refused:
        messages.check_handshake(theirs, ours)
    assert str(value) in refused.value.message
    assert str(getattr(ours, field)) in refused.value.message


def test_what_a_handshake_leaves_empty_is_not_compared() -> None:
    messages.check_handshake(messages.handshake(), messages.handshake("model", "r1", "t1"))

"""Dialled and recorded acceptance, and the drafter that replays them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.drafting import DraftContext, Expansion
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams
from nacre.session import Commit, Draft
from nacre.sim.acceptance import (
    MISSED,
    DialledAcceptance,
    LineProposer,
    LineTarget,
    RecordedAcceptance,
    load_acceptance,
)
from nacre.sim.messages import commit_bytes, draft_bytes
from nacre.wire import messages

RECORD = RecordedAcceptance(((((0.9, 0.05), 0), ((0.5, 0.4), 1)), (((0.7,), MISSED),)), {"draft": "a"})


def asked(proposer: LineProposer, *path: int) -> list[tuple[int, float]]:
    (guesses,) = proposer.propose([Expansion(3, 0, path, ())])
    return [(guess.token, guess.survival) for guess in guesses]


def test_the_line_is_left_by_any_wrong_token_and_for_ever() -> None:
    target = LineTarget()
    state = target.read((0, 0, 0))
    assert target.advance(state, 0) == 4
    astray = target.advance(state, 2)
    assert astray < 0
    assert target.advance(astray, 0) < 0
    assert target.advance(astray, 0) != target.advance(astray, 1) != astray


def test_dials_are_hit_and_claimed() -> None:
    dialled = DialledAcceptance((0.6, 0.8, 0.9))
    ranks = [dialled.on_line(0, position)[1] for position in range(20_000)]
    for count, reached in enumerate(dialled.reached, start=1):
        assert sum(0 <= rank < count for rank in ranks) / len(ranks) == pytest.approx(reached, abs=0.01)
    assert dialled.off_line(7) == pytest.approx((0.6, 0.2, 0.1))


def test_a_replayed_drafter_guesses_as_the_recorded_one_did() -> None:
    proposer = LineProposer(RECORD, batch=1)
    proposer.writes(3, 0)
    proposer.open(3, DraftContext((0, 0), 2, SamplingParams(), None))
    assert asked(proposer) == [(0, 0.9), (2, 0.05)]
    assert asked(proposer, 0) == [(1, 0.5), (0, 0.4)]
    # The first text is over: on with the next.
    assert asked(proposer, 0, 0) == [(1, 0.7)]
    proposer.committed(3, (0,), ())
    assert asked(proposer) == [(1, 0.5), (0, 0.4)]


def test_off_the_line_guesses_are_wrong_but_the_same_when_asked_again() -> None:
    proposer = LineProposer(RECORD, batch=1)
    proposer.open(3, DraftContext((0, 0), 2, SamplingParams(), None))
    paths = [(1,), (2,), (0, 1), (0, 1, 0)]
    answers = [asked(proposer, *path) for path in paths]
    assert answers == [asked(proposer, *path) for path in paths]
    assert all(token != 0 for answer in answers for token, _ in answer)
    assert len({str(answer) for answer in answers}) > 1


def test_a_chain_that_is_sure_of_itself() -> None:
    proposer = LineProposer(RECORD, batch=1, rivals=1, sure=True)
    proposer.open(3, DraftContext((0,), 1, SamplingParams(), None))
    assert proposer.traits.shape == "chain"
    assert [survival for _, survival in asked(proposer)] == [1.0]


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(RECORD.to_json())
    assert load_acceptance(path) == RECORD
    assert RECORD.places == 3
    assert RECORD.reached(1) == pytest.approx(1 / 3)
    assert RECORD.reached(2) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no acceptance trace"),
        ("{", "cannot be read"),
        ("[]", "not an acceptance trace"),
        ('{"format": "nacre-acceptance-0"}', "not an acceptance trace"),
        ('{"format": "nacre-acceptance-1"}', "damaged"),
        ('{"format": "nacre-acceptance-1", "texts": []}', "without a single place"),
        ('{"format": "nacre-acceptance-1", "texts": [{"rank": [4], "survival": [[0.5]]}]}', "damaged"),
        ('{"format": "nacre-acceptance-1", "texts": [{"rank": [0], "survival": [[1.5]]}]}', "damaged"),
        ('{"format": "nacre-acceptance-1", "texts": [{"rank": [0, 0], "survival": [[0.5]]}]}', "damaged"),
        ('{"format": "nacre-acceptance-1", "texts": [{"rank": [Infinity], "survival": [[0.5]]}]}', "damaged"),
        ('{"format": "nacre-acceptance-1", "about": 5, "texts": [{"rank": [0], "survival": [[0.5]]}]}', "damaged"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "trace.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidArgument, match=told):
        load_acceptance(path)


@pytest.mark.parametrize(
    "draft",
    [
        Draft(1, (300,), anchor=5),
        Draft(200, (300, 301), confidence=b"\x01\x02"),
        Draft(9, (4000,) * 70, anchor=300, parents=(0, *[1, 2] * 34, 130), confidence=bytes(70)),
    ],
)
def test_payload_is_counted_as_the_wire_does(draft: Draft) -> None:
    assert draft_bytes(draft) == messages.draft_to_wire(draft).ByteSize()


def test_payload_of_commits_too() -> None:
    for commit in (Commit(5, (300,), (0,)), Commit(700, (300, 400), (1, 0), (), 9, 256, 16, 28.5, 0.25)):
        assert commit_bytes(commit) == messages.commit_to_wire(commit).ByteSize()

"""Several kinds of drafter: each text ends up with the kind that is best at it, and the text never changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.drafter_choice import DrafterChoice, Share, right_in_last_pass
from gateway.upstreams import DrafterUpstream
from nacre.pacing import drafter_bandit
from nacre.pacing.drafter_bandit import Offer
from nacre.v1 import drafter_pb2, verifier_pb2
from nacre.v1 import session_pb2 as pb
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeDrafter, FakeVerifier, Faults
from tests.gateway.harness import InProcess, in_process, until
from tests.gateway.test_gateway_failover import counted

CODE = "def count(words):\n    found = {}\n    for word in words:\n        found[word] = found.get(word, 0) + 1\n"
PROSE = "The pearl lay in the palm of his hand as if it had always been there, and nobody said a word."
TOKENS = 40
CHOICES = "nacre_gateway_drafter_choices_total"


class Specialist(FakeDrafter):
    """At home in one kind of text. The drafter inside the fake verifier stands for it: right here, wrong elsewhere."""

    def __init__(self, verifier: FakeVerifier, method: str, domain: str, *, ordinal: int = 1) -> None:
        super().__init__(method=method)
        self.verifier = verifier
        self.domain = domain
        self.ordinal = ordinal

    async def GetDrafter(self, request: Any, context: Any) -> drafter_pb2.GetDrafterResponse:
        return drafter_pb2.GetDrafterResponse(handshake=self.handshake, method=self.method, max_sessions=100)

    async def Attach(self, request: Any, context: Any) -> drafter_pb2.AttachResponse:
        self.attached.append(request)
        hosted, _ = self.verifier.hosted[request.ticket]
        hosted.hopeless = hosted.opened.domain != self.domain
        return drafter_pb2.AttachResponse(session_id="toy-session", ordinal=self.ordinal)


@pytest.fixture(autouse=True)
def _a_busy_machine_is_not_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafter_bandit, "DISTANCES_S", ())


async def generated(gateway: InProcess, verifier: FakeVerifier, prompt: str) -> None:
    """One generation that begins once its drafter is there, compared with the target alone."""
    verifier.faults = Faults(pause_after=0)
    work = asyncio.ensure_future(gateway.complete(prompt=prompt, seed=1, max_tokens=TOKENS))
    seats = gateway.plane.drafters.seats
    await until(lambda: seats and all(len(seat.held) == seat.wanted for seat in seats))
    verifier.faults.resume.set()
    answer = await work
    expected = [choice.token for choice in toy_target.reference(toy_target.encode(prompt), TOKENS, key=1)]
    assert answer["choices"][0]["text"] == toy_target.decode(expected)
    await until(lambda: not seats)


async def asked(
    gateway: InProcess, verifier: FakeVerifier, drafters: Sequence[FakeDrafter], prompts: Sequence[str]
) -> list[tuple[str, str]]:
    """(prompt, method asked) of generations one after the other."""
    order = []
    for prompt in prompts:
        before = [len(drafter.attached) for drafter in drafters]
        await generated(gateway, verifier, prompt)
        (drafter,) = (d for d, count in zip(drafters, before, strict=True) if len(d.attached) > count)
        order.append((prompt, drafter.method))
    return order


async def test_code_ends_up_with_one_drafter_and_prose_with_the_other() -> None:
    async with (
        FakeVerifier() as verifier,
        Specialist(verifier, "suffix", "code") as coder,
        Specialist(verifier, "lookup", "english") as reader,
        in_process([verifier], [coder, reader]) as gateway,
    ):
        order = await asked(gateway, verifier, [coder, reader], [CODE, PROSE] * 20)
        metrics = gateway.plane.metrics
        told = {
            (method, domain): counted(metrics, CHOICES, method=method, domain=domain)
            for method in ("suffix", "lookup")
            for domain in ("code", "english")
        }
    late = Counter(order[20:])
    assert late[CODE, "suffix"] >= 8
    assert late[PROSE, "lookup"] >= 8
    seen = Counter(order)
    assert told == {
        ("suffix", "code"): seen[CODE, "suffix"],
        ("suffix", "english"): seen[PROSE, "suffix"],
        ("lookup", "code"): seen[CODE, "lookup"],
        ("lookup", "english"): seen[PROSE, "lookup"],
    }


async def test_with_the_setting_off_drafters_take_turns() -> None:
    async with (
        FakeVerifier() as verifier,
        Specialist(verifier, "suffix", "code") as coder,
        Specialist(verifier, "lookup", "english") as reader,
        in_process([verifier], [coder, reader], drafter_choice=False) as gateway,
    ):
        order = await asked(gateway, verifier, [coder, reader], [CODE] * 8)
        assert f"{CHOICES}{{" not in gateway.plane.metrics.exposition().decode()
    assert [method for _, method in order[0::2]] == [order[0][1]] * 4
    assert [method for _, method in order[1::2]] == [order[1][1]] * 4
    assert order[0] != order[1]


async def test_drafters_of_one_kind_take_turns_as_ever() -> None:
    async with (
        FakeVerifier() as verifier,
        Specialist(verifier, "suffix", "code") as one,
        Specialist(verifier, "suffix", "english") as two,
        in_process([verifier], [one, two]) as gateway,
    ):
        for count in range(1, 5):
            await generated(gateway, verifier, CODE)
            assert abs(len(one.attached) - len(two.attached)) == count % 2
        assert counted(gateway.plane.metrics, CHOICES, method="suffix", domain="code") == 0


async def test_a_drafter_that_does_not_say_which_guesses_are_its_own_teaches_nothing_and_is_used_all_the_same() -> None:
    async with (
        FakeVerifier() as verifier,
        Specialist(verifier, "suffix", "code", ordinal=0) as coder,
        Specialist(verifier, "lookup", "english", ordinal=0) as reader,
        in_process([verifier], [coder, reader]) as gateway,
    ):
        order = await asked(gateway, verifier, [coder, reader], [CODE] * 12)
    assert {method for _, method in order} == {"suffix", "lookup"}, "one in two thousand seeds would have it otherwise"


async def test_a_session_that_wants_two_gets_both_kinds() -> None:
    async with (
        FakeVerifier() as verifier,
        Specialist(verifier, "suffix", "code") as coder,
        Specialist(verifier, "lookup", "english") as reader,
        in_process([verifier], [coder, reader], drafters_per_session=2) as gateway,
    ):
        await generated(gateway, verifier, CODE)
    assert len(coder.attached) == len(reader.attached) == 1


# -- what commits tell -------------------------------------------------------------------------------------------


def commit(guessed_by: Sequence[int], rows: int) -> pb.Commit:
    return pb.Commit(tokens=[7] * max(1, len(guessed_by)), guessed_by=guessed_by, rows=rows, verify_ms=40.0)


@pytest.mark.parametrize(
    ("guessed_by", "right"),
    [([], []), ([0], []), ([1, 1, 0], [1, 1]), ([1, 0, 2, 1, 0], [1, 2]), ([1, 1, 0, 0], [])],
)
def test_only_the_last_pass_of_a_commit_is_told_apart(guessed_by: list[int], right: list[int]) -> None:
    assert right_in_last_pass(commit(guessed_by, 8)) == right


def counts(offer: Offer, passes: Sequence[tuple[Sequence[int], int]]) -> tuple[int, int]:
    share = Share(offer, ordinal=1)
    for right, rows in passes:
        share.passed(right, rows, 0.04)
    return share.right, share.wrong


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ([([1, 1, 1], 8)], (3, 1)),
        ([([1, 1, 1], 4)], (3, 0)),  # all were right: the pass ended because there were no more
        ([([], 8)], (0, 1)),
        ([([2, 2], 8)], (0, 1)),  # where another was right nothing is known, where nobody was it is
        ([([1, 2], 8), ([1], 2)], (2, 1)),
        ([([], 1), ([], 1)], (0, 2)),  # it kept silent
    ],
)
def test_what_passes_say_of_a_near_drafter(passes: list[tuple[list[int], int]], expected: tuple[int, int]) -> None:
    assert counts(Offer("a", 0.008, 0.001), passes) == expected


def test_passes_during_the_round_trip_of_a_far_drafter_are_not_its_fault() -> None:
    far = Offer("a", 0.01, 0.1)  # two passes and three quarters
    assert counts(far, [([1], 8), ([], 1), ([], 1)]) == (1, 1)
    assert counts(far, [([1], 8), ([], 1), ([], 1), ([1, 1], 8)]) == (3, 2)
    assert counts(far, [([1], 8), ([], 1), ([], 1), ([], 1)]) == (1, 2), "it should have been here by then"


# -- what drafters tell ------------------------------------------------------------------------------------------


async def test_a_drafter_is_known_by_its_method_its_model_its_step_and_its_distance() -> None:
    drafter = DrafterUpstream("127.0.0.1:1")
    assert (drafter.step_s, drafter.rtt_s) == (0.0, 0.0)

    def report(steps: int, busy_ms: float, way_s: float, **more: str) -> None:
        answer = drafter_pb2.GetDrafterResponse(method="model", steps=steps, busy_ms=busy_ms, **more)
        drafter.reported(answer, way_s)

    report(100, 800.0, 0.05, draft="demo-draft")
    assert drafter.kind == "model:demo-draft"
    assert drafter.step_s == pytest.approx(0.008)
    report(200, 1800.0, 0.02)
    assert drafter.kind == "model"
    assert 0.008 < drafter.step_s < 0.01
    known = drafter.step_s
    for steps, busy_ms in ((200, 1800.0), (3, 24.0), (4, float("nan")), (5, 1e12), (6, -5.0)):
        report(steps, busy_ms, 0.3)
    assert drafter.step_s == known, "idle, begun anew, or nonsense"
    assert drafter.rtt_s == 0.02
    for _ in range(8):
        report(6, 0.0, 0.1)
    assert drafter.rtt_s == 0.1, "it has moved away"
    await drafter.channel.close()


async def test_pass_times_are_the_verifiers_where_they_make_sense() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        plane = gateway.plane
        choice = DrafterChoice(plane.settings, plane.pool, plane.metrics)
        told = plane.pool.verifiers[verifier.address]
        assert choice.wish(verifier.address, "code").domain == "code"
        assert choice.wish(verifier.address, "code").pass_s(5) == 0.04
        points = ((0, 1.0), (1, 20.0), (8, 30.0), (16, 25.0), (32, float("nan")), (64, 1e12))
        told.reported(
            verifier_pb2.GetModelResponse(pass_times=[verifier_pb2.PassTime(rows=r, ms=ms) for r, ms in points])
        )
        pass_s = choice.wish(verifier.address, "english").pass_s
        assert pass_s(1) == 0.02
        assert pass_s(8) == pytest.approx(0.03)
        assert pass_s(100) == pytest.approx(0.03), "more rows are never faster"

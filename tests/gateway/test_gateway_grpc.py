"""The verifier's own API through the gateway: owners, owners that come back, drafters, and streams gone wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nacre.drafting.proposer import Guess
from nacre.session import DrafterLimits, DrafterSession, Reanchor
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2
from nacre.wire import messages
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeDrafter, FakeVerifier, Faults
from tests.gateway.harness import Listening, listening, until

PROMPT = toy_target.encode("for line")
TOKENS = 60
EXPECTED = [choice.token for choice in toy_target.reference(PROMPT, TOKENS, key=5)]


def opening(**changes: Any) -> pb.SessionRequest:
    fields: dict[str, Any] = {
        "handshake": messages.handshake(),
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "sampling": pb.Sampling(temperature=1.0),
        "seed": 5,
    }
    return pb.SessionRequest(open=pb.Open(**{**fields, **changes}))


def joining(ticket: str, position: int = 0) -> pb.SessionRequest:
    return pb.SessionRequest(join=pb.Join(handshake=messages.handshake(), ticket=ticket, position=position))


class Owner:
    """A client's end of a stream; `tokens` is its output so far, checked for gaps and repeats."""

    def __init__(self, gateway: Listening, first: pb.SessionRequest) -> None:
        self.call = gateway.stub.Session()
        self.first = first
        self.tokens: list[int] = []
        self.start = len(PROMPT)
        self.reanchors: list[int] = []
        self.opened = pb.Opened()
        self.finished: pb.Finished | None = None

    async def begin(self) -> Owner:
        await self.call.write(self.first)
        event = await self.call.read()
        assert event is not grpc.aio.EOF, await self.call.details()
        self.opened = event.opened
        return self

    async def listen(self, until_tokens: int = 10**9) -> Owner:
        while self.finished is None and len(self.tokens) < until_tokens:
            event = await self.call.read()
            if event is grpc.aio.EOF:
                break
            match event.WhichOneof("body"):
                case "commit":
                    assert event.commit.position == self.start + len(self.tokens)
                    self.tokens += event.commit.tokens
                case "reanchor":
                    self.reanchors.append(event.reanchor.position)
                    assert event.reanchor.position == self.start + len(self.tokens)
                case "finished":
                    self.finished = event.finished
        return self


async def refused(gateway: Listening, *requests: pb.SessionRequest | bytes, **metadata: str) -> tuple[str, str]:
    """Status and message of a stream that is sent these."""
    method = gateway.channel.stream_stream(
        "/nacre.v1.Verifier/Session",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=pb.SessionEvent.FromString,
    )
    call = method(metadata=tuple(metadata.items()))
    for request in requests:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(request)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return (await call.code()).name, await call.details()


async def test_to_a_client_the_gateway_is_a_verifier() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        model = await gateway.stub.GetModel(verifier_pb2.GetModelRequest())
        assert model.handshake == verifier.handshake
        assert model.system_fingerprint == "fp-toy"
        assert model.vocab_size == toy_target.vocab_size()
        assert model.max_sessions == 64
        chunks = [answer.chunk async for answer in gateway.stub.GetTokenizer(verifier_pb2.GetTokenizerRequest())]
        assert b"".join(chunks) == toy_target.tokenizer_json()
        owner = await (await Owner(gateway, opening()).begin()).listen()
    assert owner.tokens == EXPECTED
    assert owner.opened.system_fingerprint == "fp-toy"
    assert owner.opened.seed == 5
    assert owner.opened.prompt_length == len(PROMPT)
    assert owner.finished is not None
    assert owner.finished.reason == pb.FINISH_REASON_LENGTH
    assert owner.finished.statistics.tokens == TOKENS
    assert owner.reanchors == []


async def test_health_and_reflection_are_served() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        health = health_pb2_grpc.HealthStub(gateway.channel)
        for name in ("", "nacre.v1.Verifier"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
        call = reflection.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.read()
        call.cancel()
    assert "nacre.v1.Verifier" in {service.name for service in listed.list_services_response.service}


async def test_the_gateways_tickets_are_its_own() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 5
        owner = await Owner(gateway, opening()).begin()
        (session,) = verifier.sessions
        theirs = {session.owner_ticket, session.drafter_ticket}
        assert theirs.isdisjoint({owner.opened.owner_ticket, owner.opened.drafter_ticket})
        assert (await refused(gateway, joining(session.owner_ticket)))[0] == "UNAUTHENTICATED"
        verifier.faults.resume.set()
        await owner.listen()


async def test_an_owner_stream_survives_the_death_of_its_verifier() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, listening([one, two]) as gateway:
        one.faults.pause_after = two.faults.pause_after = 25
        owner = await Owner(gateway, opening(top_logprobs=2)).begin()
        first, second = (one, two) if one.opens else (two, one)
        await owner.listen(until_tokens=25)
        second.faults = Faults()
        await first.stop()
        await owner.listen()
    assert owner.tokens == EXPECTED
    assert owner.reanchors == [len(first.sessions[0].machine.tokens)]
    assert owner.finished is not None
    assert owner.finished.statistics.tokens == TOKENS


async def test_a_session_opened_without_a_seed_goes_on_with_the_one_that_was_drawn() -> None:
    request = opening()
    request.open.ClearField("seed")
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults = Faults(break_after=20, forget=True)
        owner = await (await Owner(gateway, request).begin()).listen()
    assert owner.tokens == [choice.token for choice in toy_target.reference(PROMPT, TOKENS, key=owner.opened.seed)]


async def test_a_session_may_begin_in_the_middle() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        owner = Owner(gateway, opening(resume=EXPECTED[:30]))
        owner.start += 30
        await (await owner.begin()).listen()
        over = await (await Owner(gateway, opening(resume=EXPECTED)).begin()).listen()
    assert owner.tokens == EXPECTED[30:]
    assert over.tokens == []
    assert over.finished is not None


async def test_a_cancel_ends_the_session_at_the_verifier_and_is_confirmed() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 10
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=10)
        await owner.call.write(pb.SessionRequest(cancel=pb.Cancel()))
        await owner.listen()
        assert verifier.cancels == 1
    assert owner.finished is not None
    assert owner.finished.reason == pb.FINISH_REASON_CANCELLED
    assert owner.tokens == EXPECTED[: len(owner.tokens)]


async def test_a_cancel_right_behind_the_opening_is_not_forgotten() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 10
        verifier.faults.slow_to_answer = asyncio.Event()
        call = gateway.stub.Session()
        await call.write(opening())
        await call.write(pb.SessionRequest(cancel=pb.Cancel()))
        await until(lambda: verifier.sessions)
        await asyncio.sleep(0.1)  # the cancel has reached the gateway
        verifier.faults.slow_to_answer.set()
        await until(lambda: verifier.cancels == 1)
        call.cancel()


async def test_an_owner_that_lost_its_connection_comes_back_by_its_ticket() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        owner = await (await Owner(gateway, opening(top_logprobs=1)).begin()).listen(until_tokens=20)
        owner.call.cancel()
        verifier.faults.resume.set()
        back = Owner(gateway, joining(owner.opened.owner_ticket, len(PROMPT) + 13))
        back.start += 13
        await (await back.begin()).listen()
        gone = await refused(gateway, joining(owner.opened.owner_ticket, len(PROMPT)))
    assert back.tokens == EXPECTED[13:]
    assert back.finished is not None
    assert gone[0] == "UNAUTHENTICATED", "its end has been delivered"
    assert verifier.cancels == 0


async def test_an_owner_that_returns_to_a_finished_session_gets_its_end() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=20)
        owner.call.cancel()
        verifier.faults.resume.set()
        await until(lambda: verifier.sessions[0].machine.finished is not None)
        back = await (await Owner(gateway, joining(owner.opened.owner_ticket, len(PROMPT))).begin()).listen()
    assert back.tokens == EXPECTED
    assert back.finished is not None


@pytest.mark.parametrize("position", [0, len(PROMPT) - 1, 10_000])
async def test_a_position_that_cannot_be_replayed_is_refused(position: int) -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=20)
        code, details = await refused(gateway, joining(owner.opened.owner_ticket, position))
        verifier.faults.resume.set()
        await owner.listen()
    assert code == "INVALID_ARGUMENT"
    assert str(position) in details
    assert owner.tokens == EXPECTED


async def test_an_owner_that_stays_away_too_long_loses_its_session() -> None:
    async with FakeVerifier() as verifier, listening([verifier], owner_grace_s=0.2) as gateway:
        verifier.faults.pause_after = 20
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=20)
        owner.call.cancel()
        await until(lambda: verifier.cancels == 1)
        assert (await refused(gateway, joining(owner.opened.owner_ticket, len(PROMPT))))[0] == "UNAUTHENTICATED"


# -- guesses -----------------------------------------------------------------------------------------------------


class Guesser:
    """The real drafter machine with perfect guesses, over one stream."""

    def __init__(self, call: Any, machine: DrafterSession) -> None:
        self.call = call
        self.machine = machine
        self.reanchored = 0

    async def send(self, ahead: int = 4) -> None:
        """Extends the tip by what the target will say, and sends it."""
        machine = self.machine
        for node in machine.frontier(1):
            tokens = [*machine.tokens, *node.path()]
            room = machine.end_position - len(tokens) - 1
            said = (
                [choice.token for choice in toy_target.reference(tokens, min(ahead, room), key=5)] if room > 0 else []
            )
            machine.extend(node.id, [Guess(token, 0.9, parent=index - 1) for index, token in enumerate(said)])
        for draft in machine.outbox():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self.call.write(pb.SessionRequest(draft=messages.draft_to_wire(draft)))

    async def run(self) -> None:
        """Guesses along until the session ends."""
        await self.send()
        while (event := await self.call.read()) is not grpc.aio.EOF:
            match event.WhichOneof("body"):
                case "commit":
                    self.machine.committed(messages.commit_from_wire(event.commit))
                case "reanchor":
                    self.reanchored += 1
                    self.machine.reanchored(Reanchor(event.reanchor.position))
                case "finished":
                    await self.call.done_writing()
                    return
            await self.send()


def guesser(call: Any, opened: pb.Opened, tokens: list[int]) -> Guesser:
    machine = DrafterSession(
        tokens, end_position=opened.end_position, limits=DrafterLimits(), window_nodes=opened.window_nodes
    )
    return Guesser(call, machine)


async def test_a_client_may_draft_on_its_own_stream_across_a_move() -> None:
    async with FakeVerifier(lookahead=0) as verifier, listening([verifier]) as gateway:
        verifier.faults = Faults(break_after=20, breaks=2, forget=True, pause_after=40)
        owner = await Owner(gateway, opening()).begin()
        drafting = guesser(owner.call, owner.opened, list(PROMPT))
        async with asyncio.TaskGroup() as group:
            group.create_task(drafting.run())
            await until(lambda: len(verifier.sessions) == 3 and verifier.sessions[-1].received)
            verifier.faults.resume.set()
    assert drafting.machine.tokens == [*PROMPT, *EXPECTED]
    assert drafting.reanchored == 2


def guesses(tokens: Sequence[int]) -> list[int]:
    return [token << 8 | messages.UNKNOWN_CONFIDENCE for token in tokens]


@pytest.mark.parametrize("number", [0, 3], ids=["unnumbered", "numbered"])
async def test_a_draft_from_before_a_move_is_dropped_not_an_error(number: int) -> None:
    async with FakeVerifier(lookahead=0) as one, FakeVerifier(lookahead=0) as two, listening([one, two]) as gateway:
        one.faults.pause_after = two.faults.pause_after = 10
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=10)
        first, second = (one, two) if one.opens else (two, one)
        at = len(PROMPT) + 10
        draft = pb.Draft(first_node=1, anchor=at, guesses=guesses(EXPECTED[10:12]))
        await owner.call.write(pb.SessionRequest(draft=draft))
        await until(lambda: first.sessions[0].received == 2)
        await first.stop()
        await until(lambda: second.sessions)
        stale = pb.Draft(first_node=number, guesses=guesses(EXPECTED[12:14]))
        await owner.call.write(pb.SessionRequest(draft=stale))
        while not owner.reanchors:
            event = await owner.call.read()
            owner.reanchors.append(event.reanchor.position)
        fresh = pb.Draft(first_node=1, anchor=at, guesses=guesses(EXPECTED[10:13]))
        await owner.call.write(pb.SessionRequest(draft=fresh))
        await until(lambda: second.sessions[0].received == 3)
        second.faults.resume.set()
        await owner.listen()
    assert owner.tokens == EXPECTED


async def test_a_bad_draft_ends_the_owners_stream_but_not_the_session() -> None:
    async with FakeVerifier(lookahead=0) as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 10
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=10)
        bad = pb.Draft(first_node=1, anchor=len(PROMPT), guesses=guesses([10**6]))
        await owner.call.write(pb.SessionRequest(draft=bad))
        verifier.faults.resume.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await owner.listen()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "1000000" in (caught.value.details() or "")
        back = Owner(gateway, joining(owner.opened.owner_ticket, len(PROMPT) + len(owner.tokens)))
        back.start += len(owner.tokens)
        await (await back.begin()).listen()
    assert [*owner.tokens, *back.tokens] == EXPECTED


@contextlib.asynccontextmanager
async def joined_drafter(gateway: Listening, ticket: str) -> AsyncIterator[Guesser]:
    call = gateway.stub.Session()
    await call.write(joining(ticket))
    event = await call.read()
    opened = event.opened
    assert not opened.owner_ticket
    assert not opened.drafter_ticket
    yield guesser(call, opened, list(opened.tokens))
    call.cancel()


async def test_a_drafter_may_join_through_the_gateway() -> None:
    async with FakeVerifier(lookahead=0) as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 5
        owner = await Owner(gateway, opening()).begin()
        async with joined_drafter(gateway, owner.opened.drafter_ticket) as drafter, asyncio.TaskGroup() as group:
            group.create_task(drafter.run())
            await until(lambda: verifier.sessions[0].received)
            verifier.faults.resume.set()
            group.create_task(owner.listen())
        assert owner.tokens == EXPECTED
        assert drafter.machine.tokens == [*PROMPT, *EXPECTED]
    assert owner.finished is not None
    assert owner.finished.statistics.accepted_guesses > 0


async def test_a_drafter_is_told_the_prediction_and_an_owner_is_not() -> None:
    async with FakeVerifier(lookahead=0) as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 5
        owner = await Owner(gateway, opening(prediction=EXPECTED[:30])).begin()
        call = gateway.stub.Session()
        await call.write(joining(owner.opened.drafter_ticket))
        opened = (await call.read()).opened
        assert list(opened.prediction) == EXPECTED[:30]
        assert not owner.opened.prediction
        call.cancel()
        verifier.faults.resume.set()
        await owner.listen()
    assert owner.tokens == EXPECTED


async def test_a_drafter_that_joined_through_the_gateway_follows_a_move() -> None:
    async with (
        FakeVerifier(lookahead=0) as one,
        FakeVerifier(lookahead=0) as two,
        listening([one, two]) as gateway,
    ):
        one.faults.pause_after = two.faults.pause_after = 10
        owner = await (await Owner(gateway, opening()).begin()).listen(until_tokens=10)
        first, second = (one, two) if one.opens else (two, one)
        async with joined_drafter(gateway, owner.opened.drafter_ticket) as drafter, asyncio.TaskGroup() as group:
            group.create_task(drafter.run())
            await until(lambda: first.sessions[0].received)
            await first.stop()
            await until(lambda: second.sessions and second.sessions[0].received)
            second.faults.resume.set()
            group.create_task(owner.listen())
        assert owner.tokens == EXPECTED
        assert drafter.machine.tokens == [*PROMPT, *EXPECTED]
        assert drafter.reanchored == 1


async def test_a_drafter_hears_that_the_session_has_ended() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 5
        owner = await Owner(gateway, opening()).begin()
        async with joined_drafter(gateway, owner.opened.drafter_ticket) as drafter, asyncio.TaskGroup() as group:
            group.create_task(drafter.run())
            await owner.call.write(pb.SessionRequest(cancel=pb.Cancel()))
            await owner.listen()


async def test_the_gateway_asks_drafters_for_grpc_sessions_too() -> None:
    async with FakeVerifier() as verifier, FakeDrafter() as drafter, listening([verifier], [drafter]) as gateway:
        verifier.faults.pause_after = 5
        for count, wanted in ((1, 1), (1, 0)):
            owner = await Owner(gateway, opening(drafters=wanted)).begin()
            await until(lambda: len(drafter.attached) == count)  # noqa: B023
            verifier.faults.resume.set()
            await owner.listen()
    assert drafter.attached[0].ticket == verifier.sessions[0].drafter_ticket


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "code", "words"),
    [
        ([], "INVALID_ARGUMENT", "Open or Join"),
        ([pb.SessionRequest()], "INVALID_ARGUMENT", "empty"),
        ([pb.SessionRequest(cancel=pb.Cancel())], "INVALID_ARGUMENT", "cancel"),
        ([b"\xff\xff\xff\xff garbage"], "INVALID_ARGUMENT", "could not be parsed"),
        ([opening(prompt=[])], "INVALID_ARGUMENT", "prompt is empty"),
        ([opening(prompt=[10**6])], "INVALID_ARGUMENT", "prompt[0]"),
        ([opening(max_tokens=0)], "INVALID_ARGUMENT", "max_tokens"),
        ([opening(max_tokens=10**6)], "INVALID_ARGUMENT", "leaves room"),
        ([opening(sampling=pb.Sampling(temperature=-1.0))], "INVALID_ARGUMENT", "temperature"),
        ([opening(drafters=99)], "INVALID_ARGUMENT", "99"),
        ([opening(handshake=pb.Handshake(protocol_version=9))], "FAILED_PRECONDITION", "9"),
        ([opening(handshake=messages.handshake("other"))], "FAILED_PRECONDITION", "'other'"),
        ([opening(handshake=messages.handshake("", "", "00ff"))], "FAILED_PRECONDITION", "fingerprint"),
        ([joining("no such ticket")], "UNAUTHENTICATED", "ticket"),
        ([opening(), opening()], "INVALID_ARGUMENT", "open"),
        ([opening(), b"\x0a\xff garbage"], "INVALID_ARGUMENT", "could not be parsed"),
        (
            [opening(), pb.SessionRequest(draft=pb.Draft(first_node=1, guesses=[1] * 300_000))],
            "INVALID_ARGUMENT",
            "only Open",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_bad_stream_ends_with_a_status_and_harms_nobody(
    requests: list[pb.SessionRequest | bytes], code: str, words: str
) -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        owner = await Owner(gateway, opening()).begin()
        status, details = await refused(gateway, *requests)
        assert status == code, details
        assert words in details
        assert "\n" not in details
        verifier.faults.resume.set()
        await owner.listen()
    assert owner.tokens == EXPECTED


async def test_a_large_prompt_is_no_oversized_message() -> None:
    prompt = [1 + i % 300 for i in range(150_000)]
    async with FakeVerifier(max_positions=200_000) as verifier, listening([verifier]) as gateway:
        verifier.faults.mute = True
        call = gateway.stub.Session()
        await call.write(opening(prompt=prompt, max_tokens=3))
        await until(lambda: verifier.metadata)
        call.cancel()


async def test_keys_are_needed_on_every_call_but_a_ticket_is_proof_enough() -> None:
    async with FakeVerifier() as verifier, listening([verifier], api_keys=("sesame",)) as gateway:
        assert (await refused(gateway, opening()))[0] == "UNAUTHENTICATED"
        for call in (
            gateway.stub.GetModel(verifier_pb2.GetModelRequest()),
            gateway.stub.GetTokenizer(verifier_pb2.GetTokenizerRequest()).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        verifier.faults.pause_after = 5
        owner = Owner(gateway, opening())
        owner.call.cancel()
        owner.call = gateway.stub.Session(metadata=(("authorization", "Bearer sesame"),))
        await owner.begin()
        async with joined_drafter(gateway, owner.opened.drafter_ticket):
            verifier.faults.resume.set()
            await owner.listen()
    assert owner.tokens == EXPECTED


async def test_streams_are_bounded() -> None:
    async with FakeVerifier() as verifier, listening([verifier], max_streams=2) as gateway:
        verifier.faults.pause_after = 5
        owners = [await Owner(gateway, opening()).begin() for _ in range(2)]
        code, details = await refused(gateway, opening())
        assert code == "RESOURCE_EXHAUSTED"
        assert "2" in details
        verifier.faults.resume.set()
        for owner in owners:
            assert (await owner.listen()).tokens == EXPECTED
        assert (await (await Owner(gateway, opening()).begin()).listen()).tokens == EXPECTED


async def test_grpc_sessions_wait_their_turn_with_the_others() -> None:
    async with FakeVerifier() as verifier, listening([verifier], max_concurrency=1, max_queue=0) as gateway:
        verifier.faults.pause_after = 5
        owner = await Owner(gateway, opening()).begin()
        assert (await refused(gateway, opening()))[0] == "RESOURCE_EXHAUSTED"
        verifier.faults.resume.set()
        assert (await owner.listen()).tokens == EXPECTED


async def test_a_gateway_stands_in_for_a_verifier_before_another_gateway() -> None:
    async with (
        FakeVerifier() as one,
        FakeVerifier() as two,
        listening([one, two]) as inner,
    ):
        stand_in = FakeVerifier(port=inner.ports.grpc_port)  # only its address is used
        async with listening([stand_in]) as outer:
            one.faults.pause_after = two.faults.pause_after = 10
            owner = await (await Owner(outer, opening()).begin()).listen(until_tokens=10)
            first, second = (one, two) if one.opens else (two, one)
            second.faults = Faults()
            await first.stop()
            await owner.listen()
    assert owner.tokens == EXPECTED
    assert len(owner.reanchors) == 1

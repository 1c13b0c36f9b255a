"""The verifier's own API through the gateway: owners, owners that come back, and streams gone wrong."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2
from nacre.wire import messages
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeVerifier, Faults
from tests.gateway.harness import listening, until
from tests.gateway.owners import EXPECTED, PROMPT, TOKENS, Owner, joined_drafter, joining, opening, refused


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

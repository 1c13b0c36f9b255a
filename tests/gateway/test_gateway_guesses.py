"""Guesses through the gateway: clients that draft on their own stream, and drafters that join."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from nacre.v1 import session_pb2 as pb
from nacre.wire import messages
from tests.gateway.fake_verifier import FakeDrafter, FakeVerifier, Faults
from tests.gateway.harness import listening, until
from tests.gateway.owners import EXPECTED, PROMPT, Owner, guesser, joined_drafter, joining, opening


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
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await owner.listen()
        verifier.faults.resume.set()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "1000000" in (caught.value.details() or "")
        back = Owner(gateway, joining(owner.opened.owner_ticket, len(PROMPT) + len(owner.tokens)))
        back.start += len(owner.tokens)
        await (await back.begin()).listen()
    assert [*owner.tokens, *back.tokens] == EXPECTED


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

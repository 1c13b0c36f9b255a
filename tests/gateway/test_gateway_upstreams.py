"""Who is up, who fits, who gets the next session, and which drafters are asked to join."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from gateway.placement import Candidate, by_preference, load_of
from gateway.upstreams import State
from nacre.errors import ResourceExhausted, Unavailable
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeDrafter, FakeVerifier, Faults
from tests.gateway.harness import InProcess, in_process, until
from tests.gateway.test_gateway_bad_input import check_error

FIELDS: dict[str, Any] = {"prompt": "count", "seed": 1, "max_tokens": 40}


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.address for candidate in candidates]


def test_the_least_loaded_peer_comes_first_and_equals_take_turns() -> None:
    assert names(by_preference([Candidate("a", 2, 9), Candidate("b", 1, 9)])) == ["b", "a"]
    assert names(by_preference([Candidate("a", 1, 9, last_chosen=5), Candidate("b", 1, 9, last_chosen=4)])) == [
        "b",
        "a",
    ]
    assert names(by_preference([Candidate("a", 0, 9, doubtful=True), Candidate("b", 8, 9)])) == ["b", "a"]


def test_a_full_peer_is_no_candidate_and_an_unknown_capacity_is_no_bound() -> None:
    assert by_preference([Candidate("a", 3, 3)]) == []
    assert names(by_preference([Candidate("a", 10**6, 0)])) == ["a"]


def test_the_load_is_ours_exactly_and_that_of_others_as_last_reported() -> None:
    assert load_of(own=4, reported=7, own_when_reported=3) == 8
    assert load_of(own=4, reported=1, own_when_reported=3) == 4, "some of ours had ended meanwhile"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (FakeVerifier(fingerprint="fp-else"), "fingerprint"),
        (FakeVerifier(model_id="else"), "model id"),
        (FakeVerifier(max_positions=64), "context"),
    ],
    ids=["fingerprint", "model", "context"],
)
async def test_a_verifier_that_differs_from_the_others_is_refused_and_never_used(
    other: FakeVerifier, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        pass  # the order in which both are seen is chance below: learn what the honest one serves
    async with FakeVerifier() as verifier, other:
        other.faults.mute = True
        async with in_process([verifier, other], wait=False) as gateway:
            pool = gateway.plane.pool
            await until(lambda: {v.state for v in pool.verifiers.values()} == {State.UP, State.REFUSED})
            refused = next(v for v in pool.verifiers.values() if v.state is State.REFUSED)
            served = next(v for v in pool.verifiers.values() if v.up)
            assert told in refused.reason
            assert any(refused.address in record.getMessage() for record in caplog.records)
            assert pool.served is not None
            assert pool.served.fingerprint == served.model.system_fingerprint
            for _ in range(5):
                assert pool.place().address == served.address


async def test_a_fleet_that_changes_its_model_while_nobody_generates_is_taken_as_it_is() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        await verifier.stop()
        await until(lambda: not gateway.plane.pool.ready)
        verifier.fingerprint = "fp-new"
        await verifier.start()
        await until(lambda: gateway.plane.pool.ready)
        answer = await gateway.complete(**FIELDS)
    assert answer["system_fingerprint"] == "fp-new"


async def test_without_a_verifier_requests_get_503_and_say_who_is_missing() -> None:
    verifier = FakeVerifier()
    await verifier.start()
    await verifier.stop()
    async with in_process([verifier], wait=False) as gateway:
        await until(lambda: not gateway.plane.pool.undecided)
        for response in (
            await gateway.http.post("/v1/completions", json=FIELDS),
            await gateway.http.get("/v1/models"),
            await gateway.http.get("/readyz"),
        ):
            assert verifier.address in check_error(response, 503, None, "service_unavailable")
            assert response.headers["retry-after"] == "1"
        assert (await gateway.http.get("/healthz")).status_code == 200


async def test_a_verifier_that_died_means_503_until_it_is_back() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        await verifier.stop()
        check_error(await gateway.http.post("/v1/completions", json=FIELDS), 503)
        await verifier.start()
        await until(lambda: gateway.plane.pool.ready)
        await gateway.complete(**FIELDS)


async def test_a_draining_verifier_gets_nothing_new_and_finishes_what_it_has() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        one.faults.pause_after = two.faults.pause_after = 10
        async with asyncio.TaskGroup() as group:
            work = group.create_task(gateway.complete(**FIELDS))
            await until(lambda: one.opens or two.opens)
            first, second = (one, two) if one.opens else (two, one)
            await first.drain()
            await until(lambda: gateway.plane.pool.verifiers[first.address].state is State.DRAINING)
            second.faults = Faults()
            for _ in range(3):
                await gateway.complete(**FIELDS)
            first.faults.resume.set()
        assert work.result()["metrics"]["distributed"]["failovers"] == 0
    assert len(first.opens) == 1
    assert len(second.opens) == 3


async def test_placement_says_whether_nobody_is_up_or_everybody_is_full() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        pool = gateway.plane.pool
        with pytest.raises(Unavailable):
            pool.place(frozenset([verifier.address]))
        pool.verifiers[verifier.address].model.max_sessions = 1
        pool.verifiers[verifier.address].legs.add(object())  # type: ignore[arg-type]
        with pytest.raises(ResourceExhausted):
            pool.place()
        pool.verifiers[verifier.address].legs.clear()


async def test_a_text_goes_on_only_where_what_it_began_on_is_served() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        pool = gateway.plane.pool
        assert pool.place(fingerprint=verifier.fingerprint).address == verifier.address
        with pytest.raises(Unavailable, match="began on 'fp-older'"):
            pool.place(fingerprint="fp-older")


# -- drafters ----------------------------------------------------------------------------------------------------


class Paused:
    """A generation that stands still in the middle until told to go on."""

    def __init__(self, gateway: InProcess, verifier: FakeVerifier, **fields: Any) -> None:
        self._gateway = gateway
        self._verifier = verifier
        self._fields = {**FIELDS, **fields}

    async def __aenter__(self) -> Paused:
        self._verifier.faults = Faults(pause_after=10)
        self._work = asyncio.ensure_future(self._gateway.complete(**self._fields))
        await until(lambda: self._verifier.sessions)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._verifier.faults.resume.set()
        answer = await self._work
        ids = toy_target.encode("count")
        expected = toy_target.decode([choice.token for choice in toy_target.reference(ids, 40, key=1)])
        assert answer["choices"][0]["text"] == expected


async def test_a_session_gets_as_many_drafters_as_asked_for_each_with_its_ticket() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter() as a,
        FakeDrafter() as b,
        FakeDrafter() as c,
        in_process([verifier], [a, b, c]) as gateway,
    ):
        async with Paused(gateway, verifier, speculation={"drafters": 2}):
            await until(lambda: len(a.attached) + len(b.attached) + len(c.attached) == 2)
        requests = [*a.attached, *b.attached, *c.attached]
        assert {request.ticket for request in requests} == {verifier.sessions[0].drafter_ticket}
        assert {request.verifier_address for request in requests} == {verifier.address}
        assert max(len(a.attached), len(b.attached), len(c.attached)) == 1, "no drafter twice"


async def test_the_default_number_of_drafters_is_a_setting_and_zero_and_off_mean_none() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter() as a,
        FakeDrafter() as b,
        in_process([verifier], [a, b], drafters_per_session=2) as gateway,
    ):
        async with Paused(gateway, verifier):
            await until(lambda: len(a.attached) == len(b.attached) == 1)
        await gateway.complete(**FIELDS, speculation={"drafters": 0})
        await gateway.complete(**FIELDS, speculation={"mode": "off"})
        await asyncio.sleep(0.2)  # several rounds of reconciling
        assert len(a.attached) == len(b.attached) == 1


async def test_drafters_are_asked_in_turn() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter() as a,
        FakeDrafter() as b,
        in_process([verifier], [a, b]) as gateway,
    ):
        for count in range(1, 7):
            verifier.sessions.clear()
            async with Paused(gateway, verifier):
                await until(lambda: len(a.attached) + len(b.attached) == count)  # noqa: B023
        # A drafter's own report of its load may be a moment old, so the turns need not be strict.
        assert min(len(a.attached), len(b.attached)) >= 2


async def test_a_drafter_that_dies_is_replaced_in_mid_generation() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter() as a,
        FakeDrafter() as b,
        in_process([verifier], [a, b]) as gateway,
    ):
        async with Paused(gateway, verifier):
            await until(lambda: a.attached or b.attached)
            first, second = (a, b) if a.attached else (b, a)
            await first.stop()
            await until(lambda: second.attached)
        assert second.attached[0].ticket == first.attached[0].ticket


async def test_a_drafter_that_restarts_is_asked_again() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter() as drafter,
        in_process([verifier], [drafter]) as gateway,
        Paused(gateway, verifier),
    ):
        await until(lambda: len(drafter.attached) == 1)
        await drafter.stop()
        await drafter.start()
        await until(lambda: len(drafter.attached) == 2)


async def test_a_drafter_that_appears_late_joins_sessions_already_running() -> None:
    drafter = FakeDrafter()
    await drafter.start()
    await drafter.stop()
    async with FakeVerifier() as verifier, in_process([verifier], [drafter], wait=False) as gateway:
        await until(lambda: gateway.plane.pool.ready)
        async with Paused(gateway, verifier):
            await drafter.start()
            await until(lambda: drafter.attached)
        await drafter.stop()


async def test_after_a_move_drafters_are_asked_to_join_the_new_session() -> None:
    async with (
        FakeVerifier() as one,
        FakeVerifier() as two,
        FakeDrafter() as drafter,
        in_process([one, two], [drafter]) as gateway,
    ):
        one.faults.pause_after = two.faults.pause_after = 10
        async with asyncio.TaskGroup() as group:
            group.create_task(gateway.complete(**FIELDS))
            await until(lambda: len(drafter.attached) == 1)
            first, second = (one, two) if one.opens else (two, one)
            await first.stop()
            await until(lambda: len(drafter.attached) == 2)
            second.faults.resume.set()
        assert drafter.attached[1].verifier_address == second.address
        assert drafter.attached[1].ticket == second.sessions[0].drafter_ticket


async def test_a_drafter_that_does_not_fit_the_model_is_never_asked() -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter(model_id="another") as stranger,
        in_process([verifier], [stranger], wait=False) as gateway,
    ):
        upstream = gateway.plane.pool.drafters[stranger.address]
        await until(lambda: upstream.state is State.REFUSED)
        assert "another" in upstream.reason
        await gateway.complete(**FIELDS)
        assert not stranger.attached


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT"])
async def test_a_drafter_that_refuses_changes_nothing_and_is_not_asked_all_the_time(code: str) -> None:
    async with (
        FakeVerifier() as verifier,
        FakeDrafter(refuse=grpc.StatusCode[code]) as bad,
        FakeDrafter() as good,
        in_process([verifier], [bad, good]) as gateway,
    ):
        async with Paused(gateway, verifier, speculation={"drafters": 2}):
            await until(lambda: good.attached and bad.attached)
            await asyncio.sleep(0.3)  # six rounds
        assert len(good.attached) == 1
        assert len(bad.attached) <= 3


async def test_drafters_are_told_the_address_at_which_they_reach_the_verifier() -> None:
    async with FakeVerifier() as verifier, FakeDrafter() as drafter:
        reach = (f"{verifier.address}=10.0.0.7:9",)
        async with (
            in_process([verifier], [drafter], drafters_reach=reach) as gateway,
            Paused(gateway, verifier),
        ):
            await until(lambda: drafter.attached)
        assert drafter.attached[0].verifier_address == "10.0.0.7:9"


async def test_seats_are_given_back_when_generations_end() -> None:
    async with FakeVerifier() as verifier, FakeDrafter() as drafter, in_process([verifier], [drafter]) as gateway:
        for _ in range(3):
            await gateway.complete(**FIELDS)
        upstream = gateway.plane.pool.drafters[drafter.address]
        await until(lambda: upstream.seats == 0)

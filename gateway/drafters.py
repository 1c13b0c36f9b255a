"""Keeps sessions supplied with drafters: asks them to join, replaces those that are gone, never on the path of a token.

Rule: a drafter is an accelerator. Whatever goes wrong here is counted and logged, and changes nothing for the session.

A seat is one session's claim to drafters at its present verifier. Seats are reconciled every second and whenever a peer
changes state: a seat with fewer drafters than it wants gets another one, but one that has just failed it not too soon.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial

import grpc

from gateway.drafter_choice import DrafterChoice, Share, Wish, offered, right_in_last_pass
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.upstreams import DrafterUpstream, UpstreamPool
from nacre.v1 import drafter_pb2
from nacre.v1 import session_pb2 as pb

log = logging.getLogger("nacre.gateway")

#: Attach calls under way at a time, over all sessions; further ones wait for the next round.
MAX_ATTACHING = 64
#: Rounds a drafter is left alone after it has failed a seat, doubling with each failure up to this.
MAX_ROUNDS_OFF = 32
#: Row budget of a verifier that wants no guesses: that there are none says nothing then.
_NOT_WANTED = 1


@dataclass(slots=True, eq=False)
class Seat:
    """`held` maps drafters to the connection (incarnation) they were asked over; `off` to rounds of rest.

    `wish` is what it needs a drafter for, if there is a choice; `shares` what became of the guesses of those held.
    """

    verifier: str
    ticket: str
    wanted: int
    held: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    off: dict[str, int] = field(default_factory=dict)
    misses: dict[str, int] = field(default_factory=dict)
    wish: Wish | None = None
    shares: dict[str, Share] = field(default_factory=dict)

    def committed(self, commit: pb.Commit) -> None:
        """New tokens of the session; tells whose guesses were right."""
        if not self.shares or not commit.rows or commit.row_budget == _NOT_WANTED:
            return
        right = right_in_last_pass(commit)
        for share in self.shares.values():
            share.passed(right, commit.rows, commit.verify_ms / 1e3)


class DrafterPlacement:
    """Owns all seats. `run()` must be running for drafters to be asked."""

    def __init__(self, settings: GatewaySettings, pool: UpstreamPool, metrics: GatewayMetrics) -> None:
        self._settings = settings
        self._pool = pool
        self._metrics = metrics
        self._choice = DrafterChoice(settings, pool, metrics)
        self.seats: set[Seat] = set()
        self._attaching = 0
        self._tasks: asyncio.TaskGroup | None = None

    def seat(self, verifier: str, ticket: str, wanted: int, domain: str) -> Seat:
        """A session has opened with a text of that kind; returns at once."""
        address = self._settings.address_for_drafters(verifier)
        seat = Seat(address, ticket, min(wanted, self._settings.max_drafters) if ticket else 0)
        if seat.wanted:
            self.seats.add(seat)
            if self._choice.needed:
                seat.wish = self._choice.wish(verifier, domain)
            self._supply(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """The session has ended or moved; its drafters hear it from the verifier."""
        self.seats.discard(seat)
        for address in tuple(seat.held):
            self._let_go(seat, address)
        seat.wanted = 0

    async def run(self) -> None:
        """Reconciles until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                await self._pool.changed(self._settings.poll_s)
                for seat in tuple(self.seats):
                    self._prune(seat)
                    self._supply(seat)

    def _prune(self, seat: Seat) -> None:
        """Forgets drafters that are gone, also those that came back so fast that only their connection tells."""
        for address, incarnation in tuple(seat.held.items()):
            drafter = self._pool.drafters[address]
            # One that drains leaves its sessions by itself; it is replaced here already.
            if not drafter.up or drafter.incarnation != incarnation:
                self._let_go(seat, address)
        for address, rounds in tuple(seat.off.items()):
            if rounds <= 1:
                del seat.off[address]
            else:
                seat.off[address] = rounds - 1

    def _let_go(self, seat: Seat, address: str) -> None:
        del seat.held[address]
        self._pool.drafters[address].seats -= 1
        share = seat.shares.pop(address, None)
        if seat.wish and share:
            self._choice.learned(seat.wish, share)

    def _supply(self, seat: Seat) -> None:
        if self._tasks is None:
            return
        choose = partial(self._choice.first, seat.wish) if seat.wish else None
        while len(seat.held) + len(seat.asked) < seat.wanted and self._attaching < MAX_ATTACHING:
            drafter = self._pool.place_drafter(frozenset({*seat.held, *seat.asked, *seat.off}), choose)
            if drafter is None:
                return
            seat.asked.add(drafter.address)
            drafter.seats += 1
            self._attaching += 1
            self._tasks.create_task(self._attach(seat, drafter), name=f"attach-{drafter.address}")

    async def _attach(self, seat: Seat, drafter: DrafterUpstream) -> None:
        held = False
        incarnation = drafter.incarnation
        offer = offered(drafter)
        request = drafter_pb2.AttachRequest(verifier_address=seat.verifier, ticket=seat.ticket)
        try:
            answer = await drafter.stub.Attach(request, timeout=self._settings.attach_timeout_s)
            held = seat in self.seats
            seat.misses.pop(drafter.address, None)
            if held and seat.wish and answer.ordinal:
                seat.shares[drafter.address] = Share(offer, answer.ordinal)
            self._metrics.attached("success")
            log.debug("drafter %s joined session %s", drafter.address, answer.session_id)
        except grpc.aio.AioRpcError as failure:
            self._missed(seat, drafter, failure)
        except Exception:
            log.exception("asking drafter %s to join failed", drafter.address)
            seat.off[drafter.address] = MAX_ROUNDS_OFF
            self._metrics.attached("failure")
        finally:
            self._attaching -= 1
            seat.asked.discard(drafter.address)
            if held:
                seat.held[drafter.address] = incarnation
            else:
                drafter.seats -= 1

    def _missed(self, seat: Seat, drafter: DrafterUpstream, failure: grpc.aio.AioRpcError) -> None:
        code = failure.code()
        if seat not in self.seats:  # it ended before the drafter got there
            self._metrics.attached("late")
            return
        log.info("drafter %s did not join: %s %s", drafter.address, code.name, failure.details())
        self._metrics.attached("failure")
        if code is grpc.StatusCode.UNAVAILABLE:
            self._pool.suspect(drafter)
        misses = seat.misses[drafter.address] = seat.misses.get(drafter.address, 0) + 1
        seat.off[drafter.address] = min(2**misses, MAX_ROUNDS_OFF)

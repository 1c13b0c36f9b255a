"""Sessions that gRPC clients have opened here: they outlive their owner's connection, and their verifier.

Rule: a record keeps every event; whoever listens holds an index into them, not a queue. A slow or returning listener
costs no memory and misses nothing. A record lives until its end has been delivered, or its owner has stayed away beyond
the grace period.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field

from gateway.failover import DraftRefused, RoutedSession
from gateway.plane import Plane
from nacre.errors import Internal, InvalidArgument, NacreError, ResourceExhausted, Unauthenticated
from nacre.v1 import session_pb2 as pb

log = logging.getLogger("nacre.gateway")

_SWEEP_S = 1.0


#: Commits whose observations wait for an owner that learns.
MOST_LESSONS = 16


@dataclass(slots=True, eq=False)
class Record:
    """One session of a gRPC client. `events` are commits and re-anchorings; `finished` or `failure` end them."""

    session: RoutedSession
    replay_from: int  # committed length at the beginning: nothing before it can be replayed
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    drafter_ticket: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    owner_ticket: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    opened: pb.Opened | None = None
    events: list[pb.Commit | pb.Reanchor] = field(default_factory=list)
    finished: pb.Finished | None = None
    failure: NacreError | None = None
    refusal: NacreError | None = None  # of the present owner's drafts
    owners: int = 0
    owner_lost_at: float = 0.0
    work: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        return self.finished is not None or self.failure is not None

    def announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns at the next change; look first, then wait."""
        await self._changed.wait()

    def opened_for(self, *, owner: bool) -> pb.Opened:
        """The answer to the owner: ours, where it speaks of tickets and names."""
        assert self.opened is not None
        opened = pb.Opened()
        opened.CopyFrom(self.opened)
        opened.session_id = self.id
        opened.drafter_ticket = self.drafter_ticket if owner else ""
        opened.owner_ticket = self.owner_ticket if owner else ""
        return opened

    def forget_lessons(self, index: int) -> None:
        """What was observed is no part of the text: it is kept until the owner has it, or is too far behind."""
        event = self.events[index] if index >= 0 else None
        if isinstance(event, pb.Commit):
            event.ClearField("observed")

    def replay(self, position: int) -> tuple[int, pb.Commit | None]:
        """Where a listener that has `position` tokens goes on: index of its next event, the rest of the commit before.

        Raises InvalidArgument for a position that cannot be replayed.
        """
        if not self.replay_from <= position <= self.session.position:
            raise InvalidArgument(
                f"position is {position}; this session can replay from {self.replay_from} to {self.session.position}",
                param="position",
            )
        for index, event in enumerate(self.events):
            if isinstance(event, pb.Commit) and event.position + len(event.tokens) > position:
                return index + 1, _tail(event, position)
        return len(self.events), None


class Records:
    """All of them, by ticket; at most `max_streams`."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._records: set[Record] = set()
        self._tickets: dict[str, tuple[Record, bool]] = {}  # ticket -> (record, admits the owner)

    def open(self, request: pb.Open, *, drafters: int, tenant: str) -> Record:
        """Begins a session; its opener is its owner. Raises ResourceExhausted."""
        limit = self._plane.settings.max_streams
        if len(self._records) >= limit:
            raise ResourceExhausted(f"{limit} sessions are open here, the limit: try again later")
        session = RoutedSession(self._plane, request, drafters=drafters, tenant=tenant)
        record = Record(session, replay_from=session.position, owners=1)
        self._records.add(record)
        self._tickets[record.drafter_ticket] = (record, False)
        self._tickets[record.owner_ticket] = (record, True)
        record.work = self._plane.background(lambda: self._work(record), f"session-{record.id}")
        return record

    def by_ticket(self, ticket: str) -> tuple[Record, bool]:
        """The record a ticket admits to, and whether as its owner. Raises Unauthenticated."""
        found = self._tickets.get(ticket)
        if found is None:
            raise Unauthenticated("the ticket is unknown here or has expired with its session")
        return found

    def owner_joined(self, record: Record) -> None:
        record.owners += 1
        record.refusal = None
        record.session.expect_fresh_numbering()

    def owner_left(self, record: Record, *, delivered: bool) -> None:
        """`delivered`: the owner has had the end of the session, so nobody will come back for it."""
        record.owners -= 1
        if delivered or record.failure is not None or record.opened is None:
            self._forget(record)
        elif record.owners == 0:
            record.owner_lost_at = time.monotonic()

    async def sweep(self) -> None:
        """Forgets sessions whose owner has stayed away too long; until cancelled."""
        grace_s = self._plane.settings.owner_grace_s
        while True:
            await asyncio.sleep(min(_SWEEP_S, max(grace_s / 4, 0.01)))
            now = time.monotonic()
            for record in tuple(self._records):
                if record.owners == 0 and now - record.owner_lost_at > grace_s:
                    if not record.ended:
                        log.info("session %s given up: its owner was away for more than %g s", record.id, grace_s)
                    self._forget(record)

    def _forget(self, record: Record) -> None:
        if record not in self._records:
            return
        self._records.discard(record)
        del self._tickets[record.drafter_ticket], self._tickets[record.owner_ticket]
        if record.work is not None:
            record.work.cancel()

    async def _work(self, record: Record) -> None:
        session, metrics = record.session, self._plane.metrics
        try:
            with self._plane.admission.places(1) as places:
                async with places.turn():
                    record.opened = await session.start()
                    record.announce()
                    while record.finished is None:
                        self._take(record, await session.next())
            metrics.speculated(session.statistics)
        except NacreError as error:
            metrics.failed(error.grpc_status)
            record.failure = error
        except Exception:
            log.exception("session %s failed", record.id)
            record.failure = Internal("internal error; see the gateway's log")
        finally:
            session.close()
            record.announce()

    def _take(self, record: Record, event: pb.Commit | pb.Reanchor | pb.Finished | DraftRefused) -> None:
        match event:
            case pb.Finished():
                record.finished = pb.Finished(reason=event.reason, statistics=record.session.statistics)
            case DraftRefused():
                record.refusal = event.error
            case _:
                record.events.append(event)
                record.forget_lessons(len(record.events) - 1 - MOST_LESSONS)
        record.announce()


def _tail(commit: pb.Commit, position: int) -> pb.Commit:
    """What of a commit lies at or past `position`."""
    skip = max(0, position - commit.position)
    tail = pb.Commit()
    tail.CopyFrom(commit)
    for parallel in (tail.tokens, tail.guessed_by, tail.logprobs):
        del parallel[:skip]
    tail.position = commit.position + skip
    return tail

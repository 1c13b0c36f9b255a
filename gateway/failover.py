"""One generation that outlives its verifiers: placed, opened, and moved whenever the stream breaks before the end.

Why moving is exact: the token at a position is a function of the model, the tokens before it, the parameters and the
seed. So the seed is fixed here if the client gave none, and any replica that is given the committed tokens goes on with
the very same ones. A commit is idempotent by position: what is known already must be equal, what is new is taken.

The ladder when a stream is lost: (1) rejoin the session as its owner where it lives, if that verifier still answers;
(2) open it anew with everything committed so far, on another replica or, once it is back, on the same one; (3) give up
after `failover_wait_s` without a verifier, or after `max_failovers` moves.

A client that drafts on the same stream is told to start its numbering afresh (Reanchor); its drafts under the old
numbers are dropped until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from gateway.drafters import Seat
from gateway.leg import Leg, LegLost
from gateway.plane import Plane
from gateway.upstreams import State, VerifierUpstream
from nacre.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NacreError,
    ResourceExhausted,
    Unavailable,
)
from nacre.text import DOMAINS
from nacre.v1 import session_pb2 as pb
from nacre.wire.errors import StreamEnded

log = logging.getLogger("nacre.gateway")

#: Bits of a seed drawn here: every JSON reader can hold it.
DRAWN_SEED_BITS = 53
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
#: Failures of one verifier that another one may not have.
_MOVABLE = (Unavailable, DeadlineExceeded, ResourceExhausted, Internal, Cancelled)


@dataclass(frozen=True, slots=True)
class DraftRefused:
    """The verifier refused the client's own drafts; the generation goes on without them."""

    error: NacreError


Event: TypeAlias = pb.Commit | pb.Reanchor | pb.Finished | DraftRefused


class RoutedSession:
    """Driven by one task: `start()`, `next()` until Finished, `close()`. Others may `draft()` and `cancel()`."""

    def __init__(self, plane: Plane, request: pb.Open, *, drafters: int, tenant: str = "") -> None:
        self._plane = plane
        self._settings = plane.settings
        self._request = pb.Open()
        self._request.CopyFrom(request)
        if not request.HasField("seed"):
            self._request.seed = plane.settings.seed or secrets.randbits(DRAWN_SEED_BITS)
        self._metadata = (("nacre-tenant", tenant),) if tenant else ()
        served = plane.pool.model()
        self._fingerprint = served.fingerprint
        self._wanted_drafters = 0 if request.speculation == pb.SPECULATION_MODE_OFF else drafters
        self._tokens: list[int] = [*request.prompt, *request.resume]
        if request.domain not in DOMAINS and request.speculation != pb.SPECULATION_MODE_OFF:
            self._request.domain = served.domain(self._tokens)
        self._end = len(request.prompt) + request.max_tokens
        self._leg: Leg | None = None
        self._seat: Seat | None = None
        self._pending: deque[Event] = deque()
        self._cancelled = False
        self._finished: pb.Finished | None = None
        self._parting = False
        self.drafted = False  # ever
        self._drafted = False  # on the present stream
        self._numbering_lost = False  # drop the client's drafts until one begins at node 1
        self._before = pb.SessionStatistics()  # of verifiers that were lost, as far as their commits told
        self._here = pb.SessionStatistics()  # of the present one, likewise
        self.failovers = 0

    # -- what the owner may ask ----------------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        return self._request.seed

    @property
    def position(self) -> int:
        """Committed length, prompt included."""
        return len(self._tokens)

    @property
    def output(self) -> list[int]:
        return self._tokens[len(self._request.prompt) :]

    @property
    def drafter_ticket(self) -> tuple[VerifierUpstream, str] | None:
        """Where a drafter joins this session now; None while it is moving."""
        leg = self._leg
        return None if leg is None else (leg.upstream, leg.opened.drafter_ticket)

    @property
    def statistics(self) -> pb.SessionStatistics:
        """Totals so far; exact once the last verifier has said goodbye, but for verifiers that were lost."""
        last = self._here
        if self._finished is not None:
            last = self._finished.statistics
        elif self._leg is not None and self._leg.farewell is not None:
            last = self._leg.farewell
        return _sum(self._before, last)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> pb.Opened:
        """Opens the session. Raises the NacreError that stands in the way."""
        patience: dict[type[NacreError], float] = {ResourceExhausted: self._settings.queue_timeout_s}
        await self._open(patience, tried=set())
        assert self._leg is not None
        if self._cancelled:  # before there was anyone to tell
            await self.cancel()
        return self._leg.opened

    async def next(self) -> Event:
        """The next new thing. Raises NacreError once the generation cannot go on."""
        assert self._finished is None, "nothing follows Finished"
        while True:
            if self._pending:
                return self._pending.popleft()
            assert self._leg is not None
            try:
                event = self._take(await self._leg.receive(self._settings.progress_timeout_s))
            except LegLost as lost:
                if self._cancelled:
                    return self._finish(pb.Finished(reason=pb.FINISH_REASON_CANCELLED, statistics=self._here))
                await self._recover(self._leg, lost)
                if self._cancelled:  # while it was moving
                    await self.cancel()
                continue
            if event is not None:
                return event

    async def draft(self, draft: pb.Draft) -> None:
        """Passes the client's own guesses on."""
        leg = self._leg
        if leg is None or self._finished is not None or (self._numbering_lost and draft.first_node != 1):
            return
        self._numbering_lost = False
        self.drafted = self._drafted = True
        await leg.send(pb.SessionRequest(draft=draft))

    def expect_fresh_numbering(self) -> None:
        """The client has come back on a new stream: its numbers start at 1 again."""
        self._numbering_lost = True

    async def cancel(self) -> None:
        """No more tokens are wanted; `next()` will end with Finished."""
        self._cancelled = True
        if self._leg is not None:
            await self._leg.send(pb.SessionRequest(cancel=pb.Cancel()))

    def close(self) -> None:
        """Lets go of the verifier, giving the session up if it is not over. Never waits."""
        self._leave_seat()
        if self._leg is not None and not self._parting:
            self._parting = True
            self._part(self._leg, cancel=self._finished is None)

    async def settled(self, timeout_s: float) -> None:
        """After `close()`: waits for the verifier's last word, which completes `statistics`."""
        if self._parting and self._leg is not None and self._finished is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._leg.over.wait()

    # -- events --------------------------------------------------------------------------------------------------

    def _take(self, event: pb.SessionEvent) -> Event | None:
        match event.WhichOneof("body"):
            case "commit":
                return self._commit(event.commit)
            case "reanchor":  # the upstream is a gateway itself and has moved the session
                return event.reanchor
            case "finished":
                if event.finished.reason == pb.FINISH_REASON_CANCELLED and not self._cancelled:
                    raise LegLost(Unavailable("the verifier gave the session up"))
                return self._finish(event.finished)
            case _:
                log.debug("an event of a kind this version does not know was ignored")
                return None

    def _commit(self, commit: pb.Commit) -> pb.Commit | None:
        """The part of a commit that is new; None if nothing is. Raises Internal on a contradiction."""
        known = self.position - commit.position
        if known < 0:
            raise LegLost(Internal(f"a commit begins at {commit.position}, {-known} tokens after what was committed"))
        overlap = commit.tokens[:known]
        if self._tokens[commit.position : commit.position + len(overlap)] != overlap:
            self._plane.metrics.contradiction()
            raise Internal(
                f"a verifier committed other tokens at position {commit.position} than were committed before; "
                "its replicas do not agree"
            )
        tokens = commit.tokens[known:]
        if self.position + len(tokens) > self._end:
            raise Internal(f"a verifier committed past position {self._end}, the end of this generation")
        self._count(commit, len(tokens))
        if not tokens:
            return None
        if self._seat is not None:
            self._seat.committed(commit)
        if known:
            for parallel in (commit.tokens, commit.guessed_by, commit.logprobs):
                del parallel[:known]
            commit.position = self.position
        self._tokens.extend(tokens)
        return commit

    def _count(self, commit: pb.Commit, new: int) -> None:
        here = self._here
        here.tokens += new
        if commit.rows:
            here.passes += 1
            here.rows += commit.rows
            here.verified_guesses += commit.rows - 1
            here.accepted_guesses += sum(1 for source in commit.guessed_by if source)
            here.verify_ms += commit.verify_ms

    def _finish(self, finished: pb.Finished) -> pb.Finished:
        self._finished = finished
        self._leave_seat()
        return finished

    # -- opening and moving --------------------------------------------------------------------------------------

    async def _recover(self, leg: Leg, lost: LegLost) -> None:
        """The stream is gone: find the session again or carry it elsewhere. Raises the error if neither is possible."""
        error = lost.error
        refused = self._drafted and isinstance(error, InvalidArgument | ResourceExhausted)
        if not refused and not isinstance(error, _MOVABLE):
            raise error
        begun = time.monotonic()
        self._leg, self._numbering_lost, self._drafted = None, True, False
        if lost.silent:  # it may still hear that nobody wants its tokens any more
            self._part(leg)
        else:
            leg.cut()
        if self.failovers >= self._settings.max_failovers:
            self._plane.metrics.failover("reopen", "failure")
            raise Unavailable(
                f"the generation has moved {self.failovers} times, its limit; the last loss: {error.message}"
            )
        self.failovers += 1
        log.warning("stream to %s lost after %d tokens: %s", leg.upstream.address, len(self.output), error.message)
        if isinstance(error, Unavailable | DeadlineExceeded) and not isinstance(error, StreamEnded):
            self._plane.pool.suspect(leg.upstream)
        if lost.silent or not await self._rejoined(leg):
            self._leave_seat()
            self._before = _sum(self._before, self._here)
            self._here = pb.SessionStatistics()
            # One whose engine failed or went silent is the last to be asked again.
            tried = {leg.upstream.address} if lost.silent or isinstance(error, Internal) else set()
            try:
                await self._open(dict.fromkeys(_MOVABLE, self._settings.failover_wait_s), tried)
            except NacreError:
                self._plane.metrics.failover("reopen", "failure")
                raise
            self._plane.metrics.failover("reopen", "success")
        self._plane.metrics.failover_gap(time.monotonic() - begun)
        self._pending.append(pb.Reanchor(position=self.position))
        if refused:
            self._pending.append(DraftRefused(error))

    async def _rejoined(self, lost: Leg) -> bool:
        """Whether the session was found where it lived."""
        if not lost.opened.owner_ticket or lost.upstream.state not in (State.UP, State.SUSPECT, State.DRAINING):
            return False
        join = pb.Join(
            handshake=self._request.handshake,
            ticket=lost.opened.owner_ticket,
            position=self.position,
            observe=self._request.observe,
        )
        try:
            leg = await self._begun(lost.upstream, pb.SessionRequest(join=join), self._settings.rejoin_timeout_s)
        except NacreError as error:
            log.info("the session is not to be found at %s any more: %s", lost.upstream.address, error.message)
            self._plane.metrics.failover("rejoin", "failure")
            return False
        self._plane.metrics.failover("rejoin", "success")
        self._leg = leg
        return True

    async def _open(self, patience: dict[type[NacreError], float], tried: set[str]) -> None:
        """Opens on the best verifier, going on to the next one where that may help.

        `patience` says how long to try again in the face of an error, by its type; `tried` are verifiers to leave out
        as long as there are others. Raises the last error.
        """
        begun = time.monotonic()
        wait_s = _FIRST_WAIT_S
        failure: NacreError | None = None
        while True:
            try:
                verifier = self._plane.pool.place(frozenset(tried), fingerprint=self._fingerprint)
            except (Unavailable, ResourceExhausted) as nobody:
                failure = failure or nobody
                spent = time.monotonic() - begun
                limit = patience.get(type(failure), 0.0)
                if self._plane.pool.undecided:
                    limit = max(limit, self._settings.poll_timeout_s)
                if spent >= limit:
                    raise failure from None
                await self._plane.pool.changed(min(wait_s, limit - spent))
                if wait_s > _FIRST_WAIT_S:  # one that comes and goes must not be asked without a pause
                    await asyncio.sleep(_FIRST_WAIT_S)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                tried.clear()
                failure = None
                continue
            try:
                await self._open_at(verifier)
                return
            except _MOVABLE as error:
                failure = error
                tried.add(verifier.address)
                log.info("%s does not take the session: %s", verifier.address, error.message)
                if isinstance(error, Unavailable | DeadlineExceeded):
                    self._plane.pool.suspect(verifier)

    async def _open_at(self, verifier: VerifierUpstream) -> None:
        request = pb.Open()
        request.CopyFrom(self._request)
        request.resume[:] = self.output
        leg = await self._begun(verifier, pb.SessionRequest(open=request), self._settings.open_timeout_s)
        opened = leg.opened
        if opened.system_fingerprint != self._fingerprint:
            self._part(leg)
            raise Unavailable(
                f"{verifier.address} serves {opened.system_fingerprint!r} now; this generation began on "
                f"{self._fingerprint!r}"
            )
        self._leg = leg
        self._seat = self._plane.drafters.seat(
            verifier.address, opened.drafter_ticket, self._wanted_drafters, self._request.domain
        )

    async def _begun(self, verifier: VerifierUpstream, first: pb.SessionRequest, timeout_s: float) -> Leg:
        """A stream that the verifier has answered. One that it has not may still have opened a session: cancel that."""
        leg = Leg(verifier, owner=True, metadata=self._metadata)
        try:
            await leg.begin(first, self._plane.tasks, timeout_s=timeout_s)
        except BaseException:
            self._part(leg)
            raise
        return leg

    def _part(self, leg: Leg, *, cancel: bool = True) -> None:
        self._plane.background(lambda: leg.part(cancel=cancel), "parting from a verifier")

    def _leave_seat(self) -> None:
        if self._seat is not None:
            self._plane.drafters.leave(self._seat)
            self._seat = None


def _sum(a: pb.SessionStatistics, b: pb.SessionStatistics) -> pb.SessionStatistics:
    total = pb.SessionStatistics()
    for field in pb.SessionStatistics.DESCRIPTOR.fields:
        setattr(total, field.name, getattr(a, field.name) + getattr(b, field.name))
    return total

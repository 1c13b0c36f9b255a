"""Hosts the sessions of one verifier: tickets, the owner's grace period, and the batch loop around the engine.

The event loop owns every session machine; one worker thread owns the engine. A pass is an effect of the machines whose
completion is an input to them: `plan` all sessions with work, run one packed forward in the thread, `resolve`. While
a pass runs, drafts keep arriving and join the trees; the next plan finds them there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nacre.drafting import HiddenStates
from nacre.errors import Internal, NacreError, ResourceExhausted, Unauthenticated, Unavailable
from nacre.runtime.drafter_memory import DrafterMemory
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.local_drafting import LocalDrafting
from nacre.runtime.store_writer import KEPT_BEST, StoreWriter
from nacre.runtime.verify_pass import EngineSession, PassItem, PassResult, VerifyPass
from nacre.scheduling import Pacer, PassCosts, RowBudget, Waiting
from nacre.scheduling.turns import gives_way
from nacre.session import Received, SpeculationMode, VerifierSession
from nacre.session.messages import Draft
from nacre.session.observed import Observed, ObservedLog

log = logging.getLogger("nacre.verifier")

TIMER_S = 0.001  # so much too early may timers ring: uvloop counts whole milliseconds


@dataclass(frozen=True, slots=True)
class HostLimits:
    """`grace_s` is how long a session without its owner keeps its place; `chunk_rows` bounds prompt rows in a pass."""

    max_sessions: int = 64
    grace_s: float = 30.0
    chunk_rows: int = 256
    budget: RowBudget = field(default_factory=RowBudget)


class VerifierHost:
    """Owns sessions and the batch loop. `run()` must be running for sessions to progress.

    `ready` may hold sessions back from a pass (methods that work in lock-step do); it is asked whenever something
    has arrived. `local` guesses in here, for every session that speculates. `writer` is told what passes found out.
    """

    def __init__(
        self,
        verify_pass: VerifyPass,
        limits: HostLimits,
        *,
        pacer: Pacer | None = None,
        observe: Callable[[PassResult], None] | None = None,
        ready: Callable[[HostedSession], bool] | None = None,
        local: LocalDrafting | None = None,
        writer: StoreWriter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.draining = False
        self.passes = 0
        self.pacer = pacer or Pacer(PassCosts([(1, 1.0), (2, 1.01)]), limits.budget)
        self._pass = verify_pass
        self._observe = observe
        self._ready = ready
        self._local = local
        self._writer = writer
        self._clock = clock
        self._sessions: dict[str, HostedSession] = {}
        self._tickets: dict[str, tuple[HostedSession, bool]] = {}  # ticket -> (session, admits the owner)
        self._work = asyncio.Event()
        self._emptied = asyncio.Event()
        self._resolved: list[EngineSession] = []
        self._closing: list[EngineSession] = []
        self._drafters = DrafterMemory()
        self._offer = limits.budget.session_rows
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nacre-engine")

    # -- sessions ------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Iterable[HostedSession]:
        return self._sessions.values()

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    def open(
        self,
        machine: VerifierSession,
        engine: EngineSession,
        seed: int,
        *,
        prediction: tuple[int, ...] = (),
        domain: str = "",
    ) -> HostedSession:
        """Admits a session; its opener is its owner. Raises ResourceExhausted or Unavailable.

        `prediction` is what the owner expects the output to be, `domain` what the text is like: for those that guess.
        """
        if self.draining:
            raise Unavailable("this verifier is draining; open the session on another one")
        if len(self._sessions) >= self.limits.max_sessions:
            raise ResourceExhausted(
                f"{len(self._sessions)} sessions are open; this verifier takes {self.limits.max_sessions}: try later"
            )
        off = machine.mode is SpeculationMode.OFF
        session = HostedSession(
            id=secrets.token_hex(6),
            drafter_ticket=secrets.token_urlsafe(18),
            owner_ticket=secrets.token_urlsafe(18),
            machine=machine,
            engine=engine,
            seed=seed,
            prediction=prediction,
            domain=domain,
            owners=1,
            ready_since=self._clock(),
            observed=ObservedLog(expected=0 if off else self._drafters.learnt(engine.tenant)),
            kept_best=KEPT_BEST if self._writer is not None and self._writer.keeps(engine.tenant) else 0,
        )
        self._sessions[session.id] = session
        self._tickets[session.drafter_ticket] = (session, False)
        self._tickets[session.owner_ticket] = (session, True)
        if session.ended:  # resumed at its very end: nothing to compute
            self._retire(session)
        self._work.set()
        return session

    async def empty(self) -> None:
        """Returns once no open session has its owner here: nothing is computed for one who is away."""
        while any(session.owners for session in self._sessions.values()):
            self._emptied.clear()
            await self._emptied.wait()

    def by_ticket(self, ticket: str) -> tuple[HostedSession, bool]:
        """The session a ticket admits to, and whether as its owner. Raises Unauthenticated."""
        found = self._tickets.get(ticket)
        if found is None:
            raise Unauthenticated("the ticket is unknown here or has expired with its session")
        return found

    def owner_joined(self, session: HostedSession) -> None:
        session.owners += 1
        session.owner_lost_at = None
        self._work.set()

    def owner_left(self, session: HostedSession) -> None:
        """The owner's stream broke without a Cancel: keep the place for the grace period, compute nothing meanwhile."""
        session.owners -= 1
        if session.owners == 0:
            session.owner_lost_at = self._clock()
            self._emptied.set()

    def join(self, session: HostedSession, method: str) -> int:
        """Admits a drafter; it starts with the reputation that drafters of its method have with the tenant."""
        session.drafter_joined()
        session.arrivals.like = self._drafters.answers(method) or session.arrivals.like
        return session.machine.join(self._drafters.reputation(session.engine.tenant, method))

    def leave(self, session: HostedSession, ordinal: int, method: str) -> None:
        session.observed.leave(ordinal)
        stream = session.machine.streams.get(ordinal)
        if stream is not None and stream.reputation is not None:
            answers = None if stream.local else session.arrivals.times
            self._drafters.left(session.engine.tenant, method, stream.reputation, answers)
        session.machine.leave(ordinal)

    def draft(self, session: HostedSession, ordinal: int, draft: Draft, size_bytes: int) -> Received:
        session.totals.drafts += 1
        session.totals.received += len(draft.tokens)
        session.totals.draft_bytes += size_bytes
        received = session.machine.draft(ordinal, draft)
        if received.live:
            own = self._local.hanging(session) if self._local is not None else 0
            session.arrivals.came(self._clock(), hungry=len(session.machine.tree) - own < self._offer)
        self._work.set()
        return received

    @property
    def offer(self) -> int:
        """Rows that each of the sessions open now could use: what a drafter is told that joins."""
        return self.pacer.offer(max(1, len(self._sessions)))

    def cancel(self, session: HostedSession) -> None:
        if not session.ended:
            session.machine.cancel()
            self._retire(session)

    def fail(self, session: HostedSession, error: NacreError) -> None:
        if not session.ended:
            session.failure = error
            self._retire(session)

    def _retire(self, session: HostedSession) -> None:
        """The session has ended: its memory and tickets go; listeners still read their last events from the object."""
        if self._sessions.pop(session.id, None) is None:
            return
        del self._tickets[session.drafter_ticket], self._tickets[session.owner_ticket]
        self._closing.append(session.engine)
        if session.drafted:
            self._drafters.ended(session.engine.tenant, session.observed.wanted)
        if self._local is not None:
            ordinal = self._local.close(session)
            if ordinal is not None:
                self.leave(session, ordinal, self._local.METHOD)
        if self._writer is not None and session.kept_best and session.failure is None:
            self._writer.ended(session.engine.tenant, session.machine.tokens[session.machine.prompt_length :])
        session.announce()
        self._emptied.set()
        self._work.set()

    # -- the batch loop ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs passes for as long as there is work; cancelled to stop. Engine memory is released at the end."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._work.wait()
                # Let what has arrived meanwhile in: drafts into the trees, commits out to the listeners.
                await asyncio.sleep(0)
                if await self._paused():
                    continue
                for local, session in self._guided_here():
                    local.guess(session, self._offer - 1, self.pacer.row_worth)
                items = self._collect()
                if not items and not self._closing:
                    self._work.clear()
                    continue
                # Only now: what the last pass has settled must reach the engine before the next one, however late.
                resolved, self._resolved = self._resolved, []
                closing, self._closing = self._closing, []
                computing = loop.run_in_executor(self._thread, self._pass.run, items, resolved, closing)
                if self._local is not None:
                    self._local.study(item.session for item in items)
                result = await computing
                self.passes += 1
                self._settle(result)
        finally:
            self._thread.shutdown(wait=True)

    def _guided_here(self) -> list[tuple[LocalDrafting, HostedSession]]:
        """Who guesses here for whom: every session that the next pass may take, where it could take guesses at all."""
        local = self._local
        if local is None or self._offer == 1:
            return []
        guided = [session for session in self._plannable() if session.machine.mode is not SpeculationMode.OFF]
        for session in guided:
            if not local.knows(session):
                reputation = self._drafters.reputation(session.engine.tenant, local.METHOD)
                local.open(session, session.machine.join(reputation, local=True))
        return [(local, session) for session in guided]

    async def _paused(self) -> bool:
        """Waits for guesses that are worth it; True if something has come meanwhile, so that all is new."""
        waiting = [
            Waiting(session.machine.tree, session.arrivals, session.machine.hit_rate) for session in self._plannable()
        ]
        pause_s = self.pacer.pause_s(self._clock(), waiting)
        if pause_s <= 0:
            return False
        for local, session in self._guided_here():
            local.think(session)
        self._work.clear()
        try:
            async with asyncio.timeout(pause_s + TIMER_S):
                await self._work.wait()
        except TimeoutError:
            came = self._work.is_set()  # in the very same turn
            self._work.set()
            return came
        return True

    def expire(self) -> None:
        """Cancels sessions whose owner has stayed away beyond the grace period. Call about once a second.

        Sessions that `ready` holds back are asked again, too: it may go by the clock.
        """
        if self._ready is not None:
            self._work.set()
        now = self._clock()
        for session in list(self._sessions.values()):
            if session.owner_lost_at is not None and now - session.owner_lost_at > self.limits.grace_s:
                log.info("session %s cancelled: its owner was away for over %.0f s", session.id, self.limits.grace_s)
                self.cancel(session)

    def _plannable(self) -> list[HostedSession]:
        ready = [s for s in self._sessions.values() if s.machine.plannable and s.owner_lost_at is None]
        return ready if self._ready is None else [session for session in ready if self._ready(session)]

    def _collect(self) -> list[PassItem]:
        """One item per session that can use a pass, in the order in which they get room."""
        ready = self._plannable()
        # Who has begun comes first: two sessions without room for both must not take it from each other in turns.
        now = self._clock()
        ready.sort(key=lambda session: (not session.engine.begun, _gives_way(session, now), session.ready_since))
        ready = ready[: self.limits.budget.pass_rows]
        rows = self.pacer.share([session.machine.tree for session in ready]).rows
        self._offer = self.pacer.offer(max(1, len(ready)))
        keep = self._writer is not None and self._writer.wants
        for session in ready:
            session.totals.started += 1
        return [
            PassItem(
                session,
                session.engine,
                session.machine,
                session.machine.plan(count),
                (now - session.ready_since) * 1e3,
                session.observe(keep=keep),
                session.observed.best > 0 and self._offer > 1,
            )
            for session, count in zip(ready, rows, strict=True)
        ]

    def _settle(self, result: PassResult) -> None:
        now = self._clock()
        share_ms = result.duration_ms / max(1, len(result.outcomes))
        tokens = 0
        for outcome in result.outcomes:
            session: HostedSession = outcome.item.session
            machine, plan = session.machine, outcome.item.plan
            if outcome.deferred:
                machine.abandon(plan)
                continue
            session.ready_since = now
            if outcome.error is not None:
                machine.abandon(plan)
                error = outcome.error
                if not isinstance(error, NacreError):
                    log.error("pass failed for session %s", session.id, exc_info=error)
                    error = Internal("the forward pass failed; see the verifier's log")
                self.fail(session, error)
                continue
            prompt_ms = share_ms * outcome.prompt_share
            session.totals.prompt_read(min(outcome.cached_tokens, machine.prompt_length), prompt_ms)
            session.observed.add(*Observed.of_text(machine.tokens, outcome.prompt_end, outcome.prompt_best))
            # A chunk of the prompt, so the tip's turn comes later; or the session was cancelled while the pass ran.
            if outcome.sampled is None or session.ended:
                machine.abandon(plan)
                continue
            resolution = machine.resolve(
                plan,
                outcome.sampled,
                row_budget=self._offer,
                verify_ms=result.duration_ms,
                queue_ms=outcome.item.queue_ms,
            )
            outcome.resolution = resolution
            session.engine.committed(resolution)
            self._resolved.append(session.engine)
            totals = session.totals
            totals.passes += 1
            totals.rows += len(plan.tokens)
            totals.verified += resolution.planned
            totals.accepted += resolution.matched
            totals.verify_ms += share_ms - prompt_ms
            session.last = resolution.commit
            if outcome.best:
                observed = Observed.of_pass(plan.committed, plan.parents, plan.tokens, outcome.best)
                session.observed.add(observed)
                if self._writer is not None and session.kept_best:
                    self._writer.settled(session.engine.tenant, machine.tokens, observed)
            if outcome.hidden is not None and self._local is not None:
                session.states = HiddenStates(plan.committed, outcome.hidden[list(resolution.path)].cpu().numpy())
            if self._local is not None:
                self._local.settled(session)
            session.arrivals.committed(
                now, hungry=len(machine.tree) == 0, matched=resolution.matched, pass_s=self.pacer.costs.seconds(1)
            )
            tokens += len(resolution.commit.tokens)
            if machine.finished is not None:
                log.debug("session %s finished: %s", session.id, machine.finished.value)
                self._retire(session)
            else:
                session.announce()
        if self._writer is not None:
            self._writer.passed(result.duration_ms / 1e3, result.best_ms / 1e3)
        self.pacer.passed(
            now,
            rows=result.rows,
            seconds=result.duration_ms / 1e3,
            tokens=tokens,
            prompt_rows=sum(outcome.prompt_rows for outcome in result.outcomes),
        )
        if self._observe is not None:
            self._observe(result)


def _gives_way(session: HostedSession, now: float) -> bool:
    throughput = session.machine.mode is SpeculationMode.THROUGHPUT
    return throughput and gives_way(len(session.machine.tree), now - session.ready_since)

"""Drafts for several sessions at once with one proposer in one thread.

The event loop owns the session machines and the streams; the thread owns the proposer and its model. Each step takes
what the verifiers have said meanwhile, picks the nodes most likely to survive over all sessions, lets the proposer
extend them, and sends what is worth sending. Nobody waits for the step: commits are applied to the machines at once,
and guesses below a node that has died meanwhile are dropped.

A message costs the verifier a share of the very core that its engine may run on. So guesses that the next pass would
take go as soon as they are all there or two milliseconds have passed, and everything else waits longer for company.
Drafting rests until they are on the wire: gRPC's threads share the core with ours, and beside a thread that never
sleeps they wait for as long as the system's scheduler lets them, some three milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

from nacre.drafting import DraftContext, Expansion, Guess, Observation, Proposer
from nacre.drafting.proposer import TeachableByTenant, of_vocabulary
from nacre.drafting.rows import Row
from nacre.errors import ResourceExhausted
from nacre.pacing import Reputation
from nacre.runtime.draft_totals import DraftTotals, TakenStep
from nacre.runtime.lessons import Lessons
from nacre.session import Commit, Draft, DrafterLimits, DrafterSession, Reanchor
from nacre.session.observed import observations_of

log = logging.getLogger("nacre.drafter")

Send = Callable[[Draft], None]
#: Returns once everything sent is on the wire.
Delivered = Callable[[], Awaitable[None]]

#: How long guesses wait for company before the first commit has told how long a pass is.
COALESCE_S = 0.02
#: A step shorter than this is not worth the way to another thread and back.
INLINE_S = 0.003
#: The longest rest until urgent guesses are on the wire: a link that takes none must not hold up other sessions.
DELIVERY_S = 0.001
#: Steps that are remembered with their times.
LATEST_STEPS = 1024


@dataclass(frozen=True, slots=True)
class News:
    """A commit, as the proposer is told it: `tokens` are new, `trunk` the nodes that guessed the first of them."""

    tokens: tuple[int, ...]
    trunk: tuple[int, ...]
    seen: tuple[Observation, ...] = ()


@dataclass(slots=True, eq=False)
class _Drafted:
    """One session as the worker sees it. `news` are commits the proposer has not been told yet, in order."""

    number: int
    session: DrafterSession
    context: DraftContext
    send: Send
    failed: Callable[[Exception], None]
    delivered: Delivered | None = None
    opened: bool = False
    rtt_s: float = 0.0
    verify_s: float = 0.0
    flush: asyncio.TimerHandle | None = None
    gathering: bool = False  # urgent guesses wait for those of the next steps
    news: list[News] = field(default_factory=list)
    # What the target thought, of commits that the proposer has been told: the next step is early enough for that.
    unheard: list[tuple[Observation, ...]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Step:
    """What the thread does in one go, in this order."""

    closing: tuple[int, ...]
    learning: bool
    opening: tuple[tuple[int, DraftContext], ...]
    news: tuple[tuple[int, News], ...]
    heard: tuple[tuple[int, tuple[Observation, ...]], ...]
    wanted: tuple[Expansion, ...]


class DraftWorker:
    """Runs a proposer for many sessions. `run()` must be running for anything to be drafted."""

    def __init__(
        self, proposer: Proposer, limits: DrafterLimits, *, max_sessions: int = 32, batch_nodes: int = 4
    ) -> None:
        self.totals = DraftTotals()
        self.latest: deque[TakenStep] = deque(maxlen=LATEST_STEPS)
        self.max_sessions = max_sessions
        self._proposer = proposer
        self._limits = limits
        self._batch = max(1, min(batch_nodes, proposer.traits.batch))
        self._sessions: dict[int, _Drafted] = {}
        self._closing: list[int] = []
        self._next = 1
        self._reputation = Reputation()
        self._step_s = INLINE_S
        self._wake = asyncio.Event()
        self._urgent: dict[int, Delivered] = {}  # by session: urgent guesses have been sent
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nacre-draft")
        # Tables that tenants share are never taught: one tenant would guess from another's text.
        teachable = proposer.traits.teachable and isinstance(proposer, TeachableByTenant)
        self._lessons = Lessons(cast(TeachableByTenant, proposer).teach) if teachable else None

    @property
    def learns(self) -> bool:
        """Whether the proposer wants to hear what the target thought."""
        return self._proposer.traits.learns

    @property
    def teachable(self) -> bool:
        """Whether `teach` is of any use."""
        return self._lessons is not None

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    def open(
        self,
        context: DraftContext,
        *,
        end_position: int,
        window_nodes: int,
        send: Send,
        failed: Callable[[Exception], None],
        delivered: Delivered | None = None,
        rtt_s: float = 0.0,
        row_budget: int = 0,
    ) -> int:
        """Starts drafting for a session; returns its number here. Raises ResourceExhausted.

        `rtt_s` is how far the verifier is: what is far away must be told of guesses earlier, and of more of them.
        `row_budget` is what the verifier could use of them now: at 1 the prompt waits until a commit says more.
        `failed` is told if the proposer cannot go on with this session; it is closed then, the others go on.
        `delivered`, if given, is awaited for a moment where what was sent is urgent.
        """
        if len(self._sessions) >= self.max_sessions:
            raise ResourceExhausted(
                f"this drafter serves {len(self._sessions)} sessions, its limit; try another drafter or later"
            )
        number = self._next
        self._next += 1
        session = DrafterSession(
            context.tokens,
            end_position=end_position,
            limits=self._limits,
            window_nodes=window_nodes,
            reputation=self._reputation,
            row_budget=row_budget,
        )
        self._sessions[number] = _Drafted(number, session, context, send, failed, delivered, rtt_s=rtt_s)
        self._wake.set()
        return number

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """What sessions of a tenant have seen elsewhere. The proposer learns it a few milliseconds a step."""
        if self._lessons is not None and (rows or outputs):
            self._lessons.add(tenant, rows, outputs)
            self._wake.set()

    def committed(self, number: int, commit: Commit) -> None:
        """The verifier's word for a session. Raises FailedPrecondition on a gap: join again."""
        drafted = self._sessions.get(number)
        if drafted is None:  # closed, or given up after a failure
            return
        rollback = drafted.session.committed(commit)
        self.totals.right += len(rollback.trunk)
        self.totals.lost += rollback.lost
        seen: tuple[Observation, ...] = ()
        if self.learns:
            tokens = drafted.session.tokens
            seen = tuple(chain.from_iterable(observations_of(tokens, observed) for observed in commit.observed))
        if rollback.tokens:
            drafted.news.append(News(rollback.tokens, rollback.trunk, seen))
        if commit.verify_ms > 0:
            drafted.verify_s = commit.verify_ms / 1e3
            drafted.session.passes_away = drafted.rtt_s / drafted.verify_s
        # The window has room again, or a verifier that was behind has caught up; and it is about to begin a pass.
        self._offer(drafted, gathers=False)
        self._wake.set()

    def reanchored(self, number: int, reanchor: Reanchor) -> None:
        drafted = self._sessions.get(number)
        if drafted is not None:
            drafted.session.reanchored(reanchor)
            self._flush(drafted)

    def close(self, number: int) -> None:
        drafted = self._sessions.pop(number, None)
        self._urgent.pop(number, None)
        if drafted is not None:
            if drafted.flush is not None:
                drafted.flush.cancel()
            if drafted.opened:
                self._closing.append(number)
            self._wake.set()

    async def run(self) -> None:
        """Steps for as long as there is anything to extend; cancelled to stop."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                began = time.perf_counter()
                self._send_gathered()
                await self._let_out()
                step = self._plan()
                if step is None:
                    self._send_gathered(everything=True)
                    self._wake.clear()
                    continue
                started = time.perf_counter()
                if step.opening or step.learning or self._step_s >= INLINE_S:
                    guesses, failures = await loop.run_in_executor(self._thread, self._perform, step)
                else:
                    guesses, failures = self._perform(step)
                    await asyncio.sleep(0)  # what has arrived meanwhile gets its turn
                if not (step.opening or step.learning):  # reading a prompt is no measure
                    self._step_s += 0.1 * (time.perf_counter() - started - self._step_s)
                for number, error in failures.items():
                    self._fail(number, error)
                guessed = self.totals.guessed
                self._apply(step, guesses)
                ended = time.perf_counter()
                if step.wanted:
                    self.latest.append(TakenStep(began, ended, self.totals.guessed - guessed))
                if not (step.opening or step.learning):
                    self.totals.busy_s += ended - began
        finally:
            self._thread.shutdown(wait=True)

    def _plan(self) -> _Step | None:
        candidates: list[tuple[float, int, Expansion]] = []
        for drafted in self._sessions.values():
            for expansion in self._expansions(drafted):
                candidates.append((expansion.path_survival, len(candidates), expansion))
        best = heapq.nlargest(self._batch, candidates, key=lambda item: (item[0], -item[1]))
        wanted = tuple(expansion for _, _, expansion in best)
        learning = bool(self._lessons)
        heard = tuple((drafted.number, seen) for drafted in self._sessions.values() for seen in drafted.unheard)
        # News alone waits for the next extension: telling the proposer early would not make it any faster.
        if not wanted and not self._closing and not learning and not heard:
            return None
        closing, self._closing = tuple(self._closing), []
        opening: list[tuple[int, DraftContext]] = []
        news: list[tuple[int, News]] = []
        asked = {expansion.session for expansion in wanted}
        for drafted in self._sessions.values():
            if not drafted.opened:
                if drafted.number not in asked:  # a prompt is read once guesses of it are wanted
                    continue
                opening.append((drafted.number, drafted.context))
                drafted.opened = True
            news.extend((drafted.number, one) for one in drafted.news)
            drafted.unheard = [one.seen for one in drafted.news if one.seen]
            drafted.news.clear()
        return _Step(closing, learning, tuple(opening), tuple(news), heard, wanted)

    def _expansions(self, drafted: _Drafted) -> list[Expansion]:
        found = []
        for node in drafted.session.frontier(self._batch):
            tokens: list[int] = []
            ids: list[int] = []
            survival = 1.0
            step = node
            while step.parent is not None:
                survival *= step.survival
                tokens.append(step.token)
                ids.append(step.id)
                step = step.parent
            found.append(Expansion(drafted.number, node.id, tuple(reversed(tokens)), tuple(reversed(ids)), survival))
        return found

    def _perform(self, step: _Step) -> tuple[list[list[Guess]], dict[int, Exception]]:
        """In the proposer's thread: guesses per wanted node, and what went wrong per session."""
        started = time.perf_counter()
        failures: dict[int, Exception] = {}
        for number in step.closing:
            self._proposer.close(number)
        if step.learning and self._lessons is not None:
            self._lessons.learn()
        for number, context in step.opening:
            with _noting(failures, number):
                self._proposer.open(number, context)
        for number, news in step.news:
            if number not in failures:
                with _noting(failures, number):
                    self._proposer.committed(number, news.tokens, news.trunk)
        for number, seen in step.heard:
            if number not in failures:
                with _noting(failures, number):
                    self._proposer.observed(number, seen)
        wanted = [item for item in step.wanted if item.session not in failures]
        found: dict[tuple[int, int], list[Guess]] = {}
        try:
            found = self._guess(wanted)
        except Exception:  # noqa: BLE001  find out whose fault it was, one session at a time
            for number in {item.session for item in wanted}:
                with _noting(failures, number):
                    found |= self._guess([item for item in wanted if item.session == number])
        if not (step.opening or step.learning):
            self.totals.propose_s += time.perf_counter() - started
        return [found.get((item.session, item.node_id), []) for item in step.wanted], failures

    def _guess(self, wanted: Sequence[Expansion]) -> dict[tuple[int, int], list[Guess]]:
        guesses = self._proposer.propose(wanted) if wanted else []
        return {(item.session, item.node_id): found for item, found in zip(wanted, guesses, strict=True)}

    def _fail(self, number: int, error: Exception) -> None:
        drafted = self._sessions.get(number)
        if drafted is not None:
            log.warning("drafting for a session ends: %s", error)
            self.close(number)
            drafted.failed(error)

    def _apply(self, step: _Step, guesses: Sequence[Sequence[Guess]]) -> None:
        self.totals.steps += 1
        touched: dict[int, _Drafted] = {}
        for expansion, offered in zip(step.wanted, guesses, strict=True):
            drafted = self._sessions.get(expansion.session)
            if drafted is None:
                continue
            possible = of_vocabulary(offered, drafted.context.vocab_size)
            placed = drafted.session.extend(expansion.node_id, possible)
            self.totals.guessed += sum(1 for node_id in placed if node_id)
            touched[drafted.number] = drafted
        for drafted in touched.values():
            self._offer(drafted)

    def _offer(self, drafted: _Drafted, *, gathers: bool = True) -> None:
        """What the next pass would take waits for a few steps at most; what would only fill up the window, longer."""
        if drafted.session.urgent:
            drafted.gathering = gathers
            if not gathers:
                self._send_urgent(drafted)
        elif drafted.flush is None:
            wait_s = drafted.session.patience * drafted.verify_s or COALESCE_S
            drafted.flush = asyncio.get_running_loop().call_later(wait_s, self._flush, drafted)

    def _send_gathered(self, *, everything: bool = False) -> None:
        """Sends urgent guesses that have waited long enough; everything where no further step will bring more."""
        now = time.perf_counter()
        for drafted in self._sessions.values():
            if drafted.gathering and (everything or not drafted.session.gathers(now, self._step_s)):
                self._send_urgent(drafted)

    def _send_urgent(self, drafted: _Drafted) -> None:
        self._flush(drafted)
        if drafted.delivered is not None:
            self._urgent[drafted.number] = drafted.delivered

    async def _let_out(self) -> None:
        """Returns once what is urgent is on the wire, or after a moment."""
        if not self._urgent:
            return
        urgent, self._urgent = self._urgent, {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DELIVERY_S):
                for delivered in urgent.values():
                    await delivered()

    def _flush(self, drafted: _Drafted) -> None:
        drafted.gathering = False
        if drafted.flush is not None:
            drafted.flush.cancel()
            drafted.flush = None
        for draft in drafted.session.outbox():
            self.totals.sent += len(draft.tokens)
            drafted.send(draft)


@contextlib.contextmanager
def _noting(failures: dict[int, Exception], number: int) -> Iterator[None]:
    """Notes a session's failure instead of raising it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  one session's failure is its own
        failures[number] = error

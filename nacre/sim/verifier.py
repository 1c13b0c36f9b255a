"""The verifier around VerifierSession: sessions, streams, tickets, grace periods and the batch loop, on virtual time.

Rule: the engine never waits for a drafter. Whenever it is free and a session can be planned, a pass starts with what
has arrived; each ready session gets an equal share of the row budget, the one that has waited longest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nacre.errors import NacreError, NotFound
from nacre.session import Draft, Reanchor, SessionLimits, VerifierSession, VerifyPlan, open_session
from nacre.sim.checkers import VerifierChecks
from nacre.sim.messages import Cancel, Finished, Join, Open, Opened, describe
from nacre.sim.network import Stream
from nacre.sim.target import ToyEngine, ToyTarget
from nacre.sim.world import Timer, World


@dataclass(frozen=True, slots=True)
class PassTime:
    """V(rows): duration of a verify pass, linear between measured points and beyond the last two."""

    points: tuple[tuple[int, float], ...] = ((1, 0.029), (8, 0.038), (16, 0.047), (32, 0.064))

    def __call__(self, rows: int) -> float:
        points = self.points
        if len(points) == 1 or rows <= points[0][0]:
            return points[0][1]
        upper = next((i for i, (at, _) in enumerate(points) if rows <= at), len(points) - 1)
        (low, low_s), (high, high_s) = points[upper - 1], points[upper]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)


@dataclass(frozen=True, slots=True)
class VerifierSpec:
    """A verifier: its machine as data, its limits, and its bad luck.

    `failed_pass` is the chance that a pass does not happen and is planned anew; `crash_at_s` is when it dies.
    """

    row_budget: int = 16
    pass_time: PassTime = PassTime()
    limits: SessionLimits = SessionLimits()  # noqa: RUF009  a frozen value
    max_positions: int = 4096
    grace_s: float = 0.5
    failed_pass: float = 0.0
    crash_at_s: float | None = None


@dataclass(slots=True)
class Tally:
    """What a session took on one verifier: passes and rows, and what became of guesses and drafts."""

    passes: int = 0
    rows: int = 0
    verified_guesses: int = 0
    accepted_guesses: int = 0
    live_guesses: int = 0
    late_guesses: int = 0
    dead_guesses: int = 0
    refused_drafts: int = 0


@dataclass(slots=True, eq=False)
class Hosted:
    """A session and everyone connected to it."""

    name: str
    ticket: str
    session: VerifierSession
    engine: ToyEngine
    checks: VerifierChecks | None
    owner: Stream | None
    waiting_since_s: float
    turn: int  # order of its last pass among all sessions' (times tie, and a tie must not favour anyone for ever)
    drafters: dict[Stream, int] = field(default_factory=dict)
    grace: Timer | None = None
    tally: Tally = field(default_factory=Tally)


class VerifierActor:
    """`watch(name, session)` makes the checks of a new session, or None."""

    def __init__(
        self,
        world: World,
        name: str,
        spec: VerifierSpec,
        target: ToyTarget,
        watch: Callable[[str, VerifierSession], VerifierChecks | None],
    ) -> None:
        self.name = name
        self.world = world
        self.spec = spec
        self.alive = True
        self.hosted: dict[str, Hosted] = {}  # by ticket
        self.tallies: dict[str, list[Tally]] = {}  # by session name
        self._target = target
        self._watch = watch
        self._dice = world.dice.child(3, *name.encode())
        self._streams: dict[Stream, Hosted | None] = {}
        self._opened = 0
        self._turns = 0
        self._busy = False
        if spec.crash_at_s is not None:
            world.at(spec.crash_at_s, self.crash)

    def accept(self, stream: Stream) -> None:
        if self.alive:
            self._streams[stream] = None
        else:
            stream.cut()

    def crash(self) -> None:
        """Dies with everything it holds."""
        self.world.note(self.name, "crashes")
        self.alive = False
        self.hosted.clear()
        for stream in list(self._streams):
            stream.cut()
        self._streams.clear()

    def receive(self, stream: Stream, message: object) -> None:
        if not self.alive:
            return
        match message:
            case Open():
                self._open(stream, message)
            case Join(owner=True):
                self._owner_back(stream, message)
            case Join():
                self._join(stream, message)
            case Draft():
                self._draft(stream, message)
            case Cancel():
                hosted = self._streams.get(stream)
                if hosted is not None:
                    hosted.session.cancel()
                    self._conclude(hosted)

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        if not self.alive:
            return
        hosted = self._streams.pop(stream, None)
        if hosted is None:
            return
        if stream is hosted.owner:
            hosted.owner = None
            if hosted.grace is None:
                hosted.grace = self.world.after(self.spec.grace_s, lambda: self._expire(hosted))
        else:
            self._leave(hosted, stream)

    # -- streams -------------------------------------------------------------------------------------------------

    def _open(self, stream: Stream, message: Open) -> None:
        session = open_session(
            message.prompt,
            resume=message.resume,
            max_tokens=message.max_tokens,
            max_positions=self.spec.max_positions,
            vocab_size=self._target.vocab_size,
            stop_ids=message.stop_ids,
            keep_choices=message.keep_choices,
            limits=self.spec.limits,
        )
        self._opened += 1
        hosted = Hosted(
            name=message.session,
            ticket=f"{message.session}/{self.name}/{self._opened}",
            session=session,
            engine=ToyEngine(self._target, session.tokens),
            checks=self._watch(message.session, session),
            owner=stream,
            waiting_since_s=self.world.now_s,
            turn=self._next_turn(),
        )
        self.hosted[hosted.ticket] = hosted
        self.tallies.setdefault(hosted.name, []).append(hosted.tally)
        self._streams[stream] = hosted
        stream.send(self, self._opened_for(hosted, ()))
        if session.finished is not None:
            self._conclude(hosted)
        self._start_pass()

    def _owner_back(self, stream: Stream, message: Join) -> None:
        hosted = self.hosted.get(message.ticket)
        if hosted is None:
            self._refuse(stream, NotFound("no such session; open it anew"))
            return
        if hosted.owner is not None:  # the old stream is dead, only not noticed here yet
            self._streams.pop(hosted.owner, None)
            hosted.owner.close(self)
        if hosted.grace is not None:
            hosted.grace.cancel()
            hosted.grace = None
        hosted.owner = stream
        self._streams[stream] = hosted
        stream.send(self, hosted.session.replay(message.position))
        if hosted.session.finished is not None:
            self._conclude(hosted)

    def _join(self, stream: Stream, message: Join) -> None:
        hosted = self.hosted.get(message.ticket)
        if hosted is None or hosted.session.finished is not None:
            self._refuse(stream, NotFound("no such session, or it is over"))
            return
        session = hosted.session
        try:
            ordinal = session.join()
        except NacreError as error:
            self._refuse(stream, error)
            return
        hosted.drafters[stream] = ordinal
        self._streams[stream] = hosted
        if hosted.checks is not None:
            hosted.checks.joined(ordinal)
        if message.position == 0:
            stream.send(self, self._opened_for(hosted, tuple(session.tokens)))
            return
        stream.send(self, Reanchor(len(session.tokens)))
        if session.replay_from <= message.position < len(session.tokens):
            stream.send(self, session.replay(message.position))

    def _draft(self, stream: Stream, draft: Draft) -> None:
        hosted = self._streams.get(stream)
        if hosted is None or stream not in hosted.drafters:
            return
        ordinal = hosted.drafters[stream]
        try:
            received = hosted.session.draft(ordinal, draft)
        except NacreError as error:
            hosted.tally.refused_drafts += 1
            if hosted.checks is not None:
                hosted.checks.refused(ordinal, draft)
            self._refuse(stream, error)
            self._leave(hosted, stream)
            return
        hosted.tally.live_guesses += received.live
        hosted.tally.late_guesses += received.late
        hosted.tally.dead_guesses += received.dead
        if self.world.recording:
            self.world.note(f"{self.name} has from stream {ordinal}", describe(received))
        if hosted.checks is not None:
            hosted.checks.drafted(ordinal, draft, received)

    def _opened_for(self, hosted: Hosted, tokens: tuple[int, ...]) -> Opened:
        session = hosted.session
        return Opened(
            ticket=hosted.ticket,
            tokens=tokens,
            prompt_length=session.prompt_length,
            end_position=session.end_position,
            window_nodes=session.limits.window_nodes,
        )

    def _refuse(self, stream: Stream, error: NacreError) -> None:
        self._streams.pop(stream, None)
        stream.close(self, error)

    def _leave(self, hosted: Hosted, stream: Stream) -> None:
        ordinal = hosted.drafters.pop(stream, None)
        if ordinal is not None:
            hosted.session.leave(ordinal)
            if hosted.checks is not None:
                hosted.checks.left(ordinal)

    def _expire(self, hosted: Hosted) -> None:
        hosted.grace = None
        if hosted.session.finished is None:
            hosted.session.cancel()
            self._conclude(hosted)
        self.hosted.pop(hosted.ticket, None)

    def _conclude(self, hosted: Hosted) -> None:
        """Tells everyone that it is over. The session is kept for a while: an owner that missed it may come back."""
        assert hosted.session.finished is not None
        last = Finished(hosted.session.finished, len(hosted.session.tokens))
        for stream in list(hosted.drafters):
            stream.send(self, last)
            self._end(stream)
            self._leave(hosted, stream)
        if hosted.owner is not None:
            hosted.owner.send(self, last)
            self._end(hosted.owner)
            hosted.owner = None
        if hosted.grace is None:
            hosted.grace = self.world.after(self.spec.grace_s, lambda: self._expire(hosted))

    def _end(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        stream.close(self)

    # -- the engine ----------------------------------------------------------------------------------------------

    def _start_pass(self) -> None:
        if self._busy:
            return
        ready = [hosted for hosted in self.hosted.values() if hosted.session.plannable]
        ready.sort(key=lambda hosted: hosted.turn)
        ready = ready[: self.spec.row_budget]
        if not ready:
            return
        share, extra = divmod(self.spec.row_budget, len(ready))
        batch: list[tuple[Hosted, VerifyPlan]] = []
        for index, hosted in enumerate(ready):
            hosted.turn = self._next_turn()
            rows = share + (index < extra)
            plan = hosted.session.plan(rows)
            if hosted.checks is not None:
                hosted.checks.planned(plan, rows)
            if self.world.recording:
                self.world.note(self.name, describe(plan))
            batch.append((hosted, plan))
        self._busy = True
        duration_s = self.spec.pass_time(sum(len(plan.tokens) for _, plan in batch))
        started_s = self.world.now_s
        self.world.after(duration_s, lambda: self._finish_pass(batch, started_s))

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _finish_pass(self, batch: list[tuple[Hosted, VerifyPlan]], started_s: float) -> None:
        if not self.alive:
            return
        self._busy = False
        for hosted, plan in batch:
            hosted.tally.rows += len(plan.tokens)
            if hosted.session.finished is not None or self._dice.chance(self.spec.failed_pass):
                hosted.session.abandon(plan)
            else:
                self._resolve(hosted, plan, started_s)
        self._start_pass()

    def _resolve(self, hosted: Hosted, plan: VerifyPlan, started_s: float) -> None:
        session = hosted.session
        resolution = session.resolve(
            plan,
            hosted.engine.compute(plan),
            row_budget=self.spec.row_budget,
            verify_ms=(self.world.now_s - started_s) * 1000,
            queue_ms=(started_s - hosted.waiting_since_s) * 1000,
        )
        hosted.engine.advance(resolution.path)
        hosted.waiting_since_s = self.world.now_s
        hosted.tally.passes += 1
        hosted.tally.verified_guesses += resolution.planned
        hosted.tally.accepted_guesses += resolution.matched
        if hosted.checks is not None:
            hosted.checks.resolved(plan, resolution)
        for stream in (hosted.owner, *hosted.drafters):
            if stream is not None:
                stream.send(self, resolution.commit)
        if session.finished is not None:
            self._conclude(hosted)

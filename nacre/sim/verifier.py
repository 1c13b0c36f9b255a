"""The verifier around VerifierSession: sessions, streams, tickets and grace periods, on virtual time.

Rule: the engine never waits for a drafter longer than pays. Its batch loop has a module of its own. An owner hears of
every commit, drafters as the shipped `Hearing` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nacre.errors import NacreError, NotFound
from nacre.pacing import Reputation
from nacre.scheduling import AnswerTimes
from nacre.session import Commit, Draft, Reanchor, Resolution, VerifierSession, open_session
from nacre.sim.batch_loop import BatchLoop, Ready
from nacre.sim.checkers import VerifierChecks
from nacre.sim.core import Core
from nacre.sim.hosted import Admitted, Hosted, PassTime, Tally, VerifierSpec
from nacre.sim.messages import Cancel, Finished, Join, Open, Opened, describe
from nacre.sim.network import Stream
from nacre.sim.target import Target, ToyEngine
from nacre.sim.world import World

__all__ = ["Hosted", "PassTime", "Tally", "VerifierActor", "VerifierSpec"]


class VerifierActor:
    """`watch(name, session)` makes the checks of a new session, or None. `ready` may hold sessions back from a pass."""

    def __init__(
        self,
        world: World,
        name: str,
        spec: VerifierSpec,
        target: Target,
        watch: Callable[[str, VerifierSession], VerifierChecks | None],
        ready: Ready | None = None,
    ) -> None:
        self.name = name
        self.world = world
        self.spec = spec
        self.alive = True
        self.hosted: dict[str, Hosted] = {}  # by ticket
        self.tallies: dict[str, list[Tally]] = {}  # by session name
        self._target = target
        self._watch = watch
        self.core = Core(world)
        self.loop = BatchLoop(world, name, spec, self.core, self.hosted.values, self._settled, ready)
        self._streams: dict[Stream, Hosted | None] = {}
        self._opened = 0
        self._reputation: Reputation | None = None
        self._answers = AnswerTimes()
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
        self.alive = self.loop.alive = False
        self.hosted.clear()
        for stream in list(self._streams):
            stream.cut()
        self._streams.clear()

    def receive(self, stream: Stream, message: object) -> None:
        if not self.alive:
            return
        self.core.spend(self.spec.message_s)
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
            self._leave(hosted, stream)
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
            mode=self.spec.mode,
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
            turn=self.loop.next_turn(),
            missing_rows=message.unseen + (len(message.resume) if message.unseen else 0),
        )
        self.hosted[hosted.ticket] = hosted
        self.tallies.setdefault(hosted.name, []).append(hosted.tally)
        self._streams[stream] = hosted
        self._send(stream, _opened(hosted))
        if session.finished is not None:
            self._conclude(hosted)
        self.loop.wake()

    def _owner_back(self, stream: Stream, message: Join) -> None:
        hosted = self.hosted.get(message.ticket)
        if hosted is None:
            self._refuse(stream, NotFound("no such session; open it anew"))
            return
        if hosted.owner is not None:  # the old stream is dead, only not noticed here yet
            self._streams.pop(hosted.owner, None)
            self._leave(hosted, hosted.owner)
            hosted.owner.close(self)
        if hosted.grace is not None:
            hosted.grace.cancel()
            hosted.grace = None
        hosted.owner = stream
        self._streams[stream] = hosted
        stream.send(self, hosted.session.replay(message.position))
        if hosted.session.finished is not None:
            self._conclude(hosted)
        self.loop.wake()

    def _join(self, stream: Stream, message: Join) -> None:
        hosted = self.hosted.get(message.ticket)
        if hosted is None or hosted.session.finished is not None:
            self._refuse(stream, NotFound("no such session, or it is over"))
            return
        session = hosted.session
        try:
            ordinal = self._admit(session)
        except NacreError as error:
            self._refuse(stream, error)
            return
        self._seat(hosted, stream, ordinal)
        self._streams[stream] = hosted
        if message.position == 0:
            self._send(stream, self._admitted(hosted))
            self.loop.wake()
            return
        stream.send(self, Reanchor(len(session.tokens)))
        if session.replay_from <= message.position < len(session.tokens):
            stream.send(self, session.replay(message.position))

    def _admit(self, session: VerifierSession) -> int:
        """A drafter begins with what drafters before it were worth here (the host keeps that per tenant and method)."""
        if not self.spec.calibrates:
            return session.join()
        return session.join(self._reputation.copy() if self._reputation is not None else Reputation())

    def _seat(self, hosted: Hosted, stream: Stream, ordinal: int) -> None:
        hosted.drafters[stream] = ordinal
        hosted.told[stream] = len(hosted.session.tokens)
        hosted.hearing.joined()
        hosted.arrivals.like = self._answers
        if hosted.checks is not None:
            hosted.checks.joined(ordinal)

    def _draft(self, stream: Stream, draft: Draft) -> None:
        hosted = self._streams.get(stream)
        if hosted is None:
            return
        if stream is hosted.owner and stream not in hosted.drafters:  # it drafts on its own stream
            self._seat(hosted, stream, self._admit(hosted.session))
        if stream not in hosted.drafters:
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
        hosted.tally.drafts += 1
        hosted.tally.live_guesses += received.live
        hosted.tally.late_guesses += received.late
        hosted.tally.dead_guesses += received.dead
        if self.world.recording:
            self.world.note(f"{self.name} has from stream {ordinal}", describe(received))
        if hosted.checks is not None:
            hosted.checks.drafted(ordinal, draft, received)
        self.loop.drafted(hosted, received)

    def _admitted(self, hosted: Hosted) -> Admitted:
        """A drafter is told whether guesses are wanted before it reads the prompt."""
        session = hosted.session
        running = sum(other.session.finished is None for other in self.hosted.values())
        return Admitted(
            ticket=hosted.ticket,
            tokens=tuple(session.tokens),
            prompt_length=session.prompt_length,
            end_position=session.end_position,
            window_nodes=session.limits.window_nodes,
            row_budget=self.loop.offer(running),
        )

    def _refuse(self, stream: Stream, error: NacreError) -> None:
        self._streams.pop(stream, None)
        stream.close(self, error)

    def _leave(self, hosted: Hosted, stream: Stream) -> None:
        hosted.told.pop(stream, None)
        ordinal = hosted.drafters.pop(stream, None)
        if ordinal is not None:
            left = hosted.session.streams[ordinal]
            if left.reputation is not None:
                self._reputation = left.reputation
                self._answers = hosted.arrivals.times
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
        self._tell_drafters(hosted)
        last = Finished(hosted.session.finished, len(hosted.session.tokens))
        for stream in list(hosted.drafters):
            self._leave(hosted, stream)
            if stream is not hosted.owner:
                stream.send(self, last)
                self._end(stream)
        if hosted.owner is not None:
            hosted.owner.send(self, last)
            self._end(hosted.owner)
            hosted.owner = None
        if hosted.grace is None:
            hosted.grace = self.world.after(self.spec.grace_s, lambda: self._expire(hosted))

    def _end(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        stream.close(self)

    # -- the batch loop ------------------------------------------------------------------------------------------

    def _settled(self, hosted: Hosted, resolution: Resolution) -> None:
        session, commit = hosted.session, resolution.commit
        hosted.last = commit
        if hosted.owner is not None:
            self._send(hosted.owner, self._offering(hosted, hosted.owner, commit))
        tells = hosted.hearing.tells(
            wanted=commit.row_budget != 1,
            helped=any(drafter.helps for drafter in session.streams.values()),
            ended=session.finished is not None,
        )
        if tells:
            self._tell_drafters(hosted)
        if session.finished is not None:
            self._conclude(hosted)

    def _tell_drafters(self, hosted: Hosted) -> None:
        """To each what it has not heard of; one on the owner's own stream has heard already."""
        session = hosted.session
        for stream in hosted.drafters:
            known = hosted.told[stream]
            if stream is hosted.owner or known == len(session.tokens):
                continue
            hosted.told[stream] = len(session.tokens)
            assert hosted.last is not None, "what it has not heard of was committed by a pass"
            self._send(stream, self._offering(hosted, stream, _since(session, known, hosted.last)))

    def _send(self, stream: Stream, message: object) -> None:
        self.core.spend(self.spec.message_s)
        stream.send(self, message)

    def _offering(self, hosted: Hosted, stream: Stream, commit: Commit) -> Commit:
        """A drafter that never helps is offered a smaller window."""
        ordinal = hosted.drafters.get(stream)
        if ordinal is None:
            return commit
        window_nodes = hosted.session.streams[ordinal].offered_window
        return commit if commit.window_nodes == window_nodes else replace(commit, window_nodes=window_nodes)


def _opened(hosted: Hosted) -> Opened:
    session = hosted.session
    return Opened(
        ticket=hosted.ticket,
        tokens=(),
        prompt_length=session.prompt_length,
        end_position=session.end_position,
        window_nodes=session.limits.window_nodes,
    )


def _since(session: VerifierSession, known: int, last: Commit) -> Commit:
    """All that was committed past `known` as one commit, with the last pass's figures."""
    if known == last.position:
        return last
    return replace(
        session.replay(known),
        rows=last.rows,
        row_budget=last.row_budget,
        verify_ms=last.verify_ms,
        queue_ms=last.queue_ms,
    )

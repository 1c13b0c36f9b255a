"""A deployment under load in virtual time: builds it from its dials, runs it, and hands out what was seen.

Rule: everything that decides is what ships (session machines, pacer, calibration); everything that takes time is a
dial. A fleet's sessions are placed on the least loaded verifier, as the gateway does; a session that has ended makes
room for the next one that waits.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from nacre.errors import Internal, InvalidArgument
from nacre.sampling import Choice
from nacre.session import DrafterLimits, SessionLimits, SpeculationMode, VerifierSession
from nacre.sim import lockstep
from nacre.sim.acceptance import Acceptance, LineProposer, LineTarget
from nacre.sim.actors import DrafterSpec, OwnerActor, SessionSpec
from nacre.sim.checkers import VerifierChecks
from nacre.sim.dials import Dials
from nacre.sim.dice import Dice, mix
from nacre.sim.drafters import DeviceSeat, DrafterActor, DraftTotals, DraftWorker
from nacre.sim.hosted import Tally, VerifierSpec
from nacre.sim.network import LinkSpec
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import World

_RIGHT = Choice(0)
_NO_BOUND = 1 << 40
#: A session whose streams have been cut so often in a row without a single new token never will have one.
_FRUITLESS_CUTS = 1000


@dataclass(slots=True)
class Generation:
    """One request: when it was made, and (time, new tokens) of every message its client received."""

    asked_s: float
    received: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Seen:
    """What one simulated fleet has shown. Seconds are summed over its machines.

    `began_s` is when the first request was made, `ended_s` when the last one was answered.
    """

    generations: list[Generation] = field(default_factory=list)
    verifiers: int = 1
    tally: Tally = field(default_factory=Tally)
    totals: DraftTotals = field(default_factory=DraftTotals)
    pass_s: float = 0.0
    verifier_busy_s: float = 0.0
    drafter_busy_s: float = 0.0
    drafter_there_s: float = 0.0
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


class Fleet:
    """Some verifiers and the requests that come to them. `first` numbers their texts."""

    def __init__(self, dials: Dials, acceptance: Acceptance, *, first: int = 0, checked: bool = False) -> None:
        self._dials = dials
        self._acceptance = acceptance
        self._first = first
        self._world = World(mix(dials.seed, first))
        self._dice = self._world.dice.child(11)
        self._checked = checked
        self._seen = Seen(verifiers=dials.verifiers)
        self._waiting: deque[tuple[int, float]] = deque()
        self._running = 0
        self._pool = [self._worker(number) for number in range(dials.drafter_pool)]
        ready = lockstep.gate(dials.policy, dials.chunk_nodes) if dials.lock_step else None
        self._verifiers = [
            VerifierActor(self._world, f"v{index}", spec, LineTarget(), self._watch, ready)
            for index, spec in enumerate(self._verifier_specs())
        ]
        self._loads = [0] * dials.verifiers
        self._turns = [0] * dials.verifiers  # when each was last chosen
        self._placed = 0

    def run(self) -> Seen:
        """Runs until the last request is answered.

        Raises Violation if a text comes out wrong, InvalidArgument if streams are cut too often for any text.
        """
        at_s, seen = 0.0, self._seen
        for index in range(self._dials.requests):
            if self._dials.arrivals_per_s > 0:
                at_s += -math.log(1.0 - self._dice.unit()) / self._dials.arrivals_per_s
            if index == 0:
                seen.began_s = at_s
            self._world.at(at_s, lambda index=index: self._arrive(index))  # type: ignore[misc]
        self._world.run(until_s=math.inf, max_events=_NO_BOUND)
        unanswered = self._running + len(self._waiting)
        if unanswered:
            raise Internal(
                f"the simulated world fell silent with {unanswered} of {self._dials.requests} requests unanswered; "
                "that is a bug of the simulator: please report it with these dials"
            )
        for verifier in self._verifiers:
            seen.pass_s += verifier.loop.pass_s
            seen.verifier_busy_s += verifier.core.busy_s
            for tallies in verifier.tallies.values():
                for tally in tallies:
                    _add(seen.tally, tally)
        for worker in self._pool:
            self._count(worker, seen.seconds)
        return seen

    # -- requests ------------------------------------------------------------------------------------------------

    def _arrive(self, index: int) -> None:
        self._waiting.append((index, self._world.now_s))
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._dials.concurrency == 0 or self._running < self._dials.concurrency):
            index, asked_s = self._waiting.popleft()
            self._running += 1
            if self._dials.arrivals_per_s == 0:  # so many clients who ask again as soon as they are answered
                asked_s = self._world.now_s
            self._begin(index, asked_s)

    def _begin(self, index: int, asked_s: float) -> None:
        dials, dice = self._dials, self._dice.child(index)
        rtt_s = dials.rtt_ms.draw(dice) / 1e3
        link = LinkSpec(rtt_s / 2, dials.jitter_ms / 1e3, dials.kbit_per_s * 125)
        prompt = max(1, round(dials.prompt_tokens.draw(dice)))
        output = max(1, round(dials.output_tokens.draw(dice)))
        spec = SessionSpec((0,), output, unseen=prompt - 1, link=link, attach_s=0.0, starts_at_s=self._world.now_s)
        at: list[int] = []  # where it runs now
        seats: list[DrafterActor] = []
        generation = Generation(asked_s)
        started_s = self._world.now_s

        def place() -> int:
            self._leave(at)
            at.append(self._least_loaded())
            return at[-1]

        def ended(owner: OwnerActor) -> None:
            self._leave(at)
            for seat in seats:
                seat.dismiss()
                if seat.worker not in self._pool:
                    self._count(seat.worker, self._world.now_s - started_s)
            self._seen.ended_s = self._world.now_s
            self._running -= 1
            self._admit()

        owner = OwnerActor(
            self._world,
            f"o{index}",
            spec,
            self._verifiers,
            f"s{index}",
            (_RIGHT,) * output,
            checked=self._checked,
            place=place,
            ended=ended,
        )
        owner.max_attempts = _NO_BOUND  # streams are cut as often as the dials say
        generation.received = owner.received
        self._seen.generations.append(generation)
        if dials.policy != "plain":
            seats.extend(self._seats(index, owner, link, prompt))
        if dials.cuts_per_minute > 0:
            self._cut_later(owner, seats, dice)

    def _seats(self, index: int, owner: OwnerActor, link: LinkSpec, prompt: int) -> list[DrafterActor]:
        dials = self._dials
        seats: list[DrafterActor] = []
        for number in range(1 if dials.lock_step else dials.drafters_per_session):
            name = f"d{index}.{number}"
            worker = (
                min(self._pool, key=lambda worker: len(worker.seats)) if self._pool else self._worker(index, number)
            )
            spec = DrafterSpec(limits=self._limits(), link=link)
            kind = lockstep.ChunkSeat if dials.lock_step else DeviceSeat if dials.device else DrafterActor
            seat = kind(self._world, name, spec, worker, checked=self._checked, unseen=prompt - 1)
            proposer = worker.proposer
            assert isinstance(proposer, LineProposer)
            proposer.writes(seat.number, self._first + index)
            if isinstance(seat, DeviceSeat):
                seat.serve(owner)
                owner.own_drafter = seat
            else:
                owner.drafters.append(seat)
            if isinstance(seat, lockstep.ChunkSeat):
                seat.gamma, seat.ahead = dials.chunk_nodes, lockstep.AHEAD[dials.policy]
            seats.append(seat)
        return seats

    def _cut_later(self, owner: OwnerActor, seats: list[DrafterActor], dice: Dice, fruitless: int = 0) -> None:
        """Cuts all streams of a session, again and again, at random times; the last `fruitless` cuts were in vain."""
        known = len(owner.tokens)

        def cut() -> None:
            if owner.done:
                return
            in_vain = fruitless + 1 if len(owner.tokens) == known else 0
            if in_vain == _FRUITLESS_CUTS:
                raise InvalidArgument(
                    f"dial cuts_per_minute is {self._dials.cuts_per_minute:g}; a session had no new token between "
                    f"{in_vain} cuts: its streams live too short for its link and its load",
                    param="cuts_per_minute",
                )
            owner.cut()
            for seat in seats:
                if not isinstance(seat, DeviceSeat):
                    seat.cut()
            self._cut_later(owner, seats, dice, in_vain)

        gap_s = -math.log(1.0 - dice.unit()) * 60 / self._dials.cuts_per_minute
        self._world.after(gap_s, cut)

    # -- machines ------------------------------------------------------------------------------------------------

    def _verifier_specs(self) -> list[VerifierSpec]:
        dials, dice = self._dials, self._dice.child(1 << 32)
        dying = {index for index in range(dials.verifiers) if dice.chance(dials.crash_share)}
        dying.discard(dials.verifiers - 1)  # somewhere every text can be finished
        return [
            VerifierSpec(
                row_budget=dials.pass_rows,
                session_rows=dials.rows_for_one,
                pass_time=dials.pass_time,
                overhead_s=dials.overhead_ms / 1e3,
                commit_s=dials.commit_ms / 1e3,
                message_s=dials.verifier_message_ms / 1e3,
                pauses=dials.pauses and not dials.lock_step,
                rows_cost=not dials.lock_step,
                calibrates=not self._checked and not dials.lock_step,
                mode=SpeculationMode(dials.mode),
                limits=SessionLimits(window_nodes=dials.window_nodes),
                max_positions=_NO_BOUND,
                grace_s=1.0,  # longer than any owner here needs to come back
                crash_at_s=dice.between(0.0, dials.span_s) if index in dying else None,
            )
            for index in range(dials.verifiers)
        ]

    def _limits(self) -> DrafterLimits:
        dials = self._dials
        if dials.lock_step:
            return lockstep.limits(dials.chunk_nodes, dials.window_nodes)
        return DrafterLimits(
            dials.window_nodes, least_survival=dials.least_survival, least_sent_survival=dials.least_sent
        )

    def _worker(self, *number: int) -> DraftWorker:
        dials = self._dials
        speed = self._dice.child(1 << 33, *number).pick(dials.drafter_speeds)
        rivals = 1 if dials.lock_step else None
        batch = 1 if dials.lock_step else dials.batch_nodes
        return DraftWorker(
            self._world,
            LineProposer(self._acceptance, batch=batch, rivals=rivals, sure=dials.lock_step),
            dials.draft_time(speed),
            batch=batch,
            message_s=dials.drafter_message_ms / 1e3,
            token_bytes=dials.token_bytes,
            as_shipped=not self._checked and not dials.lock_step,
        )

    def _watch(self, name: str, session: VerifierSession) -> VerifierChecks | None:
        if not self._checked:
            return None
        return VerifierChecks(session, session.tokens[:1], (_RIGHT,) * (session.end_position - 1))

    def _least_loaded(self) -> int:
        """A living verifier; among equals the one chosen longest ago (`gateway/placement.py`)."""
        living = (index for index, verifier in enumerate(self._verifiers) if verifier.alive)
        index = min(living, key=lambda index: (self._loads[index], self._turns[index]))
        self._placed += 1
        self._turns[index] = self._placed
        self._loads[index] += 1
        return index

    def _leave(self, at: list[int]) -> None:
        if at:
            self._loads[at.pop()] -= 1

    def _count(self, worker: DraftWorker, there_s: float) -> None:
        """Takes over what a drafter has done in `there_s` of being there."""
        _add(self._seen.totals, worker.totals)
        self._seen.drafter_busy_s += worker.core.busy_s
        self._seen.drafter_there_s += there_s


def _add(into: Tally | DraftTotals, other: Tally | DraftTotals) -> None:
    for name in type(into).__slots__:
        setattr(into, name, getattr(into, name) + getattr(other, name))

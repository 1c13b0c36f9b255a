"""The verifier's batch loop in virtual time, with the scheduling rules that ship.

Rule: whenever the engine is free and a session can be planned, the shipped `Pacer` decides which sessions and guesses
get rows, and whether to pause for guesses that are about to arrive. Here is only what it is told (the clock, the time
of passes) and what its decisions cost: `nacre/runtime/verifier_host.py` without threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nacre.scheduling import Pacer, PassCosts, Waiting, share_rows
from nacre.scheduling.turns import gives_way
from nacre.session import Received, Resolution, SpeculationMode, VerifyPlan
from nacre.sim.core import Core
from nacre.sim.dice import Dice
from nacre.sim.hosted import Hosted, VerifierSpec
from nacre.sim.messages import describe
from nacre.sim.world import Timer, World
from nacre.tree import DraftTree

#: Whether a session may have a pass now; methods that work in lock-step hold it back.
Ready = Callable[[Hosted], bool]


@dataclass(frozen=True, slots=True)
class _Share:
    """One session's part of a pass. `prompt_rows` come first; `whole` if the plan's rows are among the rest."""

    hosted: Hosted
    plan: VerifyPlan
    prompt_rows: int
    whole: bool


class BatchLoop:
    """Passes of one verifier. `settled` is told what each pass has committed."""

    def __init__(
        self,
        world: World,
        name: str,
        spec: VerifierSpec,
        core: Core,
        sessions: Callable[[], Iterable[Hosted]],
        settled: Callable[[Hosted, Resolution], None],
        ready: Ready | None,
    ) -> None:
        self.alive = True
        self.pass_s = 0.0  # time of all passes, messages excluded
        self._world = world
        self._name = name
        self._spec = spec
        self._core = core
        self._sessions = sessions
        self._settled = settled
        self._ready = ready
        points = spec.pass_time.points if spec.rows_cost else ((1, spec.pass_time(1)),)
        self._pacer = Pacer(PassCosts(points), spec.budget, pauses=spec.pauses)
        self._offer = spec.budget.session_rows
        self._pause: Timer | None = None
        self._dice: Dice = world.dice.child(3, *name.encode())
        self._turns = 0
        self._busy = False

    def next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def offer(self, sessions: int) -> int:
        """Rows that each of so many sessions could use: what drafters are told. 0, nothing, where rows cost nothing."""
        return self._pacer.offer(max(1, sessions)) if self._spec.rows_cost else 0

    def drafted(self, hosted: Hosted, received: Received) -> None:
        """A message of a drafter has come."""
        if received.live:
            hosted.arrivals.came(self._world.now_s, hungry=len(hosted.session.tree) < self._offer)
        self.wake()

    def wake(self) -> None:
        """Something has come: start a pass if there is work and the engine is free, or pause if that is better."""
        if self._busy or not self.alive:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        ready = self._plannable()
        waiting = [Waiting(hosted.session.tree, hosted.arrivals, hosted.session.hit_rate) for hosted in ready]
        pause_s = self._pacer.pause_s(self._world.now_s, waiting)
        if pause_s > 0:
            self._pause = self._world.after(pause_s, self._start)
        elif ready:
            self._start()

    def _plannable(self) -> list[Hosted]:
        ready = [hosted for hosted in self._sessions() if hosted.session.plannable and hosted.owner is not None]
        return ready if self._ready is None else [hosted for hosted in ready if self._ready(hosted)]

    def _start(self) -> None:
        ready = self._plannable()
        self._pause = None
        if not ready or not self.alive:
            return
        ready.sort(key=lambda hosted: (not hosted.begun, self._gives_way(hosted), hosted.turn))
        ready = ready[: self._spec.row_budget]
        rows_each = self._rows_each([hosted.session.tree for hosted in ready])
        self._offer = self.offer(len(ready))
        room = self._spec.chunk_rows
        batch: list[_Share] = []
        for hosted, count in zip(ready, rows_each, strict=True):
            share = self._plan(hosted, count, room)
            room = max(0, room - share.prompt_rows)
            batch.append(share)
        self._busy = True
        started_s = self._world.now_s
        rows = sum(share.prompt_rows + share.whole * len(share.plan.tokens) for share in batch)
        pass_s = self._spec.pass_time(rows)
        whole_s = pass_s + self._spec.overhead_s + self._spec.commit_s * len(batch)
        self.pass_s += whole_s
        self._core.run(whole_s, lambda: self._finish(batch, started_s, rows, pass_s))

    def _gives_way(self, hosted: Hosted) -> bool:
        if hosted.session.mode is not SpeculationMode.THROUGHPUT:
            return False
        return gives_way(len(hosted.session.tree), self._world.now_s - hosted.waiting_since_s)

    def _rows_each(self, trees: list[DraftTree]) -> list[int]:
        """Where rows cost nothing there is nothing to try either: the pacer's trials are for those that do."""
        if self._spec.rows_cost:
            return self._pacer.share(trees).rows
        return share_rows(trees, self._pacer.costs, self._spec.budget).rows

    def _plan(self, hosted: Hosted, rows: int, room: int) -> _Share:
        hosted.turn = self.next_turn()
        hosted.begun = True
        plan = hosted.session.plan(rows)
        if hosted.checks is not None:
            hosted.checks.planned(plan, rows)
        if self._world.recording:
            self._world.note(self._name, describe(plan))
        whole = hosted.missing_rows <= max(room, 1)
        prompt_rows = hosted.missing_rows if whole else max(room, 1)
        hosted.missing_rows -= prompt_rows
        return _Share(hosted, plan, prompt_rows, whole)

    def _finish(self, batch: list[_Share], started_s: float, rows: int, pass_s: float) -> None:
        if not self.alive:
            return
        self._busy = False
        tokens = 0
        for share in batch:
            hosted, plan = share.hosted, share.plan
            hosted.tally.prompt_rows += share.prompt_rows
            if not share.whole:
                hosted.waiting_since_s = self._world.now_s
                hosted.session.abandon(plan)
                continue
            hosted.tally.rows += len(plan.tokens)
            if hosted.session.finished is not None or self._dice.chance(self._spec.failed_pass):
                hosted.session.abandon(plan)
            else:
                tokens += self._resolve(hosted, plan, started_s)
        prompt_rows = sum(share.prompt_rows for share in batch)
        self._pacer.passed(self._world.now_s, rows=rows, seconds=pass_s, tokens=tokens, prompt_rows=prompt_rows)
        self.wake()

    def _resolve(self, hosted: Hosted, plan: VerifyPlan, started_s: float) -> int:
        resolution = hosted.session.resolve(
            plan,
            hosted.engine.compute(plan),
            row_budget=self._offer,
            verify_ms=(self._world.now_s - started_s) * 1000,
            queue_ms=(started_s - hosted.waiting_since_s) * 1000,
        )
        hosted.engine.advance(resolution.path)
        hosted.waiting_since_s = self._world.now_s
        hosted.arrivals.committed(
            self._world.now_s,
            hungry=len(hosted.session.tree) == 0,
            matched=resolution.matched,
            pass_s=self._pacer.costs.seconds(1),
        )
        hosted.tally.passes += 1
        hosted.tally.verified_guesses += resolution.planned
        hosted.tally.accepted_guesses += resolution.matched
        if hosted.checks is not None:
            hosted.checks.resolved(plan, resolution)
        self._settled(hosted, resolution)
        return len(resolution.commit.tokens)

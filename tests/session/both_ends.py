"""A verifier and its drafters joined by queues, driven one choice at a time, the simulator's checkers beside them.

`choose(n)` picks each step: seeded dice in a loop, or Hypothesis, which shrinks what it finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from nacre.drafting.proposer import Guess
from nacre.errors import NacreError
from nacre.session import Commit, Draft, DrafterLimits, DrafterSession, SessionLimits, VerifyPlan, open_session
from nacre.sim.checkers import DrafterChecks, VerifierChecks
from nacre.sim.target import ToyEngine, ToyTarget

VOCAB = 3
PROMPT = (0, 1, 2)

Choose = Callable[[int], int]


@dataclass
class Drafter:
    """An honest drafter, or (session None) a stream that sends whatever comes up."""

    ordinal: int
    session: DrafterSession | None
    checks: DrafterChecks | None
    verifier_position: int
    up: deque[Draft] = field(default_factory=deque)
    down: deque[Commit] = field(default_factory=deque)


class BothEnds:
    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.target = ToyTarget(choose(1000), VOCAB)
        limits = SessionLimits(window_nodes=1 + choose(6), max_streams=1 + choose(3))
        stop_ids = frozenset({choose(VOCAB)}) if choose(4) == 0 else frozenset[int]()
        max_tokens = 1 + choose(40)
        self.verifier = open_session(
            PROMPT, max_tokens=max_tokens, max_positions=64, vocab_size=VOCAB, stop_ids=stop_ids, limits=limits
        )
        reference = self.target.reference(PROMPT, max_tokens, stop_ids)
        self.checks = VerifierChecks(self.verifier, PROMPT, reference)
        self.engine = ToyEngine(self.target, PROMPT)
        self.drafters: list[Drafter] = []
        self.plan: VerifyPlan | None = None

    def act(self) -> None:
        """One random step of anybody."""
        kind = self.choose(16)
        if kind == 0:
            self.join()
        elif kind in (1, 2):
            if self.plan is None:
                self.start_pass()
            else:
                self.finish_pass()
        elif self.drafters:
            drafter = self.drafters[self.choose(len(self.drafters))]
            if kind == 3:
                self.leave(drafter)
            elif kind in (4, 5, 6):
                self.deliver_up(drafter)
            elif kind in (7, 8):
                self.deliver_down(drafter)
            elif drafter.session is not None:
                self.draft(drafter)
            else:
                drafter.up.append(self.nonsense(drafter))

    def join(self) -> None:
        if len(self.drafters) >= self.verifier.limits.max_streams or self.verifier.finished is not None:
            return
        ordinal = self.verifier.join()
        self.checks.joined(ordinal)
        text = tuple(self.verifier.tokens)
        session = checks = None
        if self.choose(3):
            session = DrafterSession(
                text,
                end_position=self.verifier.end_position,
                limits=DrafterLimits(window_nodes=1 + self.choose(8), nodes_per_draft=1 + self.choose(4)),
                window_nodes=self.verifier.limits.window_nodes,
            )
            checks = DrafterChecks(session)
        self.drafters.append(Drafter(ordinal, session, checks, len(text)))

    def leave(self, drafter: Drafter) -> None:
        self.drafters.remove(drafter)
        self.verifier.leave(drafter.ordinal)
        self.checks.left(drafter.ordinal)

    def start_pass(self) -> None:
        if self.verifier.plannable:
            rows = 1 + self.choose(8)
            self.plan = self.verifier.plan(rows)
            self.checks.planned(self.plan, rows)

    def finish_pass(self) -> None:
        plan, self.plan = self.plan, None
        assert plan is not None
        if self.choose(8) == 0:
            self.verifier.abandon(plan)
            return
        resolution = self.verifier.resolve(plan, self.engine.compute(plan))
        self.engine.advance(resolution.path)
        self.checks.resolved(plan, resolution)
        for drafter in self.drafters:
            drafter.down.append(resolution.commit)

    def draft(self, drafter: Drafter) -> None:
        """Extends a few nodes, rightly or wrongly, and sends."""
        session, checks = drafter.session, drafter.checks
        assert session is not None
        assert checks is not None
        count = self.choose(3)
        nodes = session.frontier(count)
        checks.frontier(nodes, count)
        for node in nodes:
            guesses = [
                Guess(self.choose(VOCAB), (1 + self.choose(4)) / 4, self.choose(i + 1) - 1)
                for i in range(self.choose(4))
            ]
            checks.extended(node.id, guesses, session.extend(node.id, guesses))
        drafts = session.outbox()
        checks.sent(drafts, verifier_position=drafter.verifier_position)
        drafter.up.extend(drafts)

    def nonsense(self, drafter: Drafter) -> Draft:
        """Anything a wire could carry, near enough to sense that about half of it is legal."""
        stream = self.verifier.streams[drafter.ordinal]
        count = self.choose(stream.window_nodes + 2)
        first = (stream.next_node, stream.next_node, stream.next_node, 1, self.choose(12))[self.choose(5)]
        anchor = self.choose(len(self.verifier.tokens) + 2) if self.choose(8) else None
        parents = tuple(self.choose(first + i + 1) for i in range(count)) if self.choose(2) else ()
        confidence = bytes(self.choose(256) for _ in range(count)) if self.choose(2) else b""
        tokens = tuple(self.choose(VOCAB) if self.choose(24) else VOCAB for _ in range(count))
        return Draft(first, tokens, anchor=anchor, parents=parents, confidence=confidence)

    def deliver_up(self, drafter: Drafter) -> None:
        if not drafter.up:
            return
        draft = drafter.up.popleft()
        try:
            received = self.verifier.draft(drafter.ordinal, draft)
        except NacreError:
            assert drafter.session is None, f"an honest draft was refused: {draft}"
            self.checks.refused(drafter.ordinal, draft)
            if self.choose(2):
                self.leave(drafter)
        else:
            self.checks.drafted(drafter.ordinal, draft, received)

    def deliver_down(self, drafter: Drafter) -> None:
        if not drafter.down:
            return
        commit = drafter.down.popleft()
        if drafter.session is not None and drafter.checks is not None:
            drafter.session.committed(commit)
            drafter.verifier_position = commit.end
            drafter.checks.committed()

    def settle(self) -> None:
        """Delivers everything; then both ends must agree, number by number."""
        while any(drafter.up or drafter.down for drafter in self.drafters):
            for drafter in list(self.drafters):
                self.deliver_up(drafter)
                self.deliver_down(drafter)
        for drafter in self.drafters:
            if drafter.session is not None and drafter.checks is not None:
                assert drafter.session.tokens == self.verifier.tokens
                assert drafter.checks.sent_paths == self.checks.streams[drafter.ordinal].live

    def complete(self) -> None:
        """Whatever has happened, plain passes finish the text."""
        if self.plan is not None:
            self.finish_pass()
        while self.verifier.finished is None:
            self.start_pass()
            self.finish_pass()


def exercise(choose: Choose, steps: int) -> None:
    """A whole life: random steps with everything delivered now and then, to the end of the text."""
    ends = BothEnds(choose)
    for number in range(steps):
        ends.act()
        if number % 32 == 31:
            ends.settle()
    ends.complete()
    ends.settle()

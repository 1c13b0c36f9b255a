"""One session of a verifier and everything that is not its protocol: who listens, what it cost, whose it is.

Whoever listens to a session holds a cursor, not a queue: a slow listener gets fewer, larger commits, never a wrong
or lost one, and costs no memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field

from nacre.drafting import HiddenStates
from nacre.errors import NacreError
from nacre.runtime.verify_pass import EngineSession
from nacre.scheduling import Arrivals
from nacre.session import Commit, VerifierSession
from nacre.session.hearing import Hearing
from nacre.session.observed import ObservedLog


@dataclass(slots=True)
class Totals:
    """What a session has cost and gained so far; times in milliseconds."""

    started: int = 0  # passes begun
    drafts: int = 0  # messages received
    passes: int = 0
    rows: int = 0
    verified: int = 0
    accepted: int = 0
    received: int = 0
    draft_bytes: int = 0
    verify_ms: float = 0.0
    prefill_ms: float = 0.0
    cached_tokens: int | None = None  # of the prompt, when its first pass began

    def prompt_read(self, cached_tokens: int, spent_ms: float) -> None:
        """A pass has read a part of the prompt, or nothing of it."""
        if self.cached_tokens is None:
            self.cached_tokens = cached_tokens
        self.prefill_ms += spent_ms


@dataclass(slots=True, eq=False)
class HostedSession:
    """One session and everything that is not its protocol: who listens, what it cost, whether its owner is there."""

    id: str
    drafter_ticket: str
    owner_ticket: str
    machine: VerifierSession
    engine: EngineSession
    seed: int
    #: What the owner expects the output to be, for methods that can use it.
    prediction: tuple[int, ...] = ()
    #: What its text is like, as its owner says, likewise.
    domain: str = ""
    totals: Totals = field(default_factory=Totals)
    failure: NacreError | None = None
    owners: int = 0
    owner_lost_at: float | None = None
    ready_since: float = 0.0
    last: Commit | None = None
    arrivals: Arrivals = field(default_factory=Arrivals)
    drafted: bool = False  # whether a drafter has ever joined
    #: For drafters that learn.
    observed: ObservedLog = field(default_factory=ObservedLog)
    states: HiddenStates | None = None
    #: Best tokens of each row that the store keeps; 0 if it keeps nothing of this session.
    kept_best: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _drafters_changed: asyncio.Event = field(default_factory=asyncio.Event)
    _hearing: Hearing = field(default_factory=Hearing)

    def observe(self, *, keep: bool) -> int:
        """Best tokens that some listener wants of each row or, if it is to `keep` some of this pass, the store."""
        return max(self.kept_best if keep else 0, self.observed.best)

    @property
    def ended(self) -> bool:
        return self.machine.finished is not None or self.failure is not None

    def drafter_joined(self) -> None:
        """Whether guesses are wanted, a new one has yet to hear."""
        self.drafted = True
        self._hearing.joined()

    def announce(self) -> None:
        """Wakes everyone who waits for a change; drafters first, because the next pass may wait for what they say."""
        wanted = self.last is None or self.last.row_budget != 1
        helped = any(stream.helps for stream in self.machine.streams.values())
        if self._hearing.tells(wanted=wanted, helped=helped, ended=self.ended):
            drafters, self._drafters_changed = self._drafters_changed, asyncio.Event()
            drafters.set()
        others, self._changed = self._changed, asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)

    async def changed(self, cursor: int, *, drafter: bool = False) -> None:
        """Returns once there is something past `cursor`, or the session has ended."""
        while len(self.machine.tokens) <= cursor and not self.ended:
            await (self._drafters_changed if drafter else self._changed).wait()

    def commit_since(self, cursor: int, ordinal: int | None = None) -> Commit:
        """Everything committed past `cursor` as one commit, with the last pass's figures and the stream's window.

        What was observed goes with it, once: a stream that asks must tell its drafter.
        """
        commit = self.machine.replay(cursor)
        if self.last is not None:
            last = self.last
            commit = dataclasses.replace(
                commit, rows=last.rows, row_budget=last.row_budget, verify_ms=last.verify_ms, queue_ms=last.queue_ms
            )
        stream = self.machine.streams.get(ordinal) if ordinal is not None else None
        if stream is None:
            return commit
        observed = self.observed.unheard(stream.ordinal)
        return dataclasses.replace(commit, window_nodes=stream.offered_window, observed=observed)

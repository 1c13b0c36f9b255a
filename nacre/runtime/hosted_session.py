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
from nacre.runtime.verify_pass import BestRows, EngineSession
from nacre.scheduling import Arrivals
from nacre.session import Commit, VerifierSession
from nacre.session.observed import Observed

#: Commits that drafters hear of together while none of them helps.
_HEARD_TOGETHER = 4


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
    totals: Totals = field(default_factory=Totals)
    failure: NacreError | None = None
    owners: int = 0
    owner_lost_at: float | None = None
    ready_since: float = 0.0
    last: Commit | None = None
    arrivals: Arrivals = field(default_factory=Arrivals)
    #: Drafters that learn: ordinal -> how many best tokens they want to hear of at each row.
    observers: dict[int, int] = field(default_factory=dict)
    observed: Observed | None = None
    states: HiddenStates | None = None
    #: Whether prompt rows are observed too, and what was: (the position after the last of the rows, their best tokens).
    observe_prompt: bool = False
    prompt_observed: list[tuple[int, BestRows]] = field(default_factory=list)
    #: Best tokens of each row that the store keeps; 0 if it keeps nothing of this session.
    kept_best: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _drafters_changed: asyncio.Event = field(default_factory=asyncio.Event)
    _drafters_rest: bool = False  # they have been told that no guesses are wanted
    _unheard: int = 0  # commits that drafters who do not help have not been told of

    def observe(self, *, keep: bool) -> int:
        """Best tokens that some listener wants of each row or, if it is to `keep` some of this pass, the store."""
        return max(self.kept_best if keep else 0, *self.observers.values(), 0)

    @property
    def ended(self) -> bool:
        return self.machine.finished is not None or self.failure is not None

    def drafter_joined(self) -> None:
        """Whether guesses are wanted, a new one has yet to hear."""
        self._drafters_rest = False

    def announce(self) -> None:
        """Wakes everyone who waits for a change; drafters first, because the next pass may wait for what they say.

        While no guesses are wanted drafters hear nothing more: all the tokens come in one commit once some are. While
        none of them helps they hear of every few commits together: a message costs the core that passes run on.
        """
        unwanted = self.last is not None and self.last.row_budget == 1 and not self.ended
        helped = self.ended or any(stream.helps for stream in self.machine.streams.values())
        self._unheard = 0 if helped else (self._unheard + 1) % _HEARD_TOGETHER
        if not (unwanted and self._drafters_rest) and self._unheard == 0:
            drafters, self._drafters_changed = self._drafters_changed, asyncio.Event()
            drafters.set()
        self._drafters_rest = unwanted
        others, self._changed = self._changed, asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)

    async def changed(self, cursor: int, *, drafter: bool = False) -> None:
        """Returns once there is something past `cursor`, or the session has ended."""
        while len(self.machine.tokens) <= cursor and not self.ended:
            await (self._drafters_changed if drafter else self._changed).wait()

    def commit_since(self, cursor: int, ordinal: int | None = None) -> Commit:
        """Everything committed past `cursor` as one commit, with the last pass's figures and the stream's window."""
        commit = self.machine.replay(cursor)
        if self.last is not None:
            last = self.last
            commit = dataclasses.replace(
                commit, rows=last.rows, row_budget=last.row_budget, verify_ms=last.verify_ms, queue_ms=last.queue_ms
            )
        stream = self.machine.streams.get(ordinal) if ordinal is not None else None
        if stream is None:
            return commit
        best = self.observers.get(stream.ordinal, 0)
        observed = self.observed.of_best(best) if self.observed is not None and best else None
        return dataclasses.replace(commit, window_nodes=stream.offered_window, observed=observed)

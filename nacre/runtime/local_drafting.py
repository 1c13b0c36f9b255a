"""Guesses made inside the verifier: no message, no round trip.

Where no drafter's guess has arrived, a pass computes one row for one token. Tables and suffix indexes guess for
microseconds what the next rows could be: self-decode becomes self-speculation, however far away everybody is.

Rule: right before a pass is planned, each session gets guesses below its tip as it is then, unless drafters' guesses
leave little doubt about the next token. They are thought of while a drafter is waited for, if one is. They are
withdrawn when the pass is over: whether it is worth waiting for a drafter does not depend on them. They come in by the
way of every drafter's guesses, as a stream of the session's own, so rows go to them by what they have been worth. They
are made on the event loop: a proposer that takes more than a small part of a millisecond does not belong here, and a
long prompt is read piece by piece, between many passes; until it is read nothing is guessed.

Invariant: whatever a proposer does, it cannot end a session: one that raises is not asked again for that session.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter
from typing import cast

from nacre.drafting import DraftContext, Expansion, HiddenStates, Proposer
from nacre.drafting.proposer import TIP, Encoder, Guess, of_vocabulary
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.local_reading import LocalReading
from nacre.session import Draft
from nacre.session.messages import confidence_byte
from nacre.session.observed import observations_of

log = logging.getLogger("nacre.verifier")

#: Best tokens of each row that a proposer which learns is told of.
OBSERVED_BEST = 8
#: Guesses that have never helped lately are made again after so many commits: their way back.
_PROBE = 16
#: The chance that none of the drafters' guesses of the next token is right must be as great as what a row is worth,
#: within these bounds.
_LEAST_DOUBT, _MOST_DOUBT = 0.15, 0.5
#: What is claimed at least of a guess that drafters do not share.
_LEAST_CLAIM = 0.02
#: Tokens of a text that are told at once, and how long telling more may take.
_PIECE_TOKENS, _TELL_S = 512, 0.001
#: What is less likely, from the tip on, than this is not worth its node: few rows are left when its turn comes.
_LEAST_PATH = 0.04


@dataclass(slots=True, eq=False)
class _Guided:
    """A session here: its number towards the proposer, its stream, and what the proposer has been told."""

    number: int
    ordinal: int
    told: int
    states: HiddenStates | None = None
    thoughts: Sequence[Guess] = ()
    thought_at: int = -1  # the length of the text below which they hang
    guessed: bool = False  # for the next pass
    hanging: int = 0
    rested: int = 0
    failed: bool = False


class LocalDrafting:
    """Guesses for the sessions of a verifier, driven by its host on the event loop; `reading` feeds it from a store."""

    #: What it is called where drafters are told apart by method.
    METHOD = "local"

    def __init__(self, proposer: Proposer, reading: LocalReading | None = None) -> None:
        self._proposer = proposer
        self._reading = reading
        #: Whether it wants hidden states: the engine must then keep them.
        self.encodes = proposer.traits.encodes
        self._guided: dict[str, _Guided] = {}
        self._next = 1

    def knows(self, session: HostedSession) -> bool:
        return session.id in self._guided

    def open(self, session: HostedSession, ordinal: int) -> None:
        """Begins to guess for a session, on its stream `ordinal`."""
        machine, engine = session.machine, session.engine
        first = tuple(machine.tokens[:_PIECE_TOKENS])
        guided = self._guided[session.id] = _Guided(self._next, ordinal, len(first))
        self._next += 1
        context = DraftContext(
            tokens=first,
            prompt_length=machine.prompt_length,
            params=engine.params,
            key=engine.key,
            prediction=session.prediction,
            tenant=tenant_number(engine.tenant),
            domain=session.domain,
        )
        with _its_own_fault(guided):
            self._proposer.open(guided.number, context)
        if self._reading is not None:
            self._reading.opened(session.id, engine.tenant, context.tenant)
        if self._proposer.traits.learns:
            session.observed.join(ordinal, OBSERVED_BEST)

    def hanging(self, session: HostedSession) -> int:
        """How many guesses of its own hang in the session's tree now."""
        guided = self._guided.get(session.id)
        return guided.hanging if guided is not None else 0

    def think(self, session: HostedSession) -> None:
        """Thinks of what to guess below the tip as it is now: best done while there is nothing else to do."""
        guided = self._guided[session.id]
        if not guided.failed and not _hopeless(session, guided):
            with _its_own_fault(guided):
                self._thoughts(session, guided)

    def guess(self, session: HostedSession, rows: int, row_worth: float = 0.0) -> None:
        """Sees to it that at most `rows` guesses of its own hang below the session's tip in the next pass.

        There are none where drafters leave so little doubt that no guess could be worth `row_worth` tokens.
        """
        guided = self._guided[session.id]
        machine = session.machine
        if guided.failed or guided.guessed:
            return
        guided.guessed = True
        with _its_own_fault(guided):
            if not self._tell_text(session, guided):
                return
            others = machine.tree.tip.children
            doubt = max(_LEAST_CLAIM, 1.0 - sum(node.survival for node in others.values()))
            if self._rests(session, guided) or doubt < max(_LEAST_DOUBT, min(row_worth, _MOST_DOUBT)):
                return
            possible = self._thoughts(session, guided)[:rows]
            # Beside drafters' guesses of the next token, another one is right where all of those are wrong.
            claims = [
                guess.survival * (doubt if guess.parent == TIP and guess.token not in others else 1.0)
                for guess in possible
            ]
            if possible:
                received = machine.draft(guided.ordinal, _draft(possible, claims, len(machine.tokens)))
                guided.hanging = received.live

    def study(self, sessions: Iterable[HostedSession]) -> None:
        """Learns what the target thought in the sessions' last pass: best done while the next is computed."""
        for session in sessions:
            guided = self._guided.get(session.id)
            if guided is not None and not guided.failed:
                with _its_own_fault(guided):
                    self._tell_text(session, guided)
                    self._tell_observed(session, guided)

    def settled(self, session: HostedSession) -> None:
        """A pass of the session is over; its guesses have been judged."""
        guided = self._guided.get(session.id)
        if guided is not None and guided.guessed:
            guided.guessed, guided.hanging = False, 0
            session.machine.withdraw(guided.ordinal)

    def close(self, session: HostedSession) -> int | None:
        """The session is over; returns its stream's ordinal here, None where nothing was guessed for it."""
        guided = self._guided.pop(session.id, None)
        if guided is None:
            return None
        with _its_own_fault(guided):
            if not guided.failed:
                self._tell_text(session, guided)
                self._tell_observed(session, guided)
            self._proposer.close(guided.number)
        if self._reading is not None:
            self._reading.closed(session.id)
        return guided.ordinal

    def _thoughts(self, session: HostedSession, guided: _Guided) -> Sequence[Guess]:
        """What to guess below the tip as it is now, thought of once."""
        if not self._tell_text(session, guided):
            return ()
        committed = len(session.machine.tokens)
        if guided.thought_at != committed:
            guesses = self._proposer.propose([Expansion(guided.number, 0, (), ())])[0]
            guided.thoughts = _likely(of_vocabulary(guesses, session.machine.vocab_size))
            guided.thought_at = committed
        return guided.thoughts

    def _rests(self, session: HostedSession, guided: _Guided) -> bool:
        """What has not helped lately is asked now and then only."""
        if not _hopeless(session, guided):
            return False
        guided.rested = (guided.rested + 1) % _PROBE
        return guided.rested != 0

    def _tell_text(self, session: HostedSession, guided: _Guided) -> bool:
        """Whether the whole text has been told now."""
        tokens = session.machine.tokens
        ends_s = perf_counter() + _TELL_S
        while guided.told < len(tokens):
            piece = tokens[guided.told : guided.told + _PIECE_TOKENS]
            self._proposer.committed(guided.number, piece, ())
            guided.told += len(piece)
            if guided.told < len(tokens) and perf_counter() > ends_s:
                return False
        if self.encodes and session.states is not None and session.states is not guided.states:
            guided.states = session.states
            cast(Encoder, self._proposer).encoded(guided.number, session.states)
        return True

    def _tell_observed(self, session: HostedSession, guided: _Guided) -> None:
        tokens = session.machine.tokens
        for observed in session.observed.unheard(guided.ordinal):
            self._proposer.observed(guided.number, observations_of(tokens, observed))


@contextlib.contextmanager
def _its_own_fault(guided: _Guided) -> Iterator[None]:
    """What a proposer raises ends its guesses for that session, and nothing else."""
    try:
        yield
    except Exception:
        if not guided.failed:
            log.exception("local guesses for a session end")
        guided.failed = True


def _hopeless(session: HostedSession, guided: _Guided) -> bool:
    reputation = session.machine.streams[guided.ordinal].reputation
    return reputation is not None and reputation.hopeless


def _likely(guesses: Sequence[Guess]) -> Sequence[Guess]:
    """Without those at the end that are hardly ever reached."""
    paths: list[float] = []
    for guess in guesses:
        paths.append(guess.survival * (1.0 if guess.parent == TIP else paths[guess.parent]))
    return guesses[: max((place for place, path in enumerate(paths, 1) if path >= _LEAST_PATH), default=0)]


def tenant_number(tenant: str) -> int:
    """A number that is a tenant's in this process and tells nothing else."""
    return int.from_bytes(blake2b(tenant.encode(), digest_size=8).digest(), "little")


def _draft(guesses: Sequence[Guess], claims: Sequence[float], committed: int) -> Draft:
    """A message of guesses below the tip, with their survivals, that takes the place of all before it."""
    return Draft(
        first_node=1,
        tokens=tuple(guess.token for guess in guesses),
        anchor=committed,
        parents=tuple(0 if guess.parent == TIP else place - guess.parent for place, guess in enumerate(guesses)),
        confidence=bytes(map(confidence_byte, claims)),
    )

"""Keeps what a method learns apart by tenant: one proposer for each.

A table that has seen one tenant's text guesses that text for the next one. Nothing of it can be committed, but how fast
an answer comes would tell that somebody has had it before. So every tenant has a proposer, and with it tables, of its
own.

Invariants: at most `most` tenants are known; beyond that the one whose sessions are longest over is forgotten with all
it has learned. Tenants with open sessions are kept, and what a store says of one more is then not heard. And what all
have learned takes at most `most_bytes`, whoever has sessions: where forgetting tenants is not enough, the one that has
learned most starts anew, with half the room, so that this comes to an end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

from nacre.drafting.proposer import (
    DraftContext,
    Encoder,
    Expansion,
    Guess,
    HiddenStates,
    Observation,
    Proposer,
    ProposerTraits,
    Teachable,
)
from nacre.drafting.rows import Row

MOST_TENANTS = 16
#: What one method has learned from all tenants.
MOST_BYTES = 32 << 20


@runtime_checkable
class Remembering(Proposer, Protocol):
    """A proposer whose memory outlives its sessions and grows with what it learns."""

    @property
    def size_bytes(self) -> int:
        """What it has learned takes so much at most; sessions that are open are not counted."""

    def shrink(self) -> None:
        """Forgets what it has learned, and learns from now on into half the room."""


@dataclass(slots=True, eq=False)
class _Tenant:
    key: int
    proposer: Proposer
    size_bytes: int = 0
    sessions: set[int] = field(default_factory=set)


class PerTenant:
    """A proposer made of proposers; `make` makes one."""

    def __init__(self, make: Callable[[], Proposer], *, most: int = MOST_TENANTS, most_bytes: int = MOST_BYTES) -> None:
        self._make = make
        self._most = most
        self._most_bytes = most_bytes
        self._spare: Proposer | None = make()  # for its traits, then for the first tenant
        self._remembers = isinstance(self._spare, Remembering)
        self._size_bytes = 0
        self._traits = self._spare.traits
        self._tenants: dict[int, _Tenant] = {}
        self._idle: dict[int, _Tenant] = {}  # without sessions, the one whose last is longest over first
        self._tenant_of: dict[int, _Tenant] = {}

    @property
    def traits(self) -> ProposerTraits:
        return self._traits

    @property
    def size_bytes(self) -> int:
        """What the tenants' memories take together."""
        return self._size_bytes

    def open(self, session: int, context: DraftContext) -> None:
        tenant = self._tenant(context.tenant)
        tenant.proposer.open(session, context)
        tenant.sessions.add(session)
        self._idle.pop(tenant.key, None)
        self._tenant_of[session] = tenant
        self._weigh(tenant)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        tenant = self._tenant_of[session]
        tenant.proposer.committed(session, tokens, trunk)
        self._weigh(tenant)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        tenant = self._tenant_of[session]
        tenant.proposer.observed(session, observations)
        self._weigh(tenant)

    def encoded(self, session: int, states: HiddenStates) -> None:
        if self._traits.encodes:
            cast(Encoder, self._tenant_of[session].proposer).encoded(session, states)

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """For the tables of one tenant, who may be about to come; dropped if all there is room for are busy."""
        if tenant in self._tenants or len(self._tenants) < self._most or self._idle:
            known = self._tenant(tenant)
            if isinstance(known.proposer, Teachable):
                known.proposer.taught(rows, outputs)
                self._weigh(known)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        tenants = [self._tenant_of[item.session] for item in wanted]
        found: list[list[Guess]] = [[] for _ in wanted]
        for tenant in dict.fromkeys(tenants):
            places = [place for place, other in enumerate(tenants) if other is tenant]
            for place, guesses in zip(places, tenant.proposer.propose([wanted[p] for p in places]), strict=True):
                found[place] = guesses
        return found

    def close(self, session: int) -> None:
        tenant = self._tenant_of.pop(session, None)
        if tenant is not None:
            tenant.sessions.discard(session)
            if not tenant.sessions:
                self._idle[tenant.key] = tenant
            tenant.proposer.close(session)
            self._weigh(tenant)

    def _tenant(self, key: int) -> _Tenant:
        """Known, or new."""
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = self._tenants[key] = self._idle[key] = _Tenant(key, self._spare or self._make())
            self._spare = None
            self._weigh(tenant)
        return tenant

    def _weigh(self, tenant: _Tenant) -> None:
        """Call it after whatever a tenant may have learned from: keeps the bounds."""
        if self._remembers:
            size_bytes = cast(Remembering, tenant.proposer).size_bytes
            self._size_bytes += size_bytes - tenant.size_bytes
            tenant.size_bytes = size_bytes
        if self._too_much:
            self._forget(tenant)

    @property
    def _too_much(self) -> bool:
        return len(self._tenants) > self._most or self._size_bytes > self._most_bytes

    def _forget(self, newest: _Tenant) -> None:
        for idle in list(self._idle.values()):
            if self._too_much and idle is not newest:
                del self._idle[idle.key], self._tenants[idle.key]
                self._size_bytes -= idle.size_bytes
        while self._size_bytes > self._most_bytes:
            largest = max(self._tenants.values(), key=lambda tenant: tenant.size_bytes)
            memory = cast(Remembering, largest.proposer)
            memory.shrink()
            before, largest.size_bytes = largest.size_bytes, memory.size_bytes
            self._size_bytes += largest.size_bytes - before
            if largest.size_bytes >= before:  # as small as it gets
                return

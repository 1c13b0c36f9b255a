"""Keeps what a method learns apart by tenant: one proposer for each.

A table that has seen one tenant's text guesses that text for the next one. Nothing of it can be committed, but how fast
an answer comes would tell that somebody has had it before. So every tenant has a proposer, and with it tables, of its
own.

Invariant: at most `most` tenants are known; beyond that the one whose sessions are longest over is forgotten with all
it has learned. Tenants with open sessions are kept, and what a store says of one more is then not heard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

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


@dataclass(slots=True, eq=False)
class _Tenant:
    proposer: Proposer
    sessions: set[int] = field(default_factory=set)


class PerTenant:
    """A proposer made of proposers; `make` makes one."""

    def __init__(self, make: Callable[[], Proposer], *, most: int = MOST_TENANTS) -> None:
        self._make = make
        self._most = most
        self._spare: Proposer | None = make()  # for its traits, then for the first tenant
        self._traits = self._spare.traits
        self._tenants: OrderedDict[int, _Tenant] = OrderedDict()
        self._tenant_of: dict[int, _Tenant] = {}

    @property
    def traits(self) -> ProposerTraits:
        return self._traits

    def open(self, session: int, context: DraftContext) -> None:
        tenant = self._tenant(context.tenant)
        tenant.proposer.open(session, context)
        self._tenants.move_to_end(context.tenant)
        tenant.sessions.add(session)
        self._tenant_of[session] = tenant

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._tenant_of[session].proposer.committed(session, tokens, trunk)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        self._tenant_of[session].proposer.observed(session, observations)

    def encoded(self, session: int, states: HiddenStates) -> None:
        if self._traits.encodes:
            cast(Encoder, self._tenant_of[session].proposer).encoded(session, states)

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """For the tables of one tenant, who may be about to come; dropped if all there is room for are busy."""
        if tenant in self._tenants or len(self._tenants) < self._most or self._idle():
            proposer = self._tenant(tenant).proposer
            if isinstance(proposer, Teachable):
                proposer.taught(rows, outputs)

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
            tenant.proposer.close(session)

    def _tenant(self, key: int) -> _Tenant:
        """Known, or new."""
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = _Tenant(self._spare or self._make())
            self._spare = None
            self._tenants[key] = tenant
            self._forget()
        return tenant

    def _idle(self) -> list[int]:
        return [key for key, tenant in self._tenants.items() if not tenant.sessions]

    def _forget(self) -> None:
        newest = next(reversed(self._tenants))
        for key in self._idle()[: max(0, len(self._tenants) - self._most)]:
            if key != newest:
                del self._tenants[key]

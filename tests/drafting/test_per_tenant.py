"""What one tenant's sessions taught is of no use to another's."""

from __future__ import annotations

import pytest

from nacre.drafting import DraftContext, Expansion, Proposer
from nacre.drafting.aded import AdedGrowthProposer
from nacre.drafting.lookup import LookupProposer
from nacre.drafting.per_tenant import PerTenant
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams


def context(tenant: int, *tokens: int) -> DraftContext:
    return DraftContext(tokens, len(tokens), SamplingParams(), None, tenant=tenant)


def guessed(proposer: Proposer, *sessions: int) -> list[list[int]]:
    found = proposer.propose([Expansion(session, 0, (), ()) for session in sessions])
    return [[guess.token for guess in guesses] for guesses in found]


def test_a_tenant_learns_from_its_own_sessions_only() -> None:
    proposer = PerTenant(AdedGrowthProposer)
    proposer.open(1, context(7, 1, 2))
    proposer.committed(1, [3, 4, 5, 6] * 4, [])
    proposer.close(1)
    proposer.open(2, context(7, 3, 4))
    proposer.open(3, context(8, 3, 4))
    assert guessed(proposer, 3, 2, 3)[1]
    assert guessed(proposer, 3) == [[]]


def test_guesses_come_back_in_the_order_they_were_wanted() -> None:
    proposer = PerTenant(LookupProposer)
    for session, tenant in enumerate([1, 2, 1]):
        proposer.open(session, context(tenant, 10, session, 10))
    assert [found[0] for found in guessed(proposer, 2, 1, 0, 1)] == [2, 1, 0, 1]


def test_tenants_without_sessions_are_forgotten_beyond_the_bound_and_no_others() -> None:
    made: list[LookupProposer] = []

    def make() -> LookupProposer:
        made.append(LookupProposer())
        return made[-1]

    proposer = PerTenant(make, most=2)
    for tenant in range(4):
        proposer.open(tenant, context(tenant, 5, 6, 5))
    assert guessed(proposer, 0, 1, 2, 3) == [[6, 5]] * 4
    for session in range(4):
        proposer.close(session)
    proposer.close(99)
    proposer.open(4, context(4, 5, 6, 5))
    proposer.open(5, context(0, 5))
    assert len(made) == 6, "tenant 0 was forgotten and begins anew"


def test_a_session_that_is_refused_leaves_nothing() -> None:
    class Refusing(LookupProposer):
        def open(self, session: int, context: DraftContext) -> None:
            raise InvalidArgument("no")

    proposer = PerTenant(Refusing)
    with pytest.raises(InvalidArgument):
        proposer.open(1, context(1, 5))
    proposer.close(1)

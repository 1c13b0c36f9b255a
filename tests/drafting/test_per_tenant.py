"""What one tenant's sessions taught is of no use to another's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nacre.drafting import METHODS, DraftContext, Expansion, Observation, Proposer, proposer_class
from nacre.drafting.aded import AdedGrowthProposer, AdedProposer, TrigramTable
from nacre.drafting.lookahead import LookaheadProposer, lookahead_pool
from nacre.drafting.lookup import LookupProposer
from nacre.drafting.ouroboros import OuroborosProposer, ouroboros_pool
from nacre.drafting.per_tenant import MOST_BYTES, MOST_TENANTS, PerTenant, Remembering
from nacre.drafting.plateau import PlateauProposer, chunk_pool
from nacre.drafting.recycling import RecyclingGrowthProposer, RecyclingProposer
from nacre.drafting.stand import StandProposer, StandTable
from nacre.drafting.suffix import CORPUS_TOKENS, SuffixProposer
from nacre.drafting.suffix_index import SuffixIndex
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


def test_who_had_a_session_last_is_forgotten_last() -> None:
    made: list[LookupProposer] = []

    def make() -> LookupProposer:
        made.append(LookupProposer())
        return made[-1]

    proposer = PerTenant(make, most=2)
    proposer.open(1, context(1, 5))
    proposer.open(2, context(2, 5))
    proposer.close(2)
    proposer.close(1)  # it came first, and has been here until now
    proposer.open(3, context(3, 5))
    proposer.open(4, context(1, 5))
    assert len(made) == 3


# -- memory --------------------------------------------------------------------------------------------------------

#: Every method that remembers, with a memory that is soon full.
SMALL: dict[str, Callable[[], Remembering]] = {
    "aded": lambda: AdedProposer(TrigramTable(256)),
    "aded-growth": lambda: AdedGrowthProposer(TrigramTable(256)),
    "lookahead": lambda: LookaheadProposer(lookahead_pool(keys=64)),
    "ouroboros": lambda: OuroborosProposer(ouroboros_pool(64)),
    "plateau": lambda: PlateauProposer(chunk_pool(16)),
    "recycling": RecyclingProposer,
    "recycling-growth": RecyclingGrowthProposer,
    "stand": lambda: StandProposer(StandTable(256)),
    "suffix": lambda: SuffixProposer(SuffixIndex(512)),
}
#: Need a model, its states or a file.
NEEDY = {"dense", "model", "nest", "rest"}


def written(tenant: int) -> list[int]:
    """A tenant's text. No token comes twice."""
    return [(tenant + 7919 * place) % 60_000 for place in range(600)]


def feed(proposer: PerTenant, tenant: int) -> None:
    """A session of a tenant that fills its memory."""
    text, session = written(tenant), 1000 + tenant
    proposer.open(session, context(tenant, *text[:4]))
    for start in range(4, len(text), 100):
        proposer.committed(session, text[start : start + 100], ())
    ends = range(4, len(text))
    proposer.observed(session, [Observation(tuple(text[i - 4 : i]), (text[i],), (-0.01,), True) for i in ends])
    proposer.close(session)


def knows(proposer: PerTenant, tenant: int) -> bool:
    """Whether anything is guessed after pieces of the tenant's text that do not overlap.

    The latest come first: some methods learn from what they are asked about, and make room for it.
    """
    text, found = written(tenant), False
    for start in reversed(range(100, 590, 7)):
        proposer.open(99, context(tenant, *text[start : start + 5]))
        found = found or guessed(proposer, 99) != [[]]
        proposer.close(99)
    return found


def held(proposer: PerTenant) -> int:
    return sum(tenant.proposer.size_bytes for tenant in proposer._tenants.values())


def bounded(name: str) -> tuple[PerTenant, int]:
    """For four tenants and a half with full memories; and how much that is."""
    alone = PerTenant(SMALL[name])
    feed(alone, 1)
    feed(alone, 1)
    bound = 9 * alone.size_bytes // 2
    return PerTenant(SMALL[name], most_bytes=bound), bound


def test_who_remembers_beyond_a_session_can_shrink() -> None:
    methods = {name: proposer_class(name) for name in sorted(set(METHODS) - NEEDY)}
    made = {name: getattr(kind, "remembering", kind)() for name, kind in methods.items()}
    assert [name for name, proposer in made.items() if isinstance(proposer, Remembering)] == sorted(SMALL)
    assert {name for name, proposer in made.items() if proposer.traits.teachable} < set(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_tenants_together_stay_within_the_bound_and_the_latest_are_known(name: str) -> None:
    proposer, bound = bounded(name)
    for tenant in range(16):
        feed(proposer, tenant)
        assert proposer.size_bytes == held(proposer) <= bound
    assert list(proposer._tenants) == [12, 13, 14, 15]
    assert (knows(proposer, 15), knows(proposer, 11)) == (True, False)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_tenants_that_are_all_busy_stay_within_the_bound_and_are_all_served(name: str) -> None:
    proposer, bound = bounded(name)
    for tenant in range(16):
        proposer.open(tenant, context(tenant, 1, 2, 3))
        feed(proposer, tenant)
        assert proposer.size_bytes == held(proposer) <= bound
    for tenant in range(16):
        feed(proposer, tenant)
        assert proposer.size_bytes == held(proposer) <= bound
    assert list(proposer._tenants) == list(range(16))
    assert len(guessed(proposer, *range(16))) == 16


def filled(name: str) -> Remembering:
    """A memory of the usual size with no room left."""
    proposer = getattr(proposer_class(name), "remembering", proposer_class(name))()
    if isinstance(proposer, SuffixProposer):
        proposer.taught((), [tuple(range(CORPUS_TOKENS))])
    elif isinstance(proposer, RecyclingProposer | RecyclingGrowthProposer):
        proposer.taught([(((1 << 18) - 1,), ((1, 255),))], ())
    elif isinstance(proposer, LookaheadProposer | OuroborosProposer | PlateauProposer):
        pool = proposer.memory
        for key in range(pool._most_keys):
            for phrase in range(pool._per_key):
                pool.add((key,) * pool.key_tokens, tuple(range(phrase, phrase + pool.longest)))
    return proposer


@pytest.mark.parametrize("name", sorted(SMALL))
def test_one_tenant_alone_has_all_the_room_its_method_can_use(name: str) -> None:
    size = filled(name).size_bytes
    assert MOST_BYTES // MOST_TENANTS < size <= MOST_BYTES

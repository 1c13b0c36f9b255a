"""What a store teaches: tables guess from the rows and texts of sessions they have never had, tenant by tenant."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.drafting import METHODS, DraftContext, Expansion, Guess, proposer_class
from nacre.drafting.fusion import FusionProposer
from nacre.drafting.per_tenant import PerTenant
from nacre.drafting.proposer import Teachable
from nacre.drafting.recycling import RecyclingGrowthProposer
from nacre.drafting.rows import Row
from nacre.drafting.suffix import SuffixProposer
from nacre.pacing import Reputation
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.local_drafting import LocalDrafting, tenant_number
from nacre.runtime.verify_pass import EngineSession
from nacre.sampling import Choice, History, SamplingParams
from nacre.session import open_session

OUTPUT = (1, 2, 3, 4, 5, 6, 7, 8)
#: What a verifier would have written of that text, and of nothing else.
ROWS: list[Row] = [
    (OUTPUT[end - length : end], ((OUTPUT[end], 255),))
    for end in range(1, len(OUTPUT))
    for length in (1, 2, 3)
    if end >= length
]

FROM_ROWS = ["recycling", "recycling-growth", "stand", "aded", "aded-growth"]
FROM_OUTPUTS = ["suffix", "lookahead", "ouroboros", "aded", "aded-growth"]
TAUGHT = sorted({*FROM_ROWS, *FROM_OUTPUTS})
#: Need a model, its states or a file.
NEEDY = {"dense", "model", "nest", "rest"}


def made(name: str):
    kind = proposer_class(name)
    return getattr(kind, "remembering", kind)()


def context(*tokens: int, tenant: int = 0) -> DraftContext:
    return DraftContext(tokens, len(tokens), SamplingParams(), None, tenant=tenant)


def guessed(proposer, session: int = 1) -> list[int]:
    return [guess.token for guess in proposer.propose([Expansion(session, 0, (), ())])[0]]


def test_who_can_be_taught_says_so() -> None:
    assert [name for name in sorted(set(METHODS) - NEEDY) if made(name).traits.teachable] == TAUGHT
    assert not SuffixProposer().traits.teachable  # without a corpus it has no place for it


@pytest.mark.parametrize("name", FROM_ROWS)
def test_rows_of_others_are_guessed_from(name: str) -> None:
    proposer = made(name)
    proposer.taught(ROWS, ())
    proposer.open(1, context(9, 2, 3))
    assert guessed(proposer)[0] == 4


@pytest.mark.parametrize("name", FROM_OUTPUTS)
def test_texts_of_others_are_guessed_from(name: str) -> None:
    proposer = made(name)
    proposer.taught((), [OUTPUT])
    proposer.open(1, context(9, 1, 2))
    assert guessed(proposer)[:4] == [3, 4, 5, 6]


@pytest.mark.parametrize("name", TAUGHT)
def test_rows_that_no_table_can_hold_cost_nothing(name: str) -> None:
    proposer = made(name)
    odd: list[Row] = [
        ((), ((1, 1),)),
        ((1, 2, 3, 4), ((1, 1),)),
        ((1 << 30,), ((1, 1),)),
        ((1,), ()),
        ((1,), ((2, 0),)),
    ]
    proposer.taught(odd, [(), (1,)])
    proposer.open(1, context(7, 8))
    assert guessed(proposer) == []


@pytest.mark.parametrize("name", sorted(set(METHODS) - NEEDY - set(TAUGHT)))
def test_others_have_no_ear_for_it_and_tenants_of_theirs_come_to_no_harm(name: str) -> None:
    assert not isinstance(made(name), Teachable)
    PerTenant(lambda: made(name)).teach(1, ROWS, [OUTPUT])


def test_fusion_passes_lessons_on_to_sources_that_keep_tenants_apart() -> None:
    apart, shared = PerTenant(RecyclingGrowthProposer), RecyclingGrowthProposer()
    proposer = FusionProposer([apart, shared])
    assert proposer.traits.teachable
    proposer.teach(7, ROWS, ())
    apart.open(1, context(9, 2, tenant=7))
    shared.open(1, context(9, 2, tenant=7))
    assert guessed(apart)[0] == 3
    assert guessed(shared) == []


def test_a_text_the_drafter_has_heard_itself_is_not_learnt_twice() -> None:
    proposer = SuffixProposer.remembering()
    proposer.open(1, context(9))
    proposer.committed(1, OUTPUT, ())
    proposer.close(1)
    size = len(proposer._corpus)
    proposer.taught((), [OUTPUT])
    assert len(proposer._corpus) == size
    proposer.taught((), [OUTPUT[:4]])
    proposer.taught((), [OUTPUT[:4]])
    assert len(proposer._corpus) == size + 5


# -- tenants -----------------------------------------------------------------------------------------------------------


def test_a_lesson_is_its_tenants_alone() -> None:
    proposer = PerTenant(RecyclingGrowthProposer)
    proposer.teach(7, ROWS, ())
    proposer.open(1, context(9, 2, tenant=7))
    proposer.open(2, context(9, 2, tenant=8))
    assert guessed(proposer, 1)[0] == 3
    assert guessed(proposer, 2) == []


def test_lessons_keep_the_bound_and_never_push_out_who_is_there() -> None:
    proposer = PerTenant(RecyclingGrowthProposer, most=2)
    proposer.open(1, context(9, 2, tenant=1))
    proposer.teach(2, ROWS, ())
    proposer.teach(3, ROWS, ())  # 2 has no session: it gives way
    assert sorted(proposer._tenants) == [1, 3]
    proposer.open(3, context(9, 2, tenant=3))
    proposer.teach(4, ROWS, ())  # nobody can
    assert sorted(proposer._tenants) == [1, 3]
    assert guessed(proposer, 3)[0] == 3


# -- junk --------------------------------------------------------------------------------------------------------------

#: The target counts; junk is of tokens that it never says.
COUNTED, VOCABULARY = 200, 512
CONTEXTS = [tuple(range(end - length, end)) for end in range(3, COUNTED) for length in (1, 2, 3)]


class Asked(PerTenant):
    """Counts how often it is asked."""

    asked = 0

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.asked += len(wanted)
        return super().propose(wanted)


def counted(proposer: Asked | None) -> HostedSession:
    """160 tokens of a verifier whose target counts, with a local source; none: without guesses."""
    machine = open_session([0, 1, 2], max_tokens=160, max_positions=1024, vocab_size=VOCABULARY)
    params = SamplingParams(temperature=0.0)
    session = HostedSession(
        "s", "drafters", "owners", machine, EngineSession("a", params, 5, -1, History([0, 1, 2])), 5
    )
    local = LocalDrafting(proposer) if proposer is not None else None
    if local is not None:
        local.open(session, machine.join(Reputation()))
    while machine.finished is None:
        if local is not None:
            local.guess(session, 8)
        plan = machine.plan(9)
        session.totals.verified += machine.resolve(plan, [Choice(token + 1) for token in plan.tokens]).planned
        session.totals.passes += 1
        if local is not None:
            local.settled(session)
    return session


@pytest.mark.parametrize("name", TAUGHT)
def test_junk_from_a_store_costs_speed_only_and_who_believes_it_is_soon_asked_rarely(name: str) -> None:
    tenant = tenant_number("a")
    alone = counted(None)
    assert (alone.machine.tokens, alone.totals.passes) == (list(range(163)), 160)

    believing = Asked(lambda: made(name))
    rows = [(before, tuple((300 + before[-1] + rank, 255 - rank) for rank in range(4))) for before in CONTEXTS]
    outputs = [(token, *range(300 + token % 100, 310 + token % 100)) for token in range(COUNTED)]
    believing.teach(tenant, rows, outputs)
    session = counted(believing)
    assert (session.machine.tokens, session.totals.passes) == (alone.machine.tokens, 160)
    assert session.totals.verified > 0, "it was believed at first"
    # After 27 positions without a right guess it is hopeless, and asked one time in sixteen.
    assert believing.asked <= 27 + 160 // 16

    # The same from a store that tells the truth is worth its while.
    knowing = Asked(lambda: made(name))
    knowing.teach(tenant, [(before, ((before[-1] + 1, 255),)) for before in CONTEXTS], [tuple(range(COUNTED))])
    session = counted(knowing)
    assert session.machine.tokens == alone.machine.tokens
    assert session.totals.passes == knowing.asked < 80

"""What a store teaches: tables guess from the rows and texts of sessions they have never had, tenant by tenant."""

from __future__ import annotations

import pytest

from nacre.drafting import METHODS, DraftContext, Expansion, proposer_class
from nacre.drafting.fusion import FusionProposer
from nacre.drafting.per_tenant import PerTenant
from nacre.drafting.proposer import Teachable
from nacre.drafting.recycling import RecyclingGrowthProposer
from nacre.drafting.rows import Row
from nacre.drafting.suffix import SuffixProposer
from nacre.sampling import SamplingParams

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

"""Fusion: one tree out of several sources, each believed as far as it has been right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from nacre.drafting import method_names, needs_model
from nacre.drafting.fusion import MOST_DOMAINS, FusionProposer
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams

Answer = Callable[[tuple[int, ...]], list[Guess]]


class Scripted:
    """Says what it is told to, by the path below the tip, and keeps what it hears."""

    def __init__(self, answer: Answer, *, costly: bool = False, batch: int = 1) -> None:
        self.answer = answer
        self.traits = ProposerTraits("scripted", "tree", batch, 4, learns=True, costly=costly)
        self.asked: list[Expansion] = []
        self.trunks: list[tuple[int, ...]] = []
        self.seen: list[Observation] = []
        self.sessions: set[int] = set()

    def open(self, session: int, context: DraftContext) -> None:
        self.sessions.add(session)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self.trunks.append(tuple(trunk))

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        self.seen.extend(observations)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.asked.extend(wanted)
        return [self.answer(item.path_tokens) for item in wanted]

    def close(self, session: int) -> None:
        self.sessions.discard(session)


CONTEXT = DraftContext((1, 2), 2, SamplingParams(), key=None)


def chain(tokens: Sequence[int], survival: float = 0.6) -> list[Guess]:
    return [Guess(token, survival, TIP if place == 0 else place - 1) for place, token in enumerate(tokens)]


def saying(tokens: Sequence[int], survival: float = 0.6) -> Scripted:
    return Scripted(lambda path: chain(tokens, survival))


def model(answer: Answer, batch: int = 4) -> Scripted:
    return Scripted(answer, costly=True, batch=batch)


def guesses(proposer: FusionProposer, *path: int, survival: float = 1.0) -> list[Guess]:
    (found,) = proposer.propose([Expansion(1, 77, path, tuple(range(70, 70 + len(path))), survival)])
    return found


def paths(found: Sequence[Guess]) -> dict[tuple[int, ...], float]:
    """Path -> conditional survival."""
    known: list[tuple[int, ...]] = []
    for guess in found:
        known.append((*(known[guess.parent] if guess.parent != TIP else ()), guess.token))
    return {path: guess.survival for path, guess in zip(known, found, strict=True)}


def opened(*sources: Scripted, rows: int = 32) -> FusionProposer:
    proposer = FusionProposer(sources, rows=rows)
    proposer.open(1, CONTEXT)
    return proposer


def test_branches_are_merged_by_their_longest_common_path() -> None:
    found = paths(guesses(opened(saying([5, 6, 7]), saying([5, 6, 8]))))
    assert set(found) == {(5,), (5, 6), (5, 6, 7), (5, 6, 8)}


def test_what_two_sources_say_is_surer_than_what_one_says() -> None:
    found = paths(guesses(opened(saying([5], 0.5), saying([5], 0.5), saying([6], 0.5))))
    assert found[(5,)] > 0.5
    assert found[(5,)] > found[(6,)]


def test_siblings_are_never_surer_than_one_together() -> None:
    found = guesses(opened(saying([5], 0.9), saying([6], 0.9), saying([7], 0.9)))
    assert sum(guess.survival for guess in found) == pytest.approx(0.98)


def test_a_source_that_errs_is_believed_less_and_one_that_is_right_more() -> None:
    proposer = opened(saying([5], 0.5), saying([6], 0.5))
    for _ in range(40):
        guesses(proposer)
        proposer.committed(1, [6], ())
    found = paths(guesses(proposer))
    assert found[(6,)] > 0.85
    assert (5,) not in found  # it has not helped in forty positions


def test_a_source_that_never_helps_is_asked_now_and_then_and_may_come_back() -> None:
    poor = saying([5], 0.5)
    proposer = opened(poor, saying([6], 0.5))
    for _ in range(40):
        guesses(proposer)
        proposer.committed(1, [6], ())
    asked = len(poor.asked)
    for _ in range(64):
        guesses(proposer)
        proposer.committed(1, [6], ())
    assert 6 <= len(poor.asked) - asked <= 10
    for _ in range(200):
        guesses(proposer)
        proposer.committed(1, [5], ())
    assert paths(guesses(proposer))[(5,)] > 0.8


def test_what_a_source_is_worth_in_one_kind_of_text_it_need_not_be_in_another() -> None:
    coder, reader = saying([5], 0.5), saying([6], 0.5)
    proposer = FusionProposer([coder, reader])
    for session, domain in ((1, "code"), (2, "english"), (3, "code")):
        proposer.open(session, replace(CONTEXT, domain=domain))

    def found(session: int) -> dict[tuple[int, ...], float]:
        (tree,) = proposer.propose([Expansion(session, 77, (), (), 1.0)])
        return paths(tree)

    for _ in range(60):
        for session, token in ((1, 5), (2, 6)):
            found(session)
            proposer.committed(session, [token], ())
    assert set(found(1)) == set(found(3)) == {(5,)}, "sessions of one kind learn together"
    assert set(found(2)) == {(6,)}
    coder.asked.clear()
    proposer.propose([Expansion(session, 77, (), (), 1.0) for session in (1, 2)])
    assert [item.session for item in coder.asked] == [1], "each kind asks whom it trusts"
    proposer.open(4, replace(CONTEXT, domain="greek"))
    assert set(found(4)) == {(5,)}, "a kind that nobody has seen begins like the one before it"


def test_what_sources_are_worth_to_one_tenant_says_nothing_about_another() -> None:
    proposer = FusionProposer([saying([5], 0.5), saying([6], 0.5)])
    proposer.open(1, replace(CONTEXT, tenant=1))
    for _ in range(60):  # a tenant whose tables were filled with junk
        proposer.propose([Expansion(1, 77, (), (), 1.0)])
        proposer.committed(1, [7], ())
    proposer.open(2, replace(CONTEXT, tenant=2))
    (tree,) = proposer.propose([Expansion(2, 77, (), (), 1.0)])
    assert set(paths(tree)) == {(5,), (6,)}
    assert min(paths(tree).values()) > 0.2


def test_kinds_of_text_are_told_apart_up_to_a_bound() -> None:
    proposer = FusionProposer([saying([5], 0.5), saying([6], 0.5)])
    proposer.open(1, replace(CONTEXT, domain="first"))
    for number in range(MOST_DOMAINS + 5):
        proposer.open(2 + number, replace(CONTEXT, domain=f"other-{number}"))
    assert len(proposer._worths) == MOST_DOMAINS
    proposer.committed(1, [5], ())  # a session keeps what it began with
    assert paths(proposer.propose([Expansion(1, 77, (), (), 1.0)])[0])


def test_the_model_is_asked_where_the_cheap_sources_leave_a_gap() -> None:
    drafting = model(lambda path: [Guess(9, 0.7)])
    proposer = opened(saying([5], 0.3), drafting)
    found = paths(guesses(proposer))
    assert {(5,), (9,)} <= set(found)
    assert drafting.asked[0].path_tokens == ()


def test_the_model_sleeps_where_the_cheap_sources_have_proven_themselves() -> None:
    drafting = model(lambda path: [Guess(9 if len(path) == 2 else 5, 0.7)])
    sure = Scripted(lambda path: [] if path else chain([5, 6], 0.99))
    proposer = opened(sure, drafting)
    guesses(proposer)
    assert drafting.asked  # a claim alone is no proof
    for _ in range(120):
        guesses(proposer)
        proposer.committed(1, [5], ())
    drafting.asked.clear()
    found = paths(guesses(proposer))
    assert not drafting.asked
    # The chain ends in a gap: its end is a leaf, to be asked for again, and then the model continues it.
    assert list(found) == [(5,), (5, 6)]
    assert list(paths(guesses(proposer, 5, 6, survival=0.9))) == [(9,)]
    assert [item.path_tokens for item in drafting.asked] == [(5, 6)]


def test_a_model_that_has_been_wrong_for_long_is_asked_all_the_same() -> None:
    drafting = model(lambda path: [Guess(9, 0.7)])
    proposer = opened(Scripted(lambda path: []), drafting)
    for _ in range(400):
        guesses(proposer)
        proposer.committed(1, [8], ())
    assert len(drafting.asked) == 400
    for _ in range(40):
        guesses(proposer)
        proposer.committed(1, [9], ())
    assert paths(guesses(proposer))[(9,)] == 0.7


def test_sources_that_are_right_in_company_prove_nothing_against_one_another() -> None:
    """Two that name the same token are right, and wrong where they differ: half the time each, overall."""
    differ = False
    drafting = model(lambda path: [Guess(5, 0.6), Guess(8, 0.3)])
    first = Scripted(lambda path: [Guess(6 if differ else 5, 0.9)])
    second = Scripted(lambda path: [Guess(7 if differ else 5, 0.9)])
    proposer = opened(first, second, drafting)
    for turn in range(400):
        differ = turn % 2 == 1
        drafting.asked.clear()
        found = paths(guesses(proposer))
        asked = len(drafting.asked)
        proposer.committed(1, [8 if differ else 5], ())
        if turn >= 398:
            assert (asked > 0) == differ
            assert found.get((5,), 0.0) > 0.9 or differ
            assert max(found.get((6,), 0.0), found.get((7,), 0.0)) < 0.05


def test_rivals_of_a_sure_guess_share_what_it_leaves() -> None:
    found = paths(guesses(opened(saying([5], 0.9), saying([6], 0.5), saying([7], 0.5))))
    assert found[(5,)] == pytest.approx(0.9)
    assert found[(6,)] == found[(7,)] == pytest.approx(0.04)


def test_a_cheap_source_drafts_for_the_model() -> None:
    """One step answers at the tip and along the likeliest line that the cheap source sees."""
    drafting = model(lambda path: [Guess(5 + len(path), 0.5), Guess(100 + len(path), 0.4)])
    proposer = opened(Scripted(lambda path: chain([5, 6, 7, 8, 9], 0.8) if not path else []), drafting)
    found = paths(guesses(proposer))
    assert [item.path_tokens for item in drafting.asked] == [(), (5,), (5, 6), (5, 6, 7)]
    assert {(100,), (5, 101), (5, 6, 102), (5, 6, 7, 103), (5, 6, 7, 8)} <= set(found)
    # What the model was not asked about stays a leaf.
    assert (5, 6, 7, 8, 9) not in found


def test_the_model_knows_nodes_by_names_of_their_own_that_commits_follow() -> None:
    drafting = model(lambda path: [Guess(9, 0.7)])
    proposer = opened(saying([5, 6], 0.6), drafting)
    guesses(proposer)
    by_path = {item.path_tokens: item for item in drafting.asked}
    five, six = by_path[(5,)].node_id, by_path[(5, 6)].node_id
    assert by_path[(5, 6)].path_ids == (five, six)
    proposer.committed(1, [5, 6, 42], (70,))
    assert drafting.trunks == [(five, six)]
    proposer.committed(1, [43], ())
    assert drafting.trunks[-1] == ()


def test_a_veto_weighs_what_vetoes_have_been_worth() -> None:
    retrieval, drafting = saying([5], 0.6), model(lambda path: [Guess(9, 0.5)])
    proposer = opened(retrieval, drafting)
    before = paths(guesses(proposer))
    assert before[(5,)] < 0.1  # the model does not name it
    for _ in range(40):
        guesses(proposer)
        proposer.committed(1, [5], ())
    assert paths(guesses(proposer))[(5,)] > 0.6  # it was right all the same


def test_beside_a_model_a_cheap_source_is_asked_once_along_its_line() -> None:
    cheap = saying([5, 6, 7], 0.8)
    proposer = opened(cheap, model(lambda path: [Guess(5 + len(path), 0.5), Guess(9, 0.4)]))
    guesses(proposer)
    guesses(proposer, 5, survival=0.9)
    assert [item.path_tokens for item in cheap.asked] == [()]
    guesses(proposer, 9, survival=0.9)  # off its line
    assert [item.path_tokens for item in cheap.asked] == [(), (9,)]
    guesses(proposer)  # at the tip it may know more by now
    assert [item.path_tokens for item in cheap.asked] == [(), (9,), ()]


def test_a_sure_model_stays_as_sure_as_it_is() -> None:
    assert paths(guesses(opened(saying([5], 0.5), model(lambda path: [Guess(9, 0.999)]))))[(9,)] > 0.995


def test_a_models_claim_outlasts_a_few_bad_outcomes_and_a_tables_does_not() -> None:
    sources = {"table": saying([9], 0.6), "model": model(lambda path: [Guess(9, 0.6)])}
    left = {}
    for name, source in sources.items():
        proposer = opened(source, saying([3], 0.2))
        for _ in range(10):
            guesses(proposer)
            proposer.committed(1, [8], ())
        left[name] = paths(guesses(proposer))[(9,)]
    assert left["table"] < 0.25 < 0.45 < left["model"]


def test_where_the_model_alone_has_spoken_its_answer_stands() -> None:
    answer = [Guess(9, 0.7), Guess(8, 0.2), Guess(7, 0.05)]
    proposer = opened(Scripted(lambda path: []), model(lambda path: answer), rows=2)
    for _ in range(10):
        assert guesses(proposer, 4, survival=0.1) == answer[:2]
        proposer.committed(1, [4, 6], ())


def test_beside_a_model_who_is_no_surer_than_it_of_what_comes_is_asked_now_and_then() -> None:
    echo = saying([5], 0.5)
    proposer = opened(echo, model(lambda path: [Guess(5, 0.7), Guess(9, 0.2)]))

    def asked(turns: int) -> int:
        """How often, while every third token is another than both say first."""
        echo.asked.clear()
        for turn in range(turns):
            guesses(proposer)
            proposer.committed(1, [9 if turn % 3 == 0 else 5], ())
        return len(echo.asked)

    asked(300)
    assert 6 <= asked(64) <= 10
    echo.answer = lambda path: chain([9], 0.5)
    for _ in range(200):  # now it knows better
        guesses(proposer)
        proposer.committed(1, [9], ())
    echo.asked.clear()
    assert paths(guesses(proposer))[(9,)] > 0.6
    assert echo.asked


def test_where_a_source_rests_the_model_answers_beside_what_was_claimed_before() -> None:
    echo = saying([5, 6, 7], 0.5)
    proposer = opened(echo, model(lambda path: [Guess(5, 0.7), Guess(9, 0.2)], batch=1))
    for turn in range(300):  # it is no surer than the model
        guesses(proposer)
        proposer.committed(1, [9 if turn % 3 == 0 else 5], ())
    while not echo.asked or echo.asked[-1].path_tokens:  # until it is asked again
        echo.asked.clear()
        guesses(proposer)
        if not echo.asked:
            proposer.committed(1, [9], ())
    proposer.committed(1, [5], ())
    echo.asked.clear()
    found = paths(guesses(proposer))
    assert not echo.asked
    assert {(5,), (9,)} <= set(found)


def test_far_down_only_the_model_answers() -> None:
    cheap, drafting = saying([5], 0.3), model(lambda path: [Guess(9, 0.7)])
    proposer = opened(cheap, drafting)
    assert paths(guesses(proposer, 3, 4, survival=0.1)) == {(9,): 0.7}
    assert not cheap.asked


def test_sessions_open_together_or_not_at_all_and_close_everywhere() -> None:
    class Refusing(Scripted):
        def open(self, session: int, context: DraftContext) -> None:
            raise InvalidArgument("not this one")

    first = saying([5])
    with pytest.raises(InvalidArgument):
        FusionProposer([first, Refusing(lambda path: [])]).open(1, CONTEXT)
    assert not first.sessions
    proposer = opened(first, saying([6]))
    proposer.close(1)
    proposer.close(1)
    assert not first.sessions


def test_those_who_learn_are_told() -> None:
    source = saying([5])
    proposer = opened(source)
    seen = Observation((1,), (5,), (-0.1,), walked=True)
    proposer.observed(1, [seen])
    assert source.seen == [seen]
    assert proposer.traits.learns


def test_rows_bound_the_tree_and_the_tree_of_claims_is_bounded_too() -> None:
    assert len(guesses(opened(saying(range(40), 0.99), rows=7))) == 7
    wide = opened(Scripted(lambda path: [Guess(token, 0.01) for token in range(5000)]))
    assert len(guesses(wide)) <= 32


def test_two_models_or_none_at_all_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="two models"):
        FusionProposer([model(lambda path: []), model(lambda path: [])])
    with pytest.raises(InvalidArgument, match="1 to 8"):
        FusionProposer([])


def test_names_with_plus_signs_are_checked() -> None:
    assert method_names("model + suffix+stand") == ("model", "suffix", "stand")
    assert needs_model("suffix+model")
    assert not needs_model("suffix+stand")
    with pytest.raises(InvalidArgument, match="names suffix twice"):
        method_names("suffix+suffix")
    with pytest.raises(InvalidArgument, match="unknown"):
        method_names("suffix+nonesuch")
    with pytest.raises(InvalidArgument, match="unknown"):
        method_names("suffix+")

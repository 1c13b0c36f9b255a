"""Token Recycling: the target's last word on a token, filled into a template or grown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest

from nacre.drafting import row_trees
from nacre.drafting.adjacency import AdjacencyTable
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, Proposer
from nacre.drafting.recycling import TEMPLATE, RecyclingGrowthProposer, RecyclingProposer
from nacre.drafting.rows import weight_byte
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams


def seen(token: int, followers: Sequence[int], chances: Sequence[float], *, walked: bool = True) -> Observation:
    return Observation((7, token), tuple(followers), tuple(math.log(p) for p in chances), walked)


def guesses(proposer: Proposer, tokens: Sequence[int], temperature: float = 1.0) -> list[Guess]:
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(temperature=temperature), None))
    (found,) = proposer.propose([Expansion(1, 0, (), ())])
    return found


def paths(found: Sequence[Guess]) -> list[tuple[int, ...]]:
    placed: list[tuple[int, ...]] = []
    for guess in found:
        placed.append(((*placed[guess.parent], guess.token)) if guess.parent != TIP else (guess.token,))
    return placed


def test_the_template_is_the_papers() -> None:
    ranks: list[str] = []
    for parent, rank in TEMPLATE:
        ranks.append((ranks[parent] if parent != TIP else "") + str(rank))
    assert len(ranks) == len(set(ranks)) == 80
    assert [sum(len(path) == depth for path in ranks) for depth in range(1, 7)] == [8, 21, 25, 15, 8, 3]
    assert {path for path in ranks if len(path) == 6} == {"000000", "000001", "000100"}
    assert "007" in ranks
    assert "112" not in ranks


def test_a_node_of_rank_r_guesses_the_rth_follower_of_its_parents_token() -> None:
    table = AdjacencyTable()
    table.learn([seen(1, [2, 3], [0.6, 0.3]), seen(2, [4], [0.9]), seen(4, [1], [0.5])])
    found = guesses(RecyclingProposer(table, rows=80), [9, 1])
    # 1 -> 2 3; 2 -> 4; 4 -> 1; 1 -> 2 3 again; 3 is unknown.
    assert set(paths(found)) == {
        *((2,), (3,), (2, 4), (2, 4, 1), (2, 4, 1, 2), (2, 4, 1, 3)),
        *((2, 4, 1, 2, 4), (2, 4, 1, 2, 4, 1)),
    }
    assert {guess.token: guess.survival for guess in found[:2]} == pytest.approx({2: 0.6, 4: 0.9}, abs=1e-4)


def test_growth_takes_the_likeliest_paths() -> None:
    table = AdjacencyTable()
    table.learn([seen(1, [2, 3], [0.6, 0.3]), seen(2, [4], [0.9]), seen(3, [5], [0.5])])
    assert paths(guesses(RecyclingGrowthProposer(table, rows=3), [1])) == [(2,), (2, 4), (3,)]


def test_a_colder_target_is_surer_of_the_first() -> None:
    table = AdjacencyTable()
    table.learn([seen(1, [2, 3], [0.6, 0.2])])
    found = guesses(RecyclingGrowthProposer(table), [1], temperature=0.0)
    # Squares, with the same sum: .8 * .36 / .40 and .8 * .04 / .40.
    assert [guess.survival for guess in found] == pytest.approx([0.72, 0.08], abs=1e-4)


def test_a_row_is_replaced_and_walked_nodes_have_the_last_word() -> None:
    table = AdjacencyTable()
    table.learn([seen(1, [2, 3, 4], [0.5, 0.3, 0.1]), seen(1, [5], [0.9], walked=False)])
    assert [token for token, _ in table.children(1)] == [2, 3, 4]
    table.learn([seen(1, [5], [0.9], walked=False)])
    assert [token for token, _ in table.children(1)] == [5]


def test_rows_hold_eight_and_ids_out_of_bounds_are_ignored() -> None:
    table = AdjacencyTable(vocabulary=2000)
    table.learn([seen(1999, range(20), [0.05] * 20), seen(2000, [1], [0.9]), Observation((), (1,), (0.0,), True)])
    assert len(table.children(1999)) == 8
    assert table.children(2000) == table.children(-1) == table.children(5) == ()
    assert table.size_bytes == 2000 * 48


def test_rows_of_others_are_merged() -> None:
    table = AdjacencyTable()
    table.merge([((1,), ((2, weight_byte(0.6)), (3, weight_byte(0.3)))), ((70,), ((9, 255),))])
    assert dict(table.children(1)) == pytest.approx({2: 0.6, 3: 0.3}, rel=0.04)
    assert dict(table.children(70)) == pytest.approx({9: 1.0}, rel=0.04)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_table_grows_with_its_tokens_and_its_trees_follow(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(row_trees, "available", lambda: False)
    proposer = RecyclingGrowthProposer()
    proposer.observed(1, [seen(1, [2], [0.9])])
    small = proposer.size_bytes
    assert paths(guesses(proposer, [1])) == [(2,)]
    proposer.observed(1, [seen(2, [100_000], [0.9]), seen(100_000, [5], [0.9])])
    assert small < proposer.size_bytes <= 48 * 120_000
    assert paths(guesses(proposer, [1])) == [(2,), (2, 100_000), (2, 100_000, 5)]
    proposer.shrink()
    assert proposer.size_bytes == small
    assert guesses(proposer, [1]) == []


@pytest.mark.parametrize(
    "junk", [((1, 2), ((3, 200),)), ((-4,), ((3, 200),)), ((1,), ((-3, 200),)), ((1,), ((3, 0),)), ((1,), ())]
)
def test_junk_rows_are_dropped(junk: tuple[tuple[int, ...], tuple[tuple[int, int], ...]]) -> None:
    table = AdjacencyTable()
    table.merge([junk, ((1 << 40,), ((3, 200),)), ((1,), ((1 << 40, 255), (2, 999)))])
    assert [token for token in range(8) if table.children(token)] == []


@pytest.mark.parametrize("kind", [RecyclingProposer, RecyclingGrowthProposer])
def test_the_second_time_the_same_text_is_guessed(kind: type[RecyclingProposer]) -> None:
    text = [1, 5, 2, 8, 3, 9]
    proposer = kind(rows=80)
    assert guesses(proposer, text[:1]) == []
    told = [seen(a, [b, 0], [0.8, 0.1]) for a, b in itertools.pairwise(text)]
    proposer.observed(1, told)
    proposer.close(1)
    assert tuple(text[1:]) in paths(guesses(proposer, text[:1]))


@pytest.mark.parametrize("vocabulary", [0, (1 << 21) + 1])
def test_a_vocabulary_out_of_bounds_is_refused(vocabulary: int) -> None:
    with pytest.raises(InvalidArgument, match=f"vocabulary is {vocabulary}; it must be 1 to"):
        AdjacencyTable(vocabulary)

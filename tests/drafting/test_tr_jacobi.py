"""TR-Jacobi: a retrieval chain and a tree of what was said below rejected guesses."""

from __future__ import annotations

from collections.abc import Sequence

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation
from nacre.drafting.tr_jacobi import TrJacobiProposer
from nacre.sampling import SamplingParams


def opened(tokens: Sequence[int], rows: int = 32) -> TrJacobiProposer:
    proposer = TrJacobiProposer(rows=rows)
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(), None))
    return proposer


def paths(proposer: TrJacobiProposer, *path: int) -> list[tuple[int, ...]]:
    (found,) = proposer.propose([Expansion(1, 0, path, ())])
    placed: list[tuple[int, ...]] = []
    for guess in found:
        placed.append(((*placed[guess.parent], guess.token)) if guess.parent != TIP else (guess.token,))
    return placed


def said(*tokens: int, walked: bool = False) -> Observation:
    return Observation((1, 2), tokens, tuple(-1.0 - i for i in range(len(tokens))), walked)


def test_the_chain_is_the_latest_match_of_up_to_three_tokens() -> None:
    assert paths(opened([1, 2, 3, 4, 5, 6, 7, 8, 1, 2]))[-1] == (3, 4, 5, 6, 7)


def test_levels_are_what_the_target_said_below_rejected_nodes_in_order() -> None:
    proposer = opened([1, 2])
    proposer.observed(1, [said(99, walked=True), said(10, 11), said(20, 21, 22)])
    found = set(paths(proposer))
    assert {(10,), (11,), (10, 20), (10, 21), (11, 20)} <= found
    assert not any(99 in path for path in found)
    assert max(map(len, found)) == 2
    # Below a guess, the levels start one later.
    assert set(paths(proposer, 10)) == {(20,), (21,), (22,)}
    proposer.committed(1, [5], ())
    assert paths(proposer) == []


def test_chain_and_tree_share_nodes() -> None:
    proposer = opened([1, 2, 3, 4, 1])
    proposer.observed(1, [said(2, 9), said(3, 8)])
    found = paths(proposer)
    assert len(found) == len(set(found))
    assert found[:4] == [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 1)]
    assert {(9,), (2, 8), (9, 3)} <= set(found)


def test_rows_are_a_bound() -> None:
    proposer = opened([1, 2, 3, 4, 1], rows=6)
    proposer.observed(1, [said(*range(10, 20))] * 4)
    assert len(paths(proposer)) == 6
    assert len(paths(opened([1, 2, 3, 4, 1], rows=2))) == 2


def test_an_agreed_guess_comes_out_of_what_was_learned() -> None:
    proposer = opened([1, 2])
    assert paths(proposer) == []
    proposer.observed(1, [said(7, 8)])
    (found,) = proposer.propose([Expansion(1, 0, (), ())])
    assert found[0] == Guess(7, 0.25, TIP)

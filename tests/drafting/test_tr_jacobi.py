"""TR-Jacobi: a retrieval chain and a tree of what was said below rejected guesses, in the order in which services call.

A pass is told as the services tell it. Its rows are here: below the tip 10, which is right; below that 11 and 13, both
wrong, for the target says 20; below 11 hangs 12. So the text goes on 10 20, and 11, 12 is the rejected chain.
"""

from __future__ import annotations

from collections.abc import Sequence

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation
from nacre.drafting.tr_jacobi import TrJacobiProposer
from nacre.sampling import SamplingParams
from nacre.session.observed import Observed, observations_of

TEXT = [1, 2, 3]
COMMITTED = [10, 20]
#: (parent, token, the target's best tokens after it); the second of two siblings comes before the first one's child.
ROWS = ((-1, 3, (10, 90)), (0, 10, (20, 91)), (1, 11, (30, 31)), (1, 13, (92, 93)), (2, 12, (40, 41, 42)))


def opened(tokens: Sequence[int] = TEXT, rows: int = 32) -> TrJacobiProposer:
    proposer = TrJacobiProposer(rows=rows)
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(), None))
    return proposer


def told(
    before: Sequence[int], committed: Sequence[int], rows: Sequence[tuple[int, int, Sequence[int]]]
) -> list[Observation]:
    """What a service tells of a pass."""
    parents, tokens, said = zip(*rows, strict=True)
    best = [tuple((token, -1.0 - rank) for rank, token in enumerate(row)) for row in said]
    return observations_of([*before, *committed], Observed.of_pass(len(before), parents, tokens, best))


def guessed(proposer: TrJacobiProposer, *path: int) -> list[Guess]:
    (found,) = proposer.propose([Expansion(1, 0, path, ())])
    return found


def paths(proposer: TrJacobiProposer, *path: int) -> list[tuple[int, ...]]:
    placed: list[tuple[int, ...]] = []
    for guess in guessed(proposer, *path):
        placed.append(((*placed[guess.parent], guess.token)) if guess.parent != TIP else (guess.token,))
    return placed


TREE = {(first, *rest) for first in (30, 31) for rest in ((), (40,), (41,), (42,))}


def test_the_chain_is_the_latest_match_of_up_to_three_tokens() -> None:
    assert paths(opened([1, 2, 3, 4, 5, 6, 7, 8, 1, 2]))[-1] == (3, 4, 5, 6, 7)


def test_levels_are_the_positions_of_the_rejected_chain_and_no_siblings() -> None:
    proposer = opened()
    proposer.committed(1, COMMITTED, ())
    proposer.observed(1, told(TEXT, COMMITTED, ROWS))
    assert set(paths(proposer)) == TREE
    assert guessed(proposer)[0] == Guess(30, 0.25, TIP)
    # Below a guess, the levels start one later; beyond them there is nothing.
    assert set(paths(proposer, 30)) == {(40,), (41,), (42,)}
    assert paths(proposer, 30, 40) == []


def test_in_a_verifier_passes_are_told_after_the_next_guesses_and_levels_are_for_those_after() -> None:
    proposer = opened()
    assert paths(proposer) == []
    # The pass is over: its text is told, guesses are made, and only then comes what the target thought.
    proposer.committed(1, COMMITTED, ())
    assert paths(proposer) == []
    proposer.observed(1, told(TEXT, COMMITTED, ROWS))
    # One token more: the first level was for it, whatever it is.
    proposer.committed(1, [77], ())
    assert set(paths(proposer)) == {(40,), (41,), (42,)}
    assert guessed(proposer)[0].survival < 0.25, "what is farther from the text that was its input is less sure"
    # That pass rejected nothing: its word replaces what was told before.
    proposer.observed(1, told([*TEXT, *COMMITTED], [77], [(-1, 20, (77, 1))]))
    proposer.committed(1, [78], ())
    assert paths(proposer) == []


def test_in_a_drafter_passes_are_told_a_step_after_their_text() -> None:
    # A step is: texts, then what the target thought in passes whose texts the step before was told, then guesses.
    proposer = opened()
    proposer.committed(1, COMMITTED, ())
    assert paths(proposer) == []
    proposer.observed(1, told(TEXT, COMMITTED, ROWS))
    assert set(paths(proposer)) == TREE
    # The same with another text in the same step, and one after it: then all levels have been passed.
    late = opened()
    late.committed(1, COMMITTED, ())
    late.committed(1, [77], ())
    late.observed(1, told(TEXT, COMMITTED, ROWS))
    assert set(paths(late)) == {(40,), (41,), (42,)}
    late.committed(1, [78], ())
    assert paths(late) == []


def test_what_is_told_before_its_text_waits_for_it() -> None:
    proposer = opened()
    proposer.observed(1, told(TEXT, COMMITTED, ROWS))
    assert paths(proposer) == []
    proposer.committed(1, COMMITTED, ())
    assert set(paths(proposer)) == TREE


def test_of_passes_that_are_told_together_the_last_counts() -> None:
    following = ((-1, 20, (50, 90)), (0, 51, (60, 61)))
    proposer = opened()
    proposer.committed(1, [*COMMITTED, 50], ())
    both = [*told(TEXT, COMMITTED, ROWS), *told([*TEXT, *COMMITTED], [50], following)]
    proposer.observed(1, both)
    assert set(paths(proposer)) == {(60,), (61,)}


def test_a_pass_that_rejected_nothing_below_its_end_leaves_no_levels() -> None:
    proposer = opened()
    proposer.committed(1, COMMITTED, ())
    proposer.observed(1, told(TEXT, COMMITTED, ROWS))
    # 8, beside what became text, was rejected long before its end.
    right = ((-1, 20, (5, 8)), (0, 5, (6, 90)), (0, 8, (91, 92)), (1, 6, (7, 90)))
    proposer.observed(1, told([*TEXT, *COMMITTED], [5, 6, 7], right))
    proposer.committed(1, [5, 6, 7], ())
    assert paths(proposer) == []


def test_chain_and_tree_share_nodes() -> None:
    proposer = opened([1, 2, 3, 4, 9])
    proposer.committed(1, [1], ())
    proposer.observed(1, told([1, 2, 3, 4, 9], [1], [(-1, 9, (1, 90)), (0, 8, (2, 11)), (1, 7, (3, 12))]))
    found = paths(proposer)
    assert len(found) == len(set(found))
    assert found[:5] == [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 9), (2, 3, 4, 9, 1)]
    assert {(11,), (2, 12), (11, 3)} <= set(found)


def test_rows_and_levels_are_bounds() -> None:
    rejected = [(-1, 1, (5,)), *((place, 60 + place, range(10, 20)) for place in range(6))]
    proposer = opened([1, 2, 3, 4, 1], rows=6)
    proposer.committed(1, [5], ())
    proposer.observed(1, told([1, 2, 3, 4, 1], [5], rejected))
    assert len(paths(proposer)) == 6
    assert paths(proposer, 70, 71, 72)
    assert paths(proposer, 70, 71, 72, 73) == []
    assert len(paths(opened([1, 2, 3, 4, 1], rows=2))) == 2

"""The tree of claims keeps who guessed what below which path, and makes nodes only where something hangs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nacre.drafting.claims import MOST_NODES, ClaimNode, ClaimTree
from nacre.drafting.growth import MOST_ROWS
from nacre.drafting.proposer import TIP, Guess

Path = tuple[int, ...]


@st.composite
def guess_lists(draw: st.DrawFn) -> list[Guess]:
    """Parents before children; siblings differ."""
    guesses: list[Guess] = []
    taken: set[tuple[int, int]] = set()
    for place in range(draw(st.integers(0, 12))):
        parent, token = draw(st.integers(TIP, place - 1)), draw(st.integers(0, 3))
        if parent >= len(guesses) or (parent, token) in taken:
            continue
        taken.add((parent, token))
        guesses.append(Guess(token, draw(st.sampled_from([0.1, 0.5, 0.9])), parent))
    return guesses


def path_of(guesses: list[Guess], place: int, top: Path) -> Path:
    return top if place == TIP else (*path_of(guesses, guesses[place].parent, top), guesses[place].token)


def noted(tree: ClaimTree) -> dict[Path, Any]:
    """All claims by path."""
    found: dict[Path, Any] = {}
    stack: list[tuple[Path, ClaimNode]] = [((), tree.root)]
    while stack:
        path, node = stack.pop()
        if node.claims:
            found[path] = node.claims
        stack += [((*path, token), child) for token, child in node.children.items()]
    return found


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=2), st.integers(0, 2), guess_lists()), max_size=4))
def test_claims_are_kept_by_path_and_source(hung: list[tuple[list[int], int, list[Guess]]]) -> None:
    tree = ClaimTree()
    expected: dict[Path, dict[int, Any]] = {}
    for top, source, guesses in hung:
        tree.hang(tree.path(top)[-1], source, guesses)
        for parent in {tuple(top), *(path_of(guesses, guess.parent, tuple(top)) for guess in guesses)}:
            expected.setdefault(parent, {})[source] = {}
        for guess in guesses:
            claims = expected[path_of(guesses, guess.parent, tuple(top))][source]
            claims[guess.token] = (len(claims), guess.survival)
    assert noted(tree) == expected


def test_a_claim_alone_makes_no_node_and_what_hangs_below_it_does() -> None:
    tree = ClaimTree()
    tree.hang(tree.root, 0, [Guess(5, 0.5), Guess(6, 0.4), Guess(7, 0.3, 1)])
    assert list(tree.root.children) == [6]
    assert not tree.root.children[6].children


def test_after_a_commit_only_what_lies_below_counts() -> None:
    tree = ClaimTree()
    tree.hang(tree.root, 0, [Guess(5, 0.5), Guess(6, 0.4, 0), Guess(7, 0.3, 1)])
    kept = tree.path((5,))[-1]
    tree.move(kept)
    assert tree.root is kept
    assert noted(tree) == {(): {0: {6: (0, 0.4)}}, (6,): {0: {7: (0, 0.3)}}}
    tree.move(None)
    assert noted(tree) == {}
    assert tree.root.id not in (0, kept.id)


def test_a_tree_is_bounded() -> None:
    tree = ClaimTree()
    tree.hang(tree.root, 0, [Guess(token, 0.001) for token in range(2 * MOST_ROWS)])
    assert len(tree.root.claims[0]) == MOST_ROWS
    for first in range(2 * MOST_NODES // MOST_ROWS):
        tree.hang(tree.root, 0, [Guess(first if place == 0 else 1, 0.9, place - 1) for place in range(MOST_ROWS)])
    assert MOST_NODES - MOST_ROWS < len(noted(tree)) <= MOST_NODES

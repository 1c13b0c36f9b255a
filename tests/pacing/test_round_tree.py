"""The round's tree: numbers, paths, and which guesses the committed tokens judge."""

from __future__ import annotations

import pytest

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.pacing import TIP, Costs, Outcome, PassTime, RoundTree
from nacre.pacing.round_tree import features_of
from tests.pacing.guessing import FakeFeatures, FakeGuess, costs


@pytest.fixture
def tree() -> RoundTree:
    """tip ─┬─ 0:a ─┬─ 2:c ── 4:e        1 and 3 are the second children
    └─ 1:b  └─ 3:d
    """
    tree = RoundTree()
    assert tree.extend(TIP, [FakeGuess(ord("a"), 0.8), FakeGuess(ord("b"), 0.1)]) == [0, 1]
    tree.extend(0, [FakeGuess(ord("c"), 0.5), FakeGuess(ord("d"), 0.4)])
    tree.extend(2, [FakeGuess(ord("e"), 0.9)])
    return tree


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_a_path_is_the_product_of_survivals(tree: RoundTree) -> None:
    assert [round(node.path, 3) for node in tree.nodes] == [0.8, 0.1, 0.4, 0.32, 0.36]
    assert [node.rank for node in tree.nodes] == [0, 1, 0, 1, 0]
    assert [node.depth for node in tree.nodes] == [1, 1, 2, 2, 3]
    assert tree.deepest == 3
    assert [node.index for node in tree.principal()] == [0, 2, 4]


def test_the_best_are_the_likeliest_and_form_a_tree(tree: RoundTree) -> None:
    assert tree.best(5) == [0, 2, 4, 3, 1]
    assert tree.best(2) == [0, 2]


def test_ties_keep_parents_first() -> None:
    tree = RoundTree()
    tree.extend(TIP, [FakeGuess(1, 1.0), FakeGuess(2, 1.0)])
    tree.extend(1, [FakeGuess(3, 1.0)])
    tree.extend(0, [FakeGuess(4, 1.0)])
    assert tree.best(4) == [0, 1, 2, 3]


def test_guesses_may_come_several_deep() -> None:
    tree = RoundTree()
    assert tree.extend(TIP, [FakeGuess(7, 0.9), FakeGuess(8, 0.9, parent=0), FakeGuess(9, 0.9, parent=1)]) == [0, 1, 2]
    assert tree.nodes[2].depth == 3
    assert tree.extended(1)
    assert not tree.extended(2)


@pytest.mark.parametrize(
    ("tokens", "right", "judged"),
    [
        ("ace", [0, 2, 4], {0: True, 1: False, 2: True, 3: False, 4: True}),
        ("acx", [0, 2], {0: True, 1: False, 2: True, 3: False, 4: False}),
        ("ac", [0, 2], {0: True, 1: False, 2: True, 3: False}),
        ("b", [1], {0: False, 1: True}),
        ("x", [], {0: False, 1: False}),
        ("", [], {}),
    ],
)
def test_committed_tokens_judge_what_hangs_below_the_right(
    tree: RoundTree, tokens: str, right: list[int], judged: dict[int, bool]
) -> None:
    assert tree.right(letters(tokens)) == right
    assert {node.index: true for node, true in tree.judged(letters(tokens))} == judged


def test_an_outcome_tells_sent_from_merely_drafted(tree: RoundTree) -> None:
    outcome = Outcome(tree, [0, 1], letters("ac"), 0.1)
    assert [node.index for node in outcome.accepted()] == [0]
    assert [(node.index, right) for node, right in outcome.judged()] == [(0, True), (1, False)]


def test_features_are_asked_for_with_a_remedy(tree: RoundTree) -> None:
    with pytest.raises(FailedPrecondition, match=r"svip.*features=True"):
        features_of(tree.nodes[0], "svip")
    assert tree.nodes[0].q == 0.8
    told = RoundTree()
    told.extend(TIP, [FakeGuess(1, 0.8, features=FakeFeatures(q=0.3))])
    assert told.nodes[0].q == 0.3


def test_a_pass_takes_what_was_measured_and_straight_lines_between() -> None:
    seconds = PassTime({8: 0.05, 1: 0.04, 16: 0.09})
    assert [seconds(rows) for rows in (1, 8, 16)] == pytest.approx([0.04, 0.05, 0.09])
    assert seconds(12) == pytest.approx(0.07)
    assert seconds(24) == pytest.approx(0.13)
    assert PassTime({4: 0.2})(1) == PassTime({4: 0.2})(64) == 0.2
    assert PassTime({4: 0.2, 8: 0.4})(1) == 0.2


def test_a_round_costs_drafting_the_way_and_the_pass() -> None:
    assert costs(rtt=0.1).round_s(3, 4) == pytest.approx(3 * 0.008 + 0.1 + 0.038 + 4 * 0.0003)
    assert costs().node_s(5) == pytest.approx(0.0003)


@pytest.mark.parametrize("name", ["draft_s", "draft_node_s", "rtt_s", "throughput", "most_nodes", "most_depth"])
def test_impossible_costs_are_refused(name: str) -> None:
    numbers = {"draft_s": 0.01, name: -1}
    with pytest.raises(InvalidArgument, match=name):
        Costs(verify_s=lambda rows: 0.01, **numbers)  # type: ignore[arg-type]


def test_impossible_passes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="verify_s"):
        Costs(0.01, lambda rows: 0.0)
    for table in ({}, {0: 0.1}, {1: 0.0}):
        with pytest.raises(InvalidArgument, match="seconds_by_rows"):
            PassTime(table)

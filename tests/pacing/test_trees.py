"""Tree policies: against brute force on small sizes, and their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest

from nacre.pacing import TIP, RoundTree, policy_named
from nacre.pacing.sequoia import PRIOR, SequoiaPolicy, SequoiaTable, Shape
from tests.pacing.guessing import FakeGuess, costs, grown, one_round, rows_of

BY_RANK = (0.6, 0.25, 0.1)


@cache
def shapes(size: int, depth: int, ranks: int) -> frozenset[frozenset[tuple[int, ...]]]:
    """Every tree of `size` nodes and at most `depth` levels, as the set of its nodes' rank paths, root ()."""
    found = {frozenset([()])}
    for _ in range(size - 1):
        found = {
            tree | {(*node, rank)}
            for tree in found
            for node in tree
            if len(node) < depth
            for rank in range(ranks)
            if (*node, rank) not in tree
        }
    return frozenset(found)


def tokens_of(tree: frozenset[tuple[int, ...]], by_rank: tuple[float, ...]) -> float:
    return float(sum(np.prod([by_rank[rank] for rank in node]) for node in tree))


def rank_paths(shape: Shape) -> frozenset[tuple[int, ...]]:
    paths: dict[int, tuple[int, ...]] = {0: ()}
    for place in range(len(shape)):
        for rank, below in shape.children[place]:
            paths[below] = (*paths[place], rank)
    return frozenset(paths.values())


@pytest.mark.parametrize("by_rank", [BY_RANK, (0.5, 0.5, 0.5), (0.9, 0.05, 0.01), (0.2, 0.6, 0.1)])
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_sequoias_program_finds_the_best_tree_of_every_size(by_rank: tuple[float, ...], depth: int) -> None:
    table = SequoiaTable(by_rank, 6, depth)
    for size in range(1, 7):
        all_of_them = shapes(size, depth, 3)
        if not all_of_them:
            assert table.tokens[depth, size] == -np.inf
            continue
        best = max(tokens_of(tree, by_rank) for tree in all_of_them)
        assert table.tokens[depth, size] == pytest.approx(best)
        shape = table.shape(depth, size)
        assert len(shape) == size
        assert shape.depth <= depth
        assert tokens_of(rank_paths(shape), by_rank) == pytest.approx(best) == pytest.approx(shape.tokens)


@pytest.mark.parametrize(("rtt", "row"), [(0.0, 0.001), (0.1, 0.001), (0.1, 0.02), (0.0, 0.05)])
def test_sequoia_sends_the_tree_with_the_most_tokens_per_second(rtt: float, row: float) -> None:
    round_costs = costs(rtt=rtt, row=row)
    chosen = SequoiaTable(BY_RANK, 6, 4).best(round_costs)
    rates = {
        tree: tokens_of(tree, BY_RANK) / round_costs.round_s(max(map(len, tree)), len(tree) - 1)
        for size in range(1, 7)
        for tree in shapes(size, 4, 3)
    }
    rate = chosen.tokens / round_costs.round_s(chosen.depth, len(chosen) - 1)
    assert rate == pytest.approx(max(rates.values()))


def test_sequoia_measures_its_ranks() -> None:
    policy = SequoiaPolicy(memory=1e9)
    luck = np.random.default_rng(4)
    truth = (0.5, 0.3, 0.1, 0.0)
    offer = [FakeGuess(rank, 0.2) for rank in range(4)]
    for _ in range(700):
        # Siblings are rivals: at most one comes true.
        pick = luck.choice(5, size=64, p=[*truth, 0.1])
        one_round(
            policy,
            lambda tree, node: offer,
            costs(rtt=0.1),
            lambda node, pick=pick: node.rank == pick[node.depth],  # type: ignore[misc]
        )
    assert policy.by_rank() == pytest.approx(truth, abs=0.05)
    assert all(a >= b for a, b in pairwise(PRIOR))


def test_sequoia_drafts_a_level_per_step_and_sends_its_shape() -> None:
    policy = SequoiaPolicy(nodes=12)
    tree, steps = grown(policy, rows_of(0.5, 0.2, 0.1, 0.1), costs(rtt=0.1))
    assert steps == policy.shape.depth
    assert len(policy.chosen(tree)) == len(policy.shape) - 1


def random_tree(seed: int, levels: int) -> dict[tuple[int, ...], list[FakeGuess]]:
    random = np.random.default_rng(seed)
    offers: dict[tuple[int, ...], list[FakeGuess]] = {}
    newest: list[tuple[int, ...]] = [()]
    for _ in range(levels):
        following = []
        for path in newest:
            survivals = sorted(random.dirichlet(np.full(4, 0.5)), reverse=True)[:3]
            offers[path] = [FakeGuess(token, float(s)) for token, s in enumerate(survivals)]
            following += [(*path, token) for token in range(3)]
        newest = following
    return offers


def path_of(tree: RoundTree, index: int) -> tuple[int, ...]:
    path: list[int] = []
    while index != TIP:
        path.append(tree.nodes[index].token)
        index = tree.nodes[index].parent
    return tuple(reversed(path))


def prefix_closed(tree: RoundTree, count: int) -> Iterator[tuple[int, ...]]:
    for some in combinations(range(len(tree)), count):
        if all(tree.nodes[i].parent == TIP or tree.nodes[i].parent in some for i in some):
            yield some


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["eagle2", "opt-tree"])
def test_the_nodes_sent_are_the_best_tree_of_their_number(name: str, seed: int) -> None:
    offers = random_tree(seed, 2)
    policy = policy_named(name, nodes=4, depth=2, children=3)
    tree, _ = grown(policy, lambda tree, node: offers[path_of(tree, node)], costs())
    sent = policy.chosen(tree)
    best = max(sum(tree.nodes[i].path for i in some) for some in prefix_closed(tree, len(sent)))
    assert sum(tree.nodes[i].path for i in sent) == pytest.approx(best)


def test_eagle2_extends_the_best_beams_of_the_newest_level() -> None:
    offers = random_tree(3, 3)
    policy = policy_named("eagle2", beams=2, depth=3, children=3, nodes=50)
    tree, steps = grown(policy, lambda tree, node: offers[path_of(tree, node)], costs())
    assert steps == 3
    assert len(tree) == 3 + 2 * 3 + 2 * 3
    for depth in (1, 2):
        level = [node for node in tree.nodes if node.depth == depth]
        extended = {node.index for node in level if tree.extended(node.index)}
        assert extended == {node.index for node in sorted(level, key=lambda node: -node.path)[:2]}
    assert len(policy.chosen(tree)) == 15


def test_opt_tree_stops_when_a_level_adds_too_little() -> None:
    # Sums of the best: 0.9, then + 0.81, + 0.729, … A level adds at least 0.5 as long as 0.9^k does: six levels.
    policy = policy_named("opt-tree", threshold=0.5, depth=20)
    tree, steps = grown(policy, rows_of(0.9), costs())
    assert steps == 7
    assert len(policy.chosen(tree)) == 7
    shallow, steps = grown(policy_named("opt-tree", threshold=0.0, depth=4), rows_of(0.9), costs())
    assert (steps, shallow.deepest) == (4, 4)


def test_opt_tree_extends_only_what_is_among_the_best() -> None:
    policy = policy_named("opt-tree", nodes=3, threshold=0.1, depth=2)
    tree, _ = grown(policy, rows_of(0.7, 0.2, 0.06, 0.04), costs())
    extended = [node.index for node in tree.nodes if tree.extended(node.index)]
    assert extended == [0, 1, 2], "of four at the first level, three are among the best three"

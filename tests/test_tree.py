"""The draft tree: what lives, what dies, and in which order the best nodes come."""

from __future__ import annotations

import pytest

from nacre.sim.dice import Dice
from nacre.tree import DraftTree, Fate, Node


def grow(tree: DraftTree, *tokens: int, survival: float = 0.5) -> Node:
    """A chain below the tip; returns its last node."""
    node = tree.tip
    for token in tokens:
        node = tree.add(node, token, survival)
    return node


def test_a_new_tree_has_only_its_tip() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    assert (len(tree), tree.full, list(tree.nodes()), list(tree.best_first())) == (0, False, [], [])
    assert (tree.tip.token, tree.tip.position, tree.tip.parent, tree.tip.path()) == (7, 4, None, [])


def test_a_tree_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_nodes is 0; a draft tree needs room for at least 1 node"):
        DraftTree(7, 4, max_nodes=0)


def test_a_node_guesses_the_position_after_its_parent() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    last = grow(tree, 1, 2, 3)
    assert last.position == 7
    assert last.path() == [1, 2, 3]
    assert last.fate is Fate.LIVE


def test_the_same_path_is_one_node_and_keeps_the_larger_survival() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    first = tree.add(tree.tip, 1, 0.4)
    assert tree.add(tree.tip, 1, 0.6) is first
    assert tree.add(tree.tip, 1, 0.2) is first
    assert (len(tree), first.survival) == (1, 0.6)


def test_siblings_are_rivals_with_ids_of_their_own() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    left, right = tree.add(tree.tip, 1, 0.5), tree.add(tree.tip, 2, 0.5)
    assert left is not right
    assert left.id != right.id
    assert left.position == right.position


def test_commit_steps_onto_the_matching_nodes_and_keeps_what_hangs_below() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    right = grow(tree, 1, 2)
    survivor = tree.add(right, 3, 0.5)
    rival = grow(tree, 1, 9)
    loser = grow(tree, 8, 8)
    moved = tree.commit((1, 2))
    assert [node.token for node in moved.trunk] == [1, 2]
    assert set(moved.dead) == {rival, loser, loser.parent}
    assert tree.tip is right
    assert (right.fate, right.parent) == (Fate.TRUNK, None)
    assert list(tree.nodes()) == [survivor]
    assert survivor.path() == [3]
    assert len(tree) == 1


def test_commit_of_an_unguessed_token_kills_everything() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    grow(tree, 1, 2, 3)
    moved = tree.commit((5,))
    assert moved.trunk == ()
    assert len(moved.dead) == 3
    assert all(node.fate is Fate.DEAD for node in moved.dead)
    assert (tree.tip.token, tree.tip.position, tree.tip.fate, len(tree)) == (5, 5, Fate.TRUNK, 0)


def test_commit_past_the_guesses_goes_on_with_fresh_nodes() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    grow(tree, 1)
    moved = tree.commit((1, 2, 3))
    assert [node.token for node in moved.trunk] == [1]
    assert (tree.tip.token, tree.tip.position) == (3, 7)


def test_commit_of_nothing_changes_nothing() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    node = grow(tree, 1)
    moved = tree.commit(())
    assert (moved.trunk, moved.dead, list(tree.nodes())) == ((), (), [node])


def test_removing_a_node_takes_its_subtree_and_nothing_else() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    stays = grow(tree, 2)
    top = grow(tree, 1)
    below = tree.add(top, 3, 0.5)
    assert set(tree.remove(top)) == {top, below}
    assert (top.fate, below.fate, stays.fate) == (Fate.DEAD, Fate.DEAD, Fate.LIVE)
    assert list(tree.nodes()) == [stays]
    assert len(tree) == 1
    assert tree.add(tree.tip, 1, 0.5) is not top


def test_what_is_dead_or_settled_holds_on_to_nothing() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    settled = tree.tip
    dead = [*tree.remove(grow(tree, 1, 2).parent or settled)]
    grow(tree, 3, 4)
    dead += tree.commit((5,)).dead
    assert len(dead) == 4
    assert all(node.children == {} for node in (settled, *dead))


def test_room_comes_back_when_nodes_die() -> None:
    tree = DraftTree(7, 4, max_nodes=2)
    grow(tree, 1, 2)
    assert tree.full
    tree.commit((1,))
    assert not tree.full


def test_ids_are_never_used_twice() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    seen = {tree.tip.id}
    for token in range(6):
        node = tree.add(tree.tip, token, 0.5)
        assert node.id not in seen
        seen.add(node.id)
        if token % 2:
            tree.commit((token,))
        else:
            tree.remove(node)
        assert tree.tip.id == node.id or tree.tip.id in seen
    tree.commit((99,))
    assert tree.tip.id not in seen


def test_best_first_orders_by_path_survival_with_parents_before_children() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    sure = tree.add(tree.tip, 1, 0.9)
    deep = tree.add(sure, 2, 0.9)
    doubtful = tree.add(tree.tip, 3, 0.5)
    certain_below_doubt = tree.add(doubtful, 4, 1.0)
    order = list(tree.best_first())
    assert [node for node, _ in order] == [sure, deep, doubtful, certain_below_doubt]
    assert [survival for _, survival in order] == pytest.approx([0.9, 0.81, 0.5, 0.5])


def test_best_first_refuses_a_node_together_with_what_hangs_below() -> None:
    tree = DraftTree(7, 4, max_nodes=8)
    refused = tree.add(tree.tip, 1, 0.9)
    tree.add(refused, 2, 0.9)
    kept = tree.add(tree.tip, 3, 0.1)
    asked: list[tuple[int, float]] = []

    def admit(node: Node, survival: float) -> bool:
        asked.append((node.token, survival))
        return node is not refused

    assert [node for node, _ in tree.best_first(admit)] == [kept]
    assert asked == [(1, 0.9), (3, 0.1)]


@pytest.mark.parametrize("seed", range(40))
def test_any_history_leaves_exactly_the_guesses_that_continue_the_text(seed: int) -> None:
    dice = Dice(seed)
    text: tuple[int, ...] = (0,)
    paths: dict[tuple[int, ...], float] = {}
    tree = DraftTree(0, 0, max_nodes=24)
    for _ in range(120):
        nodes = {(*text, *node.path()): node for node in tree.nodes()}
        assert nodes.keys() == paths.keys()
        assert len(tree) == len(paths)
        assert all(node.position == len(path) - 1 and node.fate is Fate.LIVE for path, node in nodes.items())
        action = dice.below(8)
        if action < 5 and not tree.full:
            above = dice.pick((text, *paths))
            token, survival = dice.below(3), dice.unit()
            tree.add(nodes.get(above, tree.tip), token, survival)
            path = (*above, token)
            paths[path] = max(survival, paths.get(path, 0.0))
        elif action == 5 and paths:
            gone = dice.pick(tuple(paths))
            dead = tree.remove(nodes[gone])
            withdrawn = {path for path in paths if path[: len(gone)] == gone}
            assert set(dead) == {nodes[path] for path in withdrawn}
            paths = {path: value for path, value in paths.items() if path not in withdrawn}
        elif action == 6:
            tokens = tuple(dice.below(3) for _ in range(dice.below(4)))
            moved = tree.commit(tokens)
            text = (*text, *tokens)
            alive = {
                path: value for path, value in paths.items() if len(path) > len(text) and path[: len(text)] == text
            }
            trunk = [path for path in paths if path == text[: len(path)]]
            assert list(moved.trunk) == [nodes[path] for path in sorted(trunk, key=len)]
            assert set(moved.dead) == {nodes[path] for path in paths if path not in alive and path not in trunk}
            paths = alive
        worth = {}
        for path in sorted(paths, key=len):
            worth[path] = worth.get(path[:-1], 1.0) * paths[path]
        order = list(tree.best_first())
        assert [survival for _, survival in order] == sorted(worth.values(), reverse=True)
        assert {(*text, *node.path()): survival for node, survival in order} == worth

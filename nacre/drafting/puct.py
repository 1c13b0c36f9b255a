"""PUCT search over rows of followers, in Python: what `aded` describes, where there is no C for it.

Rule: from the start, as many times as there are iterations, descend to the worthiest child, unvisited ones first; open
the leaf and draw one of its children; draw on until four tokens lie below the start; add 1 and all priors on the way to
every node of it. Dice are thrown anew for every search, from its seed: the same search gives the same tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from nacre.drafting.growth import Children
from nacre.drafting.proposer import TIP, Guess

#: Tokens that a search looks ahead.
ROLLOUT = 4

#: The weights of a context's row, and its children.
_Read = Callable[[int], tuple[Sequence[int], Children]]

_MASK = (1 << 64) - 1


@dataclass(slots=True, eq=False)
class _Node:
    key: int
    token: int
    prior: float
    parent: _Node | None
    visits: int = 0
    value: float = 0.0
    children: list[_Node] | None = None


def search(
    read: _Read, below: Callable[[int, int], int], key: int, rows: int, seed: int, explore: Sequence[float]
) -> list[Guess]:
    """At most `rows` guesses, parents before children. `explore` is the weight of a prior by the parent's visits."""
    read = cache(read)  # contexts come up again
    if not read(key)[1]:
        return []
    searching = _Search(read, below, key, seed, explore)
    for _ in explore:
        searching.iterate()
    return searching.tree(rows)


class _Search:
    def __init__(
        self, read: _Read, below: Callable[[int, int], int], key: int, seed: int, explore: Sequence[float]
    ) -> None:
        self._read = read
        self._below = below
        self._explore = explore
        self._root = _Node(key, TIP, 0.0, None)
        self._nodes: list[_Node] = []
        self._dice = seed

    def iterate(self) -> None:
        node, depth = self._root, 0
        while node.children and depth < ROLLOUT:
            node = self._worthiest(node.children, self._explore[node.visits])
            depth += 1
        if node.children is None and depth < ROLLOUT:
            weights, children = self._read(node.key)
            node.children = [_Node(self._below(node.key, token), token, prior, node) for token, prior in children]
            self._nodes += node.children
            if node.children:
                node = node.children[self._draw(weights)]
                depth += 1
        reward = 1.0 + self._rollout(node.key, depth)
        up: _Node | None = node
        while up is not None and up.parent is not None:
            reward += up.prior
            up = up.parent
        up = node
        while up is not None:
            up.visits += 1
            up.value += reward
            up = up.parent

    def tree(self, rows: int) -> list[Guess]:
        """The most visited nodes (parents have no fewer visits and come first), each with its likeliest follower."""
        order = sorted(range(len(self._nodes)), key=lambda i: (-self._nodes[i].visits, i))
        chosen = [self._nodes[i] for i in order if self._nodes[i].visits][: max(1, rows * 3 // 8)]
        places = {id(self._root): TIP}
        guesses: list[Guess] = []
        for node in chosen:
            above = places[id(node.parent)]
            places[id(node)] = len(guesses)
            guesses.append(Guess(node.token, node.prior, above))
        taken = {(guess.parent, guess.token) for guess in guesses}
        for place, node in enumerate(chosen):
            for token, chance in self._read(node.key)[1][:1]:
                if len(guesses) < rows and (place, token) not in taken:
                    guesses.append(Guess(token, chance, place))
        return guesses

    def _worthiest(self, children: list[_Node], explore: float) -> _Node:
        """The first of equals: rows are sorted."""
        best, most = children[0], -math.inf
        for child in children:
            if not child.visits:
                return child
            worth = child.value / child.visits + explore * child.prior / (1 + child.visits)
            if worth > most:
                best, most = child, worth
        return best

    def _rollout(self, key: int, depth: int) -> float:
        total = 0.0
        while depth < ROLLOUT:
            weights, children = self._read(key)
            if not children:
                break
            token, chance = children[self._draw(weights)]
            total += chance
            key = self._below(key, token)
            depth += 1
        return total

    def _draw(self, weights: Sequence[int]) -> int:
        """A place by weight: splitmix64 (Steele et al. 2014), whose upper half is a fraction of the sum."""
        self._dice = z = (self._dice + 0x9E3779B97F4A7C15) & _MASK
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
        rest = ((z ^ (z >> 31)) >> 32) * sum(weights) >> 32
        for place, weight in enumerate(weights):
            if rest < weight:
                return place
            rest -= weight
        raise AssertionError("the weights sum to more than all of them")

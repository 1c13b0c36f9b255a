"""A tree of fixed shape, the best one for measured acceptance by rank.

Source: Sequoia (Chen et al. 2024). If child number r comes true with probability P[r], whatever the node, the best tree
of each size and depth follows from dynamic programming. Write T_l(m) for the most tokens that a tree of m nodes, root
included, and at most l levels below the root commits on average, the root counting as one:

    T_0(1) = 1
    T_l(m) = 1 + S(m - 1), where S shares m - 1 nodes among the children: child r takes y of them for P[r] · T_(l-1)(y)

The tree sent maximises T_l(m) / (l·d + R + V(m)); the round trip in it is ours. P is measured as the session runs, and
the shape renewed every `renew` rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import TIP, RoundTree

#: P before anything was seen, by rank: typical of a draft model that fits its target.
PRIOR = (0.7, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.01)
_STRENGTH = 5.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree by rank: `children[i]` are (rank, number) of node i's children; node 0 is the root, the tip.

    `tokens` is what it commits on average, `depth` its levels below the root.
    """

    children: tuple[tuple[tuple[int, int], ...], ...]
    tokens: float
    depth: int

    def __len__(self) -> int:
        return len(self.children)


class SequoiaTable:
    """The dynamic program for trees of up to `nodes` nodes (root included), `depth` levels and the given ranks."""

    def __init__(self, by_rank: Sequence[float], nodes: int, depth: int) -> None:
        self._ranks = len(by_rank)
        # tokens[l][m]: T_l(m), minus infinity where no such tree is. shares[l][r][n]: what child r takes of n nodes.
        self.tokens = np.full((depth + 1, nodes + 1), -np.inf)
        self.tokens[0, 1] = 1.0
        self._shares = np.zeros((depth + 1, self._ranks, nodes), dtype=np.int64)
        for level in range(1, depth + 1):
            below = self.tokens[level - 1]
            worth = np.full(nodes, -np.inf)
            worth[0] = 0.0
            for rank, chance in enumerate(by_rank):
                best = worth.copy()
                share = self._shares[level, rank]
                for size in range(1, nodes):
                    if below[size] == -np.inf:
                        break
                    offer = worth[: nodes - size] + chance * below[size]
                    better = offer > best[size:]
                    best[size:][better] = offer[better]
                    share[size:][better] = size
                worth = best
            self.tokens[level, 1:] = 1.0 + worth

    def best(self, costs: Costs) -> Shape:
        """The shape with the most tokens per second of a round."""
        depth, nodes = self.tokens.shape[0], self.tokens.shape[1]
        pairs = [(level, size) for level in range(depth) for size in range(1, nodes)]
        level, size = max(pairs, key=lambda pair: self.tokens[pair] / costs.round_s(pair[0], pair[1] - 1))
        return self.shape(level, size)

    def shape(self, level: int, size: int) -> Shape:
        """The best tree of exactly `size` nodes and at most `level` levels, which must exist."""
        children: list[tuple[tuple[int, int], ...]] = [()]
        deepest = 0
        todo = [(0, level, size, 0)]
        while todo:
            number, levels, nodes, depth = todo.pop()
            deepest = max(deepest, depth)
            left = nodes - 1
            mine = []
            for rank in reversed(range(self._ranks)):
                taken = int(self._shares[levels, rank, left]) if left else 0
                if taken:
                    mine.append((rank, len(children)))
                    todo.append((len(children), levels - 1, taken, depth + 1))
                    children.append(())
                    left -= taken
            children[number] = tuple(reversed(mine))
        return Shape(tuple(children), float(self.tokens[level, size]), deepest)


class SequoiaPolicy:
    """Trees of at most `nodes` guesses, `depth` levels and `children` ranks; `memory` tries by rank are remembered."""

    def __init__(
        self, *, nodes: int = 32, depth: int = 10, children: int = 4, renew: int = 16, memory: float = 400.0
    ) -> None:
        self._nodes = whole("nodes", nodes, 1, 256)
        self._depth = whole("depth", depth, 1, MOST_STEPS)
        self._ranks = whole("children", children, 1, len(PRIOR))
        self._renew = whole("renew", renew, 1, 1_000_000)
        self._keep = 1.0 - 1.0 / real("memory", memory, 1.0, 1e12)
        self.traits = PolicyTraits("sequoia", "tree", children=children)
        self._right = [0.0] * children
        self._seen = 0.0
        self._rounds = 0
        self._limits = (-1, -1)
        self.shape = Shape(((),), 1.0, 0)

    def by_rank(self) -> list[float]:
        """The measured P."""
        total = self._seen + _STRENGTH
        return [(right + _STRENGTH * prior) / total for right, prior in zip(self._right, PRIOR, strict=False)]

    def begin(self, costs: Costs) -> None:
        limits = min(self._nodes, costs.most_nodes), min(self._depth, costs.most_depth)
        if limits != self._limits or self._rounds % self._renew == 0:
            self.shape = SequoiaTable(self.by_rank(), limits[0] + 1, limits[1]).best(costs)
            self._limits = limits
        self._rounds += 1

    def next(self, tree: RoundTree) -> list[int]:
        wanted = self._placed(tree)
        return [index for place, index in wanted if self.shape.children[place] and not tree.extended(index)]

    def chosen(self, tree: RoundTree) -> list[int]:
        return [index for _, index in self._placed(tree) if index != TIP]

    def learned(self, outcome: Outcome) -> None:
        tree, tokens = outcome.tree, outcome.tokens
        right = tree.right(tokens)
        for parent, came_true in zip([TIP, *right], [*right, TIP], strict=True):
            # One try of all ranks; what was drafted below the last token is not decided.
            if tree.depth(parent) < len(tokens) and tree.children(parent):
                self._seen = self._seen * self._keep + 1.0
                self._right = [count * self._keep for count in self._right]
                if came_true != TIP and tree.nodes[came_true].rank < self._ranks:
                    self._right[tree.nodes[came_true].rank] += 1.0

    def _placed(self, tree: RoundTree) -> list[tuple[int, int]]:
        """(place in the shape, node) for all of the shape that has been drafted, parents first."""
        placed = [(0, TIP)]
        for place, index in placed:
            offered = tree.children(index)
            placed.extend((below, offered[rank]) for rank, below in self.shape.children[place] if rank < len(offered))
        return placed

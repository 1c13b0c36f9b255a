"""Levels are added while the best tree of the allowed size still gains by them.

Source: OPT-Tree (Wang et al. 2024): after each level take the `nodes` nodes with the largest path survival of all that
was drafted; their sum is the expected accepted length. Draft another level below those of them that lie in the newest,
until the sum rises by less than `threshold` or the tree is `depth` levels deep.
"""

from __future__ import annotations

from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import TIP, RoundTree


class OptTreePolicy:
    """`threshold` is in expected tokens per level; `children` is how many rivals the drafter is to offer."""

    def __init__(self, *, nodes: int = 60, threshold: float = 0.5, depth: int = 10, children: int = 10) -> None:
        self._nodes = whole("nodes", nodes, 1, 4096)
        self._threshold = real("threshold", threshold, 0.0, 1.0)
        self._depth = whole("depth", depth, 1, MOST_STEPS)
        self.traits = PolicyTraits("opt-tree", "tree", children=whole("children", children, 1, 16))
        self._levels = self._budget = 0

    def begin(self, costs: Costs) -> None:
        self._levels = min(self._depth, costs.most_depth)
        self._budget = min(self._nodes, costs.most_nodes)

    def next(self, tree: RoundTree) -> list[int]:
        deepest = tree.deepest
        if deepest >= self._levels or self._budget == 0:
            return []
        if not tree.nodes:
            return [] if tree.extended(TIP) else [TIP]
        best = tree.best(self._budget)
        older = sorted((node.path for node in tree.nodes if node.depth < deepest), reverse=True)
        gain = sum(tree.nodes[index].path for index in best) - sum(older[: self._budget])
        if gain < self._threshold:
            return []
        return [index for index in best if tree.nodes[index].depth == deepest and not tree.extended(index)]

    def chosen(self, tree: RoundTree) -> list[int]:
        return [index for index in tree.best(self._budget) if tree.nodes[index].depth <= self._levels]

    def learned(self, outcome: Outcome) -> None:
        """Nothing is learned."""

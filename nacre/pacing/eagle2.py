"""A beam search for the draft, then the best nodes of all levels.

Source: EAGLE-2 (Li et al. 2024): extend the `beams` best nodes of the newest level, by path survival, for `depth`
levels; then send the `nodes` best of everything drafted. Because a child's path survival never exceeds its parent's,
the best nodes form a tree.
"""

from __future__ import annotations

from nacre.pacing.dials import whole
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import TIP, RoundTree


class Eagle2Policy:
    """Defaults are the released code's: 10 beams of 10 children, 7 levels, 60 rows with the tip."""

    def __init__(self, *, beams: int = 10, children: int = 10, depth: int = 7, nodes: int = 59) -> None:
        self._beams = whole("beams", beams, 1, 256)
        self._depth = whole("depth", depth, 1, MOST_STEPS)
        self._nodes = whole("nodes", nodes, 1, 4096)
        self.traits = PolicyTraits("eagle2", "tree", children=whole("children", children, 1, 16))
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
        newest = [
            index for index in tree.best(len(tree)) if tree.nodes[index].depth == deepest and not tree.extended(index)
        ]
        return newest[: self._beams]

    def chosen(self, tree: RoundTree) -> list[int]:
        return [index for index in tree.best(self._budget) if tree.nodes[index].depth <= self._levels]

    def learned(self, outcome: Outcome) -> None:
        """Nothing is learned."""

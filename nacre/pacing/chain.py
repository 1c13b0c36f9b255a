"""What policies for chains share: they extend the last first guess, and differ in when they stop."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nacre.pacing.policy import MOST_STEPS, Costs, Outcome
from nacre.pacing.round_tree import TIP, RoundNode, RoundTree


class ChainPolicy(ABC):
    """A chain of at most `_most` guesses. A policy says whether to go on in `_goes_on`, asked after each guess.

    Should the drafter offer rivals, they are left aside: only the line of first guesses is extended and sent.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = 0

    def begin(self, costs: Costs) -> None:
        self._room = min(self._most, costs.most_nodes, costs.most_depth, MOST_STEPS)

    def next(self, tree: RoundTree) -> list[int]:
        line = tree.principal()
        last = line[-1].index if line else TIP
        if len(line) >= self._room or tree.extended(last):
            return []
        if line and not self._goes_on(line):
            return []
        return [last]

    def chosen(self, tree: RoundTree) -> list[int]:
        return [node.index for node in tree.principal()[: self._room]]

    def learned(self, outcome: Outcome) -> None:  # noqa: B027  most do nothing here
        """Most chains learn nothing."""

    @abstractmethod
    def _goes_on(self, line: list[RoundNode]) -> bool:
        """Whether to draft below the last of `line`, which is never empty."""

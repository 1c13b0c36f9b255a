"""The tree of one round as a policy sees it: every guess drafted so far, and what the drafter knew about it.

Nodes are numbered 0, 1, 2, … in the order they were drafted, so a parent's number is smaller than its children's. The
tip, the last committed token, is no node: it is `TIP`, at depth 0, with a path survival of 1.

Invariant: a node's path survival is the product of the survivals from the tip down to it, so it never exceeds its
parent's, and the nodes with the largest path survivals, ties by number, always form a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nacre.errors import FailedPrecondition

#: In place of a node's number: the last committed token.
TIP = -1


class Features(Protocol):
    """What a drafter may tell about a guess beyond its survival; `nacre.drafting.GuessFeatures` is one.

    All but `q` and `gap` belong to the distribution the guess was taken from, so siblings share them.
    """

    @property
    def q(self) -> float:
        """The draft model's probability of the token, after temperature and truncation."""

    @property
    def gap(self) -> float:
        """Its perturbed score minus the best other one, in nats: positive for the best guess alone."""

    @property
    def entropy(self) -> float:
        """Of the distribution, in nats."""

    @property
    def top(self) -> Sequence[float]:
        """The largest probabilities of the distribution, falling, at most 10."""


class GuessLike(Protocol):
    """What is added to a tree; `nacre.drafting.Guess` is one. `parent` is TIP or an earlier guess of its list."""

    @property
    def token(self) -> int: ...
    @property
    def survival(self) -> float: ...
    @property
    def parent(self) -> int: ...
    @property
    def features(self) -> Features | None: ...


@dataclass(slots=True, eq=False)
class RoundNode:
    """One guess. `rank` counts its elder siblings; `depth` is 1 just below the tip.

    `survival` is the drafter's estimate that the token is right given that its parent is; `path` the product of the
    survivals from the tip down to it.
    """

    index: int
    parent: int
    depth: int
    rank: int
    token: int
    survival: float
    path: float
    features: Features | None = None

    @property
    def q(self) -> float:
        """The draft model's probability of the token; where the drafter does not tell, its survival."""
        return self.survival if self.features is None else self.features.q


class RoundTree:
    """What has been drafted in a round. The loop extends it; policies only read it."""

    def __init__(self) -> None:
        self.nodes: list[RoundNode] = []
        self._children: dict[int, list[int]] = {TIP: []}
        self._extended: set[int] = set()

    def __len__(self) -> int:
        return len(self.nodes)

    def extend(self, index: int, guesses: Sequence[GuessLike]) -> list[int]:
        """Adds what the drafter offers below `index` (or TIP), most likely first; returns the numbers of the new nodes.

        A node may be extended once; with no guesses it becomes a dead end.
        """
        assert index not in self._extended, "a node is extended once"
        self._extended.add(index)
        added: list[int] = []
        for guess in guesses:
            above = index if guess.parent == TIP else added[guess.parent]
            self._extended.add(above)
            siblings = self._children[above]
            number = len(self.nodes)
            path = guess.survival * self.path(above)
            node = RoundNode(
                number, above, self.depth(above) + 1, len(siblings), guess.token, guess.survival, path, guess.features
            )
            self.nodes.append(node)
            self._children[number] = []
            siblings.append(number)
            added.append(number)
        return added

    def children(self, index: int) -> Sequence[int]:
        """Numbers of the nodes below `index` (or TIP), by rank."""
        return self._children[index]

    def extended(self, index: int) -> bool:
        """Whether the drafter was asked to extend `index` (or TIP)."""
        return index in self._extended

    def depth(self, index: int) -> int:
        return 0 if index == TIP else self.nodes[index].depth

    def path(self, index: int) -> float:
        return 1.0 if index == TIP else self.nodes[index].path

    @property
    def deepest(self) -> int:
        """Depth of the deepest node; 0 while there is none."""
        return max((node.depth for node in self.nodes), default=0)

    def principal(self) -> list[RoundNode]:
        """The line of first guesses, from the tip down."""
        line: list[RoundNode] = []
        below = self._children[TIP]
        while below:
            line.append(self.nodes[below[0]])
            below = self._children[below[0]]
        return line

    def best(self, count: int) -> list[int]:
        """The `count` nodes with the largest path survival, parents first: the best tree of that size."""
        order = sorted(range(len(self.nodes)), key=lambda index: (-self.nodes[index].path, index))
        return order[:count]

    def right(self, tokens: Sequence[int]) -> list[int]:
        """The nodes that guessed `tokens`, which follow the tip, as far down as there are such nodes."""
        path: list[int] = []
        here = TIP
        for token in tokens:
            found = next((child for child in self._children[here] if self.nodes[child].token == token), None)
            if found is None:
                break
            path.append(found)
            here = found
        return path

    def judged(self, tokens: Sequence[int]) -> Iterator[tuple[RoundNode, bool]]:
        """Every node whose outcome `tokens` decide, given that its parent was right: (node, whether it was right).

        That includes guesses which were never sent: they too can be compared with what was committed.
        """
        right = self.right(tokens)
        known = set(right)
        for parent in [TIP, *right]:
            if self.depth(parent) < len(tokens):
                for child in self._children[parent]:
                    yield self.nodes[child], child in known


def features_of(node: RoundNode, policy: str) -> Features:
    """The node's features. Raises FailedPrecondition, naming `policy`, where the drafter tells none."""
    if node.features is None:
        raise FailedPrecondition(
            f"policy {policy} needs the draft distribution's features; build the drafter with features=True"
        )
    return node.features

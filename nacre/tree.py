"""The draft tree: a trie of guesses below the committed tip.

Committed tokens form the trunk; the tree stores only its last token, the *tip*, and what has been guessed below it.
A node guesses the token at one absolute position; siblings are rival guesses for the same position. Guesses of
several drafters merge by token path: the same path is one node.

One rule: the tip moves only by `commit`. A commit names the tokens that follow the tip; where they run along existing
nodes the tip steps onto those nodes and the subtree below survives, everything else dies at once.

Invariants: every live node descends from the tip; `len(tree)` is the number of live nodes below the tip; a node that
has left the tree is either TRUNK (its guess was right) or DEAD, and never comes back.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


class Fate(enum.Enum):
    LIVE = "live"  # below the tip: may still become true
    TRUNK = "trunk"  # was committed: the guess was right
    DEAD = "dead"  # contradicted by a commit, or withdrawn


@dataclass(slots=True, eq=False)
class Node:
    """One guessed token.

    `position` is the absolute index of the token it guesses (prompt tokens count). `survival` is the guessed
    probability that this token is right given that its parent is: conditional, so that moving the tip changes nothing.
    `source` is the ordinal of the stream that guessed it first, `holders` how many numbered guesses stand for it.
    `rank` is how many rivals its source had guessed before it, `claimed` the survival its guesser gave it: what
    calibration learns from.
    """

    id: int
    token: int
    position: int
    parent: Node | None
    survival: float = 1.0
    fate: Fate = Fate.LIVE
    source: int = 0
    holders: int = 0
    rank: int = 0
    claimed: float = 1.0
    children: dict[int, Node] = field(default_factory=dict)

    def guesses_of(self, source: int) -> int:
        """How many rival guesses below this node are of that stream first: the rank of its next one."""
        return sum(child.source == source for child in self.children.values())

    def path(self) -> list[int]:
        """Guessed tokens from just below the tip down to this node, in order of position; empty at the tip."""
        tokens: list[int] = []
        node: Node = self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        tokens.reverse()
        return tokens


@dataclass(frozen=True, slots=True)
class Moved:
    """What a commit did to the tree: `trunk` nodes were right (in order), `dead` nodes are gone."""

    trunk: tuple[Node, ...]
    dead: tuple[Node, ...]


class DraftTree:
    """A bounded trie of guesses below one committed tip."""

    def __init__(self, tip_token: int, tip_position: int, *, max_nodes: int) -> None:
        if max_nodes < 1:
            raise ValueError(f"max_nodes is {max_nodes}; a draft tree needs room for at least 1 node")
        self._next_id = 1
        self._size = 0
        self.max_nodes = max_nodes
        self.tip = Node(id=0, token=tip_token, position=tip_position, parent=None, fate=Fate.TRUNK)

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._size >= self.max_nodes

    def add(self, parent: Node, token: int, survival: float, *, source: int = 0, rank: int | None = None) -> Node:
        """Adds a guess below a live node (or the tip); an equal guess of another drafter is the same node.

        A merged node keeps the larger survival, and its source and rank. Without a `rank` all guesses there are of one
        source. The caller checks `full` first.
        """
        assert parent is self.tip or parent.fate is Fate.LIVE, "a guess may only hang below a live node"
        known = parent.children.get(token)
        if known is not None:
            known.survival = max(known.survival, survival)
            return known
        assert not self.full, "the caller bounds the tree"
        node = Node(self._next_id, token, parent.position + 1, parent, survival)
        node.source, node.rank = source, len(parent.children) if rank is None else rank
        node.claimed = survival
        self._next_id += 1
        self._size += 1
        parent.children[token] = node
        return node

    def commit(self, tokens: Sequence[int]) -> Moved:
        """Moves the tip over `tokens`, which follow it; returns the nodes that were right and those that died."""
        trunk: list[Node] = []
        dead: list[Node] = []
        for token in tokens:
            child = self.tip.children.pop(token, None)
            dead.extend(self._kill_below(self.tip))
            if child is None:
                child = Node(self._next_id, token, self.tip.position + 1, None)
                self._next_id += 1
            else:
                trunk.append(child)
                self._size -= 1
            child.parent = None
            child.fate = Fate.TRUNK
            self.tip = child
        return Moved(tuple(trunk), tuple(dead))

    def remove(self, node: Node) -> tuple[Node, ...]:
        """Withdraws a live node and everything below it; returns the nodes that died."""
        assert node.fate is Fate.LIVE, "only a live node can be withdrawn"
        assert node.parent is not None
        del node.parent.children[node.token]
        dead = [node, *self._kill_below(node)]
        node.fate = Fate.DEAD
        self._size -= 1
        return tuple(dead)

    def nodes(self) -> Iterator[Node]:
        """Live nodes below the tip, parents before children."""
        stack = list(self.tip.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def best_first(self, admit: Callable[[Node, float], bool] | None = None) -> Iterator[tuple[Node, float]]:
        """Live nodes with their path survival, largest first; a parent always comes before its children.

        `admit(node, path_survival)` may refuse a node, and with it everything below. Since a child's path survival
        never exceeds its parent's, the first k nodes are the best prefix-closed choice of k nodes.
        """
        heap: list[tuple[float, int, Node]] = []

        def push_children(node: Node, path_survival: float) -> None:
            for child in node.children.values():
                survival = path_survival * child.survival
                if admit is None or admit(child, survival):
                    heapq.heappush(heap, (-survival, child.id, child))

        push_children(self.tip, 1.0)
        while heap:
            negative, _, node = heapq.heappop(heap)
            yield node, -negative
            push_children(node, -negative)

    def _kill_below(self, node: Node) -> list[Node]:
        dead: list[Node] = []
        stack = list(node.children.values())
        node.children = {}
        while stack:
            child = stack.pop()
            child.fate = Fate.DEAD
            stack.extend(child.children.values())
            child.children = {}
            dead.append(child)
        self._size -= len(dead)
        return dead

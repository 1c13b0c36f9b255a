"""The tree of claims of one session: what several sources guess will follow its text.

A claim is a source's guess below a node, with the survival it gave it. Equal paths are one node, whoever guessed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.drafting.growth import MOST_ROWS
from nacre.drafting.proposer import TIP, Guess

#: Nodes of a session's tree.
MOST_NODES = 4096

#: Of one source below one node: token -> (rank among its guesses there, claimed survival).
Claims = dict[int, tuple[int, float]]


@dataclass(slots=True, eq=False)
class ClaimNode:
    """A guessed token. `id` is the node's name towards a model."""

    id: int
    children: dict[int, ClaimNode] = field(default_factory=dict)
    claims: dict[int, Claims] = field(default_factory=dict)  # by source


class ClaimTree:
    """`root` is the node of the text's last token. What hangs deeper than `MOST_NODES` nodes can hold is left out."""

    __slots__ = ("_made", "_size", "root")

    def __init__(self) -> None:
        self.root = ClaimNode(0)
        self._made = 1
        self._size = 1

    def path(self, tokens: Sequence[int]) -> list[ClaimNode]:
        """The nodes along a path, the root first, made where they were missing."""
        node = self.root
        nodes = [node]
        for token in tokens:
            node = self.child(node, token)
            nodes.append(node)
        return nodes

    def child(self, node: ClaimNode, token: int) -> ClaimNode:
        """The node of a token below another, made where it was missing: a claim alone needs none."""
        return node.children.get(token) or self._add(node, token)

    def hang(self, top: ClaimNode, source: int, guesses: Sequence[Guess]) -> None:
        """Notes a source's claims below `top`; at a node where it has claimed before, the new ones replace those."""
        claims = top.claims[source] = {}
        above = TIP
        placed: dict[int, ClaimNode] = {TIP: top}  # those that something hangs below, by the place of their guess
        for guess in guesses[:MOST_ROWS]:
            parent = guess.parent
            if parent != above:
                node = placed.get(parent)
                if node is None:
                    upper = guesses[parent]
                    over = placed.get(upper.parent)
                    if over is None or self._size >= MOST_NODES:
                        continue
                    node = placed[parent] = self.child(over, upper.token)
                    node.claims[source] = {}
                claims = node.claims[source]
                above = parent
            claims.setdefault(guess.token, (len(claims), guess.survival))

    def move(self, node: ClaimNode | None) -> None:
        """The text goes on to `node`, or to a token that nobody guessed; what is not below it is forgotten."""
        if node is None:
            node = ClaimNode(self._made)
            self._made += 1
        self.root = node
        self._size = 0
        stack = [node]
        while stack:
            node = stack.pop()
            self._size += 1
            stack.extend(node.children.values())

    def _add(self, parent: ClaimNode, token: int) -> ClaimNode:
        node = parent.children[token] = ClaimNode(self._made)
        self._made += 1
        self._size += 1
        return node

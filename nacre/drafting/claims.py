"""The tree of claims of one session: what several sources guess will follow its text.

A claim is a source's guess below a node, with the survival it gave it. Equal paths are one node, whoever guessed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
    """`root` is the node of the text's last token. Guesses beyond `MOST_NODES` are left out."""

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
            node = node.children.get(token) or self._add(node, token)
            nodes.append(node)
        return nodes

    def hang(self, top: ClaimNode, source: int, guesses: Sequence[Guess]) -> None:
        """Notes a source's claims below `top`; at a node where it has claimed before, the new ones replace those."""
        top.claims[source] = {}
        fresh = {top.id}
        placed: list[ClaimNode | None] = []
        for guess in guesses:
            parent = top if guess.parent == TIP else placed[guess.parent]
            if parent is None or self._size >= MOST_NODES:
                placed.append(None)
                continue
            if parent.id not in fresh:
                parent.claims[source] = {}
                fresh.add(parent.id)
            claims = parent.claims[source]
            claims.setdefault(guess.token, (len(claims), guess.survival))
            placed.append(parent.children.get(guess.token) or self._add(parent, guess.token))

    def move(self, node: ClaimNode | None) -> None:
        """The text goes on to `node`, or to a token that nobody guessed; what is not below it is forgotten."""
        if node is None:
            node = ClaimNode(self._made)
            self._made += 1
        self.root = node
        self._size = sum(1 for _ in _nodes(node))

    def _add(self, parent: ClaimNode, token: int) -> ClaimNode:
        node = parent.children[token] = ClaimNode(self._made)
        self._made += 1
        self._size += 1
        return node


def _nodes(top: ClaimNode) -> Iterator[ClaimNode]:
    stack = [top]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children.values())

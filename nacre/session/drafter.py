"""The drafter's half of a session: guess ahead of what is committed, never wait, never look back.

    committed(commit)      the tip moved: keep the guesses that turned out right, drop what was contradicted
    frontier(count)        the nodes worth extending next, best first
    extend(node, guesses)  hang new guesses below a node
    outbox()               drafts to send now, within the window

One rule: guesses are numbered in the order they are sent, 1, 2, 3, … on this stream; a parent is always sent before
its child. Whatever is cut from the tree by a commit is never extended and never sent.

Bound: the tree holds at most `window_nodes` nodes, of which at most the verifier's window is sent and unresolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.proposer import TIP, Guess
from nacre.errors import FailedPrecondition
from nacre.session.messages import Commit, Draft, Reanchor, confidence_byte
from nacre.tree import DraftTree, Fate, Node


@dataclass(frozen=True, slots=True)
class DrafterLimits:
    """How far and wide a drafter guesses.

    `window_nodes` bounds its tree. A node is extended or sent only while its path survival is at least
    `least_survival`: work under a fork that will almost surely lose helps nobody. `least_sent_survival` is the same
    for sending.
    """

    window_nodes: int = 256
    least_survival: float = 0.003
    least_sent_survival: float = 0.003
    nodes_per_draft: int = 64


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a commit means for the proposer: `tokens` follow the old tip, `trunk` names the nodes that carried them.

    `trunk` may be shorter than `tokens`: the rest was not guessed here. `lost` is the number of nodes that died.
    """

    tokens: tuple[int, ...]
    trunk: tuple[int, ...]
    lost: int


class DrafterSession:
    """One session seen from one drafter. `tokens` is the committed text so far, prompt included (at least one)."""

    def __init__(self, tokens: Sequence[int], *, end_position: int, limits: DrafterLimits, window_nodes: int) -> None:
        if not tokens:
            raise FailedPrecondition("a session was opened without any committed token; it needs a prompt")
        self.tokens = list(tokens)
        self.end_position = end_position
        self.limits = limits
        self.window_nodes = min(window_nodes, limits.window_nodes)
        self.tree = DraftTree(self.tokens[-1], len(self.tokens) - 1, max_nodes=limits.window_nodes)
        self._verifier_position = len(self.tokens)  # committed length that the verifier is known to have reached
        self._next_number = 1
        self._numbers: dict[int, int] = {}  # node id -> its number on the stream, live nodes only
        self._nodes: dict[int, Node] = {}  # node id -> node, live nodes and the tip
        self._extended: set[int] = set()  # ids of nodes that have been extended
        self._nodes[self.tree.tip.id] = self.tree.tip

    # -- the verifier's word -------------------------------------------------------------------------------------

    def committed(self, commit: Commit) -> Rollback:
        """Takes a commit. What is already known must be equal; a gap is a FailedPrecondition: join again.

        Raises FailedPrecondition if tokens are missing or differ from what was committed before.
        """
        known = len(self.tokens) - commit.position
        if known < 0:
            raise FailedPrecondition(
                f"a commit starts at position {commit.position} but {len(self.tokens)} tokens are known: join again"
            )
        overlap = commit.tokens[:known]
        if tuple(self.tokens[commit.position : commit.position + len(overlap)]) != overlap:
            raise FailedPrecondition(f"a commit at position {commit.position} contradicts what was committed before")
        tokens = commit.tokens[known:]
        self._verifier_position = max(self._verifier_position, commit.end)
        if commit.window_nodes:
            self.window_nodes = min(commit.window_nodes, self.limits.window_nodes)
        moved = self.tree.commit(tokens)
        self.tokens.extend(tokens)
        for node in moved.dead:
            self._drop(node)
        for node in moved.trunk:
            self._numbers.pop(node.id, None)
        # Only the tip stays addressable; the trunk above it is settled.
        self._nodes = {node.id: node for node in (self.tree.tip, *self.tree.nodes())}
        # A leaf whose guesses found no room, or were too unlikely from the old tip, may be asked again.
        self._extended = {i for i in self._extended if i in self._nodes and self._nodes[i].children}
        return Rollback(tuple(tokens), tuple(node.id for node in moved.trunk), len(moved.dead))

    def reanchored(self, reanchor: Reanchor) -> None:
        """The verifier knows none of our nodes any more: send them afresh, numbered from 1.

        It may even know fewer tokens than we were told by the one before it. They are true all the same, but an
        anchor it has not reached would be a breach: nothing is sent until its commits have caught up.
        """
        self._verifier_position = reanchor.position
        self._next_number = 1
        self._numbers.clear()

    # -- guessing ------------------------------------------------------------------------------------------------

    def frontier(self, count: int) -> list[Node]:
        """Up to `count` nodes (the tip among them) that nobody has extended yet, most likely first."""
        found: list[Node] = []
        if self.tree.full or len(self.tokens) >= self.end_position:
            return found
        if self.tree.tip.id not in self._extended:
            found.append(self.tree.tip)
        for node, survival in self.tree.best_first():
            if len(found) >= count or survival < self.limits.least_survival:
                break
            if node.id not in self._extended and node.position + 1 < self.end_position:
                found.append(node)
        return found[:count]

    def node(self, node_id: int) -> Node | None:
        """The live node (or tip) of that id; None if a commit has settled it meanwhile."""
        return self._nodes.get(node_id)

    def extend(self, node_id: int, guesses: Sequence[Guess]) -> list[int]:
        """Hangs guesses below a node and marks it extended; returns a node id per guess, 0 for one that was left out.

        A node that has died meanwhile takes nothing. Guesses are left out where the tree is full, past the end, or
        unlikely beyond `least_survival`.
        """
        start = self._nodes.get(node_id)
        if start is None:
            return [0] * len(guesses)
        self._extended.add(node_id)
        base = self._path_survival(start)
        placed: list[tuple[Node, float] | None] = []
        for guess in guesses:
            parent, survival = (start, base) if guess.parent == TIP else (placed[guess.parent] or (None, 0.0))
            survival *= guess.survival
            if (
                parent is None
                or survival < self.limits.least_survival
                or parent.position + 1 >= self.end_position
                or self.tree.full
            ):
                placed.append(None)
                continue
            child = self.tree.add(parent, guess.token, guess.survival)
            self._nodes[child.id] = child
            # A chain's inner nodes are extended by the chain itself; its last node asks for more.
            if parent is not start:
                self._extended.add(parent.id)
            placed.append((child, survival))
        return [spot[0].id if spot is not None else 0 for spot in placed]

    # -- sending -------------------------------------------------------------------------------------------------

    @property
    def unresolved_nodes(self) -> int:
        return len(self._numbers)

    def outbox(self) -> list[Draft]:
        """Unsent guesses worth sending, best first, as far as the window allows; each call hands them out once."""
        if self._verifier_position < len(self.tokens):
            return []
        room = self.window_nodes - len(self._numbers)
        chosen: list[Node] = []
        if room > 0:
            for node, survival in self.tree.best_first():
                if len(chosen) >= room or survival < self.limits.least_sent_survival:
                    break
                if node.id not in self._numbers:
                    chosen.append(node)
        size = self.limits.nodes_per_draft
        return [self._draft(chosen[start : start + size]) for start in range(0, len(chosen), size)]

    def _draft(self, nodes: Sequence[Node]) -> Draft:
        first = self._next_number
        anchored = False
        offsets: list[int] = []
        for node in nodes:
            number = self._next_number
            self._next_number += 1
            self._numbers[node.id] = number
            assert node.parent is not None
            if node.parent is self.tree.tip:
                anchored = True
                offsets.append(0)
            else:
                offsets.append(number - self._numbers[node.parent.id])
        chain = all(offset == 1 for offset in offsets[1:]) and offsets[0] in (0, 1)
        return Draft(
            first_node=first,
            tokens=tuple(node.token for node in nodes),
            anchor=len(self.tokens) if anchored else None,
            parents=() if chain else tuple(offsets),
            confidence=bytes(confidence_byte(node.survival) for node in nodes),
        )

    def _path_survival(self, node: Node) -> float:
        survival = 1.0
        while node.parent is not None:
            survival *= node.survival
            node = node.parent
        return survival

    def _drop(self, node: Node) -> None:
        assert node.fate is Fate.DEAD
        self._numbers.pop(node.id, None)

"""What a lock-step client drafts next, and how a verdict moves it on. Pure but for the proposer's own forward passes.

Every draft claims to be sure, so that the verifier computes all of it: what is worth sending is decided here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Protocol

from nacre.drafting import TIP, Expansion, Guess, Proposer
from nacre.pacing import Costs, Outcome, PassTime, Policy, RoundTree
from nacre.session import Commit, Draft

#: Measured times are medians over this many rounds.
REMEMBERED = 32


class Stream:
    """The session as its owner sees it: committed text, and the numbers of the nodes it has sent."""

    def __init__(
        self, proposer: Proposer, session: int, tokens: list[int], end_position: int, *, most_nodes: int
    ) -> None:
        """`most_nodes` bounds the guesses the verifier holds and computes at a time."""
        self.tokens = tokens
        self.end_position = end_position
        self.most_nodes = most_nodes
        self.step_s = 0.0  # one draft step, as last measured
        self.steps, self.busy_s = 0, 0.0  # all of them together
        self._proposer = proposer
        self._session = session
        self._next_number = 1

    @property
    def room(self) -> int:
        """How many positions beyond the tip a guess may help: the last token of a text needs no guess."""
        return self.end_position - 1 - len(self.tokens)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        started = time.perf_counter()
        found = self._proposer.propose(wanted)
        self.step_s = time.perf_counter() - started
        self.steps += 1
        self.busy_s += self.step_s
        return found

    def expansion(self, node_id: int, tokens: Sequence[int], ids: Sequence[int]) -> Expansion:
        return Expansion(self._session, node_id, tuple(tokens), tuple(ids))

    def committed(self, tokens: Sequence[int], right_ids: Sequence[int]) -> None:
        """`right_ids` are the ids of the nodes that guessed the first of them."""
        self._proposer.committed(self._session, tokens, right_ids)
        self.tokens.extend(tokens)

    def draft(self, tokens: Sequence[int], parents: Sequence[int]) -> Draft:
        """Numbers the nodes. `parents[i]` is the number of node i's parent, perhaps one of this draft; 0: the tip."""
        first = self._next_number
        self._next_number += len(tokens)
        offsets = [number and first + index - number for index, number in enumerate(parents)]
        chain = all(offset == 1 for offset in offsets[1:]) and offsets[0] in (0, 1)
        return Draft(
            first_node=first,
            tokens=tuple(tokens),
            anchor=len(self.tokens) if 0 in offsets else None,
            parents=() if chain else tuple(offsets),
            confidence=bytes(len(tokens)),
        )

    def nothing(self) -> Draft:
        """A message that guesses nothing: it names a position that has its token already, and so takes no row."""
        self._next_number += 1
        return Draft(first_node=self._next_number - 1, tokens=(self.tokens[1],), anchor=1, confidence=b"\xff")

    @property
    def next_number(self) -> int:
        return self._next_number


class Drafting(Protocol):
    """One way to draft in lock-step: `draft` makes the next message, `verdict` takes what became of the last."""

    def draft(self) -> Draft: ...
    def verdict(self, commit: Commit) -> None: ...


class Times:
    """How long passes of so many rows took, and rounds beside draft and pass; shared by the jobs of one link."""

    def __init__(self) -> None:
        self.passes: dict[int, deque[float]] = {}
        self.steps: deque[float] = deque(maxlen=REMEMBERED)
        self.rests: deque[float] = deque(maxlen=REMEMBERED)

    def passed(self, rows: int, seconds: float) -> None:
        if rows > 0 and seconds > 0:
            self.passes.setdefault(rows, deque(maxlen=REMEMBERED)).append(seconds)

    def costs(self, *, most_nodes: int, most_depth: int, throughput: float) -> Costs:
        known = {rows: median(times) for rows, times in self.passes.items()} or {1: 0.03}
        return Costs(
            draft_s=median(self.steps) if self.steps else 1e-3,
            verify_s=PassTime(known),
            rtt_s=max(0.0, median(self.rests)) if self.rests else 0.0,
            throughput=throughput,
            most_nodes=most_nodes,
            most_depth=most_depth,
        )


class Rounds:
    """Stop and wait: a policy's tree per round. The first verdict is the prompt's; nothing was drafted for it."""

    def __init__(self, stream: Stream, policy: Policy, times: Times) -> None:
        self._stream = stream
        self._policy = policy
        self._times = times
        self._tree: RoundTree | None = None
        self._sent: list[int] = []
        self._ids_from = 1
        self._began = self._first = time.perf_counter()
        self._drafting_s = 0.0
        self._decoded = 0

    def draft(self) -> Draft:
        stream, tree = self._stream, RoundTree()
        self._began = time.perf_counter()
        most = max(0, min(stream.room, stream.most_nodes))
        elapsed = self._began - self._first
        self._policy.begin(
            self._times.costs(
                most_nodes=stream.most_nodes if most else 0,
                most_depth=most,
                throughput=self._decoded / elapsed if self._decoded and elapsed > 0 else 0.0,
            )
        )
        while nodes := self._policy.next(tree):
            found = stream.propose([self._expansion(tree, node) for node in nodes])
            self._times.steps.append(stream.step_s)
            for node, guesses in zip(nodes, found, strict=True):
                tree.extend(node, guesses)
        self._tree, self._sent = tree, list(self._policy.chosen(tree))
        self._drafting_s = time.perf_counter() - self._began
        if not self._sent:
            return stream.nothing()
        first = stream.next_number
        number = {node: first + place for place, node in enumerate(self._sent)}
        parents = [number.get(tree.nodes[node].parent, 0) for node in self._sent]
        return stream.draft([tree.nodes[node].token for node in self._sent], parents)

    def verdict(self, commit: Commit) -> None:
        tree = self._tree
        self._times.passed(commit.rows, commit.verify_ms / 1e3)
        if tree is None:
            self._stream.committed(commit.tokens, ())
            self._first = time.perf_counter()
            return
        seconds = time.perf_counter() - self._began
        self._times.rests.append(seconds - self._drafting_s - commit.verify_ms / 1e3)
        self._decoded += len(commit.tokens)
        right = tree.right(commit.tokens)
        self._stream.committed(commit.tokens, [self._ids_from + node for node in right])
        self._ids_from += len(tree)
        self._policy.learned(Outcome(tree, self._sent, commit.tokens, seconds))

    def _expansion(self, tree: RoundTree, node: int) -> Expansion:
        tokens: list[int] = []
        ids: list[int] = []
        here = node
        while here != TIP:
            tokens.append(tree.nodes[here].token)
            ids.append(self._ids_from + here)
            here = tree.nodes[here].parent
        node_id = self._ids_from + node if node != TIP else TIP
        return self._stream.expansion(node_id, tokens[::-1], ids[::-1])


class Windows:
    """PEARL: the line drafted so far goes on below the window that is being verified, as long as that one lives."""

    def __init__(self, stream: Stream, gamma: int) -> None:
        self._stream = stream
        self._gamma = gamma
        self._tokens: list[int] = []  # of the line, below the tip
        self._ids: list[int] = []
        self._numbers: list[int] = []
        self._next_id = 1

    def draft(self) -> Draft:
        stream = self._stream
        known = len(self._tokens)
        count = min(self._gamma, stream.room - known, stream.most_nodes - known)
        if count < 1:
            return stream.nothing()
        for _ in range(count):
            node_id = self._ids[-1] if self._ids else TIP
            found = stream.propose([stream.expansion(node_id, self._tokens, self._ids)])[0]
            if not found:
                break
            self._tokens.append(found[0].token)
            self._ids.append(self._next_id)
            self._next_id += 1
        new = self._tokens[known:]
        if not new:
            return stream.nothing()
        first = stream.next_number
        above = self._numbers[-1] if self._numbers else 0
        draft = stream.draft(new, [above, *range(first, first + len(new) - 1)])
        self._numbers.extend(range(first, first + len(new)))
        return draft

    def verdict(self, commit: Commit) -> None:
        right = 0
        for token, guessed in zip(commit.tokens, self._tokens, strict=False):
            if token != guessed:
                break
            right += 1
        self._stream.committed(commit.tokens, self._ids[:right])
        alive = right == len(commit.tokens)
        self._tokens = self._tokens[right:] if alive else []
        self._ids = self._ids[right:] if alive else []
        self._numbers = self._numbers[right:] if alive else []

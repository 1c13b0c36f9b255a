"""The drafter's half of a session: guess ahead of what is committed, never wait, never look back.

    committed(commit)      the tip moved: keep the guesses that turned out right, drop what was contradicted
    frontier(count)        the nodes worth extending next, best first
    extend(node, guesses)  hang new guesses below a node
    outbox()               drafts to send now, within the window; `urgent` says whether the next pass would miss them,
                           `gathers` whether they should go with those of the next step all the same

One rule: guesses are numbered in the order they are sent, 1, 2, 3, … on this stream; a parent is always sent before
its child. Whatever is cut from the tree by a commit is never extended and never sent.

Bound: the tree holds at most `window_nodes` nodes, of which at most the verifier's window is sent and unresolved.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.proposer import TIP, Guess
from nacre.errors import FailedPrecondition
from nacre.pacing import Reputation
from nacre.session.messages import Commit, Draft, Reanchor, confidence_byte
from nacre.tree import DraftTree, Fate, Node

#: Up to so many passes away a verifier is near; per pass beyond it, thresholds fall like this.
_NEAR, _FAR = 0.5, 2.0
#: A verifier beside the drafter waits for a guess that was not made. From half of `_NEAR` on it does so less and less,
#: at `_NEAR` no more, and there what is worth making is so many times less likely.
_AHEAD = 5.0
#: Thresholds are for a session that could use so many rows. Where many sessions share the passes it gets fewer: then
#: they rise, up to `_MOST_ASKED`, for what is unlikely now can be sent once the text has come nearer to it.
_ROWS_ALONE, _MOST_ASKED = 8, 0.5
#: Guesses that are not urgent may wait for company for so much of a pass: where the next pass could take many, a
#: quarter; where many sessions share it and it could take one or two, as long as it lasts.
_LEAST_WAIT, _ROWS_FOR_A_PASS = 0.25, 2
#: Urgent guesses wait so long for those of further steps. A message and the rest until it is on the wire take a
#: millisecond of a drafter that makes a level of the tree in half of one: told level by level, a pass waits for twice
#: as long as it takes to guess. Seconds.
_GATHER_S = 0.002
#: A survival of nothing at all would have no logarithm.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class DrafterLimits:
    """How far and wide a drafter guesses.

    `window_nodes` bounds its tree. A node is extended or sent only while its path survival is at least
    `least_survival` beside the verifier, and a fifth of it at a distance: work under a fork that will almost surely
    lose helps nobody, and near by there is time to do it when it is wanted. `least_sent_survival` is the same for
    sending. Both fall further far away, and rise where the verifier has few rows for the session.
    """

    window_nodes: int = 256
    least_survival: float = 0.015
    least_sent_survival: float = 0.02
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

    def __init__(
        self,
        tokens: Sequence[int],
        *,
        end_position: int,
        limits: DrafterLimits,
        window_nodes: int,
        reputation: Reputation | None = None,
        row_budget: int = 0,
    ) -> None:
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
        #: How many verify passes end while a message travels to the verifier and the answer back.
        self.passes_away = 0.0
        self._reputation = reputation
        self._row_budget = row_budget  # 0: not known; 1: no guesses are wanted
        self._gathers_since: float | None = None  # when the first unsent guess became urgent
        # log2 of path survival, counted from where the session began: a commit changes no node's rank among the rest,
        # so what is to be extended and what is to be sent wait in heaps. Dead and settled entries are skipped.
        self._reach: dict[int, float] = {self.tree.tip.id: 0.0}
        self._to_extend: list[tuple[float, int]] = [(0.0, self.tree.tip.id)]
        self._to_send: list[tuple[float, int]] = []

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
        if commit.row_budget:
            self._row_budget = commit.row_budget
        self._learn(tokens)
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
        self._reach = {i: self._reach.get(i, 0.0) for i in self._nodes}
        self._to_extend = [(-self._reach[i], i) for i in self._nodes if i not in self._extended]
        heapq.heapify(self._to_extend)
        return Rollback(tuple(tokens), tuple(node.id for node in moved.trunk), len(moved.dead))

    def reanchored(self, reanchor: Reanchor) -> None:
        """The verifier knows none of our nodes any more: send them afresh, numbered from 1.

        It may even know fewer tokens than we were told by the one before it. They are true all the same, but an
        anchor it has not reached would be a breach: nothing is sent until its commits have caught up.
        """
        self._verifier_position = reanchor.position
        self._next_number = 1
        self._numbers.clear()
        self._to_send = [(-self._reach[node.id], node.id) for node in self.tree.nodes()]
        heapq.heapify(self._to_send)

    def _learn(self, tokens: Sequence[int]) -> None:
        """What became of the guesses below text, sent or not."""
        node: Node | None = self.tree.tip
        for token in tokens:
            if self._reputation is None or node is None or not node.children:
                return
            guesses = node.children.values()
            self._reputation.learn((guess.rank, guess.claimed, guess.token == token) for guess in guesses)
            node = node.children.get(token)

    # -- guessing ------------------------------------------------------------------------------------------------

    def frontier(self, count: int) -> list[Node]:
        """Up to `count` nodes (the tip among them) that nobody has extended yet, most likely first."""
        found: list[tuple[float, int]] = []
        if self.tree.full or len(self.tokens) >= self.end_position or self._row_budget == 1:
            return []
        least = self._least_reach(self._least_made)
        if self._reputation is not None and self._reputation.hopeless:
            # Guesses of no use are made only to be compared: at the tip, and no further.
            fresh = self.tree.tip.id not in self._extended and self.tree.tip.position + 1 < self.end_position
            return [self.tree.tip] if fresh else []
        while self._to_extend and len(found) < count:
            entry = heapq.heappop(self._to_extend)
            node = self._nodes.get(entry[1])
            if node is None or node.id in self._extended or node.position + 1 >= self.end_position:
                continue
            found.append(entry)
            if -entry[0] < least and node is not self.tree.tip:
                break
        for entry in found:  # they stay until they are extended
            heapq.heappush(self._to_extend, entry)
        return [self._nodes[i] for reach, i in found if -reach >= least or i == self.tree.tip.id]

    @property
    def _least_made(self) -> float:
        """The survival from which on a guess is worth making at this distance."""
        ahead = min(1.0, max(0.0, 2 * self.passes_away / _NEAR - 1))
        return self.limits.least_survival / (1 + (_AHEAD - 1) * ahead)

    def _least_reach(self, survival: float) -> float:
        """What a guess must reach to be worth `survival` now.

        Near the verifier only what the next plan can use is of use; what is far away must be right passes ahead.
        """
        if survival <= 0:
            return -math.inf
        if 0 < self._row_budget < _ROWS_ALONE:
            survival = max(survival, min(_MOST_ASKED, survival * _ROWS_ALONE / self._row_budget))
        far = max(0.0, self.passes_away - _NEAR)
        return self._reach[self.tree.tip.id] + math.log2(survival / (1 + _FAR * far))

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
        least = self._least_reach(self._least_made)
        placed: list[Node | None] = []
        for guess in guesses:
            parent = start if guess.parent == TIP else placed[guess.parent]
            if parent is None or parent.position + 1 >= self.end_position or self.tree.full:
                placed.append(None)
                continue
            survival = guess.survival
            if self._reputation is not None:
                survival = self._reputation.survival(len(parent.children), survival)
            reach = self._reach[parent.id] + math.log2(max(survival, _LEAST))
            if reach < least:
                placed.append(None)
                continue
            child = self.tree.add(parent, guess.token, survival)
            placed.append(child)
            if child.id in self._nodes:  # guessed before
                continue
            child.claimed = guess.survival
            self._nodes[child.id] = child
            self._reach[child.id] = reach
            heapq.heappush(self._to_send, (-reach, child.id))
            # A chain's inner nodes are extended by the chain itself; its last node asks for more.
            heapq.heappush(self._to_extend, (-reach, child.id))
            if parent is not start:
                self._extended.add(parent.id)
        return [node.id if node is not None else 0 for node in placed]

    # -- sending -------------------------------------------------------------------------------------------------

    @property
    def unresolved_nodes(self) -> int:
        return len(self._numbers)

    @property
    def _unwanted(self) -> bool:
        """Nothing is sent where tips alone fill the verifier's passes, nor what has never helped."""
        return self._row_budget == 1 or (self._reputation is not None and self._reputation.hopeless)

    @property
    def urgent(self) -> bool:
        """Whether a guess that the verifier's next pass would take has not been sent yet."""
        best = self._best_unsent()
        if best is None:
            return False
        ahead = 0
        for node_id in self._numbers:
            ahead += self._reach[node_id] >= best
            if ahead >= max(1, self._row_budget - 1):  # the tip takes a row
                return False
        return True

    def gathers(self, now: float, step_s: float) -> bool:
        """Whether urgent guesses should wait for those of the next step, which takes `step_s`: it is short, and what
        it brings might be taken by the next pass, too. `now` is any clock's, in seconds.
        """
        if self._gathers_since is None:
            self._gathers_since = now
        return now + step_s - self._gathers_since <= _GATHER_S and not self._provided

    @property
    def _provided(self) -> bool:
        """Whether there is nothing to extend whose guesses could be among those that the next pass takes."""
        frontier = self.frontier(1)
        if not frontier:
            return True
        best = self._reach[frontier[0].id]
        return sum(reach >= best for reach in self._reach.values()) >= self._row_budget  # the tip takes a row

    @property
    def patience(self) -> float:
        """Share of a pass for which guesses that are not urgent may wait for company: every message costs both ends."""
        return min(1.0, max(_LEAST_WAIT, _ROWS_FOR_A_PASS / max(1, self._row_budget)))

    def outbox(self) -> list[Draft]:
        """Unsent guesses worth sending, best first, as far as the window allows; each call hands them out once."""
        self._gathers_since = None
        if self._verifier_position < len(self.tokens) or self._unwanted:
            return []
        room = self.window_nodes - len(self._numbers)
        least = self._least_reach(self.limits.least_sent_survival)
        chosen: list[Node] = []
        while room > len(chosen):
            best = self._best_unsent()
            if best is None or best < least:
                break
            chosen.append(self._nodes[heapq.heappop(self._to_send)[1]])
        size = self.limits.nodes_per_draft
        return [self._draft(chosen[start : start + size]) for start in range(0, len(chosen), size)]

    def _best_unsent(self) -> float | None:
        """The reach of the likeliest guess that is not sent, which is then first in the heap."""
        while self._to_send:
            reach, node_id = self._to_send[0]
            node = self._nodes.get(node_id)
            if node is not None and node is not self.tree.tip:
                return -reach
            heapq.heappop(self._to_send)
        return None

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

    def _drop(self, node: Node) -> None:
        assert node.fate is Fate.DEAD
        self._numbers.pop(node.id, None)

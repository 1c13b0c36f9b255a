"""The verifier's view of one drafter's stream: numbering, late match, window.

A drafter numbers its nodes 1, 2, 3, … on its own stream. A guess may arrive after the tip has moved past it; then it
is matched, token by token, against what has been committed since: equal tokens map onto the trunk, what runs past the
tip joins the live tree, the first difference kills the branch. A guess below a dead node is dropped without a word.

One rule: a message is checked whole before it changes anything, so a refused draft leaves no trace.

Bound: at most `window_nodes` live numbers and as many remembered trunk numbers per stream, whatever is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.errors import InvalidArgument, ResourceExhausted
from nacre.pacing import Reputation
from nacre.session.messages import DEFAULT_SURVIVAL, Draft, survival_of
from nacre.tree import DraftTree, Fate, Node

#: A stream that has had no live guess for so many commits has nothing to say for now.
_QUIET_COMMITS = 32
#: After so many no pass waits for it any more: one near by, for which a wait can pay, answers every commit.
_AWAITED_COMMITS = 4
#: What a guess of a hopeless stream is worth at most: less than any row costs.
_HOPELESS_SURVIVAL = 1e-3


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a draft's nodes: `live` joined the tree, `late` were right but committed already, `dead` fell."""

    live: int
    late: int
    dead: int


@dataclass(slots=True)
class DraftStream:
    """One joined drafter. `ordinal` is its small number within the session, from 1."""

    ordinal: int
    window_nodes: int
    #: What its guesses have been worth; None takes its claims at their word.
    reputation: Reputation | None = None
    #: False drops what comes late, right or not: an ablation.
    late_match: bool = True
    #: Guesses made in the verifier itself: nobody waits for them, or tells anybody of commits for their sake.
    local: bool = False
    next_node: int = 1
    #: Commits since it last had a live guess.
    quiet: int = 0
    _live: dict[int, Node] = field(default_factory=dict)
    # Numbers whose guess was committed, and where: a draft that was under way meanwhile may still name them.
    _trunk: OrderedDict[int, int] = field(default_factory=OrderedDict)

    @property
    def unresolved_nodes(self) -> int:
        return len(self._live)

    def check(self, draft: Draft, *, committed: int, vocab_size: int) -> None:
        """Raises InvalidArgument or ResourceExhausted if the message breaks the protocol."""
        count = len(draft.tokens)
        if count == 0:
            raise InvalidArgument("draft.guesses is empty; send at least one", param="guesses")
        if draft.first_node not in (1, self.next_node):
            raise InvalidArgument(
                f"draft.first_node is {draft.first_node}; the next node of this stream is {self.next_node} "
                "(or 1 to start afresh)",
                param="first_node",
            )
        unresolved = 0 if draft.first_node == 1 else len(self._live)
        if unresolved + count > self.window_nodes:
            raise ResourceExhausted(
                f"draft of {count} nodes would leave {unresolved + count} unresolved; the window is "
                f"{self.window_nodes}: wait for a commit",
                param="guesses",
            )
        if draft.parents and len(draft.parents) != count:
            raise InvalidArgument(
                f"draft.parents has {len(draft.parents)} entries for {count} guesses; send one each, or none: a chain",
                param="parents",
            )
        if draft.confidence and len(draft.confidence) != count:
            raise InvalidArgument(
                f"draft.confidence has {len(draft.confidence)} bytes for {count} tokens; send one per token, or none",
                param="confidence",
            )
        for index, token in enumerate(draft.tokens):
            if not 0 <= token < vocab_size:
                raise InvalidArgument(
                    f"draft.guesses[{index}] is of token {token}; ids of this model are 0 to {vocab_size - 1}",
                    param="guesses",
                )
            self._check_parent(draft, index, committed)

    def _check_parent(self, draft: Draft, index: int, committed: int) -> None:
        offset = draft.parent_offset(index)
        if offset == 0:
            if draft.anchor is None:
                raise InvalidArgument(
                    f"draft.parents[{index}] is 0 but the draft has no anchor; name the committed position",
                    param="anchor",
                )
            if not 1 <= draft.anchor <= committed:
                raise InvalidArgument(
                    f"draft.anchor is {draft.anchor}; it must lie in 1 to {committed}, the committed length",
                    param="anchor",
                )
        elif not 0 < offset < draft.first_node + index:
            raise InvalidArgument(
                f"draft.parents[{index}] is {offset}; node {draft.first_node + index} may only name an earlier node "
                f"of its stream (1 to {draft.first_node + index - 1}) or 0",
                param="parents",
            )

    def receive(self, draft: Draft, tree: DraftTree, committed: Sequence[int], *, end_position: int) -> Received:
        """Adds a checked draft's nodes to the tree. Guesses at or past `end_position` cannot come true: dropped."""
        if draft.first_node == 1:
            self.forget(tree)
        live = late = dead = 0
        for index, token in enumerate(draft.tokens):
            number = draft.first_node + index
            offset = draft.parent_offset(index)
            if offset == 0:
                assert draft.anchor is not None
                parent: Node | None = tree.tip if draft.anchor == len(committed) else None
                position: int | None = draft.anchor
            else:
                parent, position = self._locate(number - offset, tree)
            if position is not None and position < len(committed):
                if self.late_match and committed[position] == token:  # late, but right
                    self._remember(number, position)
                    late += 1
                else:
                    dead += 1
            elif parent is None or (position is not None and position >= end_position) or tree.full:
                dead += 1
            else:
                claimed = survival_of(draft.confidence[index]) if draft.confidence else DEFAULT_SURVIVAL
                survival, rank = claimed, parent.guesses_of(self.ordinal)
                if self.reputation is not None:
                    survival = self.reputation.survival(rank, claimed)
                    if self.reputation.hopeless:
                        survival = min(survival, _HOPELESS_SURVIVAL)
                node = tree.add(parent, token, survival, source=self.ordinal, rank=rank)
                if node.holders == 0:
                    node.claimed = claimed
                node.holders += 1
                self._live[number] = node
                live += 1
        self.next_node = draft.first_node + len(draft.tokens)
        if live:
            self.quiet = 0
        return Received(live, late, dead)

    def _locate(self, number: int, tree: DraftTree) -> tuple[Node | None, int | None]:
        """The node a child would hang below and the position that child guesses; (None, None) if it is dead.

        For a parent on the trunk the node is the tip if the child would guess the next position, else None: then
        the child is settled by comparing it with what was committed.
        """
        node = self._live.get(number)
        if node is not None:
            return node, node.position + 1
        position = self._trunk.get(number)
        if position is None:
            return None, None
        child_position = position + 1
        return (tree.tip if tree.tip.position == position else None), child_position

    def learn(self, siblings: Sequence[Node], token: int) -> None:
        """The outcome of its guesses for one position: `siblings` hang below text, and `token` was right."""
        if self.reputation is not None:
            self.reputation.learn((node.rank, node.claimed, node.token == token) for node in siblings)

    @property
    def hit_rate(self) -> float:
        """Share of the last positions it guessed at where one of its guesses was right; 1 where nothing is known."""
        return 1.0 if self.reputation is None else self.reputation.usefulness

    @property
    def helps(self) -> bool:
        """Whether it should hear of every commit at once; who never helps, or is silent, can hear of several."""
        hopeless = self.reputation is not None and self.reputation.hopeless
        return not self.local and not hopeless and self.quiet < _QUIET_COMMITS

    @property
    def awaited(self) -> bool:
        """Whether a pass may wait for what it says next."""
        return self.helps and self.quiet < _AWAITED_COMMITS

    @property
    def offered_window(self) -> int:
        """How many guesses it should have in flight: one that never helps may only show that it has changed."""
        return 1 if self.reputation is not None and self.reputation.hopeless else self.window_nodes

    def settle(self) -> None:
        """Drops the numbers whose nodes have left the tree; right guesses are remembered as trunk positions."""
        settled = [(number, node) for number, node in self._live.items() if node.fate is not Fate.LIVE]
        for number, node in settled:
            del self._live[number]
            if node.fate is Fate.TRUNK:
                self._remember(number, node.position)

    def forget(self, tree: DraftTree) -> None:
        """Forgets all numbers, and withdraws the guesses that no other stream stands for."""
        for node in self._live.values():
            node.holders -= 1
            # A stream holds every guess above its own, so nothing of another stream hangs below an unheld node.
            if node.holders == 0 and node.fate is Fate.LIVE:
                tree.remove(node)
        self._live.clear()
        self._trunk.clear()
        self.next_node = 1

    def _remember(self, number: int, position: int) -> None:
        self._trunk[number] = position
        while len(self._trunk) > self.window_nodes:
            self._trunk.popitem(last=False)

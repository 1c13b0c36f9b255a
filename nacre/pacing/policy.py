"""What every policy looks like: how far and how wide to guess in one stop-and-wait round.

A round, as the loop runs it (here with one session and a proposer):

    policy.begin(costs)
    tree = RoundTree()
    while nodes := policy.next(tree):                 # one draft step; TIP stands for the committed tip
        for node, guesses in zip(nodes, proposer.propose(expansions of nodes)):
            tree.extend(node, guesses)
    sent = policy.chosen(tree)                        # may be empty: the verifier then decodes the tip alone
    ... one round trip: the verifier walks the sent nodes and commits `tokens` ...
    policy.learned(Outcome(tree, sent, tokens, seconds))

Rules. A policy has no clock, no randomness but its seed, and sees nothing of the target but outcomes. `next` names
only nodes that have not been extended, and comes to an end: a tree never grows deeper than `Costs.most_depth`, and no
round takes more than `MOST_STEPS` draft steps. `chosen` is closed under parents, names parents before their
children, and has at most `Costs.most_nodes` nodes. Whatever a policy does, the text is the same; only the time differs.

A policy's state lasts for one session. Everything it is told may be an estimate; wrong costs make it slow, not wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nacre.errors import InvalidArgument
from nacre.pacing.dials import real, whole
from nacre.pacing.round_tree import RoundNode, RoundTree

#: No policy asks for more draft steps than this in one round.
MOST_STEPS = 128


@dataclass(frozen=True, slots=True)
class PolicyTraits:
    """What the loop must know. `shape`: "chain" (one line of first guesses) or "tree".

    `children` is how many rival guesses per node the policy can use: build the drafter to offer as many. `features`
    says that it needs `Guess.features`; without them it raises FailedPrecondition.
    """

    name: str
    shape: str
    children: int = 1
    features: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """What a round costs and may hold, as measured so far. Seconds; tokens per second.

    `draft_s` is one draft step that extends one node, `draft_node_s` what each further node of the same step adds.
    `verify_s(rows)` is one pass over so many rows: the tip
    and the sent nodes; `PassTime` makes one of a table. `rtt_s` is the round trip with everything that is not draft or
    pass. `throughput` is the committed tokens per second of the session so far, 0 while unknown. `most_nodes` bounds
    what may be sent (the verifier's row budget less the tip), `most_depth` how far a guess may lie beyond the tip (the
    tokens that are still wanted).
    """

    draft_s: float
    verify_s: Callable[[int], float]
    rtt_s: float = 0.0
    throughput: float = 0.0
    most_nodes: int = 63
    most_depth: int = 63
    draft_node_s: float = 0.0

    def __post_init__(self) -> None:
        real("draft_s", self.draft_s, 0.0, 3600.0)
        real("draft_node_s", self.draft_node_s, 0.0, 3600.0)
        real("rtt_s", self.rtt_s, 0.0, 3600.0)
        real("throughput", self.throughput, 0.0, 1e9)
        whole("most_nodes", self.most_nodes, 0, 4096)
        whole("most_depth", self.most_depth, 0, 1 << 30)
        if not self.verify_s(1) > 0:
            raise InvalidArgument(f"verify_s(1) is {self.verify_s(1)}; a pass takes some time", param="verify_s")

    def round_s(self, steps: int, nodes: int) -> float:
        """A whole round of `steps` draft steps, each of one node, that sends `nodes` guesses."""
        return steps * self.draft_s + self.rtt_s + self.verify_s(nodes + 1)

    def node_s(self, nodes: int) -> float:
        """What one more guess adds to a pass that already has `nodes` of them."""
        return max(0.0, self.verify_s(nodes + 2) - self.verify_s(nodes + 1))


class PassTime:
    """Seconds of a pass by its number of rows: straight lines between measured points, the last one carried on.

    Below the first point a pass takes as long as there: a smaller pass was not seen to be faster.
    """

    def __init__(self, seconds_by_rows: Mapping[int, float]) -> None:
        if not seconds_by_rows:
            raise InvalidArgument("seconds_by_rows is empty; give at least one measured pass", param="seconds_by_rows")
        self._rows = sorted(seconds_by_rows)
        self._seconds = [real("seconds_by_rows", seconds_by_rows[rows], 1e-9, 3600.0) for rows in self._rows]
        whole("seconds_by_rows", self._rows[0], 1, 1 << 20)

    def __call__(self, rows: int) -> float:
        above = bisect_right(self._rows, rows)
        if above == 0 or len(self._rows) == 1:
            return self._seconds[0]
        above = min(above, len(self._rows) - 1)
        left, right = self._rows[above - 1], self._rows[above]
        slope = (self._seconds[above] - self._seconds[above - 1]) / (right - left)
        return self._seconds[above - 1] + slope * (rows - left)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a round: the tree, the nodes that were sent, the tokens committed, and how long all of it took.

    `tokens` are the right guesses and the one the target chose after them; fewer if the text ended.
    """

    tree: RoundTree
    sent: Sequence[int]
    tokens: Sequence[int]
    seconds: float

    def accepted(self) -> list[RoundNode]:
        """The sent nodes that came true, from the tip down."""
        sent = set(self.sent)
        return [self.tree.nodes[index] for index in self.tree.right(self.tokens) if index in sent]

    def judged(self) -> list[tuple[RoundNode, bool]]:
        """The sent nodes whose parent came true and whether they did: the tries of acceptance."""
        sent = set(self.sent)
        return [(node, right) for node, right in self.tree.judged(self.tokens) if node.index in sent]


class Policy(Protocol):
    """How far and how wide to guess. Calls come in the order of the module's example, for one session."""

    @property
    def traits(self) -> PolicyTraits: ...

    def begin(self, costs: Costs) -> None:
        """A round begins."""

    def next(self, tree: RoundTree) -> list[int]:
        """The nodes to extend in the next draft step, TIP for the tip; none: stop drafting and send."""

    def chosen(self, tree: RoundTree) -> list[int]:
        """The nodes to send, parents before their children."""

    def learned(self, outcome: Outcome) -> None:
        """The round is over."""

"""Ways to break the core, one line each, that the suite must notice.

`by` says who has to notice: "worlds" are the invariants watched in random orders and random worlds, "behaviours" the
direct tests. What only a direct test can see is what no invariant speaks of: a courtesy, an error, a lost chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TREE, STREAM = "nacre.tree", "nacre.session.stream"
VERIFIER, DRAFTER = "nacre.session.verifier", "nacre.session.drafter"


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `module`, `old` (which must occur once) becomes `new`; then `breaks` is no longer so."""

    module: str
    old: str
    new: str
    breaks: str
    by: Literal["worlds", "behaviours"] = "worlds"


MUTANTS = (
    # -- the tree
    Mutant(TREE, "dead.extend(self._kill_below(self.tip))", "pass", "rivals of a committed token die"),
    Mutant(TREE, "child.fate = Fate.TRUNK", "pass", "a guess that came true is known to be true"),
    Mutant(TREE, "child.parent = None", "pass", "paths start at the tip"),
    Mutant(TREE, "del node.parent.children[node.token]", "pass", "a withdrawn guess leaves the tree"),
    Mutant(
        TREE, "dead = [node, *self._kill_below(node)]", "dead = [node]", "a withdrawn subtree dies", by="behaviours"
    ),
    Mutant(TREE, "max(known.survival, survival)", "min(known.survival, survival)", "merging keeps the larger survival"),
    Mutant(TREE, "push_children(node, -negative)", "push_children(node, 1.0)", "survival multiplies along a path"),
    Mutant(TREE, "if admit is None or admit(child, survival):", "if True:", "a refused node is not planned"),
    Mutant(TREE, "child.children = {}", "pass", "dead nodes hold on to nothing", by="behaviours"),
    # -- one stream
    Mutant(STREAM, "if draft.first_node not in (1, self.next_node):", "if False:", "numbers come in order"),
    Mutant(STREAM, "if unresolved + count > self.window_nodes:", "if count > self.window_nodes:", "the window is kept"),
    Mutant(STREAM, "0 if draft.first_node == 1 else len(self._live)", "0", "unresolved guesses fill the window"),
    Mutant(STREAM, "if not 0 <= token < vocab_size:", "if token < 0:", "token ids are in the vocabulary"),
    Mutant(STREAM, "if not 1 <= draft.anchor <= committed:", "if not 1 <= draft.anchor:", "no anchor in the future"),
    Mutant(STREAM, "elif not 0 < offset < draft.first_node + index:", "elif offset < 0:", "parents are earlier nodes"),
    Mutant(
        STREAM, "self.late_match and committed[position] == token", "True", "a late guess is compared with the text"
    ),
    Mutant(
        STREAM,
        "self._remember(number, position)\n                    late += 1",
        "late += 1",
        "what hangs below a late right guess finds its place",
    ),
    Mutant(STREAM, "if node.fate is Fate.TRUNK:", "if False:", "what hangs below a committed guess finds its place"),
    Mutant(STREAM, "if node.holders == 0 and node.fate", "if node.fate", "a guess stays while anyone stands for it"),
    Mutant(STREAM, "node.holders -= 1", "pass", "a guess that nobody stands for is withdrawn"),
    Mutant(STREAM, "self._trunk.clear()", "pass", "a fresh start forgets old numbers", by="behaviours"),
    Mutant(STREAM, "while len(self._trunk) > self.window_nodes:", "while False:", "memory is bounded by the window"),
    Mutant(STREAM, "(position is not None and position >= end_position)", "False", "no guess past the end is kept"),
    Mutant(
        STREAM,
        "rank=rank)",
        "rank=rank); node.source = self.ordinal",
        "the first to guess gets the credit",
    ),
    Mutant(
        STREAM,
        "parent.guesses_of(self.ordinal)",
        "len(parent.children)",
        "others' guesses do not change a rank",
        "behaviours",
    ),
    # -- the verifier
    Mutant(VERIFIER, "n.position + 1 < self.end_position and ", "", "no row is spent after the last position"),
    Mutant(VERIFIER, " and n.token not in self.stop_ids", "", "no row is spent below a stop token"),
    Mutant(VERIFIER, "if len(chosen) == rows:", "if len(chosen) > rows:", "a plan keeps its row budget"),
    Mutant(
        VERIFIER,
        "children.get((path[-1], choice.token))",
        "next((row for row, parent in enumerate(plan.parents) if parent == path[-1]), None)",
        "only a child that carries the sampled token is stepped into",
    ),
    Mutant(
        VERIFIER,
        "for node in moved.trunk}\n        self._settle()",
        "for node in moved.trunk}",
        "settled guesses free the window",
    ),
    Mutant(VERIFIER, "            stream.forget(self.tree)\n", "", "a drafter's guesses leave with it"),
    Mutant(
        VERIFIER, "for i in range(len(tokens) - 1)), 0)", "for i in range(len(tokens))),)", "no credit for a free token"
    ),
    Mutant(
        VERIFIER, "tokens=tuple(self.tokens[position:]),", "tokens=tuple(self.tokens),", "a replay starts where asked"
    ),
    Mutant(
        VERIFIER, "if len(self.streams) >= self.limits.max_streams:", "if False:", "the number of drafters is bounded"
    ),
    Mutant(VERIFIER, "self.tokens[-1] in self.stop_ids", "False", "a stop token ends the text"),
    Mutant(VERIFIER, "len(self.tokens) > self.prompt_length and ", "", "a stop token in the prompt ends nothing"),
    Mutant(
        VERIFIER,
        "if not self.replay_from <= position <=",
        "if not 0 <= position <=",
        "no replay of others' commits",
        by="behaviours",
    ),
    Mutant(
        VERIFIER,
        "if self.finished is not None:  #",
        "if False:  #",
        "a cancelled session stays cancelled",
        by="behaviours",
    ),
    # -- the drafter
    Mutant(DRAFTER, "tokens = commit.tokens[known:]", "tokens = commit.tokens", "a repeated commit changes nothing"),
    Mutant(
        DRAFTER, "self._verifier_position = reanchor.position", "pass", "no anchor the new verifier has not reached"
    ),
    Mutant(
        DRAFTER,
        "        self._next_number = 1\n        self._numbers.clear()",
        "        self._next_number = 1",
        "all is sent afresh",
    ),
    Mutant(
        DRAFTER,
        "        self._next_number = 1\n        self._numbers.clear()",
        "        self._numbers.clear()",
        "numbers start afresh",
    ),
    Mutant(
        DRAFTER, "        for node in moved.dead:\n            self._drop(node)\n", "", "dead guesses free the window"
    ),
    Mutant(
        DRAFTER, "        for node in moved.trunk:\n            self._numbers.pop(node.id, None)\n", "", "true ones too"
    ),
    Mutant(
        DRAFTER,
        "self._nodes = {node.id: node for node in (self.tree.tip, *self.tree.nodes())}",
        "self._nodes[self.tree.tip.id] = self.tree.tip",
        "nothing dead is extended",
    ),
    Mutant(DRAFTER, " or parent.position + 1 >= self.end_position", "", "nothing is guessed past the end"),
    Mutant(DRAFTER, " or node.position + 1 >= self.end_position:", ":", "nothing is extended at the end"),
    Mutant(DRAFTER, "heapq.heappop(self._to_send)[1]", "self._to_send[0][1]", "a guess is sent once"),
    Mutant(DRAFTER, "while room > len(chosen):", "while True:", "what is sent keeps the window"),
    Mutant(
        DRAFTER, "if node is not None and node is not self.tree.tip:", "if node is not None:", "the tip is no guess"
    ),
    Mutant(
        DRAFTER,
        "anchor=len(self.tokens) if anchored else None",
        "anchor=len(self.tokens) + 1 if anchored else None",
        "guesses hang below the tip",
    ),
    Mutant(
        DRAFTER,
        "for i in self._extended if i in self._nodes and self._nodes[i].children",
        "for i in self._extended if i in self._nodes",
        "a leaf that found no room is asked again",
        by="behaviours",
    ),
    Mutant(DRAFTER, "if known < 0:", "if False:", "a gap is noticed", by="behaviours"),
    Mutant(
        DRAFTER,
        "        if tuple(self.tokens[commit.position",
        "        if False and tuple(self.tokens[commit.position",
        "a contradiction is noticed",
        by="behaviours",
    ),
)

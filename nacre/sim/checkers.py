"""The invariants of a session, checked from outside as a world runs.

`VerifierChecks` keeps a slow, obvious model beside a VerifierSession: for every stream and number the *whole* token
path, prompt included, that the guess stands for. From it follows what the tree must hold. `DrafterChecks` does the
same for a DrafterSession from what is put in and what comes out. Neither looks at how the machines do it.

    1 exact      committed tokens (and their log-probabilities) are the reference's
    2 rooted     the tree holds exactly the guesses that continue the committed text; nothing else is planned
    3 bounded    a plan keeps its row budget, takes the best rows; a stream keeps its window
    4 agreed     when all is delivered, both ends hold the same committed text
    5 memory     tree, live numbers and remembered numbers stay within window x streams
    6 waste      nothing is drafted, extended, sent or planned below a prefix that this end knows to be wrong
    7 lively     every pass commits at least one token
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nacre.drafting.proposer import TIP, Guess
from nacre.sampling import Choice
from nacre.session import (
    Draft,
    DrafterSession,
    FinishReason,
    Received,
    Resolution,
    VerifierSession,
    VerifyPlan,
    confidence_byte,
    survival_of,
)
from nacre.session.messages import DEFAULT_SURVIVAL
from nacre.tree import Fate, Node

Path = tuple[int, ...]  # a whole token sequence, prompt included


class Violation(Exception):
    """An invariant does not hold. The message says which."""


def require(holds: bool, invariant: str, *detail: object) -> None:
    """Raises Violation unless it holds. The detail is put into words only then."""
    if not holds:
        raise Violation(f"{invariant}: {' '.join(str(part) for part in detail)}")


class StreamModel:
    """What one stream's numbers stand for: live guesses, and the last `window` that became true."""

    def __init__(self, window_nodes: int) -> None:
        self.window_nodes = window_nodes
        self.next_number = 1
        self.live: dict[int, Path] = {}
        self.true: dict[int, Path] = {}

    def numbered(self, draft: Draft) -> Draft:
        """The draft with its number spelled out."""
        return draft if draft.first_node else replace(draft, first_node=self.next_number)

    def find(self, number: int) -> Path | None:
        return self.live.get(number) or self.true.get(number)

    def became_true(self, number: int, path: Path) -> None:
        self.true[number] = path
        if len(self.true) > self.window_nodes:
            del self.true[next(iter(self.true))]

    def settle(self, text: Path) -> None:
        for number, path in list(self.live.items()):
            if len(path) <= len(text):
                del self.live[number]
                if text[: len(path)] == path:
                    self.became_true(number, path)
            elif path[: len(text)] != text:
                del self.live[number]


class VerifierChecks:
    """Watches one VerifierSession. `reference` is the plain autoregressive output for its prompt."""

    def __init__(self, session: VerifierSession, prompt: Sequence[int], reference: Sequence[Choice]) -> None:
        self.session = session
        self.prompt = tuple(prompt)
        self.reference = tuple(reference)
        self.streams: dict[int, StreamModel] = {}
        # Of each live guess, since it appeared: the best survival claimed for it, and who guessed it first.
        self.worth: dict[Path, float] = {}
        self.source: dict[Path, int] = {}
        self.passes = 0
        self._check_text()

    @property
    def text(self) -> Path:
        return tuple(self.session.tokens)

    def joined(self, ordinal: int) -> None:
        require(ordinal not in self.streams, "bounded", f"ordinal {ordinal} was given twice")
        self.streams[ordinal] = StreamModel(self.session.limits.window_nodes)
        require(len(self.streams) <= self.session.limits.max_streams, "memory", "more streams than the limit")

    def left(self, ordinal: int) -> None:
        del self.streams[ordinal]
        self._forget_claims()
        self._check_tree()

    def drafted(self, ordinal: int, draft: Draft, received: Received) -> None:
        """A draft that was taken. It must have been a legal one, and each guess must have gone where it belongs."""
        stream = self.streams[ordinal]
        require(self.is_legal(ordinal, draft), "bounded", "an illegal draft was taken:", draft)
        draft = stream.numbered(draft)
        if draft.first_node == 1:
            stream.live.clear()
            stream.true.clear()
            self._forget_claims()
        text = self.text
        counts = {"live": 0, "late": 0, "dead": 0}
        for index, token in enumerate(draft.tokens):
            number = draft.first_node + index
            offset = draft.parent_offset(index)
            above = text[: draft.anchor] if offset == 0 else stream.find(number - offset)
            path = None if above is None else (*above, token)
            fate = self._fate(path, text)
            counts[fate] += 1
            if fate == "live" and path is not None:
                stream.live[number] = path
                claimed = survival_of(draft.confidence[index]) if draft.confidence else DEFAULT_SURVIVAL
                self.worth[path] = max(claimed, self.worth.get(path, 0.0))
                self.source.setdefault(path, ordinal)
            elif fate == "late" and path is not None:
                stream.became_true(number, path)
        require(received == Received(**counts), "rooted", received, "is not", counts, "for", draft)
        stream.next_number = draft.first_node + len(draft.tokens)
        self._check_tree()

    def refused(self, ordinal: int, draft: Draft) -> None:
        """A draft that was refused. It must have been illegal, and it must have left no trace."""
        require(not self.is_legal(ordinal, draft), "agreed", "a legal draft was refused:", draft)
        self._check_tree()

    def is_legal(self, ordinal: int, draft: Draft) -> bool:
        """The rules of a draft, written down a second time."""
        draft = self.streams[ordinal].numbered(draft)
        count = len(draft.tokens)
        restart = draft.first_node == 1
        if count == 0 or not (restart or draft.first_node == self.streams[ordinal].next_number):
            return False
        if count + (0 if restart else len(self.streams[ordinal].live)) > self.session.limits.window_nodes:
            return False
        if len(draft.parents) not in (0, count) or len(draft.confidence) not in (0, count):
            return False
        if any(not 0 <= token < self.session.vocab_size for token in draft.tokens):
            return False
        for index in range(count):
            offset = draft.parent_offset(index)
            if offset == 0 and not (draft.anchor is not None and 1 <= draft.anchor <= len(self.text)):
                return False
            if offset != 0 and not 1 <= draft.first_node + index - offset < draft.first_node + index:
                return False
        return True

    def planned(self, plan: VerifyPlan, rows: int) -> None:
        text = self.text
        require(self.session.finished is None, "waste", "a finished session was planned")
        require(1 <= len(plan.tokens) <= rows, "bounded", f"{len(plan.tokens)} rows planned, {rows} allowed")
        require(plan.committed == len(text), "rooted", "the plan is not for the committed text")
        first = (plan.tokens[0], plan.parents[0], plan.positions[0])
        require(first == (text[-1], -1, len(text) - 1), "rooted", "row 0 is", first, "not the tip")
        live = self._live_paths()
        paths = [text]
        worth = [1.0]
        for row in range(1, len(plan.tokens)):
            parent = plan.parents[row]
            require(0 <= parent < row, "rooted", f"row {row} names row {parent} as its parent")
            path = (*paths[parent], plan.tokens[row])
            require(path in live, "waste", "row", row, "is not a live guess:", path)
            require(path not in paths, "waste", "row", row, "repeats a guess")
            require(plan.positions[row] == len(path) - 1, "rooted", f"row {row} has position {plan.positions[row]}")
            require(plan.ancestors(row) == path[len(text) :], "rooted", "row", row, "has other ancestors")
            require(self._useful(path), "waste", "row", row, "chooses a token that can never be committed")
            paths.append(path)
            worth.append(worth[parent] * self.worth[path])
        best = self._best_worth(rows - 1)
        require(sorted(worth[1:], reverse=True) == best, "bounded", "best rows:", best, "planned:", worth)

    def resolved(self, plan: VerifyPlan, resolution: Resolution) -> None:
        commit = resolution.commit
        self.passes += 1
        require(commit.position == plan.committed, "exact", f"commit at {commit.position}, plan at {plan.committed}")
        require(len(commit.tokens) >= 1, "lively", "a pass committed nothing")
        require(commit.end == len(self.text), "exact", "the commit is not what was appended")
        require(resolution.matched == len(commit.tokens) - 1 == len(resolution.path) - 1, "exact", "matched count")
        require(resolution.planned == len(plan.tokens) - 1, "bounded", "planned count")
        for row, token in zip(resolution.path[1:], commit.tokens, strict=False):
            require(plan.tokens[row] == token, "exact", "row", row, "of the path carries another token")
        # The last token is the target's own: whoever guessed it too has not saved its pass.
        prefixes = [self.text[: commit.position + count] for count in range(1, len(commit.tokens))]
        credit = (*(self.source.get(prefix, 0) for prefix in prefixes), 0)
        require(commit.guessed_by == credit, "exact", "credit goes to", commit.guessed_by, "not", credit)
        for stream in self.streams.values():
            stream.settle(self.text)
        self._forget_claims()
        self._check_text()
        self._check_tree()

    # -- private -------------------------------------------------------------------------------------------------

    def _fate(self, path: Path | None, text: Path) -> str:
        if path is None:
            return "dead"
        if len(path) <= len(text):
            return "late" if text[: len(path)] == path else "dead"
        return "live" if path[: len(text)] == text and len(path) <= self.session.end_position else "dead"

    def _useful(self, path: Path) -> bool:
        """Whether the target's choice after this guess could be committed."""
        guessed = path[len(self.text) :]
        return len(path) < self.session.end_position and not self.session.stop_ids.intersection(guessed)

    def _live_paths(self) -> set[Path]:
        return {path for stream in self.streams.values() for path in stream.live.values()}

    def _forget_claims(self) -> None:
        live = self._live_paths()
        self.worth = {path: value for path, value in self.worth.items() if path in live}
        self.source = {path: ordinal for path, ordinal in self.source.items() if path in live}

    def _best_worth(self, count: int) -> list[float]:
        total: dict[Path, float] = {self.text: 1.0}
        for path in sorted(self._live_paths(), key=len):
            if self._useful(path):
                total[path] = total[path[:-1]] * self.worth[path]
        del total[self.text]
        return sorted(total.values(), reverse=True)[:count]

    def _check_text(self) -> None:
        session = self.session
        output = self.text[len(self.prompt) :]
        expected = self.reference[: len(output)]
        require(self.text[: len(self.prompt)] == self.prompt, "exact", "the prompt has changed")
        require(output == tuple(choice.token for choice in expected), "exact", output, "is not the reference's text")
        if session.keep_choices:
            first = session.replay_from - len(self.prompt)
            require(
                tuple(session.choices) == expected[first:], "exact", "the log-probabilities are not the reference's"
            )
        complete = len(output) == len(self.reference)
        stopped = complete and output[-1] in session.stop_ids
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH if complete else None
        require(
            session.finished in (reason, FinishReason.CANCELLED),
            "exact",
            f"finished is {session.finished}, not {reason}",
        )

    def _check_tree(self) -> None:
        session, tree, text = self.session, self.session.tree, self.text
        tip = tree.tip
        require(
            (tip.token, tip.position, tip.parent) == (text[-1], len(text) - 1, None), "rooted", "the tip is elsewhere"
        )
        holders: dict[Path, int] = {}
        for stream in self.streams.values():
            for path in stream.live.values():
                holders[path] = holders.get(path, 0) + 1
        found: dict[Path, int] = {}
        stack: list[tuple[Node, Path]] = [(tip, text)]
        while stack:
            node, above = stack.pop()
            for token, child in node.children.items():
                path = (*above, token)
                sound = (
                    child.parent is node
                    and child.token == token
                    and child.position == len(path) - 1
                    and child.fate is Fate.LIVE
                    and child.survival == self.worth.get(path)
                    and child.source == self.source.get(path)
                )
                require(sound, "rooted", "node", path, "is not what its place says")
                found[path] = child.holders
                stack.append((child, path))
        require(found == holders, "rooted", "the tree holds", found, "the streams stand for", holders)
        limits = session.limits
        require(
            len(tree) == len(found) <= limits.window_nodes * limits.max_streams, "memory", f"{len(tree)} nodes counted"
        )
        require(session.streams.keys() == self.streams.keys(), "memory", "other streams than have joined")
        for ordinal, machine in session.streams.items():
            model = self.streams[ordinal]
            unresolved = machine.unresolved_nodes
            require(machine.next_node == model.next_number, "bounded", "next node is", machine.next_node)
            require(unresolved == len(model.live) <= limits.window_nodes, "bounded", unresolved, "unresolved")
            require(len(machine._trunk) <= limits.window_nodes, "memory", len(machine._trunk), "settled numbers kept")


class DrafterChecks:
    """Watches one DrafterSession: whole paths of its nodes by id, and of its sent guesses by number."""

    def __init__(self, session: DrafterSession) -> None:
        self.session = session
        self.nodes: dict[int, Path] = {}
        self.sent_paths: dict[int, Path] = {}
        self._next_number = 1

    @property
    def text(self) -> Path:
        return tuple(self.session.tokens)

    def frontier(self, nodes: Sequence[Node], count: int) -> None:
        require(len(nodes) <= count, "bounded", f"{len(nodes)} nodes to extend, {count} asked for")
        require(len({node.id for node in nodes}) == len(nodes), "waste", "a node is to be extended twice")
        for node in nodes:
            path = self._path(node.id)
            require(self._continues(path) or path == self.text, "waste", f"dead node {node.id} is to be extended")
            require(path == (*self.text, *node.path()), "rooted", "node", node.id, "has another path")
            require(len(path) < self.session.end_position, "waste", "node", node.id, "is past the end")

    def extended(self, node_id: int, guesses: Sequence[Guess], ids: Sequence[int]) -> None:
        require(len(ids) == len(guesses), "bounded", "one node id per guess")
        for guess, new_id in zip(guesses, ids, strict=True):
            if new_id:
                above = self._path(node_id if guess.parent == TIP else ids[guess.parent])
                self.nodes[new_id] = (*above, guess.token)
                require(self._continues(self.nodes[new_id]), "waste", "node", new_id, "hangs below a dead prefix")
        require(len(self.session.tree) <= self.session.limits.window_nodes, "memory", f"{len(self.session.tree)} nodes")

    def committed(self) -> None:
        """After a commit: forget what it contradicted or settled, as the machine must have."""
        tip = self.session.tree.tip
        text = self.text
        require(
            (tip.token, tip.position, tip.parent) == (text[-1], len(text) - 1, None), "rooted", "the tip is elsewhere"
        )
        self.nodes = {i: path for i, path in self.nodes.items() if path == text or self._continues(path)}
        self.sent_paths = {n: path for n, path in self.sent_paths.items() if self._continues(path)}
        live = {path for path in self.nodes.values() if path != text}
        found = {(*text, *node.path()) for node in self.session.tree.nodes()}
        require(found == live, "rooted", f"the drafter's tree holds {len(found)} nodes, {len(live)} are live")
        require(
            len(self.session.tree) == len(live), "memory", f"{len(self.session.tree)} nodes counted, {len(live)} live"
        )
        self._check_window()

    def reanchored(self) -> None:
        self.sent_paths.clear()
        self._next_number = 1

    def sent(self, drafts: Sequence[Draft], *, verifier_position: int) -> None:
        """Drafts on their way. `verifier_position`: the least committed length that the verifier can be at."""
        for draft in drafts:
            require(draft.first_node == self._next_number, "agreed", f"{draft.first_node} is not the next number")
            require(0 < len(draft.tokens) <= self.session.limits.nodes_per_draft, "bounded", "size of a draft")
            for index, token in enumerate(draft.tokens):
                number = draft.first_node + index
                offset = draft.parent_offset(index)
                if offset == 0:
                    require(
                        draft.anchor is not None and draft.anchor <= verifier_position, "agreed", "anchor in the future"
                    )
                    above = self.text[: draft.anchor]
                else:
                    require(number - offset in self.sent_paths, "waste", "guess", number, "hangs below a settled one")
                    above = self.sent_paths[number - offset]
                path = (*above, token)
                require(self._continues(path), "waste", "guess", number, "is known to be wrong, or settled")
                require(path in self.nodes.values(), "rooted", "guess", number, "is in nobody's tree")
                require(path not in self.sent_paths.values(), "waste", "guess", number, "was sent before")
                self.sent_paths[number] = path
            self._next_number = draft.first_node + len(draft.tokens)
            self._check_confidence(draft)
        self._check_window()

    def _check_confidence(self, draft: Draft) -> None:
        claimed = {(*self.text, *node.path()): confidence_byte(node.survival) for node in self.session.tree.nodes()}
        for index, byte in enumerate(draft.confidence):
            path = self.sent_paths[draft.first_node + index]
            require(byte == claimed[path], "agreed", f"guess {draft.first_node + index} has another confidence")

    def _check_window(self) -> None:
        unresolved = self.session.unresolved_nodes
        require(unresolved == len(self.sent_paths), "bounded", f"{unresolved} unresolved, {len(self.sent_paths)} sent")
        require(unresolved <= self.session.window_nodes, "bounded", f"{unresolved} exceed the window")

    def _path(self, node_id: int) -> Path:
        return self.text if node_id == self.session.tree.tip.id else self.nodes.get(node_id, ())

    def _continues(self, path: Path) -> bool:
        return len(path) > len(self.text) and path[: len(self.text)] == self.text

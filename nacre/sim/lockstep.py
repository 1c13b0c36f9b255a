"""Drafters that send chunks and wait: what the product is compared with, and what formulas can be written for.

    sync       draft gamma guesses, send, wait for the verdict; the verifier never starts without a message
    pearl      one window ahead: the next gamma are drafted while the last are verified
    pipelined  chunks of gamma without waiting for anything; the verifier never starts without guesses

Sources: Leviathan et al. 2023 over a network; PEARL (Liu et al. 2024) in lock-step; the third is a model of streamed
drafts. In all of them the client drafts one chain on its own stream, the prompt's pass is free, and the token after
the last right guess comes for free, also as a check of the next chunk's first guess.
"""

from __future__ import annotations

from nacre.session import Commit, DrafterLimits
from nacre.sim.batch_loop import Ready
from nacre.sim.drafters import DeviceSeat
from nacre.sim.hosted import Hosted
from nacre.sim.messages import Opened
from nacre.tree import Node

#: Messages that may be under way or being drafted before the first verdict; None for any number.
AHEAD: dict[str, int | None] = {"sync": 0, "pearl": 1, "pipelined": None}


def limits(gamma: int, window_nodes: int) -> DrafterLimits:
    """A whole chunk goes in one message, whatever it claims to be worth."""
    return DrafterLimits(window_nodes, least_survival=0.0, least_sent_survival=0.0, nodes_per_draft=max(gamma, 1))


def gate(policy: str, gamma: int) -> Ready:
    """When the verifier may start a session's pass; the first one is the prompt's."""
    if AHEAD[policy] is None:
        return lambda hosted: hosted.tally.passes == 0 or len(hosted.session.tree) > 0
    return lambda hosted: hosted.tally.passes <= hosted.tally.drafts or _nothing_to_send(hosted, gamma)


def _nothing_to_send(hosted: Hosted, gamma: int) -> bool:
    """Guesses reach the end of the text, or leave no room for more in the window: to wait for a message is for ever."""
    session = hosted.session
    full = len(session.tree) + gamma > session.limits.window_nodes
    return full or _leaf(session.tree.tip).position >= session.end_position - 1


def _leaf(node: Node) -> Node:
    """The end of the chain below a node."""
    while node.children:
        node = next(iter(node.children.values()))
    return node


class ChunkSeat(DeviceSeat):
    """Drafts and sends chunks of `gamma`; may be `ahead` verdicts ahead."""

    gamma = 4
    ahead: int | None = 0
    _messages = 0
    _verdicts = 0

    def begin(self, stream: object, opened: Opened) -> None:
        self._messages = 0
        self._verdicts = int(len(opened.tokens) > opened.prompt_length)
        super().begin(stream, opened)  # type: ignore[arg-type]

    def wanted(self, count: int) -> list[Node]:
        session = self.session
        assert session is not None
        if self.ahead is not None and self._verdicts + self.ahead <= self._messages:
            return []
        if session.unresolved_nodes + self.gamma > session.window_nodes:
            return []
        leaf = _leaf(session.tree.tip)
        return [leaf] if leaf.position + 1 < session.end_position else []

    def flush(self) -> None:
        session = self.session
        if session is None:
            return
        unsent = len(session.tree) - session.unresolved_nodes
        at_end = _leaf(session.tree.tip).position + 1 >= session.end_position
        if unsent >= self.gamma or (unsent and at_end):
            before = session.unresolved_nodes
            super().flush()
            self._messages += session.unresolved_nodes > before

    def _commit(self, commit: Commit) -> None:
        self._verdicts += 1
        super()._commit(commit)

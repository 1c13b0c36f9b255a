"""Drafters that break every rule, to show that it harms nobody but themselves.

A malice is a function from what the drafter can see to the drafts it sends next. Some are illegal and must be refused
on that stream alone; some are legal and useless, or treacherous: right guesses withdrawn, wrong ones sworn to. A
refused drafter comes back a few times, as an attacker would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nacre.errors import NacreError
from nacre.session import Commit, Draft
from nacre.sim.actors import DrafterSpec
from nacre.sim.dice import Dice
from nacre.sim.messages import Finished, Join, Opened
from nacre.sim.network import Stream
from nacre.sim.target import ToyTarget
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import World


@dataclass(slots=True)
class View:
    """What a malicious drafter knows: the committed text, its numbering, what it sent, and (worst case) the target."""

    target: ToyTarget
    dice: Dice
    tokens: list[int] = field(default_factory=list)
    window_nodes: int = 1
    next_number: int = 1
    sent: list[Draft] = field(default_factory=list)

    def random_tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.dice.below(self.target.vocab_size) for _ in range(count))

    def right_tokens(self, start: int, count: int) -> tuple[int, ...]:
        """What the target will say from committed position `start` on."""
        known = self.tokens[:start]
        return tuple(choice.token for choice in self.target.reference(known, count, frozenset()))

    def few(self) -> int:
        return 1 + self.dice.below(min(6, self.window_nodes))


Malice = Callable[[View], list[Draft]]


def random_tokens(view: View) -> list[Draft]:
    """Well-formed nonsense, sworn to be certain."""
    count = view.few()
    return [Draft(view.next_number, view.random_tokens(count), anchor=len(view.tokens), confidence=bytes(count))]


def random_parents(view: View) -> list[Draft]:
    """A bush with arbitrary parents, old trunk and dead nodes among them; often legal, sometimes not."""
    count = view.few()
    known = view.next_number - 1
    parents = tuple(view.dice.below(known + index + 2) for index in range(count))
    anchor = 1 + view.dice.below(len(view.tokens))
    tokens = view.random_tokens(count)
    if view.dice.chance(0.5):
        tokens = view.right_tokens(anchor, count)
    first = view.next_number if count % 2 else 0  # either way of saying it
    return [Draft(first, tokens, anchor=anchor, parents=parents)]


def wrong_parents(view: View) -> list[Draft]:
    """Parents from the future, below zero, or too few of them."""
    tokens = view.random_tokens(3)
    bad = view.dice.pick(((1, 1, view.next_number + 2), (0, -1, 1), (0, 1), (0, 1, 1, 1)))
    return [Draft(view.next_number, tokens, anchor=len(view.tokens), parents=bad)]


def future_anchor(view: View) -> list[Draft]:
    anchor = view.dice.pick((len(view.tokens) + view.window_nodes, 10**9, 0, -1))
    return [Draft(view.next_number, view.random_tokens(2), anchor=anchor)]


def no_anchor(view: View) -> list[Draft]:
    """Below the anchor that was never named."""
    return [Draft(view.next_number, view.random_tokens(2), parents=(0, 1))]


def out_of_order(view: View) -> list[Draft]:
    first = view.dice.pick((view.next_number + 1, view.next_number + 100, -1, -5, max(2, view.next_number - 1)))
    return [Draft(first, view.random_tokens(2), anchor=len(view.tokens))]


def restarts(view: View) -> list[Draft]:
    """Starts afresh with every message, often while the last guesses are being verified."""
    count = view.few()
    return [Draft(1, view.right_tokens(len(view.tokens), count), anchor=len(view.tokens))]


def turncoat(view: View) -> list[Draft]:
    """Right guesses, that others will merge with, withdrawn and contradicted in the next message."""
    count = view.few()
    right = view.right_tokens(len(view.tokens), count)
    wrong = tuple((token + 1) % view.target.vocab_size for token in right)
    return [Draft(1, right, anchor=len(view.tokens)), Draft(1, wrong[:1], anchor=len(view.tokens), confidence=b"\0")]


def doubles(view: View) -> list[Draft]:
    """The same guess under many numbers."""
    token = view.right_tokens(len(view.tokens), 1)
    count = view.few()
    return [Draft(view.next_number, token * count, anchor=len(view.tokens), parents=(0,) * count)]


def flood(view: View) -> list[Draft]:
    """More and more, until the window is full and beyond."""
    chain = view.random_tokens(max(1, view.window_nodes // 2))
    drafts = []
    number = view.next_number
    for _ in range(4):
        drafts.append(Draft(number, chain, anchor=len(view.tokens)))
        number += len(chain)
    return drafts


def huge_message(view: View) -> list[Draft]:
    return [Draft(1, view.random_tokens(view.window_nodes + 1), anchor=len(view.tokens))]


def foreign_tokens(view: View) -> list[Draft]:
    """Token ids outside the vocabulary, behind some that are right."""
    right = view.right_tokens(len(view.tokens), 1)
    bad = view.dice.pick((view.target.vocab_size, 2**31, -1))
    return [Draft(view.next_number, (*right, bad), anchor=len(view.tokens))]


def bad_confidence(view: View) -> list[Draft]:
    return [Draft(view.next_number, view.random_tokens(2), anchor=len(view.tokens), confidence=b"\1\2\3")]


def empty(view: View) -> list[Draft]:
    return [Draft(view.next_number, (), anchor=len(view.tokens))]


def replays(view: View) -> list[Draft]:
    """Old drafts once more: with their old numbers, or renumbered with their old anchors."""
    if not view.sent or view.dice.chance(0.3):
        return restarts(view)
    old = view.dice.pick(view.sent)
    number = view.next_number if view.dice.chance(0.7) else old.first_node
    return [Draft(number, old.tokens, anchor=old.anchor, parents=old.parents)]


def silence(view: View) -> list[Draft]:
    return []


MALICES: Mapping[str, Malice] = {
    malice.__name__: malice
    for malice in (
        random_tokens, random_parents, wrong_parents, future_anchor, no_anchor, out_of_order, restarts, turncoat,
        doubles, flood, huge_message, foreign_tokens, bad_confidence, empty, replays, silence,
    )
}  # fmt: skip


class MaliciousDrafter:
    """Joins like a drafter and does its malice, or ("any") another one each time, every `step_s`."""

    max_attempts = 8
    max_messages = 400

    def __init__(self, world: World, name: str, spec: DrafterSpec, target: ToyTarget) -> None:
        self.name = name
        self.world = world
        self.spec = spec
        self.refused = 0
        self._dice = world.dice.child(4, *name.encode())
        self._view = View(target, self._dice)
        self._where: tuple[VerifierActor, str] | None = None
        self._stream: Stream | None = None
        self._attempts = 0
        self._messages = 0

    def attach(self, verifier: VerifierActor, ticket: str) -> None:
        self._where = (verifier, ticket)
        self.world.after(self.spec.starts_at_s - self.world.now_s, self._join)

    def receive(self, stream: Stream, message: object) -> None:
        if stream is not self._stream:
            return
        match message:
            case Opened():
                self._view = View(self._view.target, self._dice, list(message.tokens), message.window_nodes)
                self._act(stream)
            case Commit():
                self._view.tokens[message.position :] = message.tokens
            case Finished():
                self._stream = None

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        if stream is not self._stream:
            return
        self._stream = None
        if error is not None and error.http_status != 404:
            self.refused += 1
            self.world.after(self.spec.step_s, self._join)

    def _join(self) -> None:
        if self._where is None or self._attempts >= self.max_attempts:
            return
        self._attempts += 1
        verifier, ticket = self._where
        if self._stream is not None:
            self._stream.close(self)
        self._stream = Stream(self.world, self.spec.link, self, verifier, self._dice.child(self._attempts))
        verifier.accept(self._stream)
        self._stream.send(self, Join(ticket, owner=False, position=0))

    def _act(self, stream: Stream) -> None:
        if stream is not self._stream or self._messages >= self.max_messages:
            return
        view = self._view
        name = self.spec.kind if self.spec.kind in MALICES else self._dice.pick(tuple(MALICES))
        for draft in MALICES[name](view):
            self._messages += 1
            stream.send(self, draft)
            # It counts as the verifier would if all were taken, so that most of its nonsense is well-formed.
            view.next_number = max(1, (draft.first_node or view.next_number) + len(draft.tokens))
            view.sent = [*view.sent[-15:], draft]
        self.world.after(self.spec.step_s, lambda: self._act(stream))

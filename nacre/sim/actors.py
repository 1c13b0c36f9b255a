"""The owner of a session, and what worlds are made of as data; verifier and drafters have their own modules.

The owner plays client and gateway in one: it opens the session, checks every commit by position, comes back after a
lost stream, moves to another verifier when it cannot, and tells the drafters where the session lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from nacre.errors import NacreError
from nacre.sampling import Choice
from nacre.session import Commit, DrafterLimits, FinishReason
from nacre.sim.checkers import require
from nacre.sim.dice import Dice
from nacre.sim.messages import Cancel, Finished, Join, Open, Opened
from nacre.sim.network import LinkSpec, Stream
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import World


@dataclass(frozen=True, slots=True)
class DrafterSpec:
    """A drafter: `kind` is "honest" or the name of a malice; the rest is its dials and its bad luck.

    `acceptance[k]`: chance that the right token is among its best k + 1 guesses. `step_s`: time of one proposer call,
    for up to `batch` nodes, each looked `reach` tokens ahead. `model`: drafters of one model guess alike. `cut_at_s`:
    when its stream is lost.
    """

    kind: str = "honest"
    acceptance: tuple[float, ...] = (0.7,)
    step_s: float = 0.002
    batch: int = 1
    reach: int = 1
    model: int = 0
    limits: DrafterLimits = DrafterLimits()  # noqa: RUF009  a frozen value
    link: LinkSpec = LinkSpec()  # noqa: RUF009  a frozen value
    starts_at_s: float = 0.0
    cut_at_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """A session: what its owner asks for, who drafts for it, and what befalls it."""

    prompt: tuple[int, ...]
    max_tokens: int
    unseen: int = 0  # prompt tokens before `prompt`: they cost rows, and nobody needs to know them
    stop_ids: frozenset[int] = frozenset()
    keep_choices: bool = False
    drafters: tuple[DrafterSpec, ...] = ()
    link: LinkSpec = LinkSpec()  # noqa: RUF009  a frozen value
    attach_s: float | None = None  # from owner to drafter; None: as far as the verifier
    starts_at_s: float = 0.0
    cut_at_s: tuple[float, ...] = ()
    cancel_at_s: float | None = None
    gone_at_s: float | None = None  # the owner vanishes and never comes back


class Attachable(Protocol):
    """What an owner asks to draft for its session."""

    def attach(self, verifier: VerifierActor, ticket: str) -> None: ...


class OwnDrafter(Protocol):
    """What drafts on the owner's own stream (device mode)."""

    def begin(self, stream: Stream, opened: Opened) -> None:
        """A stream has been opened, or opened again: nothing sent before counts."""

    def receive(self, stream: Stream, message: object) -> None: ...


class OwnerActor:
    """Opens a session and must end up with exactly the reference's text.

    `place` names the verifier for a session that has none; without it chance does, and the next in line after a loss.
    `received` lists when how many new tokens came. `ended` is called when the last one has.
    """

    retry_s = 0.01
    notice_s = 0.05  # an end may take this long to see that its stream is dead
    max_attempts = 64

    def __init__(
        self,
        world: World,
        name: str,
        spec: SessionSpec,
        verifiers: Sequence[VerifierActor],
        session: str,
        reference: Sequence[Choice],
        *,
        checked: bool = True,
        place: Callable[[], int] | None = None,
        ended: Callable[[OwnerActor], None] | None = None,
    ) -> None:
        self.name = name
        self.session = session
        self.world = world
        self.spec = spec
        self.verifiers = verifiers
        self.reference = tuple(reference)
        self.drafters: list[Attachable] = []
        self.own_drafter: OwnDrafter | None = None
        self.tokens: list[int] = []
        self.choices: list[Choice] = []
        self.finished: FinishReason | None = None
        self.finished_at_s: float | None = None
        self.received: list[tuple[float, int]] = []
        self.stream: Stream | None = None
        self._dice: Dice = world.dice.child(1, *name.encode())
        self._checked = checked
        self._place = place
        self._ended = ended
        self._at = self._dice.below(len(verifiers)) if place is None else 0
        self._ticket = ""
        self._opened: Opened | None = None
        self._returning = False  # the first commit of a stream that was joined again tells where it stands
        self._attempts = 0
        self._gone = False
        world.at(spec.starts_at_s, self._open)
        for time_s in spec.cut_at_s:
            world.at(time_s, self.cut)
        if spec.cancel_at_s is not None:
            world.at(spec.cancel_at_s, self._cancel)
        if spec.gone_at_s is not None:
            world.at(spec.gone_at_s, self._vanish)

    @property
    def done(self) -> bool:
        return self._gone or self.finished is not None

    def receive(self, stream: Stream, message: object) -> None:
        if stream is not self.stream:
            return
        match message:
            case Opened():
                self._ticket = message.ticket
                verifier = self.verifiers[self._at]
                attach_s = self.spec.link.delay_s if self.spec.attach_s is None else self.spec.attach_s
                for drafter in self.drafters:
                    self.world.after(attach_s, partial(drafter.attach, verifier, message.ticket))
                if self.own_drafter is not None:
                    self._opened = message
                    self._begin_drafting(stream)
            case Commit():
                self._take(message)
                if self.own_drafter is not None and self._returning:
                    self._begin_drafting(stream)
                elif self.own_drafter is not None:
                    self.own_drafter.receive(stream, message)
            case Finished():
                if self.own_drafter is not None:
                    self.own_drafter.receive(stream, message)
                self.finished = message.reason
                self.finished_at_s = self.world.now_s
                require(message.position == self._position, "exact", f"{self.name} has not all tokens at the end")
                complete = len(self.tokens) == len(self.reference)
                cancelled = message.reason is FinishReason.CANCELLED
                require(complete or cancelled, "lively", f"{self.name} ended after {len(self.tokens)} tokens")
                if self._ended is not None:
                    self._ended(self)

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        if stream is not self.stream or self.done:
            return
        self.stream = None
        self._attempts += 1
        require(self._attempts <= self.max_attempts, "lively", f"{self.name} finds no verifier")
        # A client cannot tell a dead verifier from a dead link: sometimes it goes back, sometimes it moves on, and
        # then two verifiers may run the same session for a while.
        if error is not None and error.retryable and self._ticket and self._dice.chance(0.5):
            self.world.after(self.retry_s, self._return)
        else:
            self._at = (self._at + 1) % len(self.verifiers)
            self.world.after(self.retry_s, self._open)

    def _begin_drafting(self, stream: Stream) -> None:
        assert self.own_drafter is not None
        assert self._opened is not None
        self._returning = False
        known = (*self.spec.prompt, *self.tokens)
        self.own_drafter.begin(stream, replace(self._opened, tokens=known))

    @property
    def _position(self) -> int:
        return len(self.spec.prompt) + len(self.tokens)

    def _take(self, commit: Commit) -> None:
        start = commit.position - len(self.spec.prompt)
        require(0 <= start <= len(self.tokens), "exact", f"{self.name} at {self._position} misses tokens: {commit}")
        known = tuple(self.tokens[start : start + len(commit.tokens)])
        require(
            known == commit.tokens[: len(known)], "exact", f"{self.name} was sent another token at {commit.position}"
        )
        new = commit.tokens[len(known) :]
        self.tokens.extend(new)
        if new:
            self.received.append((self.world.now_s, len(new)))
        if not self._checked:
            return
        if self.spec.keep_choices:
            require(tuple(c.token for c in commit.choices) == commit.tokens, "exact", "choices are not the commit's")
            self.choices.extend(commit.choices[len(known) :])
            require(self.choices == list(self.reference[: len(self.choices)]), "exact", "other log-probabilities")
        expected = tuple(choice.token for choice in self.reference[: len(self.tokens)])
        require(tuple(self.tokens) == expected, "exact", f"{self.name} holds another text than the reference")

    def _connect(self) -> Stream:
        verifier = self.verifiers[self._at]
        self.stream = Stream(self.world, self.spec.link, self, verifier, self._dice.child(7, self._attempts))
        verifier.accept(self.stream)
        return self.stream

    def _open(self) -> None:
        if self.done:
            return
        spec = self.spec
        resume = tuple(self.tokens)
        if self._place is not None:
            self._at = self._place()
        opening = Open(
            self.session, spec.prompt, resume, spec.max_tokens, spec.stop_ids, spec.keep_choices, spec.unseen
        )
        self._connect().send(self, opening)

    def _return(self) -> None:
        if not self.done:
            self._returning = True
            self._connect().send(self, Join(self._ticket, owner=True, position=self._position))

    def cut(self) -> None:
        if self.stream is not None and not self.done:
            self.stream.cut(self.notice_s)

    def _cancel(self) -> None:
        if self.stream is not None and not self.done:
            self.stream.send(self, Cancel())

    def _vanish(self) -> None:
        self._gone = True
        if self.stream is not None:
            self.stream.cut(self.notice_s)

"""Owner and drafter around the machines that ship; the verifier has its own module.

The owner plays client and gateway in one: it opens the session, checks every commit by position, comes back after a
lost stream, moves to another verifier when it cannot, and tells the drafters where the session lives.

The drafter runs DrafterSession and a proposer: one step at a time, each `step_s` long, sending as soon as it has
guesses and window. A step's guesses may come back for a node that has died meanwhile; the machine must cope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from nacre.drafting.proposer import DraftContext, Expansion, Guess, Proposer
from nacre.errors import NacreError
from nacre.sampling import Choice, SamplingParams
from nacre.session import Commit, DrafterLimits, DrafterSession, FinishReason, Reanchor
from nacre.sim.checkers import DrafterChecks, require
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
    stop_ids: frozenset[int] = frozenset()
    keep_choices: bool = False
    drafters: tuple[DrafterSpec, ...] = ()
    link: LinkSpec = LinkSpec()  # noqa: RUF009  a frozen value
    starts_at_s: float = 0.0
    cut_at_s: tuple[float, ...] = ()
    cancel_at_s: float | None = None
    gone_at_s: float | None = None  # the owner vanishes and never comes back


class Attachable(Protocol):
    """What an owner asks to draft for its session."""

    def attach(self, verifier: VerifierActor, ticket: str) -> None: ...


class OwnerActor:
    """Opens a session and must end up with exactly the reference's text."""

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
    ) -> None:
        self.name = name
        self.session = session
        self.world = world
        self.spec = spec
        self.verifiers = verifiers
        self.reference = tuple(reference)
        self.drafters: list[Attachable] = []
        self.tokens: list[int] = []
        self.choices: list[Choice] = []
        self.finished: FinishReason | None = None
        self.finished_at_s: float | None = None
        self.stream: Stream | None = None
        self._dice: Dice = world.dice.child(1, *name.encode())
        self._at = self._dice.below(len(verifiers))
        self._ticket = ""
        self._attempts = 0
        self._gone = False
        world.at(spec.starts_at_s, self._open)
        for time_s in spec.cut_at_s:
            world.at(time_s, self._cut)
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
                for drafter in self.drafters:
                    self.world.after(self.spec.link.delay_s, partial(drafter.attach, verifier, message.ticket))
            case Commit():
                self._take(message)
            case Finished():
                self.finished = message.reason
                self.finished_at_s = self.world.now_s
                require(message.position == self._position, "exact", f"{self.name} has not all tokens at the end")
                complete = len(self.tokens) == len(self.reference)
                cancelled = message.reason is FinishReason.CANCELLED
                require(complete or cancelled, "lively", f"{self.name} ended after {len(self.tokens)} tokens")

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
        self.tokens.extend(commit.tokens[len(known) :])
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
        opening = Open(self.session, spec.prompt, resume, spec.max_tokens, spec.stop_ids, spec.keep_choices)
        self._connect().send(self, opening)

    def _return(self) -> None:
        if not self.done:
            self._connect().send(self, Join(self._ticket, owner=True, position=self._position))

    def _cut(self) -> None:
        if self.stream is not None and not self.done:
            self.stream.cut(self.notice_s)

    def _cancel(self) -> None:
        if self.stream is not None and not self.done:
            self.stream.send(self, Cancel())

    def _vanish(self) -> None:
        self._gone = True
        if self.stream is not None:
            self.stream.cut(self.notice_s)


class DrafterActor:
    """An honest drafter of one session."""

    retry_s = 0.02
    notice_s = 0.05
    max_attempts = 16

    def __init__(self, world: World, name: str, spec: DrafterSpec, proposer: Proposer, *, checked: bool = True) -> None:
        self.name = name
        self.world = world
        self.spec = spec
        self.proposer = proposer
        self.session: DrafterSession | None = None
        self.stream: Stream | None = None
        self.steps = 0
        self._checked = checked
        self._checks: DrafterChecks | None = None
        self._dice = world.dice.child(2, *name.encode())
        self._where: tuple[VerifierActor, str] | None = None
        self._verifier_position = 0  # the least committed length the verifier can be at
        self._attempts = 0
        self._welcome = False  # nothing is sent before the verifier has answered the Join
        self._moved = False  # its tree comes from another verifier
        self._stepping = False
        for time_s in spec.cut_at_s:
            world.at(time_s, lambda: self.stream.cut(self.notice_s) if self.stream else None)

    def attach(self, verifier: VerifierActor, ticket: str) -> None:
        """The session lives there. A drafter that knows it already goes on with its tree."""
        self._where = (verifier, ticket)
        delay_s = self.spec.starts_at_s - self.world.now_s
        self.world.after(delay_s, self._join)

    def receive(self, stream: Stream, message: object) -> None:
        if stream is not self.stream:
            return
        match message:
            case Opened():
                self._welcome = True
                self._moved = False
                self._begin(message)
            case Reanchor():
                assert self.session is not None
                self._welcome = self._moved = True
                self.session.reanchored(message)
                self._verifier_position = message.position
                if self._checks is not None:
                    self._checks.reanchored()
            case Commit():
                self._commit(message)
            case Finished():
                # One that came from another verifier may end knowing more, or less, than this one has told it.
                known = len(self.session.tokens) if self.session is not None and not self._moved else message.position
                told = self._verifier_position == message.position
                require(told and known == message.position, "agreed", f"{self.name} has {known} tokens at the end")
                self._forget()
        self._flush()
        self._step()

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        if stream is not self.stream:
            return
        require(error is None or error.retryable or error.http_status == 404, "agreed", f"{self.name} refused: {error}")
        self.stream = None
        comes_back = error is not None and error.retryable
        if not comes_back or self._dice.chance(0.5):  # sometimes its process has died with the stream
            self._forget()
        if comes_back:
            self.world.after(self.retry_s * self._dice.between(0.5, 1.5), self._rejoin)

    def _rejoin(self) -> None:
        if self.stream is None:  # else the owner has sent it elsewhere meanwhile
            self._join()

    def _join(self) -> None:
        if self._where is None or self._attempts >= self.max_attempts:
            return
        self._attempts += 1
        self._welcome = False
        verifier, ticket = self._where
        if self.stream is not None:
            self.stream.close(self)
        self.stream = Stream(self.world, self.spec.link, self, verifier, self._dice.child(self._attempts))
        verifier.accept(self.stream)
        known = len(self.session.tokens) if self.session is not None else 0
        self.stream.send(self, Join(ticket, owner=False, position=known))

    def _begin(self, opened: Opened) -> None:
        self.proposer.close(0)
        context = DraftContext(opened.tokens, opened.prompt_length, SamplingParams(), None)
        self.proposer.open(0, context)
        self.session = DrafterSession(
            opened.tokens,
            end_position=opened.end_position,
            limits=self.spec.limits,
            window_nodes=opened.window_nodes,
        )
        self._verifier_position = len(opened.tokens)
        self._checks = DrafterChecks(self.session) if self._checked else None

    def _commit(self, commit: Commit) -> None:
        assert self.session is not None
        if commit.position > len(self.session.tokens):  # moved to a verifier that knows more: begin anew
            self._forget()
            self._join()
            return
        rollback = self.session.committed(commit)
        self._verifier_position = max(self._verifier_position, commit.end)
        self.proposer.committed(0, rollback.tokens, rollback.trunk)
        if self._checks is not None:
            self._checks.committed()

    def _forget(self) -> None:
        if self.stream is not None:
            self.stream.close(self)
        self.stream = self.session = self._checks = None

    def _step(self) -> None:
        if self._stepping or self.session is None:
            return
        nodes = self.session.frontier(self.spec.batch)
        if self._checks is not None:
            self._checks.frontier(nodes, self.spec.batch)
        if not nodes:
            return
        session = self.session
        wanted = [Expansion(0, node.id, tuple(node.path()), ()) for node in nodes]
        found = self.proposer.propose(wanted)
        self._stepping = True
        self.steps += 1
        self.world.after(self.spec.step_s, lambda: self._extend(session, wanted, found))

    def _extend(self, session: DrafterSession, wanted: Sequence[Expansion], found: Sequence[Sequence[Guess]]) -> None:
        self._stepping = False
        if session is self.session:
            for item, guesses in zip(wanted, found, strict=True):
                ids = session.extend(item.node_id, guesses)
                if self._checks is not None:
                    self._checks.extended(item.node_id, guesses, ids)
        self._flush()
        self._step()

    def _flush(self) -> None:
        if self.session is None or self.stream is None or not self._welcome:
            return
        drafts = self.session.outbox()
        if self._checks is not None:
            self._checks.sent(drafts, verifier_position=self._verifier_position)
        for draft in drafts:
            self.stream.send(self, draft)

"""Drafters in virtual time: the seat of one session, and the worker that guesses for one or many.

A worker is a drafter process: one core, one proposer, one step at a time over the nodes most likely to survive of all
its sessions (`nacre/runtime/draft_worker.py` in virtual time). A seat is its stream to one session with the
DrafterSession behind it. A step's guesses may come back for a node that has died meanwhile; the machine must cope.

A worker that coalesces sends as the shipped one does: what the next pass would take within a few steps, the rest later.
One that does not sends whatever it has, as it comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.proposer import DraftContext, Expansion, Guess, Proposer
from nacre.errors import NacreError
from nacre.pacing import Reputation
from nacre.sampling import SamplingParams
from nacre.session import Commit, DrafterSession, Reanchor
from nacre.sim.actors import DrafterSpec
from nacre.sim.checkers import DrafterChecks, require
from nacre.sim.core import Core
from nacre.sim.hosted import Admitted, PassTime
from nacre.sim.messages import Finished, Join, Opened, draft_bytes
from nacre.sim.network import Peer, Stream
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import Timer, World
from nacre.tree import Node

#: How long guesses wait for company before the first commit (`nacre/runtime/draft_worker.py`), seconds.
COALESCE_S = 0.02


@dataclass(slots=True)
class DraftTotals:
    """What one worker has done: steps, nodes guessed, sent, right and lost, messages and payload bytes sent."""

    steps: int = 0
    guessed: int = 0
    sent: int = 0
    right: int = 0
    lost: int = 0
    messages: int = 0
    payload_bytes: int = 0


class DraftWorker:
    """A drafter process. A step over n nodes takes `step_time(n)`, each message in or out `message_s` of its core.

    Text that is new to it counts as nodes of the first step that extends it, as it does in the engine: where no guesses
    are wanted it is never read. `as_shipped`: it coalesces messages, calibrates survivals and minds the distance;
    without, it is plain and its checkers can follow.
    """

    def __init__(
        self,
        world: World,
        proposer: Proposer,
        step_time: PassTime,
        *,
        batch: int,
        message_s: float = 0.0,
        token_bytes: int = 2,
        as_shipped: bool = False,
    ) -> None:
        self.proposer = proposer
        self.core = Core(world)
        self.totals = DraftTotals()
        self.step_s = 0.0
        self.message_s = message_s
        self.as_shipped = as_shipped
        self.reputation = Reputation() if as_shipped else None
        self.token_bytes = token_bytes
        self.seats: dict[int, DrafterActor] = {}  # by number
        self._world = world
        self._step_time = step_time
        self._batch = batch
        self._stepping = False
        self._unread: dict[int, int] = {}  # by number: tokens of text that its next step computes first
        self._latest_s = 0.0  # the time of the last step
        self._next = 0

    def admit(self, seat: DrafterActor) -> int:
        """A new seat; returns its number, by which the proposer knows its session."""
        number = self._next
        self._next += 1
        self.seats[number] = seat
        return number

    def dismiss(self, number: int) -> None:
        self.seats.pop(number, None)
        self.proposer.close(number)

    def opened(self, number: int, context: DraftContext, unread: int) -> None:
        """The seat's session begins, or begins anew, with `unread` tokens of text before its tip."""
        self.proposer.close(number)
        self.proposer.open(number, context)
        self._unread[number] = unread

    def forgotten(self, number: int) -> None:
        """The seat has no session any more: what has not been read of it never will be."""
        self._unread.pop(number, None)

    def wake(self) -> None:
        """Something has changed: begin a step if there is anything to extend and none is under way."""
        if self._stepping:
            return
        self._send_gathered()
        found: list[tuple[float, int, Expansion, DrafterSession]] = []
        for number, seat in self.seats.items():
            session = seat.session
            if session is None:
                continue
            for node in seat.wanted(self._batch):
                survival, path = _path(node)
                found.append((survival, -len(found), Expansion(number, node.id, path, (), survival), session))
        if not found:
            self._send_gathered(everything=True)
            return
        best = heapq.nlargest(self._batch, found, key=lambda item: item[:2]) if len(found) > 1 else found
        guesses = self.proposer.propose([expansion for _, _, expansion, _ in best])
        self._stepping = True
        self.totals.steps += 1
        asked = {expansion.session for _, _, expansion, _ in best}
        seconds = self._step_time(len(best) + sum(self._unread.pop(number, 0) for number in asked))
        self.step_s += seconds
        self._latest_s = seconds
        work = [(expansion, session, found) for (_, _, expansion, session), found in zip(best, guesses, strict=True)]
        self.core.run(seconds, lambda: self._apply(work))

    def _send_gathered(self, *, everything: bool = False) -> None:
        for seat in self.seats.values():
            if not seat.gathering or seat.session is None:
                continue
            if everything or not seat.session.gathers(self._world.now_s, self._latest_s):
                seat.flush()

    def _apply(self, work: Sequence[tuple[Expansion, DrafterSession, Sequence[Guess]]]) -> None:
        self._stepping = False
        touched: dict[int, DrafterActor] = {}
        for expansion, session, guesses in work:
            seat = self.seats.get(expansion.session)
            if seat is not None and seat.session is session:
                self.totals.guessed += seat.extend(expansion.node_id, guesses)
                touched[expansion.session] = seat
        for seat in touched.values():
            seat.offer()
        self.wake()


def _path(node: Node) -> tuple[float, tuple[int, ...]]:
    """Path survival of a node, and the guessed tokens from just below the tip down to it."""
    survival = 1.0
    tokens: list[int] = []
    while node.parent is not None:
        survival *= node.survival
        tokens.append(node.token)
        node = node.parent
    tokens.reverse()
    return survival, tuple(tokens)


class DrafterActor:
    """An honest drafter's seat in one session. `unseen` are prompt tokens that it has to compute and nobody names."""

    retry_s = 0.02
    notice_s = 0.05
    max_attempts = 16

    def __init__(
        self,
        world: World,
        name: str,
        spec: DrafterSpec,
        worker: DraftWorker,
        *,
        checked: bool = True,
        unseen: int = 0,
    ) -> None:
        self.name = name
        self.world = world
        self.spec = spec
        self.worker = worker
        self.number = worker.admit(self)
        self.session: DrafterSession | None = None
        self.stream: Stream | None = None
        self._sender: Peer = self
        self._unseen = unseen
        self._checked = checked
        self._checks: DrafterChecks | None = None
        self._dice = world.dice.child(2, *name.encode())
        self._where: tuple[VerifierActor, str] | None = None
        self._verify_s = 0.0  # the last pass, as the verifier says
        self._flushing: Timer | None = None
        self.gathering = False  # urgent guesses wait for those of the next steps
        self._verifier_position = 0  # the least committed length the verifier can be at
        self._joined = 0  # how often, and
        self._attempts = 0  # how often in vain since it was last told where to join, or was welcome
        self._welcome = False  # nothing is sent before the verifier has answered the Join
        self._moved = False  # its tree comes from another verifier
        for time_s in spec.cut_at_s:
            world.at(time_s, self.cut)

    def attach(self, verifier: VerifierActor, ticket: str) -> None:
        """The session lives there. A drafter that knows it already goes on with its tree."""
        if self.number not in self.worker.seats:  # the session was over before its drafters could be told of it
            return
        self._where = (verifier, ticket)
        self._attempts = 0
        delay_s = self.spec.starts_at_s - self.world.now_s
        self.world.after(delay_s, self._join)

    def cut(self) -> None:
        """The network drops its stream."""
        if self.stream is not None:
            self.stream.cut(self.notice_s)

    def dismiss(self) -> None:
        """The session is over for good: the seat is free."""
        self._where = None
        self._forget()
        self.worker.dismiss(self.number)

    def receive(self, stream: Stream, message: object) -> None:
        if stream is not self.stream:
            return
        self.worker.core.spend(self.worker.message_s)
        match message:
            case Opened():
                self._welcome = True
                self._moved = False
                self._attempts = 0
                self._begin(message)
            case Reanchor():
                assert self.session is not None
                self._welcome = self._moved = True
                self._attempts = 0
                self.session.reanchored(message)
                self._verifier_position = message.position
                if self._checks is not None:
                    self._checks.reanchored()
            case Commit():
                self._commit(message)
                self._measured(message)
                self.offer(gathers=False)
                self.worker.wake()
                return
            case Finished():
                # One that came from another verifier may end knowing more, or less, than this one has told it.
                known = len(self.session.tokens) if self.session is not None and not self._moved else message.position
                told = self._verifier_position == message.position
                require(told and known == message.position, "agreed", f"{self.name} has {known} tokens at the end")
                self._forget()
        self.flush()
        self.worker.wake()

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

    # -- what the worker asks ------------------------------------------------------------------------------------

    def wanted(self, count: int) -> list[Node]:
        """Up to `count` nodes to extend next."""
        assert self.session is not None
        nodes = self.session.frontier(count)
        if self._checks is not None:
            self._checks.frontier(nodes, count)
        return nodes

    def extend(self, node_id: int, guesses: Sequence[Guess]) -> int:
        """Takes a step's guesses; returns how many found a place."""
        assert self.session is not None
        ids = self.session.extend(node_id, guesses)
        if self._checks is not None:
            self._checks.extended(node_id, guesses, ids)
        return len(ids) - ids.count(0)

    def offer(self, *, gathers: bool = True) -> None:
        """What the next pass would take waits for a few steps at most; what would only fill up the window, longer."""
        if self.session is None:
            return
        wait_s = self.session.patience * self._verify_s or COALESCE_S
        if not self.worker.as_shipped:
            self.flush()
        elif self.session.urgent:
            self.gathering = gathers
            if not gathers:
                self.flush()
        elif self._flushing is None:
            self._flushing = self.world.after(wait_s, self.flush)

    def flush(self) -> None:
        """Sends what is worth sending."""
        self.gathering = False
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self.session is None or self.stream is None or not self._welcome:
            return
        drafts = self.session.outbox()
        if self._checks is not None:
            self._checks.sent(drafts, verifier_position=self._verifier_position)
        totals = self.worker.totals
        for draft in drafts:
            totals.messages += 1
            totals.sent += len(draft.tokens)
            totals.payload_bytes += draft_bytes(draft, self.worker.token_bytes)
            self.worker.core.spend(self.worker.message_s)
            self.stream.send(self._sender, draft)

    # -- its stream ----------------------------------------------------------------------------------------------

    def _rejoin(self) -> None:
        if self.stream is None:  # else the owner has sent it elsewhere meanwhile
            self._join()

    def _join(self) -> None:
        if self._where is None or self._attempts >= self.max_attempts:
            return
        self._attempts += 1
        self._joined += 1
        self._welcome = False
        verifier, ticket = self._where
        if self.stream is not None:
            self.stream.close(self)
        self.stream = Stream(self.world, self.spec.link, self, verifier, self._dice.child(self._joined))
        verifier.accept(self.stream)
        known = len(self.session.tokens) if self.session is not None else 0
        self.stream.send(self, Join(ticket, owner=False, position=known))

    def _begin(self, opened: Opened) -> None:
        context = DraftContext(opened.tokens, opened.prompt_length, SamplingParams(), None)
        self.worker.opened(self.number, context, self._unseen + len(opened.tokens) - 1)
        self.session = DrafterSession(
            opened.tokens,
            end_position=opened.end_position,
            limits=self.spec.limits,
            window_nodes=opened.window_nodes,
            reputation=self.worker.reputation,
            row_budget=opened.row_budget if isinstance(opened, Admitted) else 0,
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
        self.worker.totals.right += len(rollback.trunk)
        self.worker.totals.lost += rollback.lost
        self._verifier_position = max(self._verifier_position, commit.end)
        self.worker.proposer.committed(self.number, rollback.tokens, rollback.trunk)
        if self._checks is not None:
            self._checks.committed()

    def _measured(self, commit: Commit) -> None:
        """A shipped drafter knows how many passes end while its words travel."""
        if self.session is None or commit.verify_ms <= 0 or not self.worker.as_shipped:
            return
        self._verify_s = commit.verify_ms / 1e3
        self.session.passes_away = 2 * self.spec.link.delay_s / self._verify_s

    def _forget(self) -> None:
        if self.stream is not None:
            self.stream.close(self)
        self.stream = self.session = self._checks = None
        self.worker.forgotten(self.number)


class DeviceSeat(DrafterActor):
    """A drafter in the owner's own program: it speaks and listens on the owner's stream."""

    def serve(self, owner: Peer) -> None:
        self._sender = owner

    def begin(self, stream: Stream, opened: Opened) -> None:
        self.stream = stream
        self._welcome = True
        self._begin(opened)
        self.worker.wake()

    def _forget(self) -> None:
        self.stream = self.session = self._checks = None
        self.worker.forgotten(self.number)

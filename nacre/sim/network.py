"""Streams: two first-in-first-out links, one each way, with delay and jitter.

Rule: within a stream and direction nothing is reordered, doubled or lost while the stream lives; between streams any
interleaving can happen. A stream ends in one of two ways:

    close   by one end, in order: the other end first gets everything that was sent before
    cut     by the network, at once: what is under way is lost; each end notices later, in its own time, and what it
            sends meanwhile goes nowhere
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from nacre.errors import NacreError, Unavailable
from nacre.sim.dice import Dice
from nacre.sim.messages import describe, payload_bytes
from nacre.sim.world import World

#: What a message takes on the wire beside its payload: gRPC's and HTTP/2's frames, TLS, TCP and IP.
HEADERS_BYTES = 100


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One-way delay of a link, the most that jitter adds to it, and its bandwidth each way (0: unlimited)."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0


class Peer(Protocol):
    """An end of a stream."""

    name: str

    def receive(self, stream: Stream, message: object) -> None: ...

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        """The stream is over: the other end closed it (with its error, or None) or it was cut (Unavailable)."""


class Stream:
    """A bidirectional stream between the peer that opened it and the one that serves it."""

    def __init__(self, world: World, spec: LinkSpec, opener: Peer, server: Peer, dice: Dice) -> None:
        self._world = world
        self._spec = spec
        self._ends = (opener, server)
        self._dice = dice
        self._last_arrival_s = {opener.name: 0.0, server.name: 0.0}
        self._sent_at_s = {opener.name: 0.0, server.name: 0.0}  # when the link has taken the last message, by receiver
        self._over: set[str] = set()  # ends that have closed the stream or know that it is over
        self._cut = False

    def send(self, sender: Peer, message: object) -> None:
        if sender.name in self._over:
            return
        receiver = self._other(sender)
        if self._world.recording:
            self._world.note(f"{sender.name} -> {receiver.name}", describe(message))
        self._world.at(self._arrival_s(receiver, message), lambda: self._deliver(receiver, message))

    def close(self, sender: Peer, error: NacreError | None = None) -> None:
        """Ends the stream from one side; the other side learns of it after all that was sent before."""
        if sender.name in self._over:
            return
        receiver = self._other(sender)
        self._world.note(f"{sender.name} -> {receiver.name}", f"close {type(error).__name__ if error else 'ok'}")
        self._over.add(sender.name)
        self._world.at(self._arrival_s(receiver), lambda: self._end(receiver, error, by_network=False))

    def cut(self, notice_s: float = 0.0) -> None:
        """The network drops the stream; each end that still lives notices within `notice_s`."""
        if self._cut:
            return
        self._cut = True
        self._world.note(" <-> ".join(end.name for end in self._ends), "stream cut")
        cut = Unavailable("the stream was cut")
        for end in self._ends:
            self._world.after(notice_s * self._dice.unit(), partial(self._end, end, cut, by_network=True))

    def _other(self, end: Peer) -> Peer:
        opener, server = self._ends
        return server if end is opener else opener

    def _arrival_s(self, receiver: Peer, message: object = None) -> float:
        spec = self._spec
        leaves_s = self._world.now_s
        if spec.bytes_per_s > 0:
            size = HEADERS_BYTES + payload_bytes(message)
            leaves_s = max(leaves_s, self._sent_at_s[receiver.name]) + size / spec.bytes_per_s
            self._sent_at_s[receiver.name] = leaves_s
        delay_s = spec.delay_s + spec.jitter_s * self._dice.unit()
        arrival_s = max(leaves_s + delay_s, self._last_arrival_s[receiver.name])
        self._last_arrival_s[receiver.name] = arrival_s
        return arrival_s

    def _deliver(self, receiver: Peer, message: object) -> None:
        if not self._cut and receiver.name not in self._over:
            receiver.receive(self, message)

    def _end(self, receiver: Peer, error: NacreError | None, *, by_network: bool) -> None:
        if receiver.name in self._over or (self._cut and not by_network):
            return
        self._over.add(receiver.name)
        receiver.lost(self, error)

"""What most proposers keep of a session: its last tokens.

Rule: a guess below a node depends on the last few tokens before it, committed or guessed, and on nothing else of the
session. `TailProposer` follows the sessions; a method says what it guesses after such a tail. `RememberingProposer` has
a memory beside them, which outlives them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from nacre.drafting.proposer import DraftContext, Expansion, Guess, Observation


@dataclass(slots=True)
class Tail:
    """A session: what it was opened with, its last committed tokens, and how many tokens it has."""

    context: DraftContext
    tokens: tuple[int, ...]
    length: int


class TailProposer(ABC):
    """Base of proposers that look at the last `most` tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tails: dict[int, Tail] = {}

    def open(self, session: int, context: DraftContext) -> None:
        self._tails[session] = Tail(context, tuple(context.tokens[-self._most :]), len(context.tokens))

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        tail = self._tails[session]
        tail.tokens = (*tail.tokens, *tokens)[-self._most :]
        tail.length += len(tokens)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:  # noqa: B027  most do nothing here
        """Methods that learn override it."""

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        found = []
        for item in wanted:
            tail = self._tails[item.session]
            last = (*tail.tokens, *item.path_tokens)[-self._most :] if item.path_tokens else tail.tokens
            found.append(self._guess(tail, last, tail.length + len(item.path_tokens)))
        return found

    def close(self, session: int) -> None:
        self._tails.pop(session, None)

    @abstractmethod
    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        """Guesses after `last`; the first of them guess the token at `position`."""


class Memory(Protocol):
    """What a method has learned from all sessions."""

    @property
    def size_bytes(self) -> int:
        """At most so much."""

    def halved(self) -> Self:
        """An empty one with half the room."""


M = TypeVar("M", bound=Memory)


class RememberingProposer(TailProposer, Generic[M]):
    """Base of those that learn. `memory` may be shared by the sessions of one tenant."""

    def __init__(self, most: int, memory: M) -> None:
        super().__init__(most)
        self.memory = memory
        self._follow()

    @property
    def size_bytes(self) -> int:
        return self.memory.size_bytes

    def shrink(self) -> None:
        self.memory = self.memory.halved()
        self._follow()

    def _follow(self) -> None:
        """The memory is another: methods that derive something from it override this."""

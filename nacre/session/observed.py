"""What the target thought at the rows of a pass, told to drafters that learn from it.

A pass computes a distribution at every row, those of contradicted guesses included. A commit tells of one token each;
the best few of every row cost a hundred bytes more and are what tables learn from most. Rows that read the prompt are
told as well: a table then knows the target's mind on each token of it before the first token is out.

Rule: rows are those of one pass, the tip's first, parents before children. Observations are true whenever they come,
and missing ones cost nothing but their lesson; so a session keeps the latest, and a listener gets those that it has not
been told of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from nacre.drafting.proposer import CONTEXT_TOKENS, Observation

#: Most tokens that may be asked for at each row.
MOST_BEST = 16
#: A session keeps so many rows for listeners that have not been told: the end of a prompt, or tens of passes.
MOST_ROWS = 512
#: Text is observed in pieces of so many rows: paths are spelled out from the first row of each.
_PIECE_ROWS = 64


@dataclass(frozen=True, slots=True)
class ObservedRow:
    """`parent` is the index of the row above (-1 for the tip), `best` are (token, log-probability), best first."""

    parent: int
    token: int
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """`position` tokens were committed before the pass; the first row is the last of them."""

    position: int
    rows: tuple[ObservedRow, ...]

    @classmethod
    def of_pass(
        cls,
        position: int,
        parents: Sequence[int],
        tokens: Sequence[int],
        best: Sequence[tuple[tuple[int, float], ...]],
    ) -> Observed:
        """From a plan's rows and the best tokens of each."""
        rows = zip(parents, tokens, best, strict=True)
        return cls(position, tuple(ObservedRow(parent, token, top) for parent, token, top in rows))

    @classmethod
    def of_text(cls, tokens: Sequence[int], end: int, best: Sequence[tuple[tuple[int, float], ...]]) -> list[Observed]:
        """Of rows that read text: `best` is of the last `len(best)` tokens before position `end`."""
        start = end - len(best)
        pieces = []
        for first in range(0, len(best), _PIECE_ROWS):
            tops = best[first : first + _PIECE_ROWS]
            text = tokens[start + first : start + first + len(tops)]
            pieces.append(cls.of_pass(start + first + 1, range(-1, len(tops) - 1), text, tops))
        return pieces

    def of_best(self, most: int) -> Observed:
        """The same with at most `most` best tokens of each row: others may have asked for more."""
        if all(len(row.best) <= most for row in self.rows):
            return self
        rows = (ObservedRow(row.parent, row.token, row.best[:most]) for row in self.rows)
        return Observed(self.position, tuple(rows))


@dataclass(slots=True)
class _Listener:
    best: int
    heard: int = 0


class ObservedLog:
    """The latest observations of a session, and who has been told of which. Bound: `most_rows`, the oldest go first.

    `wanted` is the most that anybody has asked for; nothing is kept before somebody has, or is expected to.
    """

    def __init__(self, *, expected: int = 0, most_rows: int = MOST_ROWS) -> None:
        self.wanted = 0
        self._expected = expected
        self._most_rows = most_rows
        self._listeners: dict[int, _Listener] = {}
        self._kept: deque[Observed] = deque()
        self._gone = 0  # observations before the first that is kept
        self._rows = 0

    @property
    def best(self) -> int:
        """Best tokens to find at each row: what listeners want, or for a while, before any comes, who is expected."""
        before = 0 if self.wanted or self._gone else self._expected
        return max((listener.best for listener in self._listeners.values()), default=before)

    def join(self, ordinal: int, best: int) -> None:
        """Stream `ordinal` wants `best` tokens of each row; it is told of what is still kept as well."""
        self._listeners[ordinal] = _Listener(best)
        self.wanted = max(self.wanted, best)

    def leave(self, ordinal: int) -> None:
        self._listeners.pop(ordinal, None)

    def add(self, *observed: Observed) -> None:
        if not self._listeners and not self._expected:
            return
        self._kept.extend(observed)
        self._rows += sum(len(one.rows) for one in observed)
        while self._rows > self._most_rows:
            self._rows -= len(self._kept.popleft().rows)
            self._gone += 1

    def unheard(self, ordinal: int) -> tuple[Observed, ...]:
        """What the listener has not been told of, oldest first: it is told now. Empty for who does not listen."""
        listener = self._listeners.get(ordinal)
        if listener is None:
            return ()
        news = islice(self._kept, max(0, listener.heard - self._gone), None)
        listener.heard = self._gone + len(self._kept)
        return tuple(one.of_best(listener.best) for one in news)


def observations_of(tokens: Sequence[int], observed: Observed) -> list[Observation]:
    """In a proposer's words, given the committed `tokens` after the pass; rows that make no sense are left out."""
    if not 1 <= observed.position <= len(tokens):
        return []
    before = tuple(tokens[max(0, observed.position - CONTEXT_TOKENS) : observed.position])
    after = tuple(tokens[observed.position :])
    told: list[Observation] = []
    paths: list[tuple[int, ...]] = []
    for index, row in enumerate(observed.rows):
        if index and not 0 <= row.parent < index:
            break
        path = (*paths[row.parent], row.token) if index else ()
        paths.append(path)
        told.append(
            Observation(
                context=(*before, *path)[-CONTEXT_TOKENS:],
                tokens=tuple(token for token, _ in row.best),
                logprobs=tuple(logprob for _, logprob in row.best),
                walked=after[: len(path)] == path,
            )
        )
    return told

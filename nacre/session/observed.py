"""What the target thought at the rows of a pass, told to drafters that learn from it.

A pass computes a distribution at every row, those of contradicted guesses included. A commit tells of one token each;
the best few of every row cost a hundred bytes more and are what tables learn from most.

Rule: rows are those of the last pass, the tip's first, parents before children. A listener that is behind hears of the
last pass only: observations are true whenever they come, and missing ones cost nothing but their lesson.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.proposer import CONTEXT_TOKENS, Observation

#: Most tokens that may be asked for at each row.
MOST_BEST = 16


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

    def of_best(self, most: int) -> Observed:
        """The same with at most `most` best tokens of each row: others may have asked for more."""
        if all(len(row.best) <= most for row in self.rows):
            return self
        rows = (ObservedRow(row.parent, row.token, row.best[:most]) for row in self.rows)
        return Observed(self.position, tuple(rows))


def prompt_observations(
    tokens: Sequence[int], end: int, rows: Sequence[Sequence[tuple[int, float]]]
) -> list[Observation]:
    """What the target thought after each of the tokens before position `end`, the last `len(rows)` of them."""
    return [
        Observation(
            context=tuple(tokens[max(0, after - CONTEXT_TOKENS) : after]),
            tokens=tuple(token for token, _ in best),
            logprobs=tuple(logprob for _, logprob in best),
            walked=True,
        )
        for after, best in enumerate(rows, start=end - len(rows) + 1)
    ]


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

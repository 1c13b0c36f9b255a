"""Drafters that help nobody: what serving must stand without becoming slower. For benchmarks and tests.

Guarantee: exact, as every proposer (a guess never decides).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.rows import Row


class RandomProposer:
    """One token at random below every node, claimed to be sure. Seeded: the same calls give the same guesses."""

    traits = ProposerTraits(name="random", shape="chain", batch=1, reach=1)

    def __init__(self) -> None:
        self._random = random.Random(1)  # noqa: S311  a bad guess, not a secret
        self._highest: dict[int, int] = {}

    def open(self, session: int, context: DraftContext) -> None:
        self._highest[session] = max(context.tokens)  # an id that the text has is an id of the vocabulary

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._highest[session] = max(self._highest[session], *tokens)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [[Guess(self._random.randint(0, self._highest[item.session]), 1.0, TIP)] for item in wanted]

    def close(self, session: int) -> None:
        self._highest.pop(session, None)


class SilentProposer:
    """Joins, listens, and never guesses."""

    traits = ProposerTraits(name="silent", shape="chain", batch=1, reach=1)

    def open(self, session: int, context: DraftContext) -> None:
        pass

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        pass

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [[] for _ in wanted]

    def close(self, session: int) -> None:
        pass

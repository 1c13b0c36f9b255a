"""ADED: a tri-gram matrix that follows the text, searched by PUCT or best first.

Source: ADED / Adaptix (Liu et al. 2024). Guarantee: exact (a guess never decides). Needs no model and no torch.

State: for each pair of tokens the scores of the tokens that followed it (`TrigramTable`), at most 8, up to 3 each.
Update: a committed trigram's row fades by 0.98, then its own score rises by 0.04, once. (The released code adds 0.04
again on every call while the trigram is in its window, and never takes anything away.) At read a row is normalised,
with 0.04 more for what was never seen.

`aded` searches by PUCT: from the last two tokens, `iterations` times, it descends to the child of greatest
Q + (c1 + ln((N + c2 + 1) / c2)) P sqrt(N) / (1 + n), c1 = 32, c2 = 8, unvisited ones first; opens the leaf; rolls out
to four tokens; and adds 1 + the sum of scores to every node on the way. The most visited nodes, 3 in 8 of the rows, are
the tree, and each is extended by its likeliest follower. `aded-growth` grows best first over the same table: the same
trees, nearly, for much less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nacre.drafting.growth import checked_rows
from nacre.drafting.ngram_rows import DEFAULT_NGRAMS, MOST_TOKEN, NgramRows, key_of
from nacre.drafting.proposer import DraftContext, Guess, ProposerTraits
from nacre.drafting.puct import ROLLOUT
from nacre.drafting.row_trees import RowTrees
from nacre.drafting.rows import ONE, ROW_WIDTH, Row, unpacked
from nacre.drafting.tail import RememberingProposer, Tail
from nacre.errors import InvalidArgument

_GREATEST_SCORE = 3.0
_BUMP = round(0.04 / _GREATEST_SCORE * ONE)
_FADE = 0.98

_C1 = 32.0
_C2 = 8.0
MOST_ITERATIONS = 10_000

_Pair = tuple[int, ...]
_NONE: tuple[list[int], list[int]] = ([], [])


class TrigramTable:
    """Scores of the third token by the first two. Shared by the sessions of one tenant; `ngrams` bounds the pairs."""

    def __init__(self, ngrams: int = DEFAULT_NGRAMS) -> None:
        self._rows = NgramRows(ngrams)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size_bytes(self) -> int:
        return self._rows.size_bytes

    def halved(self) -> TrigramTable:
        """An empty table for half as many pairs."""
        return TrigramTable(self._rows.half)

    def row(self, key: int) -> tuple[list[int], list[int]]:
        """Tokens and scores after the pair of this `key_of`, best first; the scores may end in zeros."""
        slot = self._rows.find_key(key)
        return self._rows.read(slot) if slot >= 0 else _NONE

    def trees(self) -> RowTrees:
        """The table as a source of trees."""
        return RowTrees(self.row, *self._rows.memory, longest=2, shortest=2, unseen=_BUMP)

    def learn(self, tokens: Sequence[int]) -> None:
        """Every trigram of a text is an event."""
        for i in range(2, len(tokens)):
            self._bump(tuple(tokens[i - 2 : i]), tokens[i])

    def merge(self, rows: Iterable[Row]) -> None:
        """Rows of another table replace those here; their shares become scores that sum to 1."""
        for row in rows:
            tokens, chances = unpacked(row, MOST_TOKEN)
            if len(row[0]) == 2 and tokens:
                slot = self._slot(row[0])
                if slot >= 0:
                    whole = sum(chances) * _GREATEST_SCORE
                    self._rows.write(slot, tokens, [max(1, round(c / whole * ONE)) for c in chances])

    def _slot(self, pair: _Pair) -> int:
        slot = self._rows.find(pair)
        return slot if slot >= 0 else self._rows.claim(pair)

    def _bump(self, pair: _Pair, token: int) -> None:
        slot = self._slot(pair)
        if slot < 0 or not 0 <= token <= MOST_TOKEN:
            return
        tokens, weights = self._rows.read(slot)
        scores = {t: int(w * _FADE) for t, w in zip(tokens, weights, strict=True) if w}
        scores[token] = min(ONE, scores.get(token, 0) + _BUMP)
        if len(scores) > ROW_WIDTH:  # the newest replaces the weakest
            del scores[min((t for t in scores if t != token), key=lambda t: (scores[t], t))]
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        self._rows.write(slot, [t for t, _ in best], [max(1, w) for _, w in best])


class _FollowsTrigrams(RememberingProposer[TrigramTable]):
    """Feeds the table with every committed trigram, those of the prompt included."""

    def __init__(self, table: TrigramTable | None, rows: int) -> None:
        super().__init__(2, TrigramTable() if table is None else table)
        self._rows = checked_rows(rows)

    def _follow(self) -> None:
        self._trees = self.memory.trees()

    def open(self, session: int, context: DraftContext) -> None:
        super().open(session, context)
        self.memory.learn(context.tokens)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self.memory.learn((*self._tails[session].tokens, *tokens))
        super().committed(session, tokens, trunk)

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        self.memory.merge(rows)
        for output in outputs:
            self.memory.learn(output)


class AdedGrowthProposer(_FollowsTrigrams):
    """Best-first growth over the matrix."""

    def __init__(self, table: TrigramTable | None = None, *, rows: int = 32, depth: int = 12) -> None:
        super().__init__(table, rows)
        self._depth = depth

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="aded-growth", shape="tree", batch=1, reach=self._depth, teachable=True)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        return self._trees.grow(key_of(last), self._rows, self._depth)


class AdedProposer(_FollowsTrigrams):
    """PUCT search. Its rollouts are drawn from the matrix with dice thrown anew, alike, for every proposal."""

    def __init__(self, table: TrigramTable | None = None, *, rows: int = 32, iterations: int = 150) -> None:
        if not 1 <= iterations <= MOST_ITERATIONS:
            raise InvalidArgument(f"iterations is {iterations}; it must be 1 to {MOST_ITERATIONS}")
        super().__init__(table, rows)
        visits = np.arange(iterations)
        self._explore = (_C1 + np.log((visits + _C2 + 1.0) / _C2)) * np.sqrt(visits)

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="aded", shape="tree", batch=1, reach=ROLLOUT + 1, teachable=True)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        return self._trees.search(key_of(last), self._rows, position, self._explore)

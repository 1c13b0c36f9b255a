"""STAND: n-gram rows of the target's own distributions, drawn from with the noise that the target will use.

Source: STAND (Song et al. 2025), with the shared noise of the race rule in place of private noise. Guarantee: exact
(a guess never decides). Needs no model and no torch.

State: for contexts of 1, 2 and 3 tokens a sparse distribution, the target's 8 best tokens (`StandTable`). Update: a
new observation is averaged in, P <- (m P + P_new) / (m + 1), where m is the number averaged so far, at most 8. Look-up:
the longest context that is known.

Proposal: best-first growth. Below a node the children are the row's tokens by perturbed score ln P / T + G, G being the
target's noise at that position: Gumbel-top-k, which is drawing without replacement, with the target's own dice. As in
`model`, what the two distributions differ by is taken for noise of scale `race_temperature`, so a child's survival is
softmax(scores / race_temperature), times the chance that no token outside the row wins the race. Without a key, or at
temperature 0, children go by their probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nacre.drafting.growth import checked_rows
from nacre.drafting.ngram_rows import DEFAULT_NGRAMS, LONGEST_CONTEXT, MOST_TOKEN, TOKEN_BITS, NgramRows, key_of
from nacre.drafting.proposer import Guess, Observation, ProposerTraits
from nacre.drafting.row_trees import Race, RowTrees, sharpening
from nacre.drafting.rows import ONE, ROW_WIDTH, Row, unpacked, weights_of
from nacre.drafting.tail import RememberingProposer, Tail
from nacre.errors import InvalidArgument

_MOST_AVERAGED = 8
_NONE: tuple[list[int], list[int]] = ([], [])

# What is left of a key of three tokens for the last three, two and one.
_MASKS = tuple((1 << TOKEN_BITS * length) - 1 for length in range(LONGEST_CONTEXT, 0, -1))


class StandTable:
    """Distributions by context. Shared by the sessions of one tenant; `ngrams` bounds the contexts held."""

    def __init__(self, ngrams: int = DEFAULT_NGRAMS) -> None:
        self._rows = NgramRows(ngrams)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size_bytes(self) -> int:
        return self._rows.size_bytes

    def halved(self) -> StandTable:
        """An empty table for half as many contexts."""
        return StandTable(self._rows.half)

    def row(self, key: int) -> tuple[list[int], list[int]]:
        """Tokens and weights after the longest known context, best first; the weights may end in zeros.

        `key` is `key_of` the last three tokens, fewer at the beginning of a text.
        """
        rows = self._rows
        for mask in _MASKS:
            slot = rows.find_key(key & mask)
            if slot >= 0:
                return rows.read(slot)
        return _NONE

    def trees(self) -> RowTrees:
        """The table as a source of trees."""
        return RowTrees(self.row, *self._rows.memory, longest=LONGEST_CONTEXT, shortest=1)

    def learn(self, observations: Sequence[Observation]) -> None:
        for seen in observations:
            chances = [math.exp(min(logprob, 0.0)) for logprob in seen.logprobs]
            known = [(t, p) for t, p in zip(seen.tokens, chances, strict=True) if 0 <= t <= MOST_TOKEN]
            for length in range(1, min(LONGEST_CONTEXT, len(seen.context)) + 1):
                self._average(seen.context[-length:], known)

    def merge(self, rows: Iterable[Row]) -> None:
        """Rows of another table are averaged in like observations."""
        for row in rows:
            tokens, chances = unpacked(row, MOST_TOKEN)
            self._average(row[0], list(zip(tokens, chances, strict=True)))

    def _average(self, context: tuple[int, ...], new: list[tuple[int, float]]) -> None:
        if not new or not context:
            return
        slot = self._rows.find(context)
        if slot < 0:
            slot = self._rows.claim(context)
            if slot < 0:
                return
            best = new[:ROW_WIDTH]
        else:
            averaged = min(self._rows.count(slot), _MOST_AVERAGED)
            share = 1.0 / (averaged + 1)
            keep = averaged * share / ONE
            tokens, weights = self._rows.read(slot)
            mixed = {token: weight * keep for token, weight in zip(tokens, weights, strict=True) if weight}
            for token, chance in new:
                mixed[token] = mixed.get(token, 0.0) + chance * share
            falling = sorted([(-chance, token) for token, chance in mixed.items()])[:ROW_WIDTH]
            best = [(token, -chance) for chance, token in falling]
        self._rows.write(slot, [token for token, _ in best], weights_of([chance for _, chance in best]))


class StandProposer(RememberingProposer[StandTable]):
    """Trees drawn from the rows. `table` is shared by the sessions of one tenant; None: the proposer has its own."""

    def __init__(
        self,
        table: StandTable | None = None,
        *,
        rows: int = 32,
        depth: int = 12,
        race_temperature: float = 0.7,
    ) -> None:
        if not race_temperature > 0:
            raise InvalidArgument(f"race_temperature is {race_temperature}; it must be greater than 0")
        super().__init__(LONGEST_CONTEXT, StandTable() if table is None else table)
        self._rows = checked_rows(rows)
        self._depth = depth
        self._race_temperature = race_temperature

    def _follow(self) -> None:
        self._trees = self.memory.trees()

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="stand", shape="tree", batch=1, reach=self._depth, learns=True, teachable=True)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        self.memory.learn(observations)

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        self.memory.merge(rows)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        noise_key, params = tail.context.key, tail.context.params
        if noise_key is None or params.greedy:
            power = sharpening(params.temperature)
            return self._trees.grow(key_of(last), self._rows, self._depth, power=power)
        race = Race(noise_key, params.temperature, self._race_temperature)
        return self._trees.race(key_of(last), self._rows, self._depth, race, position)

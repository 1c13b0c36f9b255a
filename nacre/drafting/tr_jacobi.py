"""TR-Jacobi: a chain from retrieval, and a tree of what the target said below guesses it rejected.

Source: Make Some Noise (Wang et al. 2024), whose targets are trained to answer well below noise; with any other target
the tree is weak and the chain does the work. Guarantee: exact (a guess never decides). Needs no model and no torch.

Rule: the chain is what followed the latest occurrence of the last 3, 2 or 1 tokens in the session, 5 tokens (`lookup`).
The tree has a level per node that the last pass rejected, at most 4: the target's best tokens there, though their input
was wrong, are the candidates for as many positions after the accepted text. Its nodes are those likeliest by rank,
ranks 0 to 9. Update: each verification replaces the levels. (The released code fills missing ranks with random tokens
of the context, which are rows for nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence

from nacre.drafting.growth import Children, checked_rows, grow
from nacre.drafting.lookup import LookupProposer
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.rows import Row

CHAIN = 5
LEVELS = 4
RANKS = 10
# How likely a rank is to be right at a level; the deeper, the farther from the text that was its input.
_RANK_CHANCES = (0.25, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01)
_FADE = 0.7


class TrJacobiProposer:
    """`rows` guesses, of which the chain comes first."""

    def __init__(self, *, rows: int = 32) -> None:
        self._rows = checked_rows(rows)
        self._lookup = LookupProposer(min_n=1, max_n=3, length=min(CHAIN, rows))
        self._levels: dict[int, list[tuple[int, ...]]] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="tr-jacobi", shape="tree", batch=1, reach=CHAIN, learns=True)

    def open(self, session: int, context: DraftContext) -> None:
        self._lookup.open(session, context)
        self._levels[session] = []

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._lookup.committed(session, tokens, trunk)
        self._levels[session] = []  # they were for the positions after the text before

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        """Call it after `committed`: what the target said in the pass that committed."""
        rejected = [seen.tokens[:RANKS] for seen in observations if not seen.walked and seen.tokens]
        self._levels[session] = rejected[:LEVELS]

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        found = []
        for item, chain in zip(wanted, self._lookup.propose(wanted), strict=True):
            # The levels lie after the committed text: below a guess, they start that much later.
            levels = self._levels[item.session][len(item.path_tokens) :]
            found.append(self._merged(chain, levels))
        return found

    def close(self, session: int) -> None:
        self._lookup.close(session)
        self._levels.pop(session, None)

    def _merged(self, chain: list[Guess], levels: list[tuple[int, ...]]) -> list[Guess]:
        """The chain, then the tree's nodes that are not on it."""
        guesses = list(chain)
        placed = {(guess.parent, guess.token): place for place, guess in enumerate(chain)}
        rest = self._rows - len(guesses)
        if not levels or rest <= 0:
            return guesses
        rows: list[Children] = [
            [
                (token, chance * _FADE**level)
                for token, chance in zip(dict.fromkeys(tokens), _RANK_CHANCES, strict=False)
            ]
            for level, tokens in enumerate(levels)
        ]
        tree = grow(0, lambda level: rows[level] if level < len(rows) else (), lambda level, _: level + 1, self._rows)
        at: list[int] = []
        for guess in tree:
            parent = TIP if guess.parent == TIP else at[guess.parent]
            place = placed.get((parent, guess.token), TIP)
            if place == TIP and rest > 0 and (guess.parent == TIP or parent != TIP):
                place = placed[(parent, guess.token)] = len(guesses)
                guesses.append(Guess(guess.token, guess.survival, parent))
                rest -= 1
            at.append(place)
        return guesses

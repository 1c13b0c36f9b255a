"""TR-Jacobi: a chain from retrieval, and a tree of what the target said below guesses it rejected.

Source: Make Some Noise (Wang et al. 2024), whose targets are trained to answer well below noise; with any other target
the tree is weak and the chain does the work. Guarantee: exact (a guess never decides). Needs no model and no torch.

Rule: the chain is what followed the latest occurrence of the last 3, 2 or 1 tokens in the session, 5 tokens (`lookup`).
The tree has a level for each of at most 4 positions. A pass ends with the token that the target put in the place of a
guess; below that guess hung others, one position after the other. The longest such chain is taken, and what the target
said at its nodes, though their input was wrong, are the candidates for as many positions after the target's token. The
tree's nodes are those likeliest by rank, ranks 0 to 9. Update: each verification replaces the levels. (The released
code fills missing ranks with random tokens of the context, which are rows for nothing.)

Verifications are told of a pass or more after the text they are of, or before it. So levels know the text that they
follow: they are found again at its end, and those that the text has passed since are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.drafting.growth import Children, checked_rows, grow
from nacre.drafting.lookup import LookupProposer
from nacre.drafting.proposer import CONTEXT_TOKENS, TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits

CHAIN = 5
LEVELS = 4
RANKS = 10
# How likely a rank is to be right at a level; the deeper, the farther from the text that was its input.
_RANK_CHANCES = (0.25, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01)
_FADE = 0.7
#: Tokens by which the place of levels in the text is found again.
_TRAIL = 16


@dataclass(slots=True)
class _Text:
    """A session: its last tokens, and `levels` for the positions after `trail` and the one token that followed it."""

    tail: tuple[int, ...]
    trail: tuple[int, ...] = ()
    levels: list[tuple[int, ...]] = field(default_factory=list)

    def passed(self) -> int:
        """How many levels lie before the end of the text; all of them where it does not run through their place."""
        for passed in range(len(self.levels)):
            end = len(self.tail) - 1 - passed
            if end >= len(self.trail) and self.tail[end - len(self.trail) : end] == self.trail:
                return passed
        return len(self.levels)


class TrJacobiProposer:
    """`rows` guesses, of which the chain comes first."""

    def __init__(self, *, rows: int = 32) -> None:
        self._rows = checked_rows(rows)
        self._lookup = LookupProposer(min_n=1, max_n=3, length=min(CHAIN, rows))
        self._texts: dict[int, _Text] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="tr-jacobi", shape="tree", batch=1, reach=CHAIN, learns=True)

    def open(self, session: int, context: DraftContext) -> None:
        self._lookup.open(session, context)
        self._texts[session] = _Text(context.tokens[-(_TRAIL + LEVELS) :])

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._lookup.committed(session, tokens, trunk)
        text = self._texts[session]
        text.tail = (*text.tail, *tokens)[-(_TRAIL + LEVELS) :]

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        text = self._texts[session]
        text.trail, text.levels = _rejected(observations)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        found = []
        for item, chain in zip(wanted, self._lookup.propose(wanted), strict=True):
            text = self._texts[item.session]
            # The levels lie after the committed text: below a guess, they start that much later.
            found.append(self._merged(chain, text.levels, text.passed() + len(item.path_tokens)))
        return found

    def close(self, session: int) -> None:
        self._lookup.close(session)
        self._texts.pop(session, None)

    def _merged(self, chain: list[Guess], levels: list[tuple[int, ...]], first: int) -> list[Guess]:
        """The chain, then the nodes of the tree of `levels` from the `first` on that are not on the chain."""
        guesses = list(chain)
        placed = {(guess.parent, guess.token): place for place, guess in enumerate(chain)}
        rest = self._rows - len(guesses)
        if first >= len(levels) or rest <= 0:
            return guesses
        rows: list[Children] = [
            [
                (token, chance * _FADE**level)
                for token, chance in zip(dict.fromkeys(levels[level]), _RANK_CHANCES, strict=False)
            ]
            for level in range(first, len(levels))
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


def _rejected(observations: Sequence[Observation]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The last tokens up to the last node that became text; what the target said along the longest chain below it.

    Observations come parents first, so what hangs below the last such node comes after it.
    """
    trail: tuple[int, ...] = ()
    rejected: list[Observation] = []
    for seen in observations:
        if seen.walked:
            before = seen.context[:-1]
            goes_on = before and trail[-len(before) :] == before
            trail = (*trail, seen.context[-1])[-_TRAIL:] if goes_on else seen.context
            rejected.clear()
        else:
            rejected.append(seen)
    # A child's context is its parent's without the oldest token, and its own. Children first, the best of a pass last:
    # of chains of equal length that one is kept.
    longest: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for seen in reversed(rejected):
        chain = [seen.tokens[:RANKS], *longest.get(seen.context[1 - CONTEXT_TOKENS :], ())][:LEVELS]
        if seen.tokens and len(chain) >= len(longest.get(seen.context[:-1], ())):
            longest[seen.context[:-1]] = chain
    return trail, longest.get(trail[1 - CONTEXT_TOKENS :], []) if trail else []

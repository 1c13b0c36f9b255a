"""The n-gram pool of lookahead decoding, without its Jacobi window.

Source: lookahead decoding (Fu et al. 2024). Guarantee: exact (a guess never decides). Needs no model and no torch.

State: for each token the newest G continuations of N - 1 tokens. Update: all n-grams of the prompt
(`POOL_FROM_PROMPT`) and of committed text. The window that makes n-grams up in extra rows of the target is left out: it
spends what speculation is to save. Proposal: the continuations of the last token as branches of one tree, a newer one
weighing twice an older one.
"""

from __future__ import annotations

from nacre.drafting.growth import checked_rows, grow_phrases
from nacre.drafting.phrases import PhrasePool, PhraseProposer
from nacre.drafting.proposer import DraftContext, Guess, ProposerTraits
from nacre.drafting.tail import Tail

NGRAM = 5
PER_TOKEN = 7


def lookahead_pool(*, ngram: int = NGRAM, per_token: int = PER_TOKEN, keys: int = 1 << 13) -> PhrasePool:
    """A pool of n-grams of `ngram` tokens; the first is the key."""
    return PhrasePool(1, per_key=per_token, shortest=ngram - 1, longest=ngram - 1, keys=keys)


class LookaheadProposer(PhraseProposer):
    """`pool` is shared by the sessions of one tenant; None: the proposer has its own."""

    def __init__(self, pool: PhrasePool | None = None, *, rows: int = 32) -> None:
        super().__init__(lookahead_pool() if pool is None else pool)
        self._rows = checked_rows(rows)

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="lookahead", shape="tree", batch=1, reach=self.memory.longest, teachable=True)

    def open(self, session: int, context: DraftContext) -> None:
        super().open(session, context)
        self.memory.learn(context.tokens)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        found = self.memory.get(last[-1:], PER_TOKEN)
        phrases = [(phrase, 0.5**age) for age, (phrase, _) in enumerate(found)]
        return grow_phrases(phrases, self._rows, unseen=0.8)

"""Ouroboros' phrase pool: what the target said behind a wrong guess is right often enough elsewhere.

Source: Ouroboros (Zhao et al. 2024). Guarantee: exact (a guess never decides). Needs no model and no torch.

State: for each token at most 20 phrases of exactly 6 tokens, oldest to newest. Update: (a) harvest from verification:
below a token x_j that was verified, walked or not, the phrase is t_j, t_(j+1), …, each the target's best token after
the node before, as long as that token was guessed there too, x_(j+1) = t_j; kept if it reaches 6 tokens; (b) committed
text. In-place correction: a phrase that was verified and found wrong at its n-th token gives way to the harvest's,
however many proposals later that is told. Proposal: the newest K = 3 phrases of the last token. The paper's phrases
lengthen a draft model's chain; fusion hangs them there.
"""

from __future__ import annotations

from collections.abc import Sequence

from nacre.drafting.growth import checked_rows, grow_phrases
from nacre.drafting.phrases import PhrasePool, PhraseProposer, PhraseRow
from nacre.drafting.proposer import DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.tail import Tail

PHRASE = 6
PER_TOKEN = 20
NEWEST = 3
_MOST_TRIED = 64


def ouroboros_pool(keys: int = 1 << 11) -> PhrasePool:
    """A pool of phrases of 6 tokens by the token before them."""
    return PhrasePool(1, per_key=PER_TOKEN, shortest=PHRASE, longest=PHRASE, keys=keys)


def harvest(observations: Sequence[Observation], length: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(key, phrase) of every run of `length` tokens that the target agreed with itself on."""
    said: dict[tuple[int, ...], int] = {}  # the best token after (token before, token)
    for seen in observations:
        if len(seen.context) >= 2 and seen.tokens:
            said.setdefault(seen.context[-2:], seen.tokens[0])
    found = []
    for seen in observations:
        if not seen.context or not seen.tokens:
            continue
        phrase = [seen.tokens[0]]
        before = seen.context[-1]
        while len(phrase) < length:
            following = said.get((before, phrase[-1]))
            if following is None:
                break
            before = phrase[-1]
            phrase.append(following)
        if len(phrase) == length:
            found.append((seen.context[-1:], tuple(phrase)))
    return found


class OuroborosProposer(PhraseProposer):
    """`pool` is shared by the sessions of one tenant; None: the proposer has its own."""

    def __init__(self, pool: PhrasePool | None = None, *, rows: int = 32, newest: int = NEWEST) -> None:
        super().__init__(ouroboros_pool() if pool is None else pool)
        self._rows = checked_rows(rows)
        self._newest = newest
        #: By session, in order: what it proposed and has not heard of since.
        self._tried: dict[int, dict[PhraseRow, None]] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(
            name="ouroboros", shape="tree", batch=1, reach=self.memory.longest, learns=True, teachable=True
        )

    def open(self, session: int, context: DraftContext) -> None:
        super().open(session, context)
        self._tried[session] = {}
        self.memory.learn(context.tokens[context.prompt_length :])

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        said = {seen.context[-2:]: seen.tokens[0] for seen in observations if seen.tokens}
        tried = self._tried[session]
        for key, phrase in list(tried):
            # Only where the target was asked, and named another token, was the phrase wrong.
            steps = zip((*key, *phrase[:-1]), phrase, phrase[1:], strict=False)
            heard = [said[before, token] == following for before, token, following in steps if (before, token) in said]
            if heard:  # else the pass that tries it is yet to be told
                del tried[key, phrase]
            if not all(heard):
                self.memory.drop(key, phrase)
        for key, phrase in harvest(observations, self.memory.longest):
            self.memory.add(key, phrase)

    def close(self, session: int) -> None:
        super().close(session)
        self._tried.pop(session, None)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        for item in wanted:
            tried = self._tried[item.session]
            key = (item.path_tokens or self._tails[item.session].tokens)[-1:]
            for phrase, _ in self.memory.get(key, self._newest):
                tried.pop((key, phrase), None)
                tried[key, phrase] = None
            for oldest in list(tried)[:-_MOST_TRIED]:
                del tried[oldest]
        return super().propose(wanted)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        found = self.memory.get(last[-1:], self._newest)
        return grow_phrases([(phrase, 0.7**age) for age, (phrase, _) in enumerate(found)], self._rows)

"""Plateau chunks: runs that the target was sure of, guessed whole wherever they begin again.

Source: chunk-distilled language models (Li et al. 2025), made lossless: chunks are guesses here, where the paper
appends them unverified. Guarantee: exact. Needs no model and no torch.

State: for the two tokens before a run, at most 8 chunks. Update: a maximal run of walked nodes at which the target gave
the token that came a probability of 0.9 or more, of 3 to 16 tokens, is a chunk; longer ones are cut. What came is told
by the context of the node after: a token that the target was sure of and did not draw is in no chunk. Proposal: the
chunks of the last two tokens as branches, the more often seen the surer, with the prior that a chunk's token is right
seven times in ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.growth import checked_rows, grow_phrases
from nacre.drafting.phrases import PhrasePool
from nacre.drafting.proposer import DraftContext, Guess, Observation, ProposerTraits
from nacre.drafting.tail import RememberingProposer, Tail

SHORTEST = 3
LONGEST = 16
PER_KEY = 8
KEY_TOKENS = 2
SURE = 0.9
_SURE_LOGPROB = math.log(SURE)


def chunk_pool(keys: int = 1 << 12) -> PhrasePool:
    """A pool of chunks of 3 to 16 tokens by the two tokens before them."""
    return PhrasePool(KEY_TOKENS, per_key=PER_KEY, shortest=SHORTEST, longest=LONGEST, keys=keys)


@dataclass(slots=True)
class _Run:
    """The run under way: the two tokens before it, and its tokens; whether the last of them came is not known yet."""

    key: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()


class PlateauProposer(RememberingProposer[PhrasePool]):
    """`pool` is shared by the sessions of one tenant; None: the proposer has its own."""

    def __init__(self, pool: PhrasePool | None = None, *, rows: int = 32) -> None:
        super().__init__(KEY_TOKENS, chunk_pool() if pool is None else pool)
        self._rows = checked_rows(rows)
        self._runs: dict[int, _Run] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="plateau", shape="tree", batch=1, reach=LONGEST, learns=True)

    def open(self, session: int, context: DraftContext) -> None:
        super().open(session, context)
        self._runs[session] = _Run()

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        run = self._runs[session]
        for seen in observations:
            if not seen.walked or len(seen.context) < KEY_TOKENS or not seen.tokens:
                continue
            key = seen.context[-KEY_TOKENS:]
            came = (*run.key, *run.tokens)[-KEY_TOKENS:] == key
            sure = seen.logprobs[0] >= _SURE_LOGPROB
            # Another token may have come than the target's best, or nodes are missing.
            if not (came and sure and len(run.tokens) < LONGEST):
                self._end(run, came=came)
            if sure:
                run.key = run.key or key
                run.tokens = (*run.tokens, seen.tokens[0])

    def close(self, session: int) -> None:
        run, tail = self._runs.pop(session, None), self._tails.get(session)
        super().close(session)
        if run is not None and tail is not None:
            self._end(run, came=(*run.key, *run.tokens)[-KEY_TOKENS:] == tail.tokens)

    def _end(self, run: _Run, *, came: bool) -> None:
        self.memory.add(run.key, run.tokens if came else run.tokens[:-1])  # ignores what is too short
        run.key = run.tokens = ()

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        chunks = self.memory.get(last, PER_KEY)
        # One sighting: 7 / (7 + 3).
        return grow_phrases([(chunk, float(count)) for chunk, count in chunks], self._rows, unseen=3 / 7)

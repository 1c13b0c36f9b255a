"""Prompt lookup: what followed the last few tokens the last time they occurred.

Source: prompt lookup decoding (Saxena 2023; `prompt_lookup_num_tokens` in transformers). Rule: for n = `max_n` down
to `min_n`, find the most recent earlier occurrence of the last n tokens in the sequence so far and propose the up to
`length` tokens that followed it there, as one chain. Guarantee: exact (a guess never decides). Needs no model and no
torch.

The index maps each n-gram to the position after its latest occurrence, so an extension costs O(max_n + length) and a
committed token O(max_n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.rows import Row
from nacre.errors import InvalidArgument


@dataclass(slots=True)
class _Text:
    """Committed tokens of one session and, for each n-gram in them, where its latest two occurrences end."""

    tokens: list[int] = field(default_factory=list)
    latest: dict[tuple[int, ...], int] = field(default_factory=dict)
    before: dict[tuple[int, ...], int] = field(default_factory=dict)


class LookupProposer:
    """Proposes copies of earlier text; the longer the match, the surer the guess."""

    def __init__(self, *, min_n: int = 1, max_n: int = 4, length: int = 10) -> None:
        if not 1 <= min_n <= max_n <= 16:
            raise InvalidArgument(f"lookup n-gram lengths {min_n} to {max_n} are not within 1 to 16 in rising order")
        if not 1 <= length <= 64:
            raise InvalidArgument(f"lookup length is {length}; it must be 1 to 64")
        self._min_n = min_n
        self._max_n = max_n
        self._length = length
        self._texts: dict[int, _Text] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="lookup", shape="chain", batch=1, reach=self._length)

    def open(self, session: int, context: DraftContext) -> None:
        self._texts[session] = _Text()
        self.committed(session, context.tokens, ())

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        text = self._texts[session]
        for token in tokens:
            text.tokens.append(token)
            end = len(text.tokens)
            for n in range(self._min_n, min(self._max_n, end) + 1):
                gram = tuple(text.tokens[end - n :])
                if gram in text.latest:
                    text.before[gram] = text.latest[gram]
                text.latest[gram] = end

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass  # learns from text alone

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [self._continue(self._texts[item.session], item.path_tokens) for item in wanted]

    def close(self, session: int) -> None:
        self._texts.pop(session, None)

    def _continue(self, text: _Text, path: tuple[int, ...]) -> list[Guess]:
        tail = [*text.tokens[-self._max_n :], *path][-self._max_n :]
        for n in range(min(self._max_n, len(tail)), self._min_n - 1, -1):
            gram = tuple(tail[len(tail) - n :])
            start = text.latest.get(gram)
            if start == len(text.tokens):  # the n-gram is the end of the text itself: what follows is unknown
                start = text.before.get(gram)
            if start is None:
                continue
            copied = text.tokens[start : start + self._length]
            # A longer match is better evidence; within a copy the chance stays about the same.
            survival = min(0.95, 0.35 + 0.15 * n)
            return [Guess(token, survival, TIP if i == 0 else i - 1) for i, token in enumerate(copied)]
        return []

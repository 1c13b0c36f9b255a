"""The client's own guess: a prediction of the answer, followed for as long as the answer follows it.

Source: predicted outputs (the `prediction` field of OpenAI's chat completions). Guarantee: exact (a guess never
decides): unlike there, what is wrong in it costs nothing but rows. Needs no model and no torch.

Rule: a cursor into the prediction starts at its beginning. Tokens that agree move it on. Where the text departs, the
cursor moves behind the longest match of the last tokens in the prediction, at least two long, the nearest ahead among
equals; while there is none, nothing is guessed. Proposal: the next `length` tokens as one chain. Right after a jump a
match of m tokens has survival m / (m + 1); a token that agrees makes it longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nacre.drafting.proposer import (
    MOST_PREDICTED,
    TIP,
    DraftContext,
    Expansion,
    Guess,
    Observation,
    ProposerTraits,
)
from nacre.drafting.suffix_index import LONGEST, SuffixIndex
from nacre.errors import InvalidArgument

_LEAST_MATCH = 2
_TRUSTED = 12  # the beginning counts as a match so long
_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the text is in the prediction, or was (no tokens matched); and the text's last tokens."""

    cursor: int
    matched: int
    tail: tuple[int, ...]


@dataclass(slots=True)
class _Text:
    prediction: tuple[int, ...]
    index: SuffixIndex
    place: _Place
    unread: int = 0  # tokens of the prompt that are still to come


class PredictionProposer:
    """A chain out of the session's own prediction; sessions that were given none get no guesses."""

    def __init__(self, *, length: int = 16) -> None:
        if not 1 <= length <= 64:
            raise InvalidArgument(f"prediction length is {length}; it must be 1 to 64")
        self._length = length
        self._texts: dict[int, _Text] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="prediction", shape="chain", batch=1, reach=self._length)

    def open(self, session: int, context: DraftContext) -> None:
        text = self._texts[session] = _begun(context.prediction)
        text.place = _moved(text, text.place, context.tokens[context.prompt_length :])
        text.unread = max(0, context.prompt_length - len(context.tokens))

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        text = self._texts[session]
        text.place = _moved(text, text.place, tokens[text.unread :])
        text.unread = max(0, text.unread - len(tokens))

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass  # the client knows

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [self._continue(self._texts[item.session], item.path_tokens) for item in wanted]

    def close(self, session: int) -> None:
        self._texts.pop(session, None)

    def _continue(self, text: _Text, path: tuple[int, ...]) -> list[Guess]:
        place = _moved(text, text.place, path)
        if not place.matched:
            return []
        following = text.prediction[place.cursor : place.cursor + self._length]
        return [
            Guess(token, (place.matched + i) / (place.matched + i + 1), TIP if i == 0 else i - 1)
            for i, token in enumerate(following)
        ]


def appeared(prediction: Sequence[int], output: Sequence[int]) -> int:
    """How many tokens of a prediction are in the output, as the cursor followed it: each counts once.

    A fact about two texts: it does not depend on who guessed, or on whether anybody did.
    """
    text = _begun(prediction)
    found = bytearray(len(text.prediction))
    for token in output:
        before, text.place = text.place.cursor, _moved(text, text.place, (token,))
        cursor, matched = text.place.cursor, text.place.matched
        first = before if cursor == before + 1 else max(0, cursor - matched)
        if matched:
            found[first:cursor] = b"\1" * (cursor - first)
    return sum(found)


def _begun(prediction: Sequence[int]) -> _Text:
    known = tuple(prediction[:MOST_PREDICTED])
    index = SuffixIndex(MOST_PREDICTED)
    index.extend(known)
    return _Text(known, index, _Place(0, _TRUSTED, ()))


def _longest_ahead(cursor: int, match: tuple[int, int]) -> tuple[int, bool, int]:
    position, matched = match
    return (-matched, position <= cursor, abs(position - cursor))


def _moved(text: _Text, place: _Place, tokens: Sequence[int]) -> _Place:
    cursor, matched = place.cursor, place.matched
    tail = (*place.tail, *tokens)[-LONGEST:]
    for i, token in enumerate(tokens):
        if cursor < len(text.prediction) and text.prediction[cursor] == token:
            cursor, matched = cursor + 1, matched + 1
            continue
        so_far = (*place.tail, *tokens[: i + 1])[-LONGEST:]
        found = [item for item in text.index.matches(so_far, _CANDIDATES) if item[1] >= _LEAST_MATCH]
        if found:
            # The longest; then the nearest ahead of where the text was, and only then one behind it.
            cursor, matched = min(found, key=partial(_longest_ahead, cursor))
        else:
            matched = 0
    return _Place(cursor, matched, tail)

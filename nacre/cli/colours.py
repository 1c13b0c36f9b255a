"""Text coloured by who guessed it: the verifier's own tokens plain, each drafter's in a colour.

Rule: exactly the released text is shown, in order; the colours only follow it. Control characters a model may write
never reach the terminal.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nacre.text import Detokenizer, Vocabulary

if TYPE_CHECKING:
    from rich.text import Text

    from nacre.client import Piece

#: Style of the verifier's own tokens, then of drafter 1, 2, …; further drafters start over at 1.
VERIFIER_STYLE = "yellow"
DRAFTER_STYLES = ("green", "cyan", "blue", "magenta")


class ColouredText:
    """Splits the text of pieces by guesser; 0 is the verifier itself."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens_by: dict[int, int] = {}
        self._detokenizer = Detokenizer(vocabulary)
        # Text that tokens have made certain; the pieces may release it later (a stop string may be in the making).
        self._waiting: deque[tuple[int, str]] = deque()

    def split(self, piece: Piece) -> list[tuple[int, str]]:
        """(guesser, text) runs whose texts, joined, are the piece's."""
        for token, guesser in zip(piece.tokens, piece.guessed_by, strict=True):
            self.tokens_by[guesser] = self.tokens_by.get(guesser, 0) + 1
            text = self._detokenizer.push(token)
            if text:
                self._waiting.append((guesser, text))
        return list(self._take(piece.text))

    def _take(self, text: str) -> Iterator[tuple[int, str]]:
        guesser = 0
        while text and self._waiting:
            guesser, known = self._waiting.popleft()
            if len(known) > len(text):
                self._waiting.appendleft((guesser, known[len(text) :]))
                known = known[: len(text)]
            yield guesser, text[: len(known)]
            text = text[len(known) :]
        if text:  # an incomplete character at the very end
            yield guesser, text


def style_of(guesser: int) -> str:
    return DRAFTER_STYLES[(guesser - 1) % len(DRAFTER_STYLES)] if guesser else VERIFIER_STYLE


def coloured(runs: Iterable[tuple[int, str]]) -> Text:
    """For a terminal: styled, without control characters."""
    from rich.text import Text

    shown = Text()
    for guesser, text in runs:
        shown.append(harmless(text), style=style_of(guesser))
    return shown


def legend(tokens_by: dict[int, int]) -> Text:
    """Who guessed how many tokens, each in its colour."""
    from rich.text import Text

    shown = Text("who chose first: ")
    drafters = sorted(guesser for guesser in tokens_by if guesser)
    for number, guesser in enumerate((0, *drafters)):
        count = tokens_by.get(guesser, 0)
        name = f"drafter {guesser}" if guesser else "the verifier itself"
        shown.append(", " if number else "")
        shown.append(f"{name} {count}", style=style_of(guesser))
    return shown.append(" tokens")


def harmless(text: str) -> str:
    """Control and formatting characters but newline and tab become a dot: a model must not drive the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "·" for c in text)

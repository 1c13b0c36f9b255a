"""From committed tokens to text that may be shown: whole characters only, and never a part of a stop string.

Rule: tokens are taken one by one in order of position, so the text, where it stops and which tokens belong to it depend
on the tokens alone, never on how they were cut into commits. All released text joined equals the decoding of the whole
sequence, up to the first stop string (the one that is complete first; of two complete at once, the longer).
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.text.vocabulary import Vocabulary

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: A character the vocabulary spells in bytes is held back until it is whole, but no more than this many tokens.
_MOST_HELD_TOKENS = 64


class Detokenizer:
    """Turns tokens into text as soon as later tokens cannot change it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.byte_level else None
        # For vocabularies whose text depends on neighbours (leading spaces, byte runs): the tokens since a settled
        # character, decoded together; `_context` of them have been shown already.
        self._window: list[int] = []
        self._context = 0
        self._held_tokens = 0

    @property
    def held_tokens(self) -> int:
        """How many of the last tokens, special ones not counted, have a part in a character that is incomplete."""
        return self._held_tokens if self._bytes is not None else len(self._window) - self._context

    def push(self, token: int) -> str:
        """The text that this token makes certain; often, but not always, its own."""
        if self._vocabulary.is_special(token):
            return ""
        if self._bytes is not None:
            raw = self._vocabulary.token_bytes(token)
            text = self._bytes.decode(raw)
            held = len(self._bytes.getstate()[0])
            self._held_tokens = 0 if not held else 1 if held <= len(raw) else self._held_tokens + 1
            return text
        self._window.append(token)
        text = self._unshown()
        held = len(self._window) - self._context
        if not text or (held < _MOST_HELD_TOKENS and (text.endswith(_REPLACEMENT) or self._vocabulary.is_byte(token))):
            return ""
        self._window = self._window[self._context :]
        self._context = len(self._window)
        return text

    def breaks_off(self, token: int) -> bool:
        """Whether the bytes held back turn out to be no character when `token` follows, and are shown as one."""
        held = self._bytes.getstate()[0] if self._bytes is not None else b""
        following = self._vocabulary.token_bytes(token)[:1]
        if not held or not following or self._vocabulary.is_special(token):
            return False
        try:
            codecs.getincrementaldecoder("utf-8")().decode(held + following)
        except UnicodeDecodeError:
            return True
        return False

    def finish(self) -> str:
        """What was held back, as the decoding of the whole sequence has it."""
        if self._bytes is not None:
            return self._bytes.decode(b"", final=True)
        text = self._unshown()
        self._window, self._context = [], 0
        return text

    def _unshown(self) -> str:
        shown = self._vocabulary.decode(self._window[: self._context])
        return self._vocabulary.decode(self._window)[len(shown) :]


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token of the output; `start` is the index in the output text of the first character it has a part in."""

    token: int
    start: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """Text that may be shown, and the tokens behind it."""

    text: str = ""
    entries: tuple[TokenEntry, ...] = ()


@dataclass(slots=True)
class _Waiting:
    entry: TokenEntry
    end: int | None = None  # index after its last character; None while that character is incomplete


class OutputText:
    """The text of one generation. `stopped` once a stop string was complete: nothing may be pushed after that."""

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(vocabulary)
        self._stops = tuple(stops)
        self._held = ""  # decoded, not released: might become a stop string
        self._released = 0  # characters
        self._waiting: deque[_Waiting] = deque()

    def push(self, token: int, logprob: float | None = None, top: tuple[tuple[int, float], ...] = ()) -> Released:
        assert not self.stopped, "no token follows a stop string"
        start = self._released + len(self._held) + self._detokenizer.breaks_off(token)
        self._waiting.append(_Waiting(TokenEntry(token, start, logprob, top)))
        return self._take(self._detokenizer.push(token), last=False)

    def finish(self) -> Released:
        """Everything still held back; the generation has ended without a stop string (or ends with one only now)."""
        return Released() if self.stopped else self._take(self._detokenizer.finish(), last=True)

    def _take(self, text: str, *, last: bool) -> Released:
        self._held += text
        decoded = self._released + len(self._held)
        self._complete(decoded, incomplete=0 if last else self._detokenizer.held_tokens)
        found = find_stop(self._held, self._stops)
        if found is not None:
            self.stopped = True
            shown, self._held = self._held[:found], ""
            self._released += len(shown)
            entries = tuple(w.entry for w in self._waiting if w.entry.start < self._released)
            self._waiting.clear()
            return Released(shown, entries)
        keep = 0 if last else held_back(self._held, self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        self._released += len(shown)
        entries_out: list[TokenEntry] = []
        while self._waiting and (end := self._waiting[0].end) is not None and end <= self._released:
            entries_out.append(self._waiting.popleft().entry)
        return Released(shown, tuple(entries_out))

    def _complete(self, decoded: int, incomplete: int) -> None:
        """All waiting tokens but those of a character that is still incomplete end here at the latest."""
        for waiting in reversed(self._waiting):
            if waiting.end is not None:
                return
            if incomplete:
                incomplete -= not self._vocabulary.is_special(waiting.entry.token)
            else:
                waiting.end = decoded


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string that is complete first begins; None if there is none."""
    best: tuple[int, int] | None = None  # (end, start)
    for stop in stops:
        start = text.find(stop)
        if start >= 0 and (best is None or (start + len(stop), start) < best):
            best = (start + len(stop), start)
    return None if best is None else best[1]


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    for length in range(min(len(text), max(map(len, stops), default=1) - 1), 0, -1):
        tail = text[-length:]
        if any(len(stop) > length and stop.startswith(tail) for stop in stops):
            return length
    return 0

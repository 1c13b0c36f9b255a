"""A bounded pool of phrases: what may follow the last token or two, several tokens at once.

Rule: a key holds its `per_key` newest phrases; a phrase that comes again becomes the newest and counts once more. The
pool holds `keys` keys; the one that was added to longest ago gives way. Nothing is ever scanned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from nacre.errors import InvalidArgument

#: (key tokens, phrase tokens)
PhraseRow = tuple[tuple[int, ...], tuple[int, ...]]

MOST_KEYS = 1 << 22
MOST_PHRASE = 64
_MOST_COUNT = 255


class PhrasePool:
    """Phrases by the `key_tokens` tokens before them. Shared by the sessions of one tenant."""

    def __init__(self, key_tokens: int, *, per_key: int, shortest: int, longest: int, keys: int = 1 << 14) -> None:
        if not 1 <= keys <= MOST_KEYS:
            raise InvalidArgument(f"the pool's size is {keys} keys; it must be 1 to {MOST_KEYS}")
        if not 1 <= shortest <= longest <= MOST_PHRASE:
            raise InvalidArgument(f"phrases of {shortest} to {longest} tokens are not within 1 to {MOST_PHRASE}")
        if not 1 <= per_key <= 256:
            raise InvalidArgument(f"per_key is {per_key}; it must be 1 to 256")
        self.key_tokens = key_tokens
        self.longest = longest
        self._shortest = shortest
        self._per_key = per_key
        self._most_keys = keys
        self._phrases: OrderedDict[tuple[int, ...], OrderedDict[tuple[int, ...], int]] = OrderedDict()

    def __len__(self) -> int:
        """Keys held."""
        return len(self._phrases)

    def add(self, key: tuple[int, ...], phrase: tuple[int, ...]) -> None:
        """The newest phrase of a key; one of a length that the pool does not hold is ignored."""
        if len(key) != self.key_tokens or not self._shortest <= len(phrase) <= self.longest:
            return
        held = self._phrases.get(key)
        if held is None:
            held = self._phrases[key] = OrderedDict()
            if len(self._phrases) > self._most_keys:
                self._phrases.popitem(last=False)
        else:
            self._phrases.move_to_end(key)
        held[phrase] = min(held.pop(phrase, 0) + 1, _MOST_COUNT)
        if len(held) > self._per_key:
            held.popitem(last=False)

    def drop(self, key: tuple[int, ...], phrase: tuple[int, ...]) -> None:
        """Forgets a phrase, if it is there."""
        held = self._phrases.get(key)
        if held is not None and held.pop(phrase, 0) and not held:
            del self._phrases[key]

    def get(self, key: tuple[int, ...], most: int) -> list[tuple[tuple[int, ...], int]]:
        """The newest phrases of a key with their counts, newest first."""
        held = self._phrases.get(key)
        if not held:
            return []
        newest = list(held.items())[-most:]
        newest.reverse()
        return newest

    def learn(self, tokens: Sequence[int], start: int = 0) -> None:
        """Adds the phrases of the greatest length in a text, those that end at or after `start`."""
        whole = self.key_tokens + self.longest
        for end in range(max(whole, start), len(tokens) + 1):
            key_end = end - self.longest
            self.add(tuple(tokens[key_end - self.key_tokens : key_end]), tuple(tokens[key_end:end]))

    def export(self) -> list[PhraseRow]:
        """All phrases, the newest last."""
        return [(key, phrase) for key, held in self._phrases.items() for phrase in held]

    def merge(self, rows: Iterable[PhraseRow]) -> None:
        for key, phrase in rows:
            self.add(tuple(key), tuple(phrase))

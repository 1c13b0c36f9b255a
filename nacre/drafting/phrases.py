"""A bounded pool of phrases: what may follow the last token or two, several tokens at once.

Rule: a key holds its `per_key` newest phrases; a phrase that comes again becomes the newest and counts once more. The
pool holds `keys` keys; the one that was added to longest ago gives way. Nothing is ever scanned.

Memory: `size_bytes`, what the objects take at most where every token is a number of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from nacre.drafting.rows import Row
from nacre.drafting.tail import RememberingProposer
from nacre.errors import InvalidArgument

#: (key tokens, phrase tokens)
PhraseRow = tuple[tuple[int, ...], tuple[int, ...]]

MOST_KEYS = 1 << 22
MOST_PHRASE = 64
_MOST_COUNT = 255
#: Of a key with its dictionary, of a phrase, and of each of its tokens.
_KEY_BYTES, _PHRASE_BYTES, _TOKEN_BYTES = 640, 160, 40


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
        #: Phrases with their counts, the newest last; of the keys the one last added to.
        self._phrases: OrderedDict[tuple[int, ...], dict[tuple[int, ...], int]] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def halved(self) -> PhrasePool:
        """An empty pool for half as many keys."""
        return PhrasePool(
            self.key_tokens,
            per_key=self._per_key,
            shortest=self._shortest,
            longest=self.longest,
            keys=max(1, self._most_keys // 2),
        )

    def add(self, key: tuple[int, ...], phrase: tuple[int, ...]) -> None:
        """The newest phrase of a key; one of a length that the pool does not hold is ignored."""
        if len(key) != self.key_tokens or not self._shortest <= len(phrase) <= self.longest:
            return
        held = self._phrases.get(key)
        if held is None:
            held = self._phrases[key] = {}
            self._size_bytes += _KEY_BYTES
            if len(self._phrases) > self._most_keys:
                _, gone = self._phrases.popitem(last=False)
                self._size_bytes -= _KEY_BYTES + sum(map(_size_bytes, gone))
        else:
            self._phrases.move_to_end(key)
        count = held.pop(phrase, 0)
        held[phrase] = min(count + 1, _MOST_COUNT)
        if count == 0:
            self._size_bytes += _size_bytes(phrase)
        if len(held) > self._per_key:
            oldest = next(iter(held))
            del held[oldest]
            self._size_bytes -= _size_bytes(oldest)

    def drop(self, key: tuple[int, ...], phrase: tuple[int, ...]) -> None:
        """Forgets a phrase, if it is there."""
        held = self._phrases.get(key)
        if held is not None and held.pop(phrase, 0):
            self._size_bytes -= _size_bytes(phrase)
            if not held:
                self._size_bytes -= _KEY_BYTES
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


class PhraseProposer(RememberingProposer[PhrasePool]):
    """Base of those that keep the phrases of committed text, and of what a store knows."""

    def __init__(self, pool: PhrasePool) -> None:
        super().__init__(pool.longest + 1, pool)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        before = self._tails[session].tokens
        self.memory.learn((*before, *tokens), len(before) + 1)
        super().committed(session, tokens, trunk)

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        for output in outputs:
            self.memory.learn(output)


def _size_bytes(phrase: tuple[int, ...]) -> int:
    return _PHRASE_BYTES + _TOKEN_BYTES * len(phrase)

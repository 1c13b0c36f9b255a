"""A suffix index: where the last tokens of a text occurred before, the longest and latest matches first.

Serves what suffix tries (SuffixDecoding, Oliaro et al. 2024) and suffix automata (SAM-Decoding, Hu et al. 2024) are
built for, in flat arrays: per token its id and, for each of the match lengths 1, 2, 4, 8 and 16, a link to the latest
earlier position whose last tokens hash alike (the chains of LZ77 compressors). A query walks the chains from the
longest length down and compares tokens, so a hash that lies costs a step and never an answer.

Rules: adding a token is O(1), whatever the text. The ring holds the latest `capacity` tokens; older ones are forgotten
as new ones arrive. Sequences are separated, so no match spans two.

Memory: 44 bytes per token of capacity reached; it doubles up to the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nacre.errors import InvalidArgument

U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

#: Match lengths that have a chain; powers of two, so that each hash is made of two of the length before.
LENGTHS = (1, 2, 4, 8, 16)
LONGEST = LENGTHS[-1]
MOST_TOKENS = 1 << 27
#: Separates sequences; no token id.
GAP = 0xFFFFFFFF

_MASK = (1 << 64) - 1
_SPREAD = 0x9E3779B97F4A7C15
_STEP = 0xD6E8FEB86659FD93
# hash of the last 2n tokens = hash of the last n + factor(n) * hash of the n before.
_FACTORS = tuple(pow(_STEP, n, 1 << 64) for n in LENGTHS[:-1])
_LAST_POSITION = (1 << 32) - 1
_FIRST = 64  # ring places when empty
_LEVELS = tuple(range(len(LENGTHS)))


class SuffixIndex:
    """The index. Positions count tokens ever added, gaps included; place = position modulo the ring's size.

    There is room for `room` tokens from the start: making more means to add all again.
    """

    def __init__(self, capacity: int = 1 << 20, *, room: int = 0) -> None:
        if not _FIRST <= capacity <= MOST_TOKENS:
            raise InvalidArgument(
                f"the suffix index's capacity is {capacity} tokens; it must be {_FIRST} to {MOST_TOKENS}"
            )
        self._bound = 1 << (capacity - 1).bit_length()
        self._end = 0
        self._allocate(min(self._bound, 1 << (max(_FIRST, room) - 1).bit_length()))

    def __len__(self) -> int:
        """Tokens held, gaps included."""
        return min(self._end, self._size)

    @property
    def size_bytes(self) -> int:
        return self._tokens.nbytes + self._links.nbytes + self._heads.nbytes

    def halved(self) -> SuffixIndex:
        """An empty index of half the capacity."""
        return SuffixIndex(max(_FIRST, self._bound // 2))

    def append(self, token: int) -> None:
        """One more token of the present sequence."""
        if self._end >= self._full_at:
            self._make_room(1)
        position, mask = self._end, self._size - 1
        place = position & mask
        self._token_at[place] = token
        value = (token + 1) * _SPREAD & _MASK
        shift, history = self._shift, self._history
        for level in _LEVELS:
            bucket = ((value ^ (value >> 29)) * _SPREAD & _MASK) >> shift
            head = self._head_at[level]
            self._link_at[level][place] = head[bucket]
            head[bucket] = position + 1  # 0 is none
            if level < 4:
                ring = history[level]
                n = LENGTHS[level]
                before, ring[position & (n - 1)] = ring[position & (n - 1)], value
                value = (value + _FACTORS[level] * before) & _MASK
        self._end = position + 1

    def extend(self, tokens: Sequence[int]) -> None:
        """Several tokens of the present sequence; many at once are cheaper."""
        if len(tokens) < 32:
            for token in tokens:
                self.append(token)
            return
        for start in range(0, len(tokens), self._bound):
            self._extend(np.asarray(tokens[start : start + self._bound], dtype=np.uint32))

    def add(self, tokens: Sequence[int]) -> None:
        """A whole sequence, apart from all others."""
        self.append(GAP)
        self.extend(tokens)

    def matches(
        self, tail: Sequence[int], most: int, *, hashes: Sequence[int] | None = None, walk: int = 64
    ) -> list[tuple[int, int]]:
        """(position after the match, matched tokens), the longest first, the latest first among equals.

        `tail` are the last tokens of a text. At most `most` matches of distinct positions; where there are more,
        those of 16 tokens are taken before those of 8 and more, and so on, the latest first. At most `walk` links
        are followed per match length. A match is known up to 16 tokens. `hashes` are `tail_hashes(tail)`, for callers
        that ask several indexes.
        """
        tail = tail[-LONGEST:]
        values = tail_hashes(tail) if hashes is None else hashes
        found: dict[int, int] = {}
        token_at, mask, oldest = self._token_at, self._size - 1, max(0, self._end - self._size)
        last, reversed_tail = self._end, tail[::-1]
        for level in reversed(range(len(values))):
            n = LENGTHS[level]
            value = values[level]
            position = self._head_at[level][((value ^ (value >> 29)) * _SPREAD & _MASK) >> self._shift]
            link = self._link_at[level]
            steps = 0
            while position > oldest and steps < walk:
                steps += 1
                if position not in found and position < last:
                    place = position - 1
                    matched = 0
                    for token in reversed_tail:
                        if place < oldest or token_at[place & mask] != token:
                            break
                        matched += 1
                        place -= 1
                    if matched >= n and token_at[position & mask] != GAP:
                        found[position] = matched
                        if len(found) >= most:
                            return sorted(found.items(), key=_longest_latest)
                earlier = link[(position - 1) & mask]
                if earlier >= position:  # a link that the ring has overwritten
                    break
                position = earlier
        return sorted(found.items(), key=_longest_latest)

    def continuation(self, position: int, most: int) -> list[int]:
        """The tokens from a position on, up to the end of its sequence."""
        mask = self._size - 1
        start, stop = position & mask, min(position + most, self._end)
        if start + stop - position <= self._size:
            tokens = self._token_at[start : start + stop - position].tolist()
        else:
            tokens = [self._token_at[i & mask] for i in range(position, stop)]
        return tokens[: tokens.index(GAP)] if GAP in tokens else tokens

    # -- arrays --------------------------------------------------------------------------------------------------

    def _allocate(self, size: int) -> None:
        self._size = size
        self._full_at = size if size < self._bound else _LAST_POSITION - self._bound
        self._shift = 64 - (size.bit_length() - 1)
        self._tokens = np.full(size, GAP, dtype=np.uint32)
        self._links = np.zeros((len(LENGTHS), size), dtype=np.uint32)
        self._heads = np.zeros((len(LENGTHS), size), dtype=np.uint32)
        self._token_at = self._tokens.data
        self._link_at = [row.data for row in self._links]
        self._head_at = [row.data for row in self._heads]
        self._history = [[0] * n for n in LENGTHS[:-1]]

    def _extend(self, tokens: U32Array) -> None:
        if not len(tokens):
            return
        if self._end + len(tokens) > self._full_at:
            self._make_room(len(tokens))
        count, mask = len(tokens), self._size - 1
        start = self._end
        positions = np.arange(start, start + count)
        places = positions & mask
        self._tokens[places] = tokens
        value: U64Array = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(_SPREAD)
        for level, n in enumerate(LENGTHS):
            self._link(level, value, positions, places)
            if level < len(_FACTORS):
                ring = self._history[level]
                earlier = np.array([ring[i & (n - 1)] for i in range(start, start + n)], dtype=np.uint64)
                before = np.concatenate([earlier, value])
                for i in range(max(0, count - n), count):
                    ring[(start + i) & (n - 1)] = int(value[i])
                value = np.add(value, np.multiply(before[:count], np.uint64(_FACTORS[level])))
        self._end = start + count

    def _link(self, level: int, value: U64Array, positions: I64Array, places: I64Array) -> None:
        """Puts the positions at the heads of their chains: each links to the one before it in the same bucket."""
        buckets = (((value ^ (value >> np.uint64(29))) * np.uint64(_SPREAD)) >> np.uint64(self._shift)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        sorted_buckets = buckets[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = sorted_buckets[1:] != sorted_buckets[:-1]
        earlier = np.empty(len(order), dtype=np.uint32)
        earlier[1:] = positions[order[:-1]] + 1
        earlier[first] = self._heads[level, sorted_buckets[first]]
        self._links[level, places[order]] = earlier
        last = np.append(first[1:], True)
        self._heads[level, sorted_buckets[last]] = positions[order[last]] + 1

    def _make_room(self, tokens: int) -> None:
        """More room for a ring that has never wrapped; positions from 0 again for one that ran out of numbers.

        What is held is added again: amortised O(1) per token.
        """
        kept = self._end - len(self)
        held = self._tokens[np.arange(kept, self._end) & (self._size - 1)]
        size = self._size
        while size < self._bound and size < len(held) + tokens:
            size *= 2
        self._allocate(size)
        self._end = 0
        self._extend(held)


def tail_hashes(tail: Sequence[int]) -> list[int]:
    """The hashes of the last 1, 2, 4, 8 and 16 tokens, as far as there are so many."""
    tail = tail[-LONGEST:]
    row = [(token + 1) * _SPREAD & _MASK for token in tail]
    values = [row[-1]] if row else []
    for n, factor in zip(LENGTHS[:-1], _FACTORS, strict=True):
        if len(tail) < 2 * n:
            break
        row = [(row[i + n] + factor * row[i]) & _MASK for i in range(len(row) - n)]
        values.append(row[-1])
    return values


def _longest_latest(match: tuple[int, int]) -> tuple[int, int]:
    return (-match[1], -match[0])

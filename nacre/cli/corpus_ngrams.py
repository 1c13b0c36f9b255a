"""Counts n-grams of a corpus: what follows contexts of 1 to 3 tokens, as rows of a store.

Rule: memory is bounded. Up to `MOST_PAIRS` distinct pairs of context and follower are counted exactly; when there are
more, the rarest are forgotten until half as many are left, as in lossy counting, and what comes again counts from
nothing. Invariant: equal texts in equal order give equal rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nacre.drafting.ngram_rows import MOST_TOKEN, TOKEN_BITS
from nacre.errors import InvalidArgument
from nacre.store import Row
from nacre.store.rows import MAX_CONTEXT, MAX_COUNT, MAX_ENTRIES, MAX_WEIGHT, NGRAM

#: 20 bytes each while they are kept, and some 70 while they are sorted, with those that are new.
MOST_PAIRS = 1 << 22
#: Tokens that are counted at a time.
FOLD_TOKENS = 1 << 19
#: Of a context that becomes a row: what came once says little.
LEAST_SIGHTINGS = 2

_SHIFT = np.uint64(TOKEN_BITS)
_ONE_TOKEN = (1 << TOKEN_BITS) - 1

Keys = npt.NDArray[np.uint64]
Tokens = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]


class NgramCounts:
    """`add` texts, then take `rows`. A context is kept as one number of 63 bits, the first token highest."""

    def __init__(self, *, most_pairs: int = MOST_PAIRS, fold_tokens: int = FOLD_TOKENS) -> None:
        self._most_pairs = most_pairs
        self._fold_tokens = fold_tokens
        self._contexts: Keys = np.zeros(0, dtype=np.uint64)
        self._followers: Tokens = np.zeros(0, dtype=np.uint32)
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self._texts: list[Tokens] = []
        self._waiting = 0
        self.tokens = 0
        self.forgotten = 0  # pairs

    def add(self, text: Sequence[int]) -> None:
        """A text, apart from all others. Raises InvalidArgument for ids that no table holds."""
        tokens = np.asarray(text, dtype=np.int64)
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() <= MOST_TOKEN:
            raise InvalidArgument(f"the corpus has token ids outside 0 to {MOST_TOKEN}, which no drafter's table holds")
        self.tokens += len(tokens)
        if len(tokens) > 1:
            self._texts.append(tokens.astype(np.uint32))
            self._waiting += len(tokens)
        if self._waiting >= self._fold_tokens:
            self._fold()

    def rows(self, most: int) -> tuple[list[Row], int]:
        """The `most` most frequent contexts as rows, most frequent first; and how many contexts came often enough.

        A weight is a follower's share of all sightings of its context, in steps of 1/255; less than half a step is
        nothing, and a context without a follower of weight is no row.
        """
        self._fold()
        order = np.lexsort((self._followers, -self._counts, self._contexts))  # by context, likeliest follower first
        contexts, followers, counts = self._contexts[order], self._followers[order], self._counts[order]
        starts = np.flatnonzero(_changes(contexts))
        ends = np.append(starts[1:], len(contexts))
        totals = np.add.reduceat(counts, starts) if len(starts) else counts
        ranked = np.lexsort((contexts[starts], -totals))
        ranked = ranked[totals[ranked] >= LEAST_SIGHTINGS]
        found = []
        for place in ranked[:most].tolist():
            start, end, total = int(starts[place]), int(ends[place]), int(totals[place])
            best = slice(start, min(end, start + MAX_ENTRIES))
            pairs = zip(followers[best].tolist(), counts[best].tolist(), strict=True)
            weighed = [(token, round(MAX_WEIGHT * count / total)) for token, count in pairs]
            entries = tuple([entry for entry in weighed if entry[1]])
            if entries:
                found.append(Row(NGRAM, _context(int(contexts[start])), entries, min(total, MAX_COUNT)))
        return found, len(ranked)

    def _fold(self) -> None:
        """What waits joins the counts."""
        if not self._texts:
            return
        parts = [part for tokens in self._texts for part in _ngrams(tokens)]
        self._texts, self._waiting = [], 0
        contexts = np.concatenate([self._contexts, *[keys for keys, _ in parts]])
        followers = np.concatenate([self._followers, *[tokens for _, tokens in parts]])
        counts = np.concatenate([self._counts, np.ones(len(contexts) - len(self._counts), dtype=np.int64)])
        order = np.lexsort((followers, contexts))
        contexts, followers, counts = contexts[order], followers[order], counts[order]
        first = np.flatnonzero(_changes(contexts) | _changes(followers))
        self._contexts, self._followers = contexts[first], followers[first]
        self._counts = np.add.reduceat(counts, first)
        self._forget()

    def _forget(self) -> None:
        """Makes room: at most half of the pairs there may be are left, those that were seen most."""
        size = len(self._counts)
        if size <= self._most_pairs:
            return
        place = size - self._most_pairs // 2 - 1
        kept = self._counts > np.partition(self._counts, place)[place]
        self._contexts, self._followers = self._contexts[kept], self._followers[kept]
        self._counts = self._counts[kept]
        self.forgotten += size - len(self._counts)


def _ngrams(tokens: Tokens) -> Iterator[tuple[Keys, Tokens]]:
    """All contexts of a text and what follows each, by length."""
    ids = tokens.astype(np.uint64) + np.uint64(1)  # so that lengths differ
    keys: Keys = ids[:-1]
    yield keys, tokens[1:]
    for length in range(2, MAX_CONTEXT + 1):
        keys = keys[:-1] << _SHIFT | ids[length - 1 : -1]
        yield keys, tokens[length:]


def _changes(values: Keys | Tokens) -> npt.NDArray[np.bool_]:
    """Where a sorted array has another value than before; the first always counts."""
    changed = np.ones(len(values), dtype=np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _context(key: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while key:
        tokens.append((key & _ONE_TOKEN) - 1)
        key >>= TOKEN_BITS
    return tuple(reversed(tokens))

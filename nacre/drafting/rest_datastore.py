"""A corpus on disk with its suffix array, mapped into memory: the datastore of REST.

File, little-endian: a header of 128 bytes (magic, version, count of tokens n, tokenizer fingerprint, CRC-32 of what
follows it, CRC-32 of the header before that field), then n token ids and the n positions of the suffix array, 32 bits
each. Documents are separated by 0xFFFFFFFF. Ids of 32 bits hold any vocabulary; 8 bytes per token.

Rule: a file that is not whole, not of this version, or of another tokenizer is refused when it is opened, never while
guessing. The array is sorted by the first 16 tokens of each suffix, which is as far as anyone looks. The file is
written beside its name and renamed, so a reader sees all of it or none.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound

MAGIC = b"NACREST1"
VERSION = 1
LONGEST = 16
SHORTEST = 2
GAP = 0xFFFFFFFF
MOST_TOKENS = 1 << 31
_HEADER = struct.Struct("<8sIQ96sII4x")
HEADER_BYTES = _HEADER.size
_REMEDY = "build it again"

U32Array = npt.NDArray[np.uint32]


def build(path: str | os.PathLike[str], documents: Iterable[Sequence[int]], fingerprint: str) -> int:
    """Writes a datastore of tokenized documents; returns its number of tokens. Raises InvalidArgument.

    Takes memory for 40 bytes per token while it sorts.
    """
    name = fingerprint.encode()
    if not 0 < len(name) <= 96:
        raise InvalidArgument(f"the tokenizer fingerprint has {len(name)} bytes; it must have 1 to 96")
    parts: list[U32Array] = []
    count = 0
    for document in documents:
        tokens = np.asarray(document, dtype=np.int64)
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < GAP):
            raise InvalidArgument(f"a document has token ids outside 0 to {GAP - 1}")
        parts += [tokens.astype(np.uint32), np.array([GAP], dtype=np.uint32)]
        count += len(tokens) + 1
        if count > MOST_TOKENS:
            raise InvalidArgument(f"the corpus has more than {MOST_TOKENS} tokens; split it")
    if count == len(parts) // 2:
        raise InvalidArgument("the corpus has no tokens; give it documents with text")
    text = np.concatenate(parts)
    payload = text.astype("<u4").tobytes() + suffix_array(text).astype("<u4").tobytes()
    target = Path(path)
    beside = target.with_name(target.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(_header(count, name, zlib.crc32(payload)))
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return count


def suffix_array(text: U32Array) -> npt.NDArray[np.int64]:
    """Positions sorted by their suffix's first 16 tokens, equal ones by position: prefix doubling, four rounds.  [n]"""
    _, rank = np.unique(text, return_inverse=True)
    rank = rank.astype(np.int64) + 1  # 0 is beyond the end
    width = 1
    while width < LONGEST:
        following = np.zeros_like(rank)
        following[:-width] = rank[width:]
        _, rank = np.unique(rank * (len(text) + 2) + following, return_inverse=True)
        rank = rank.astype(np.int64) + 1
        width *= 2
    return np.argsort(rank, kind="stable")


class RestDatastore:
    """An open datastore, read-only.

    Raises NotFound (no such file) and FailedPrecondition (not a datastore, another version or tokenizer, truncated,
    corrupt). `fingerprint` is the target's tokenizer's; who does not know it compares the datastore's own.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: str | None = None) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                head = file.read(HEADER_BYTES)
            size = self.path.stat().st_size
        except FileNotFoundError as error:
            raise NotFound(f"there is no datastore at {path}; build one with `nacre store build`") from error
        except OSError as error:
            raise FailedPrecondition(f"the datastore at {path} cannot be read: {error.strerror}") from error
        self.count, checksum, self.fingerprint = self._checked_header(head, size, fingerprint)
        mapped = np.memmap(self.path, dtype="<u4", mode="r", offset=HEADER_BYTES, shape=(2 * self.count,))
        both: U32Array = np.asarray(mapped)
        if zlib.crc32(both.data) != checksum:
            raise self._refused("is corrupt: its checksum does not match")
        self._tokens: U32Array = both[: self.count]
        self._suffixes: U32Array = both[self.count :]
        self._token_at, self._suffix_at = self._tokens.data, self._suffixes.data

    def find(self, tail: Sequence[int]) -> tuple[int, int, int]:
        """(matched tokens, first, last) of the longest suffix of `tail` that occurs; 2 to 16 tokens, or (0, 0, 0).

        The occurrences are entries first to last - 1 of the suffix array. If a suffix occurs, so do all shorter ones:
        the length is found by bisection, each step a binary search over the corpus.
        """
        tail = list(tail[-LONGEST:])
        known, low, high = (0, 0, 0), SHORTEST, len(tail)
        while low <= high:
            length = (low + high) // 2
            pattern = tail[-length:]
            first = self._bisect(pattern, 0)
            if first < self.count and self._starts_with(first, pattern):
                known = (length, first, 0)
                low = length + 1
            else:
                high = length - 1
        if not known[0]:
            return known
        pattern = [*tail[-known[0] : -1], tail[-1] + 1]
        return known[0], known[1], self._bisect(pattern, known[1])

    def continuations(self, matched: int, first: int, last: int, most: int, depth: int) -> list[list[int]]:
        """What follows the occurrences: of at most `most`, spread evenly, up to `depth` tokens of the document."""
        step = max(1, -(-(last - first) // most))
        starts = self._suffixes[first:last:step].astype(np.int64) + matched
        places = np.minimum(starts[:, None] + np.arange(depth), self.count - 1)  # the last token is a gap
        rows = self._tokens[places].tolist()
        return [row[: row.index(GAP)] if GAP in row else row for row in rows]

    def _bisect(self, pattern: list[int], low: int) -> int:
        """The first entry of the suffix array, from `low` on, whose suffix is not before the pattern."""
        high, length, wanted = self.count, len(pattern), pattern[0]
        tokens, suffixes = self._token_at, self._suffix_at
        while low < high:
            middle = (low + high) // 2
            start = suffixes[middle]
            first = tokens[start]  # it decides most steps, and costs a tenth of a comparison
            if first < wanted or (first == wanted and tokens[start : start + length].tolist() < pattern):
                low = middle + 1
            else:
                high = middle
        return low

    def _starts_with(self, entry: int, pattern: list[int]) -> bool:
        start = self._suffix_at[entry]
        return bool(self._token_at[start : start + len(pattern)].tolist() == pattern)

    def _checked_header(self, head: bytes, size: int, fingerprint: str | None) -> tuple[int, int, str]:
        if len(head) < HEADER_BYTES or head[: len(MAGIC)] != MAGIC:
            raise self._refused("is no datastore")
        _, version, count, name, checksum, own = _HEADER.unpack(head)
        if version != VERSION:
            raise self._refused(f"has version {version}, this program reads {VERSION}")
        if own != zlib.crc32(_header(count, name.rstrip(b"\0"), checksum)[: HEADER_BYTES - 8]):
            raise self._refused("is corrupt: its header's checksum does not match")
        if size != HEADER_BYTES + 8 * count:
            raise self._refused(f"has {size} bytes where {HEADER_BYTES + 8 * count} were written")
        built_for = name.rstrip(b"\0").decode(errors="replace")
        if fingerprint is not None and built_for != fingerprint:
            raise self._refused(f"was built for tokenizer {built_for}, the target has {fingerprint}")
        return count, checksum, built_for

    def _refused(self, why: str) -> FailedPrecondition:
        return FailedPrecondition(f"the datastore at {self.path} {why}: {_REMEDY}")


def _header(count: int, name: bytes, checksum: int) -> bytes:
    bare = _HEADER.pack(MAGIC, VERSION, count, name, checksum, 0)
    return _HEADER.pack(MAGIC, VERSION, count, name, checksum, zlib.crc32(bare[: HEADER_BYTES - 8]))

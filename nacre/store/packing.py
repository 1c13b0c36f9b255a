"""Rows as bytes: at most 44 for an n-gram, so that a Redis hash of them stays packed.

    head      1 byte: kind (2 bits), context length (2 bits), number of entries (4 bits)
    count     2 bytes
    context   3 bytes a token
    entries   4 bytes each: token and weight; a run is its length, its weight and 3 bytes a token

Everything is little-endian. Rule: `unpack` accepts exactly what `pack` makes; anything else is a ValueError, never a
row of wrong length. Invariant: `unpack(pack(row)) == row`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from nacre.store.rows import KINDS, MAX_CONTEXT, MAX_ENTRIES, MAX_RUN, Row, check

_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_ENTRIES = [struct.Struct(f"<{number}I") for number in range(MAX_ENTRIES + 1)]
#: (first byte, size) -> kind, context length, and how to read the rest, of rows whose entries are tokens.
_SHAPES = {
    (_NUMBER[kind] << 6 | length << 4 | number, 3 + 3 * length + 4 * number): (
        kind,
        length,
        struct.Struct("<H" + "HB" * length + f"{number}I"),
    )
    for kind in ("ngram", "calibration")
    for length in range(1, MAX_CONTEXT + 1)
    for number in range(1, MAX_ENTRIES + 1)
}
_LENGTH = struct.Struct("<H")
MAX_ROW_BYTES = 3 + 3 * 3 + MAX_ENTRIES * (2 + 3 * MAX_RUN)


def key_of(row: Row) -> bytes:
    """What two rows have in common if they are to be merged: kind and context."""
    return bytes((_NUMBER[row.kind] << 6 | len(row.context) << 4,)) + _tokens(row.context)


def key_in(packed: bytes) -> bytes:
    """`key_of` of a packed row."""
    return bytes((packed[0] & 0xF0,)) + packed[3 : 3 + 3 * (packed[0] >> 4 & 3)]


def pack(row: Row) -> bytes:
    """Raises InvalidArgument for a row that cannot be kept."""
    kind, context, entries, count, runs = check(row)
    head = _NUMBER[kind] << 6 | len(context) << 4 | len(entries or runs)
    start = bytes((head, count & 0xFF, count >> 8)) + _tokens(context)
    if runs:
        return start + b"".join(bytes((len(run), weight)) + _tokens(run) for run, weight in runs)
    return start + _ENTRIES[len(entries)].pack(*[token | weight << 24 for token, weight in entries])


def unpack(data: bytes) -> Row:
    """Raises ValueError for bytes that are no row."""
    shape = _SHAPES.get((data[0], len(data))) if data else None
    if shape is None:
        return _unpack_chunk(data)
    kind, length, layout = shape
    parts = layout.unpack_from(data, 1)
    if not parts[0]:
        raise ValueError("a row that was never seen")
    if length == 1:
        context: tuple[int, ...] = (parts[1] | parts[2] << 16,)
    elif length == 2:
        context = (parts[1] | parts[2] << 16, parts[3] | parts[4] << 16)
    else:
        context = (parts[1] | parts[2] << 16, parts[3] | parts[4] << 16, parts[5] | parts[6] << 16)
    return Row(kind, context, tuple([(word & 0xFFFFFF, word >> 24) for word in parts[1 + 2 * length :]]), parts[0])


def _unpack_chunk(data: bytes) -> Row:
    if len(data) < 6:
        raise ValueError("too short for a row")
    length, number = data[0] >> 4 & 3, data[0] & 15
    at = 3 + 3 * length
    count = data[1] | data[2] << 8
    if data[0] >> 6 != _NUMBER["chunk"] or not length or not 1 <= number <= MAX_ENTRIES or not count or len(data) < at:
        raise ValueError("no row starts like this")
    return Row("chunk", _few(data[3:at]), (), count, _runs(data, at, number))


def join(packed: Iterable[bytes]) -> bytes:
    """Many packed rows as one block."""
    parts = []
    for row in packed:
        parts.append(_LENGTH.pack(len(row)))
        parts.append(row)
    return b"".join(parts)


def split(block: bytes) -> Iterator[bytes]:
    """The packed rows of a block. Raises ValueError if it ends within one."""
    at, size = 0, len(block)
    while at < size:
        if at + 2 > size:
            raise ValueError("a block ends within a length")
        length = block[at] | block[at + 1] << 8
        at += 2
        if not length or at + length > size:
            raise ValueError("a block ends within a row")
        yield block[at : at + length]
        at += length


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """Tokens of a finished output, 3 bytes each."""
    words = np.fromiter(tokens, dtype="<u4")
    return words.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def unpack_tokens(data: bytes) -> tuple[int, ...]:
    """Raises ValueError."""
    if len(data) % 3:
        raise ValueError("tokens of another length")
    words = np.zeros((len(data) // 3, 4), np.uint8)
    words[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return tuple(words.view("<u4").ravel().tolist())


def _few(data: bytes) -> tuple[int, ...]:
    return tuple([data[at] | data[at + 1] << 8 | data[at + 2] << 16 for at in range(0, len(data), 3)])


def _tokens(tokens: tuple[int, ...]) -> bytes:
    return b"".join([token.to_bytes(3, "little") for token in tokens])


def _runs(data: bytes, at: int, number: int) -> tuple:
    runs = []
    for _ in range(number):
        if at + 2 > len(data) or not 1 <= data[at] <= MAX_RUN or at + 2 + 3 * data[at] > len(data):
            raise ValueError("a run of another length")
        length, weight = data[at], data[at + 1]
        runs.append((_few(data[at + 2 : at + 2 + 3 * length]), weight))
        at += 2 + 3 * length
    if at != len(data):
        raise ValueError("a row of another length")
    return tuple(runs)

"""Rows as bytes: at most 44, so that a Redis hash of them stays packed.

    head      1 byte: kind (2 bits, always 0), context length (2 bits), number of entries (4 bits)
    count     2 bytes
    context   3 bytes a token
    entries   4 bytes each: token and weight

Everything is little-endian. Rule: `unpack` accepts exactly what `pack` makes; anything else is a ValueError, never a
row of wrong length or of another kind. Invariant: `unpack(pack(row)) == row`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from nacre.store.rows import MAX_CONTEXT, MAX_ENTRIES, NGRAM, Row, check

_ENTRIES = [struct.Struct(f"<{number}I") for number in range(MAX_ENTRIES + 1)]
#: (first byte, size) -> context length, and how to read the rest.
_SHAPES = {
    (length << 4 | number, 3 + 3 * length + 4 * number): (length, struct.Struct("<H" + "HB" * length + f"{number}I"))
    for length in range(1, MAX_CONTEXT + 1)
    for number in range(1, MAX_ENTRIES + 1)
}
_LENGTH = struct.Struct("<H")
MAX_ROW_BYTES = 3 + 3 * MAX_CONTEXT + 4 * MAX_ENTRIES


def key_of(row: Row) -> bytes:
    """What two rows have in common if they are to be merged: the context."""
    return bytes((len(row.context) << 4,)) + _tokens(row.context)


def key_in(packed: bytes) -> bytes:
    """`key_of` of a packed row."""
    return bytes((packed[0] & 0xF0,)) + packed[3 : 3 + 3 * (packed[0] >> 4 & 3)]


def pack(row: Row) -> bytes:
    """Raises InvalidArgument for a row that cannot be kept."""
    _, context, entries, count = check(row)
    start = bytes((len(context) << 4 | len(entries), count & 0xFF, count >> 8)) + _tokens(context)
    return start + _ENTRIES[len(entries)].pack(*[token | weight << 24 for token, weight in entries])


def unpack(data: bytes) -> Row:
    """Raises ValueError for bytes that are no row."""
    shape = _SHAPES.get((data[0], len(data))) if data else None
    if shape is None:
        if data and data[0] >> 6:
            raise ValueError("a row of a kind that is not kept")
        raise ValueError("no row starts like this and has this length")
    length, layout = shape
    parts = layout.unpack_from(data, 1)
    if not parts[0]:
        raise ValueError("a row that was never seen")
    if length == 1:
        context: tuple[int, ...] = (parts[1] | parts[2] << 16,)
    elif length == 2:
        context = (parts[1] | parts[2] << 16, parts[3] | parts[4] << 16)
    else:
        context = (parts[1] | parts[2] << 16, parts[3] | parts[4] << 16, parts[5] | parts[6] << 16)
    return Row(NGRAM, context, tuple([(word & 0xFFFFFF, word >> 24) for word in parts[1 + 2 * length :]]), parts[0])


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


def _tokens(tokens: tuple[int, ...]) -> bytes:
    return b"".join([token.to_bytes(3, "little") for token in tokens])

"""Stores as files: what `nacre store export` writes and what the local store keeps over a restart.

    magic       b"NACRESTORE1\\n"
    section     4 bytes length, JSON: tenant, target, revision, tokenizer_fingerprint, rows, outputs
    rows        2 bytes length and the packed row, each
    outputs     4 bytes length and 3 bytes a token, each
    …           further sections
    end         4 zero bytes, then the SHA-256 of everything before it

Rules: a file is written beside its place and moved there whole; it is read only after its checksum was right, so
nothing of a damaged file is ever used. Token ids stand in it in clear: it is readable by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nacre.errors import FailedPrecondition, InvalidArgument, NacreError, NotFound, ResourceExhausted
from nacre.store.packing import MAX_ROW_BYTES, pack_tokens, unpack, unpack_tokens
from nacre.store.rows import Namespace, Row

MAGIC = b"NACRESTORE1\n"
MAX_OUTPUT_TOKENS = 1 << 20
_MAX_HEADER = 8192
_BLOCK = 1 << 20


class Unreadable(FailedPrecondition):
    """The file is there and cannot be read: that says nothing about what is in it."""


Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Section:
    """One namespace of a file: packed rows, and outputs."""

    namespace: Namespace
    rows: Sequence[bytes]
    outputs: Sequence[tuple[int, ...]]


def write_file(path: Path, sections: Iterable[Section]) -> int:
    """Writes all sections, atomically; returns the file's size. Raises ResourceExhausted if that cannot be done."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            digest = hashlib.sha256()
            for block in _blocks(sections):
                digest.update(block)
                stream.write(block)
            stream.write(digest.digest())
            stream.flush()
            os.fsync(stream.fileno())
        making.replace(path)
        return path.stat().st_size
    except OSError as error:
        raise ResourceExhausted(
            f"cannot write {path} ({error.strerror or error}); make room or choose another place"
        ) from None
    finally:
        making.unlink(missing_ok=True)


def read_file(path: Path, *, progress: Progress = lambda _: None) -> Iterator[Section]:
    """The sections of a file, its checksum verified first; `progress` is told bytes checked.

    Raises NotFound, Unreadable, or FailedPrecondition for a file that is damaged or none of ours.
    """
    try:
        with path.open("rb") as stream:
            _verify(path, stream, progress)
            stream.seek(len(MAGIC))
            yield from _sections(path, stream)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}; `nacre store export` writes one") from None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror or error})") from None


def fitting(section: Section, expected: Namespace) -> Section:
    """The section under the tenant expected. Raises FailedPrecondition if it is of another model or tokenizer."""
    found = section.namespace
    for name in ("tokenizer_fingerprint", "target", "revision"):
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            raise FailedPrecondition(
                f"these rows are of {name} {theirs or 'none'} and the store asked for is of {ours or 'none'}; "
                "their token ids would mean other words: build them again for this model"
            )
    return Section(expected, section.rows, section.outputs)


def rows_of(section: Section) -> Iterator[Row]:
    return map(unpack, section.rows)


def _blocks(sections: Iterable[Section]) -> Iterator[bytes]:
    yield MAGIC
    for section in sections:
        space = section.namespace
        header = json.dumps(
            {
                "tenant": space.tenant,
                "target": space.target,
                "revision": space.revision,
                "tokenizer_fingerprint": space.tokenizer_fingerprint,
                "rows": len(section.rows),
                "outputs": len(section.outputs),
            }
        ).encode()
        yield struct.pack("<I", len(header)) + header
        for row in section.rows:
            yield struct.pack("<H", len(row)) + row
        for output in section.outputs:
            packed = pack_tokens(output)
            yield struct.pack("<I", len(packed)) + packed
    yield bytes(4)


def _verify(path: Path, stream: BinaryIO, progress: Progress) -> None:
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(len(MAGIC))
    if start != MAGIC:
        raise FailedPrecondition(f"{path} is no store file of version 1; `nacre store export` writes one")
    digest = hashlib.sha256(start)
    left = size - len(MAGIC) - digest.digest_size
    while left > 0:
        block = stream.read(min(left, _BLOCK))
        if not block:
            break
        digest.update(block)
        left -= len(block)
        progress(len(block))
    if left or stream.read() != digest.digest():
        raise FailedPrecondition(f"{path} is damaged: its checksum is wrong; fetch or export it again")


def _sections(path: Path, stream: BinaryIO) -> Iterator[Section]:
    """Bounds are checked in spite of the checksum: a file made on purpose must not take our memory."""

    def sized(layout: str, most: int) -> bytes:
        (length,) = struct.unpack(layout, stream.read(struct.calcsize(layout)))
        if length > most:
            raise ValueError(f"a part of {length} bytes, and {most} is the most")
        data = stream.read(length)
        if len(data) != length:
            raise ValueError("it ends too early")
        return data

    try:
        while header := sized("<I", _MAX_HEADER):
            told = json.loads(header)
            counts = told.pop("rows"), told.pop("outputs")
            if not all(isinstance(count, int) and count >= 0 for count in counts):
                raise ValueError("counts that are none")
            namespace = Namespace(**told)
            rows = [sized("<H", MAX_ROW_BYTES) for _ in range(counts[0])]
            for row in rows:
                unpack(row)
            yield Section(
                namespace, rows, [unpack_tokens(sized("<I", 3 * MAX_OUTPUT_TOKENS)) for _ in range(counts[1])]
            )
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, InvalidArgument) as error:
        reason = error.message if isinstance(error, NacreError) else str(error)
        raise FailedPrecondition(f"{path} is no store file of version 1 ({reason}); export it again") from None

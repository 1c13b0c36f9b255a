"""Exported files: whole or refused, and only into a store of the same model."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from nacre.errors import FailedPrecondition, NotFound, ResourceExhausted
from nacre.store.packing import pack
from nacre.store.portable import MAGIC, Section, fitting, read_file, rows_of, write_file
from nacre.store.rows import Namespace, Row

SPACE = Namespace("acme", "target", "r1", "f" * 32)
ROWS = [Row("ngram", (1, 2), ((3, 200), (4, 10)), 5), Row("ngram", (7,), ((3, 100),), 2)]
SECTION = Section(SPACE, [pack(row) for row in ROWS], [(1, 2, 3), ()])


def signed(body: bytes) -> bytes:
    """A file with the right checksum, whatever is in it."""
    return MAGIC + body + hashlib.sha256(MAGIC + body).digest()


def test_what_is_written_comes_back(tmp_path: Path):
    path = tmp_path / "file"
    other = Section(Namespace("other", "target", "r1", "e" * 32), [], [])
    checked: list[int] = []
    size = write_file(path, [SECTION, other])
    first, second = read_file(path, progress=checked.append)
    assert (first.namespace, second.namespace) == (SPACE, other.namespace)
    assert list(rows_of(first)) == ROWS
    assert list(first.outputs) == [(1, 2, 3), ()]
    assert size == path.stat().st_size
    assert sum(checked) == size - len(MAGIC) - 32
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_every_flipped_byte_is_noticed(tmp_path: Path):
    path = tmp_path / "file"
    write_file(path, [SECTION])
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x40
        path.write_bytes(broken)
        with pytest.raises(FailedPrecondition):
            list(read_file(path))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(3),
        struct.pack("<I", 1 << 31) + b"{}",
        struct.pack("<I", 2) + b"{}" + bytes(4),
        struct.pack("<I", 2) + b"[]" + bytes(4),
        *(
            struct.pack("<I", len(header)) + header + rest
            for header, rest in [
                (json.dumps({"rows": -1, "outputs": 0}).encode(), bytes(4)),
                (
                    json.dumps(
                        {
                            "tenant": "a",
                            "target": "t",
                            "revision": "",
                            "tokenizer_fingerprint": "f",
                            "rows": 1 << 40,
                            "outputs": 0,
                        }
                    ).encode(),
                    bytes(100),
                ),
            ]
        ),
    ],
)
def test_a_file_made_to_harm_is_refused_in_one_line(tmp_path: Path, body: bytes):
    path = tmp_path / "file"
    path.write_bytes(signed(body))
    with pytest.raises(FailedPrecondition, match="export it again"):
        list(read_file(path))


@pytest.mark.parametrize(
    "row",
    [
        # As version 1 once had them: chunks, whose entries are runs of tokens, and counters.
        bytes((1 << 6 | 2 << 4 | 1, 2, 0)) + bytes((1, 0, 0, 2, 0, 0)) + bytes((1, 100)) + bytes((3, 0, 0)),
        bytes((2 << 6 | 2 << 4 | 1, 100, 0)) + bytes((1, 0, 0, 4, 0, 0)) + bytes((30, 0, 0, 0)),
    ],
    ids=["chunk", "counter"],
)
def test_a_file_with_rows_of_a_kind_that_is_not_kept_is_refused(tmp_path: Path, row: bytes):
    path = tmp_path / "file"
    write_file(path, [Section(SPACE, [pack(ROWS[0]), row], [])])
    with pytest.raises(FailedPrecondition, match=r"a row of a kind that is not kept.*export it again"):
        list(read_file(path))


def test_rows_of_another_model_are_refused_by_what_differs():
    assert fitting(SECTION, Namespace("someone", "target", "r1", "f" * 32)).namespace.tenant == "someone"
    for expected, said in [
        (Namespace("acme", "target", "r1", "e" * 32), f"tokenizer_fingerprint {'f' * 32}"),
        (Namespace("acme", "target", "r2", "f" * 32), "revision r1"),
        (Namespace("acme", "model", "r1", "f" * 32), "target target"),
    ]:
        with pytest.raises(FailedPrecondition) as refused:
            fitting(SECTION, expected)
        assert said in refused.value.message


def test_a_missing_file_and_a_full_place_are_told(tmp_path: Path):
    with pytest.raises(NotFound, match="there is no file"):
        list(read_file(tmp_path / "no"))
    with pytest.raises(ResourceExhausted, match="cannot write"):
        write_file(tmp_path / "no" / "file", [SECTION])

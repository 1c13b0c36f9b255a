"""`nacre store build`: text becomes a datastore that fits one tokenizer, and what is no text is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nacre.drafting.rest_datastore import RestDatastore
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.ids import tokenizer_fingerprint
from nacre.models import bundled
from nacre.runtime.proposers import build_proposer
from nacre.runtime.settings import DrafterSettings
from nacre.text.vocabulary import Vocabulary
from tests.cli.conftest import Nacre

TOKENIZER = bundled("demo-target") / "tokenizer.json"
FINGERPRINT = tokenizer_fingerprint(TOKENIZER)
TEXT = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n"


def write(path: str, content: str | bytes) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def tokens(text: str) -> list[int]:
    return Vocabulary(TOKENIZER.read_bytes()).encode(text, add_special_tokens=False)


def test_files_folders_and_json_lines_become_one_datastore(nacre: Nacre) -> None:
    write("one.txt", TEXT)
    write("folder/deep/two.py", "import os\n")
    write("folder/image.png", b"\x89PNG\0\0")
    write("folder/latin.txt", "caf\xe9".encode("latin-1"))
    write("folder/.hidden/secret.txt", "no")
    write("folder/later.jsonl", '{"title": "no text"}\n')
    write("lines.jsonl", '{"text": "a line"}\n\n"another"\n')
    done = json.loads(nacre("store", "build", "one.txt", "folder", "lines.jsonl", "--out", "all.rest", "--json").out)
    expected = [tokens(text) for text in (TEXT, "import os\n", "a line", "another")]
    assert done == {
        "file": "all.rest",
        "tokens": sum(map(len, expected)) + len(expected),
        "documents": 4,
        "files": 3,
        "left_out": 3,
        "size_bytes": os.stat("all.rest").st_size,
        "tokenizer_fingerprint": FINGERPRINT,
    }
    assert RestDatastore("all.rest", FINGERPRINT).find(expected[0][:5])[0] == 5


def test_what_was_built_and_what_was_left_out_is_told(nacre: Nacre) -> None:
    write("folder/a.txt", TEXT)
    write("folder/b.bin", b"\0")
    told = nacre("store", "build", "folder", "--out", "a.rest")
    assert f"a.rest: {len(tokens(TEXT)) + 1:,} tokens of 1 documents" in told.out
    assert "1 files could not be used as text, or not to their end; the first is folder/b.bin" in told.err


def test_another_field_of_json_lines(nacre: Nacre) -> None:
    write("a.jsonl", json.dumps({"completion": TEXT}))
    assert "a.jsonl:1 has no text under 'text'" in nacre("store", "build", "a.jsonl", "--out", "a.rest").err
    done = nacre("store", "build", "a.jsonl", "--field", "completion", "--out", "a.rest", "--json")
    assert json.loads(done.out)["documents"] == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"ab\0cd", "a.bin is no text: it has zero bytes"),
        ("a.txt", b"abc\xff\xfe", "a.txt is no UTF-8 text (byte 3)"),
        ("a.jsonl", b'{"text": "a"}\n{', "a.jsonl:2 is no JSON"),
        ("a.jsonl", b'{"text": 7}', "a.jsonl:1 has no text under 'text'"),
        ("a.jsonl", b'{"text": "a \\ud800"}', "a.jsonl:1 has half of a character"),
        ("a.txt", b"", "the corpus has no tokens"),
    ],
)
def test_a_named_file_that_is_no_text_is_one_line(nacre: Nacre, name: str, content: bytes, message: str) -> None:
    write(name, content)
    done = nacre("store", "build", name, "--out", "a.rest")
    assert done.code == 2
    assert message in done.err
    assert not Path("a.rest").exists()


def test_other_mistakes_are_one_line_too(nacre: Nacre) -> None:
    write("a.txt", TEXT)
    Path("empty").mkdir()
    assert "there is no file b.txt" in nacre("store", "build", "b.txt", "--out", "a.rest").mistake()
    assert "there are no files in empty" in nacre("store", "build", "empty", "--out", "a.rest").mistake()
    assert "there is no folder" in nacre("store", "build", "a.txt", "--out", "none/a.rest").mistake()
    assert "--target" in nacre("store", "build", "a.txt", "--out", "a.rest", "--target", "empty").mistake()
    assert "--out" in nacre("store", "build", "a.txt").mistake()
    assert "corpus" in nacre("store", "build", "--out", "a.rest").mistake()


def test_a_file_that_cannot_be_read_is_one_line(nacre: Nacre) -> None:
    Path("a.txt").symlink_to("a.txt")  # not even by root
    assert "a.txt cannot be read" in nacre("store", "build", "a.txt", "--out", "a.rest").mistake()
    assert not Path("a.rest.new").exists()


# -- in a drafter ------------------------------------------------------------------------------------------------------


def test_a_drafter_takes_a_datastore_and_says_for_which_tokenizer(nacre: Nacre) -> None:
    write("a.txt", TEXT)
    nacre("store", "build", "a.txt", "--out", "a.rest")
    built = build_proposer(DrafterSettings(method="rest", datastore="a.rest"))
    assert built.proposer.traits.name == "rest"
    assert built.handshake.tokenizer_fingerprint == FINGERPRINT


def test_a_drafter_without_one_or_with_a_damaged_one_does_not_start(nacre: Nacre) -> None:
    with pytest.raises(InvalidArgument, match="nacre store build CORPUS --out FILE"):
        build_proposer(DrafterSettings(method="rest"))
    write("a.txt", TEXT)
    nacre("store", "build", "a.txt", "--out", "a.rest")
    data = Path("a.rest").read_bytes()
    Path("a.rest").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FailedPrecondition, match="is corrupt"):
        build_proposer(DrafterSettings(method="rest", datastore="a.rest"))
